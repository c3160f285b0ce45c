"""Bytes to pixels: RGB uint8 [H, W, 3], whatever the file."""

from __future__ import annotations

import io
import itertools
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from distildire.io.colour import find_profile, to_srgb
from distildire.io.containers import (
    PNG_SIGNATURE,
    full_page_first,
    heic_kind,
    jxl_kind,
    known_kind,
    raw_kind,
    readable_kind,
    tga_header,
    without_ancillary,
    without_damaged_segments,
)
from distildire.io.samples import SampleError, eight_bits, to_eight_bits, upright_canvas
from distildire.io.tars import member_size, read_member, split_member
from distildire.io.text import words_of
from distildire.io.tiff import HEIGHT, WIDTH, deep_pages, deep_picture, unread_deep_picture

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

_ADDRESS = re.compile(r"(https?|s3|gs|ftps?|rtsps?|rtmps?|hf|az|abfss?|data|file):/", re.IGNORECASE)

RAW_SUFFIXES = frozenset(
    [
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srw", ".raf", ".orf"),
        *(".rw2", ".rwl", ".pef", ".x3f", ".mrw", ".3fr"),
    ]
)
"""Of cameras' raw files, which are found so that each is told of, and refused."""

DEVELOPED_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jpf"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".mpo", ".ico", ".jxl"),
    ]
)
"""Of pictures that can be read, and trained on."""

PICTURE_SUFFIXES = DEVELOPED_SUFFIXES | RAW_SUFFIXES
"""Of what is found where pictures are looked for."""

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
def register_heif() -> bool:
    """Add HEIC to Pillow if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def register_jxl() -> bool:
    """Add JPEG XL to Pillow if pillow-jxl-plugin is installed."""
    try:
        import pillow_jxl  # noqa: F401
    except ImportError:
        return False
    return True


def decode(source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> RGB:
    """Decode a picture to RGB uint8 [H, W, 3].

    The first frame of an animation that shows something is taken, among its first hundred and
    those that have `max_pixels` together; of a PIL image, the frame where it stands. EXIF
    orientation and the colour profile are applied; alpha is laid over white, unless it is 0
    everywhere; palette, grey, CMYK, 16-bit and 32-bit pictures are brought to 8-bit RGB. Damaged
    metadata is passed over.

    Raises:
        ImageError: not a picture, empty, truncated, over `max_pixels`, a side under
            `min_side`, or of a kind that isn't read; the message says which.
        TypeError: `source` is none of the accepted kinds.
    """
    if isinstance(source, str | os.PathLike):
        source = read_bytes(Path(os.fsdecode(source)))
    elif isinstance(source, bytearray | memoryview):
        source = bytes(source)
    elif callable(getattr(source, "read", None)) and not isinstance(source, Image.Image):
        source = read_file(source)
    if isinstance(source, bytes):
        return decode_bytes(source, max_pixels=max_pixels, min_side=min_side)
    if isinstance(source, Image.Image):
        return _from_image(source, max_pixels, min_side)
    rgb = from_array(source)
    _check_size(rgb.shape[1], rgb.shape[0], max_pixels, min_side)
    return rgb


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, or of a picture in a plain tar (SHARD.tar::MEMBER).

    Only regular files of at most `MAX_BYTES`: a pipe or a device may never end.

    Raises:
        ImageError: it can't be read; the message is the reason.
    """
    member = split_member(str(path))
    if member is not None and not path.exists():
        with _reading(Path(member[0])):
            size = member_size(*member)
    else:
        member, size = None, refuse_unreadable(path)
    if size > MAX_BYTES:
        raise ImageError(
            f"too large: {size / 2**20:,.0f} MiB is over the limit of {MAX_BYTES / 2**20:.0f} MiB"
        )
    with _reading(path):
        return path.read_bytes() if member is None else read_member(*member)


def read_file(file: Any) -> bytes:
    """The bytes of a file opened for reading, from its beginning where it can go back.

    Raises:
        TypeError: opened as text.
    """
    with _lock_of(file):
        if callable(seekable := getattr(file, "seekable", None)) and seekable():
            file.seek(0)
        data = file.read()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"reading this file gives {type(data).__name__}, not bytes: open it in binary mode "
            '("rb")'
        )
    return bytes(data)


def refuse_unreadable(path: Path) -> int:
    """The size of a regular file in bytes, which is not opened.

    Raises:
        ImageError: an address, a folder, a pipe, a device, or nothing.
    """
    if _ADDRESS.match(str(path)):
        raise ImageError("cannot be read: an address; nothing is fetched, give a file")
    with _reading(path):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        what = "it is a folder" if str(path) != "." else "an empty name, or the folder at hand"
        raise ImageError(f"cannot be read: {what}")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("cannot be read: a pipe, socket or device, not a file")
    return status.st_size


_LOCKS = [threading.Lock() for _ in range(64)]


def _lock_of(item: Any) -> threading.Lock:
    """For what is changed by being read, and may be given several times."""
    return _LOCKS[id(item) // 64 % len(_LOCKS)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
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
    data = full_page_first(data)
    try:
        with _in_words(max_pixels):
            if next(deep_pages(data), None) is not None:
                frames = _deep_frames(data, max_pixels, min_side)
                return _first_shown(frames, max_pixels, min_side)
            with open_picture(data) as image:
                return _first_shown(_frames(image), max_pixels, min_side)
    except UnidentifiedImageError:
        raise ImageError(_unidentified(data)) from None


@contextmanager
def _in_words(max_pixels: int) -> Iterator[None]:
    """Whatever a decoder raises, as one sentence for the owner of the picture."""
    try:
        yield
    except (ImageError, UnidentifiedImageError):
        raise
    except SampleError as error:
        raise ImageError(words_of(error)) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"too many pixels: over the limit of {max_pixels / 1e6:.0f} megapixels"
        ) from None
    except MemoryError:
        raise ImageError("too large to decode in the memory at hand") from None
    # Pillow's decoders raise many types on damaged data (OSError, SyntaxError, struct.error,
    # IndexError, ...): for the owner of the picture they all mean the same.
    except Exception as error:
        detail = words_of(error)
        if isinstance(error, KeyError):
            detail = f"{detail} is missing"
        raise ImageError(f"damaged or truncated picture: {detail}") from None


def open_picture(data: bytes, *, metadata: bool = False) -> Image.Image:
    """Open the bytes of a picture file, its pixels not decoded yet.

    Only the formats named in `FORMATS` are tried: Pillow knows many more, some of which run
    other programs (EPS) or have decoders that few people have looked at. Of a PNG, only what
    makes its pixels is looked at, unless its `metadata` are asked for. Segments of a JPEG that
    are cut short are passed over where they are in the way.

    Raises:
        UnidentifiedImageError: none of these formats.
    """
    if data[12:16] == b"CgBI":  # its pixels would be read wrong
        raise UnidentifiedImageError
    if data[:8] == PNG_SIGNATURE and not metadata:
        data = without_ancillary(data)
    elif heic_kind(data):
        register_heif()
    elif jxl_kind(data):
        register_jxl()
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    if tga_header(data):
        formats = ["TGA"]
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if readable_kind(data) != "JPEG":
            raise
        return Image.open(io.BytesIO(without_damaged_segments(data)), formats=formats)


def _unidentified(data: bytes) -> str:
    kind = readable_kind(data)
    if heic_kind(data) and register_heif():
        kind = "HEIC"
    elif jxl_kind(data) and register_jxl():
        kind = "JPEG XL"
    if kind is not None:
        return f"damaged or truncated picture, or a kind of {kind} that isn't read"
    name = data[:1024].decode(errors="replace")
    if len(data) < 1024 and Path(name).suffix.lower() in PICTURE_SUFFIXES and name.isprintable():
        return "not a picture: bytes are taken as what a file holds; give a path as str or Path"
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
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
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
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = to_eight_bits(array, colours=3 if array.ndim == 3 else None)
    elif array.dtype.kind == "f":
        if not (array.size and array.min() >= 0 and array.max() <= 1):
            raise TypeError("float array outside [0, 1]: give uint8 in 0..255, or divide by 255")
        array = np.rint(array * np.float32(255)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"array dtype is {array.dtype}: give uint8 in 0..255")
    if array.ndim == 3 and array.shape[2] == 4:
        return _frame_to_rgb(Image.fromarray(array))
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array)


_MAX_FRAMES = 100
"""Frames of an animation that are looked through for one that shows something."""


def _from_image(image: Image.Image, max_pixels: int, min_side: int) -> RGB:
    """A caller's image at the frame where it stands, where it stays."""
    with _lock_of(image), _in_words(max_pixels):
        _check_size(*image.size, max_pixels, min_side)
        return _frame_to_rgb(unread_deep_picture(image) or image)


def _frames(image: Image.Image) -> Iterator[Image.Image]:
    """An opened image at each of its frames; EOFError at the end."""
    yield image
    if getattr(image, "is_animated", False):
        for number in itertools.count(1):
            image.seek(number)
            yield image


def _deep_frames(data: bytes, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    for tags in deep_pages(data):
        _check_size(tags[WIDTH], tags[HEIGHT], max_pixels, min_side)
        yield deep_picture(data, tags)


def _first_shown(frames: Iterator[Image.Image], max_pixels: int, min_side: int) -> RGB:
    """The first frame that shows something, of those that have `max_pixels` together."""
    first, left = None, max_pixels
    try:
        for frame in itertools.islice(frames, _MAX_FRAMES):
            _check_size(*frame.size, left, min_side)
            rgb = _frame_to_rgb(frame)
            if _shows_something(rgb):
                return rgb
            first = rgb if first is None else first
            left -= frame.width * frame.height
            if left < frame.width * frame.height:  # looking for the next would decode some of it
                break
    except Exception:  # the end, or whatever Pillow raises on damage
        if first is None:
            raise
    assert first is not None
    return first


def _shows_something(rgb: RGB) -> bool:
    rows, columns = (max(1, side // 256) for side in rgb.shape[:2])
    sample = rgb[::rows, ::columns]
    # Plane by plane: of most pictures the first tells, and NumPy is slow over both axes at once.
    return any(float(sample[..., plane].std(dtype=np.float32)) >= 1.0 for plane in range(3))


_BAND = 2**20
"""Pixels that are brought to RGB at a time: a large picture is in memory once beside its RGB."""


def _frame_to_rgb(image: Image.Image) -> RGB:
    find_profile(image)
    image = eight_bits(image)
    image.load()  # turns a TIFF, and takes its orientation away
    rgb, as_stored = upright_canvas(image)
    shines_through = False
    for _, band in _bands(image):
        # Files of programs that left the fourth channel empty: no alpha is meant.
        shines_through = band.mode == "RGBA" and band.getchannel("A").getextrema() != (0, 0)
        if shines_through or band.mode != "RGBA":
            break
    for top, band in _bands(image):
        if shines_through:
            white = Image.new("RGBA", band.size, (255, 255, 255, 255))
            band = Image.alpha_composite(white, band)
        as_stored[top : top + band.height] = np.asarray(band.convert("RGB"))
    return rgb


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, pixels in sRGB) of a loaded image, piece by piece; RGBA where it has alpha."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        if band.mode in {"La", "RGBa"}:  # colours multiplied with their alpha
            band = band.convert(band.mode.upper())
        band = to_srgb(band)
        has_alpha = "A" in band.getbands() or "transparency" in band.info
        yield top, band.convert("RGBA") if has_alpha else band
