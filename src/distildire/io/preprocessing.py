"""The one preprocessing: what every network sees, in training and in use, and the equalisation.

Numpy and Pillow alone, so that what a model was trained on and what it is given later cannot
drift apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.io.pictures import MIN_SIDE, RGB, ImageError

MAX_ENLARGED = 25_000_000
"""Pixels that a picture may have once it is enlarged: 300 times as long as it is wide."""

JPEG_MAX_SIDE = 65_500
"""Pixels of a side that a JPEG can hold, as libjpeg has it."""

MAX_SIDE = 4096
"""Pixels of a crop's side, and of the scale it is cut from, at most."""


def resize(rgb: RGB, width: int, height: int) -> RGB:
    """Resample to width x height with an antialiased Lanczos kernel."""
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def limit_short_side(rgb: RGB, short_side: int) -> RGB:
    """Scale down so that the shorter side is at most `short_side`; never scale up."""
    height, width = _limited(rgb.shape[0], rgb.shape[1], short_side)
    return rgb if (height, width) == rgb.shape[:2] else resize(rgb, width, height)


def _limited(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after `limit_short_side`."""
    if min(height, width) <= short_side:
        return height, width
    scale = short_side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def encode_jpeg(rgb: RGB, quality: int, subsampling: int = 2) -> bytes:
    """JPEG bytes without metadata: quality 1..95; subsampling 0 for 4:4:4, 2 for 4:2:0.

    Raises:
        ImageError: a side over `JPEG_MAX_SIDE`.
    """
    height, width = rgb.shape[:2]
    if max(height, width) > JPEG_MAX_SIDE:
        raise ImageError(
            f"too long to re-encode: {width} x {height} pixels, and a JPEG has at most "
            f"{JPEG_MAX_SIDE:,} on a side"
        )
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def jpeg(rgb: RGB, quality: int, subsampling: int = 2) -> RGB:
    """One JPEG pass, there and back; see `encode_jpeg`."""
    with Image.open(io.BytesIO(encode_jpeg(rgb, quality, subsampling))) as image:
        return np.array(image)


def webp(rgb: RGB, quality: int, method: int = 4) -> RGB:
    """One lossy WebP pass: quality 1..100; method 0 (fast) to 6, Pillow's 4 by default."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "WEBP", quality=quality, method=method)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))


def equalize(rgb: RGB, short_side: int = 512, quality: int = 90) -> RGB:
    """Give both classes one history: short side at most `short_side`, then one JPEG pass.

    What is left after it can't tell the classes by file format, size or compression.
    """
    return jpeg(limit_short_side(rgb, short_side), quality)


# Centre first, then the diagonals: any prefix is a fair spread. The outermost tenth is
# left out, where borders, watermarks and generators' colour bars sit.
_CROP_CENTRES = ((0.5, 0.5), (0.2, 0.2), (0.8, 0.8), (0.8, 0.2), (0.2, 0.8))


class Piece(NamedTuple):
    """What a crop shows of a picture, in the picture's pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def place(self) -> tuple[slice, slice]:
        """As an index into [H, W]."""
        return np.s_[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded picture to what the network sees: square crops of one size.

    Resizing a picture erases the traces that detection lives on. Native crops are cut without
    resampling, and crops at half size are means of 2 x 2 pixels; only a picture whose shorter
    side is over `short_side` is scaled down to it first, and one that is seen at half its size
    alone, or with `enlarge`, is scaled up where it is too small for that (`scaled`).
    """

    crop: int = 160
    """Side of a crop, in pixels."""
    crops: int = 2
    """Crops scored for each picture, 0 to 5; the logits of all are averaged."""
    short_side: int = 512
    """Largest shorter side, in pixels, that is kept at native resolution."""
    halves: int = 0
    """Crops of the picture at half its size that are scored, 0 to 5: four times the area for
    the price of one, where layout and light show."""
    turns: int = 1
    """Orientations that each crop is seen in, the logits of all averaged: 1 as it is, 2 mirrored
    too, 4 upside down as well, 8 on its side as well."""
    enlarge: bool = False
    """Scale smaller pictures up to `short_side` too: with one crop of that side, the paper's
    "resize and centre crop"."""

    def __post_init__(self) -> None:
        if not 0 <= self.crops <= len(_CROP_CENTRES):
            raise ValueError(f"crops is {self.crops}: give 0 to {len(_CROP_CENTRES)}")
        if not 0 <= self.halves <= len(_CROP_CENTRES):
            raise ValueError(f"halves is {self.halves}: give 0 to {len(_CROP_CENTRES)}")
        if not self.views:
            raise ValueError("crops and halves are 0: nothing would be scored")
        if self.turns not in (1, 2, 4, 8):
            raise ValueError(f"turns is {self.turns}: give 1, 2, 4 or 8")
        for name in ("crop", "short_side"):
            side = getattr(self, name)
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise ValueError(f"{name} is {side}: give {MIN_SIDE} to {MAX_SIDE}")

    def __call__(self, rgb: RGB) -> NDArray[np.uint8]:
        """Cut RGB [H, W, 3] into uint8 [views, crop, crop, 3]; those as they are come first.

        Pictures smaller than a crop are continued by reflection.
        """
        rgb = self.scaled(rgb)
        cut = self._cut(rgb, self.crops) if self.crops else []
        if self.halves:
            cut += self._cut(halve(rgb), self.halves)
        return turned(np.stack(cut), self.turns)

    @property
    def views(self) -> int:
        """Crops that are scored for each picture, at either scale, in all orientations."""
        return (self.crops + self.halves) * self.turns

    def scaled(self, rgb: RGB) -> RGB:
        """The picture [H, W, 3] at the scale that native crops are cut from.

        Seen at half its size alone, it must have twice a crop's side: continued by
        reflection, small photographs look generated.
        """
        return enlarge_short_side(limit_short_side(rgb, self.short_side), self._least)

    @property
    def _least(self) -> int:
        """Smallest shorter side that is not enlarged."""
        return self.short_side if self.enlarge else 0 if self.crops else 2 * self.crop

    def _cut(self, rgb: RGB, crops: int) -> list[RGB]:
        rgb = reflect_to(rgb, self.crop)
        side = self.crop
        corners = crop_corners(rgb.shape[0], rgb.shape[1], side, crops)
        return [rgb[top : top + side, left : left + side] for top, left in corners]

    def pieces(self, rgb: RGB) -> list[Piece]:
        """What each crop of the picture [H, W, 3] shows, in their order (before they are turned).

        A piece reaches over the right or lower border where the crop goes on by reflection.
        """
        height, width = _enlarged(
            *_limited(rgb.shape[0], rgb.shape[1], self.short_side), self._least
        )
        y, x = rgb.shape[0] / height, rgb.shape[1] / width
        found = []
        for step, crops in ((1, self.crops), (2, self.halves)):
            for top, left in crop_corners(height // step, width // step, self.crop, crops):
                up, down = round(top * step * y), round((top + self.crop) * step * y)
                start, end = round(left * step * x), round((left + self.crop) * step * x)
                found.append(Piece(start, up, end - start, down - up))
        return found

    def in_words(self) -> str:
        """What is looked at of a picture, for people."""

        def of(count: int, side: int) -> str:
            if count == 1:
                return f"one piece of {side} px from the middle"
            return f"{count} pieces of {side} px (the first from the middle)"

        native = [of(self.crops, self.crop)] if self.crops else []
        half = [of(self.halves, 2 * self.crop) + ", at half size"] if self.halves else []
        words = " and ".join(native + half)
        words += {1: "", 2: ", mirrored too"}.get(self.turns, f", in {self.turns} orientations")
        if self._least == self.short_side:
            return f"{words}; the picture's shorter side is brought to {self.short_side} px first"
        words += f"; a shorter side over {self.short_side} px is reduced to it first"
        return words + (f", one under {self._least} px is enlarged to it" if self._least else "")


def crop_corners(height: int, width: int, side: int, crops: int) -> list[tuple[int, int]]:
    """(top, left) of the first 1 to 5 crops of `side` pixels; 0 along a side that is shorter."""
    down, right = max(0, height - side), max(0, width - side)
    return [(round(y * down), round(x * right)) for y, x in _CROP_CENTRES[:crops]]


def resize_and_crop(size: int = 256) -> Preprocessing:
    """The paper's preprocessing: short side to `size` pixels, then the central square."""
    return Preprocessing(crop=size, crops=1, short_side=size, enlarge=True)


def enlarge_short_side(rgb: RGB, least: int) -> RGB:
    """Scale [H, W, 3] up until the shorter side has `least` pixels; larger ones stay.

    Raises:
        ImageError: so narrow that it would then have over `MAX_ENLARGED` pixels.
    """
    height, width = _enlarged(rgb.shape[0], rgb.shape[1], least)
    return rgb if (height, width) == rgb.shape[:2] else resize(rgb, width, height)


def _enlarged(height: int, width: int, least: int) -> tuple[int, int]:
    """Height and width after `enlarge_short_side`, which see."""
    scale = least / min(height, width)
    if scale <= 1:
        return height, width
    if width * height * scale**2 > MAX_ENLARGED:
        raise ImageError(
            f"too narrow to judge: {width} x {height} pixels, and the shorter side would have to "
            f"be enlarged to {least}"
        )
    return max(least, round(height * scale)), max(least, round(width * scale))


def halve(rgb: RGB) -> RGB:
    """Half the size, each pixel the mean of a 2 x 2 block; an odd last row or column is cut."""
    height, width = (max(2, side // 2 * 2) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb[:height, :width])).reduce(2))


def turned(crops: NDArray[np.uint8], turns: int) -> NDArray[np.uint8]:
    """Crops [N, S, S, 3] in 1, 2, 4 or 8 orientations: [turns * N, S, S, 3]."""
    if turns >= 2:
        crops = np.concatenate([crops, crops[:, :, ::-1]])
    if turns >= 4:
        crops = np.concatenate([crops, crops[:, ::-1]])
    if turns >= 8:
        crops = np.concatenate([crops, crops.swapaxes(1, 2)])
    return crops


def turned_back(maps: NDArray[np.float32], turns: int) -> NDArray[np.float32]:
    """Maps [turns * N, h, w] of crops that were `turned`, each turned back; means [N, h, w]."""
    half = np.float32(0.5)
    if turns >= 8:
        first, second = np.split(maps, 2)
        maps = half * (first + second.swapaxes(1, 2))
    if turns >= 4:
        first, second = np.split(maps, 2)
        maps = half * (first + second[:, ::-1])
    if turns >= 2:
        first, second = np.split(maps, 2)
        maps = half * (first + second[:, :, ::-1])
    return maps


def reflect_to(rgb: RGB, side: int) -> RGB:
    """Continue by reflection until both sides are at least `side` pixels."""
    height, width = rgb.shape[:2]
    down, right = max(0, side - height), max(0, side - width)
    if not down and not right:
        return rgb
    return np.pad(rgb, ((0, down), (0, right), (0, 0)), mode="symmetric")
