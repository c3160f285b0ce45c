"""Bytes to pixels, and the one preprocessing that training and inference share.

Everything here is numpy and Pillow, so that what a model was trained on and what it is
given later cannot drift apart. The border format is RGB uint8 [H, W, 3].
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from distildire.io.colour import to_srgb
from distildire.io.containers import (
    HEIC_BRANDS,
    JXL_SIGNATURE,
    PNG_SIGNATURE,
    known_kind,
    raw_kind,
    tga_header,
    without_ancillary,
)
from distildire.io.samples import eight_bits, upright

RGB: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, 3], sRGB."""

Source: TypeAlias = Any
"""A path, the bytes of a file (bytes, bytearray, memoryview), an open file, a PIL image, an array
or a torch tensor: uint8 or uint16, or float in [0, 1]; [H, W], [H, W, C] or [C, H, W]."""

MAX_PIXELS = 100_000_000
"""Pictures over this many pixels are refused before they are decoded (300 MB as RGB)."""

MIN_SIDE = 32
"""Pictures with a side under this many pixels hold too little to judge."""

MAX_BYTES = 512 * 2**20
"""Files over this many bytes are not read."""

PICTURE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jpf"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".mpo", ".ico", ".jxl"),
    ]
)

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "MPO", "HEIF", "JPEG2000", "PPM",
           "ICO", "JXL")  # fmt: skip
"""Pillow's names of the formats that are tried by their signature."""

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


@cache
def _register_jxl() -> bool:
    """Add JPEG XL to Pillow if pillow-jxl-plugin is installed."""
    try:
        import pillow_jxl  # noqa: F401
    except ImportError:
        return False
    return True


def decode(source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> RGB:
    """Decode a picture to RGB uint8 [H, W, 3].

    The first frame of an animation that shows something is taken; EXIF orientation and the
    colour profile are applied; alpha is laid over white, unless it is 0 everywhere; palette,
    grey, CMYK, 16-bit and 32-bit pictures are brought to 8-bit RGB. Damaged metadata is passed
    over.

    Raises:
        ImageError: not a picture, empty, truncated, over `max_pixels`, a side under
            `min_side`, or of a kind that isn't read; the message says which.
        TypeError: `source` is none of the accepted kinds.
    """
    if isinstance(source, str | Path):
        source = read_bytes(Path(source))
    elif isinstance(source, bytearray | memoryview):
        source = bytes(source)
    elif isinstance(source, io.IOBase) or callable(getattr(source, "read", None)):
        source = source.read()
    if isinstance(source, bytes):
        return decode_bytes(source, max_pixels=max_pixels, min_side=min_side)
    if isinstance(source, Image.Image):
        _check_size(*source.size, max_pixels, min_side)
        with _in_words(max_pixels):
            return _to_rgb(source)
    rgb = from_array(source)
    _check_size(rgb.shape[1], rgb.shape[0], max_pixels, min_side)
    return rgb


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; raises ImageError with the reason where it can't be read.

    Only regular files of at most `MAX_BYTES`: a pipe or a device may never end.
    """
    if str(path).startswith(("http:/", "https:/", "s3:/", "gs:/", "ftp:/")):
        raise ImageError("cannot be read: an address; nothing is fetched, give a file")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("cannot be read: it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("cannot be read: a pipe, socket or device, not a file")
        if status.st_size > MAX_BYTES:
            raise ImageError(
                f"too large: {status.st_size / 2**20:,.0f} MiB is over the limit of "
                f"{MAX_BYTES / 2**20:.0f} MiB"
            )
        return path.read_bytes()
    except FileNotFoundError:
        kind = "a dangling link" if path.is_symlink() else "no such file"
        raise ImageError(f"cannot be read: {kind}") from None
    except MemoryError:
        raise ImageError("too large to read into the memory at hand") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def decode_bytes(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> RGB:
    """Decode the bytes of a picture file; see `decode`."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    if (raw := raw_kind(data)) is not None:
        raise ImageError(
            f"a raw file ({raw}), of which only a preview could be read: develop it to JPEG, "
            "PNG or TIFF first"
        )
    try:
        with _in_words(max_pixels), open_picture(data) as image:
            _check_size(*image.size, max_pixels, min_side)
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise ImageError(_unidentified(data)) from None


@contextmanager
def _in_words(max_pixels: int) -> Iterator[None]:
    """Whatever a decoder raises, as one sentence for the owner of the picture."""
    try:
        yield
    except (ImageError, UnidentifiedImageError):
        raise
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
    if data[:8] == PNG_SIGNATURE:
        data = without_ancillary(data)
    elif data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        _register_heif()
    elif data[:2] == b"\xff\x0a" or data[:12] == JXL_SIGNATURE:
        _register_jxl()
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    if tga_header(data):
        formats = ["TGA"]
    return Image.open(io.BytesIO(data), formats=formats)


def _unidentified(data: bytes) -> str:
    kind = known_kind(data)
    if kind is not None:
        return f"not a picture that is read here: {kind}"
    return (
        "not a picture in a known format (JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, JPEG 2000, PNM, "
        "TGA, ICO; HEIC with the package pillow-heif, JPEG XL with pillow-jxl-plugin)"
    )


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


def from_array(array: Any) -> RGB:
    """An array or tensor whose meaning is certain as RGB uint8 [H, W, 3].

    Raises:
        TypeError: another kind of object, or numbers that may mean several things.
        ValueError: a shape that is no picture's.
    """
    if callable(getattr(array, "detach", None)):  # a torch tensor
        array = array.detach().cpu().numpy()
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"cannot decode a {type(array).__name__}: give a path, the bytes of a file, an open "
            "file, a PIL image or an array (uint8 [H, W, 3])"
        )
    channels = {1, 3, 4}
    if array.ndim == 3 and array.shape[2] not in channels and array.shape[0] in channels:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {3, 4}):
        raise ValueError(f"array shape is {array.shape}: give [H, W, 3], [H, W, 4] or [H, W]")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (array.size and array.min() >= 0 and array.max() <= 1):
            raise TypeError("float array outside [0, 1]: give uint8 in 0..255, or divide by 255")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"array dtype is {array.dtype}: give uint8 in 0..255")
    if array.ndim == 3 and array.shape[2] == 4:
        return _to_rgb(Image.fromarray(array))
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array)


_MAX_FRAMES = 100
"""Frames of an animation that are looked through for one that shows something."""


def _to_rgb(image: Image.Image) -> RGB:
    rgb = _frame_to_rgb(image)
    if not getattr(image, "is_animated", False):
        return rgb
    first = rgb
    for frame in range(1, min(_MAX_FRAMES, getattr(image, "n_frames", 1))):
        if rgb.std(axis=(0, 1)).max() >= 1.0:
            return rgb
        image.seek(frame)
        rgb = _frame_to_rgb(image)
    return rgb if rgb.std(axis=(0, 1)).max() >= 1.0 else first


def _frame_to_rgb(image: Image.Image) -> RGB:
    image = to_srgb(upright(eight_bits(image)))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (0, 0):
            # Files of programs that left the fourth channel empty: no alpha is meant.
            return np.array(rgba)[:, :, :3].copy()
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


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
