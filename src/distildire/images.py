"""Bytes to pixels, and the one preprocessing that training and inference share.

Everything here is numpy and Pillow, so that what a model was trained on and what it is
given later cannot drift apart. The border format is RGB uint8 [H, W, 3].
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from distildire.io.colour import to_srgb

RGB: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, 3], sRGB."""

Source: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]

MAX_PIXELS = 100_000_000
"""Pictures over this many pixels are refused before they are decoded (300 MB as RGB)."""

MIN_SIDE = 32
"""Pictures with a side under this many pixels hold too little to judge."""

PICTURE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".avif",
        ".gif",
        ".tif",
        ".tiff",
        ".bmp",
        ".heic",
        ".heif",
    ]
)

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "MPO", "HEIF")
"""Pillow's names of the formats that are read."""

# Pillow warns from 89 megapixels and raises from 179; MAX_PIXELS is checked here, so that
# the warning would only repeat it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# On damaged metadata Pillow warns on stderr, once for every tag.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageError(ValueError):
    """A picture that can't be scored; the message is one sentence for its owner."""


@cache
def _register_heif() -> bool:
    """Add HEIC to Pillow if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def decode(source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> RGB:
    """Decode a picture to RGB uint8 [H, W, 3].

    The first frame of an animation is taken; EXIF orientation is applied; alpha is laid
    over white; palette, grey, CMYK and 16-bit pictures are brought to 8-bit RGB.

    Raises:
        ImageError: not a picture, empty, truncated, over `max_pixels`, a side under
            `min_side`, or unreadable; the message says which.
        TypeError: `source` is none of the accepted kinds.
    """
    if isinstance(source, np.ndarray):
        rgb = _from_array(source)
        _check_size(rgb.shape[1], rgb.shape[0], max_pixels, min_side)
        return rgb
    if isinstance(source, Image.Image):
        _check_size(*source.size, max_pixels, min_side)
        return _to_rgb(source)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, str | Path):
        data = read_bytes(Path(source))
    else:
        raise TypeError(
            f"cannot decode a {type(source).__name__}: give a path, bytes, a PIL image or a "
            "uint8 array [H, W, 3]"
        )
    return decode_bytes(data, max_pixels=max_pixels, min_side=min_side)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; raises ImageError with the reason where it can't be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        kind = "a dangling link" if path.is_symlink() else "no such file"
        raise ImageError(f"cannot be read: {kind}") from None
    except IsADirectoryError:
        raise ImageError("cannot be read: it is a folder") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None


def decode_bytes(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> RGB:
    """Decode the bytes of a picture file; see `decode`."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        with open_picture(data) as image:
            _check_size(*image.size, max_pixels, min_side)
            return _to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            "not a picture in a known format (JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP; "
            "HEIC with the package pillow-heif)"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"too many pixels: over the limit of {max_pixels / 1e6:.0f} megapixels"
        ) from None
    except MemoryError:
        raise ImageError("too large to decode in the memory at hand") from None
    # Pillow's decoders raise many types on damaged data (OSError, SyntaxError, struct.error,
    # IndexError, ...): for the owner of the picture they all mean the same.
    except Exception as error:
        detail = str(error).strip() or type(error).__name__
        raise ImageError(f"damaged or truncated picture: {detail}") from None


def open_picture(data: bytes) -> Image.Image:
    """Open the bytes of a picture file, its pixels not decoded yet.

    Only the formats named in `FORMATS` are tried: Pillow knows many more, some of which run
    other programs (EPS) or have decoders that few people have looked at.

    Raises:
        UnidentifiedImageError: none of these formats.
    """
    if data[4:8] == b"ftyp" and data[8:12] in {b"heic", b"heix", b"mif1", b"hevc"}:
        _register_heif()
    Image.init()
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def _check_size(width: int, height: int, max_pixels: int, min_side: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"too many pixels: {width} x {height} is over the limit of "
            f"{max_pixels / 1e6:.0f} megapixels"
        )
    if min(width, height) < min_side:
        raise ImageError(
            f"too small to judge: {width} x {height} pixels, at least {min_side} on each side "
            "are needed"
        )


def _from_array(array: NDArray[np.uint8]) -> RGB:
    if array.dtype != np.uint8:
        raise TypeError(f"array dtype is {array.dtype}: give uint8 in 0..255")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in {3, 4}:
        raise ValueError(f"array shape is {array.shape}: give [H, W, 3], [H, W, 4] or [H, W]")
    if array.shape[2] == 4:
        return _to_rgb(Image.fromarray(array))
    return np.ascontiguousarray(array)


def _to_rgb(image: Image.Image) -> RGB:
    image = to_srgb(ImageOps.exif_transpose(image))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    elif image.mode in {"I", "F"}:
        image = Image.fromarray(_to_eight_bits(np.asarray(image)))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Bring 32-bit integers or floats to 8 bits by the smallest range that holds them."""
    # In place and in single precision: the largest picture would take gigabytes otherwise.
    with np.errstate(invalid="ignore"):
        numbers = values.astype(np.float32)
    np.nan_to_num(numbers, copy=False)
    top = float(numbers.max(initial=0.0))
    numbers *= 255.0 if top <= 1.0 else 1.0 if top <= 255.0 else 255.0 / max(65535.0, top)
    np.clip(np.rint(numbers, out=numbers), 0, 255, out=numbers)
    return numbers.astype(np.uint8)


def resize(rgb: RGB, width: int, height: int) -> RGB:
    """Resample to width x height with an antialiased Lanczos kernel."""
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def limit_short_side(rgb: RGB, short_side: int) -> RGB:
    """Scale down so that the shorter side is at most `short_side`; never scale up."""
    height, width = rgb.shape[:2]
    if min(height, width) <= short_side:
        return rgb
    scale = short_side / min(height, width)
    return resize(rgb, max(1, round(width * scale)), max(1, round(height * scale)))


def jpeg(rgb: RGB, quality: int, subsampling: int = 2) -> RGB:
    """One JPEG pass: quality 1..95; subsampling 0 for 4:4:4, 2 for 4:2:0."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(buffer) as image:
        return np.array(image)


def equalize(rgb: RGB, short_side: int = 512, quality: int = 90) -> RGB:
    """Give both classes one history: short side at most `short_side`, then one JPEG pass.

    What is left after it can't tell the classes by file format, size or compression.
    """
    return jpeg(limit_short_side(rgb, short_side), quality)


# Centre first, then the diagonals: any prefix is a fair spread. The outermost tenth is
# left out, where borders, watermarks and generators' colour bars sit.
_CROP_CENTRES = ((0.5, 0.5), (0.2, 0.2), (0.8, 0.8), (0.8, 0.2), (0.2, 0.8))


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded picture to what the network sees: square crops at native resolution.

    Resizing a picture erases the traces that detection lives on, so that crops are cut
    without resampling; only pictures whose shorter side is over `short_side` are scaled
    down to it first, as the training pictures were.
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
        if self.crop < MIN_SIDE:
            raise ValueError(f"crop is {self.crop}: give at least {MIN_SIDE}")

    def __call__(self, rgb: RGB) -> NDArray[np.uint8]:
        """Cut RGB [H, W, 3] into uint8 [crops + halves, crop, crop, 3].

        Pictures smaller than a crop are continued by reflection.
        """
        rgb = self.scaled(rgb)
        cut = self._cut(rgb, self.crops) if self.crops else []
        if self.halves:
            cut += self._cut(halve(rgb), self.halves)
        return np.stack(cut)

    @property
    def views(self) -> int:
        """Crops that are scored for each picture, at either scale."""
        return self.crops + self.halves

    def scaled(self, rgb: RGB) -> RGB:
        """The picture [H, W, 3] at the scale that native crops are cut from.

        Seen at half its size alone, it must have twice a crop's side: continued by
        reflection, small photographs look generated.
        """
        least = self.short_side if self.enlarge else 0 if self.crops else 2 * self.crop
        return enlarge_short_side(limit_short_side(rgb, self.short_side), least)

    def _cut(self, rgb: RGB, crops: int) -> list[RGB]:
        rgb = reflect_to(rgb, self.crop)
        height, width = rgb.shape[:2]
        cut = []
        for y, x in _CROP_CENTRES[:crops]:
            top, left = round(y * (height - self.crop)), round(x * (width - self.crop))
            cut.append(rgb[top : top + self.crop, left : left + self.crop])
        return cut


def enlarge_short_side(rgb: RGB, least: int) -> RGB:
    """Scale [H, W, 3] up until the shorter side has `least` pixels; larger ones stay."""
    height, width = rgb.shape[:2]
    scale = least / min(height, width)
    if scale <= 1:
        return rgb
    return resize(rgb, max(least, round(width * scale)), max(least, round(height * scale)))


def halve(rgb: RGB) -> RGB:
    """Half the size, each pixel the mean of a 2 x 2 block; an odd last row or column is cut."""
    height, width = (max(2, side // 2 * 2) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb[:height, :width])).reduce(2))


def reflect_to(rgb: RGB, side: int) -> RGB:
    """Continue by reflection until both sides are at least `side` pixels."""
    height, width = rgb.shape[:2]
    down, right = max(0, side - height), max(0, side - width)
    if not down and not right:
        return rgb
    return np.pad(rgb, ((0, down), (0, right), (0, 0)), mode="symmetric")
