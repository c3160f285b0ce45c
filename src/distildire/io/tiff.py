"""TIFFs of deep, signed or floating samples in any layout, of which Pillow reads only a part."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2, TiffImageFile

from distildire.io.samples import ORIENTATION, SampleError, to_eight_bits
from distildire.io.text import brief

Tags: TypeAlias = dict[int, Any]
"""Of one page, by number."""

# Numbers of TIFF 6.0.
WIDTH, HEIGHT = 256, 257
_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 258, 259, 262, 266
_STRIPS, _PER_PIXEL = 273, 277
_ROWS, _COUNTS, _PLANAR, _PREDICTOR, _EXTRA, _FORMAT, _PROFILE = 278, 279, 284, 317, 338, 339, 34675
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS = 322, 323, 324, 325
_HIGHEST = (281, 341)
"""MaxSampleValue and SMaxSampleValue."""

_COLOURS = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}
"""Pillow's modes of the photometric interpretations that are read."""
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_PLAIN, _DIFFERENCES = 1, 2
_LOSSLESS = {_PLAIN, 5, 8, 32946, 32773, 34925, 50000}
"""Not compressed, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard."""
_LOWEST_BIT_FIRST = 2
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BIG = 43
_MAX_PIECES, _MAX_CHANNELS = 100_000, 8
_MAX_BYTES = 800_000_000
"""Of all samples of a page: as many as 100 megapixels of RGB and alpha have in 16 bits."""


def deep_pages(data: bytes) -> Iterator[Tags]:
    """The pages of a TIFF up to the first whose samples are plain bytes or fewer bits."""
    if not data.startswith(tuple(PREFIXES)):
        return
    file, seen = io.BytesIO(data), set[int]()
    directory = ImageFileDirectory_v2(data[: 16 if data[2] == _BIG else 8])
    while directory.next and directory.next not in seen:
        seen.add(directory.next)
        file.seek(directory.next)
        directory.load(file)
        tags = dict(directory)
        deep = _first(tags, _BITS, 1) in {16, 32, 64} or _first(tags, _FORMAT, 1) in {2, 3}
        if not deep or WIDTH not in tags or HEIGHT not in tags:
            return
        yield tags


def deep_picture(data: bytes, tags: Tags) -> Image.Image:
    """One of the `deep_pages` with eight bits a sample, its profile and its orientation.

    Raises:
        SampleError: damaged, or of a kind that isn't read.
    """
    photometric = tags.get(_PHOTOMETRIC, 1)
    if photometric not in _COLOURS:
        raise SampleError(
            f"not read here: a TIFF of deep samples of photometric interpretation {photometric}: "
            "save it as RGB"
        )
    mode = _COLOURS[photometric]
    colours = len(mode)
    samples = _samples(data, tags)
    if samples.shape[2] < colours:
        raise SampleError("damaged or truncated picture: it lacks colours")
    highest = int(max(_first(tags, tag, 0) for tag in _HIGHEST))
    # The numbers of a profile are those of the whole range.
    certain = _PROFILE in tags and samples.dtype.kind != "f"
    top = int(np.iinfo(samples.dtype).max) if certain else None
    alpha = _first(tags, _EXTRA, 2 if samples.shape[2] == colours + 1 else 0)
    if samples.shape[2] > colours and alpha in {1, 2} and mode != "CMYK":
        mode += "a" if alpha == 1 else "A"
    samples = samples[..., : len(mode)]
    eight = to_eight_bits(samples, highest, top=top, colours=colours)
    if photometric == 0:
        eight[..., 0] = 255 - eight[..., 0]
    image = Image.frombytes(mode, (samples.shape[1], samples.shape[0]), eight.tobytes())
    image.info["icc_profile"] = tags.get(_PROFILE)
    image.format = "TIFF"
    image.getexif()[ORIENTATION] = tags.get(ORIENTATION, 1)
    return image


def unread_deep_picture(image: Image.Image) -> Image.Image | None:
    """The page of an opened TIFF whose pixels weren't asked for yet, as of `deep_picture`.

    Raises:
        SampleError: as there, or planes that Pillow has read already, and in disorder.
    """
    if not isinstance(image, TiffImageFile):
        return None
    if not image.tile:
        read = image.tag_v2
        if read.get(_PLANAR) == 2 and np.max(read.get(_BITS, 1)) > 8 and image.mode != "I;16":
            raise SampleError("deep colour planes are read from the file alone: give its path")
        return None
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    tags = next(itertools.islice(deep_pages(data), image.tell(), None), None)
    return None if tags is None else deep_picture(data, tags)


def _first(tags: Tags, tag: int, default: Any) -> Any:
    value = tags.get(tag, default)
    return value[0] if isinstance(value, tuple) and value else value


def _samples(data: bytes, tags: Tags) -> NDArray[Any]:
    """All samples as they are stored: [H, W, samples]."""
    width, height, count = tags[WIDTH], tags[HEIGHT], int(tags.get(_PER_PIXEL, 1))
    if not 0 < count <= _MAX_CHANNELS:
        raise SampleError(f"not read here: a TIFF of {count} channels of deep samples")
    dtype = _sample_type(tags, big_endian=data[:2] == b"MM")
    if (size := width * height * count * dtype.itemsize) > _MAX_BYTES:
        raise SampleError(
            f"too large: its samples take {size / 1e6:,.0f} MB, over the limit of "
            f"{_MAX_BYTES / 1e6:.0f} MB: save it with fewer bits"
        )
    planes = count if tags.get(_PLANAR) == 2 else 1
    tiled = _TILES in tags
    across = tags[_TILE_WIDTH] if tiled else width
    down = tags[_TILE_HEIGHT] if tiled else min(tags.get(_ROWS, height), height)
    offsets = tags[_TILES if tiled else _STRIPS]
    sizes = tags.get(_TILE_COUNTS if tiled else _COUNTS, (len(data),) * len(offsets))
    places = [(plane, y, x) for plane in range(planes)
              for y in range(0, height, down) for x in range(0, width, across)]  # fmt: skip
    if not len(offsets) == len(sizes) == len(places) <= _MAX_PIECES:
        raise SampleError("damaged or truncated picture: its pieces don't fit its size")
    result = np.empty((planes, height, width, count // planes), dtype.newbyteorder("="))
    for (plane, y, x), offset, size in zip(places, offsets, sizes, strict=True):
        shape = (down if tiled else min(down, height - y), across, count // planes)
        part = result[plane, y : y + down, x : x + across]
        piece = _piece(data[offset : offset + size], tags, shape, dtype)
        part[:] = piece[: part.shape[0], : part.shape[1]]
    return np.concatenate(list(result), axis=2) if planes > 1 else result[0]


def _sample_type(tags: Tags, *, big_endian: bool) -> np.dtype[Any]:
    bits, kind = set(np.atleast_1d(tags.get(_BITS, 1)).tolist()), _first(tags, _FORMAT, 1)
    name = f"{_KINDS.get(kind, '?')}{min(bits) // 8}"
    if len(bits) > 1 or name not in {"u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}:
        raise SampleError(
            f"not read here: a TIFF of samples of format {kind} with "
            f"{brief(', '.join(map(str, sorted(bits))), 40)} bits: save it with 8 or 16 bits"
        )
    return np.dtype((">" if big_endian else "<") + name)


def _piece(
    data: bytes, tags: Tags, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """A strip or a tile: [rows, columns, samples]."""
    if tags.get(_FILL_ORDER) == _LOWEST_BIT_FIRST:
        data = data.translate(_REVERSED)
    rows, columns, samples = shape
    row_bytes = columns * samples * dtype.itemsize
    compression, predictor = tags.get(_COMPRESSION, _PLAIN), tags.get(_PREDICTOR, _PLAIN)
    if compression not in _LOSSLESS or (compression != _PLAIN and predictor not in {1, 2}):
        raise SampleError(
            f"not read here: a TIFF of deep samples with compression {compression} and predictor "
            f"{predictor}: save it with LZW or without compression"
        )
    if compression != _PLAIN:
        data = _unpacked(data, compression, row_bytes, rows)
    if len(data) < rows * row_bytes:
        raise SampleError("damaged or truncated picture: its samples are not whole")
    piece = np.frombuffer(data, dtype, rows * columns * samples).reshape(shape)
    piece = piece.astype(dtype.newbyteorder("="), copy=False)
    if compression != _PLAIN and predictor == _DIFFERENCES:
        return np.cumsum(piece, axis=1, dtype=piece.dtype)
    return piece


def _unpacked(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """By libtiff: packed bytes are the same as those of a picture of one strip, CMYK or grey."""
    page = ImageFileDirectory_v2()
    bytes_per_pixel, photometric = (1, 1) if row_bytes % 4 else (4, 5)
    for tag, value in (
        (WIDTH, row_bytes // bytes_per_pixel), (HEIGHT, rows), (_BITS, (8,) * bytes_per_pixel),
        (_COMPRESSION, compression), (_PHOTOMETRIC, photometric), (_PER_PIXEL, bytes_per_pixel),
        (_ROWS, rows), (_COUNTS, len(data)),
        (_STRIPS, 0),  # behind the directory, when that is written
    ):  # fmt: skip
        page[tag] = value
    file = b"II*\0" + (8).to_bytes(4, "little") + page.tobytes(8) + data
    with Image.open(io.BytesIO(file), formats=["TIFF"]) as image:
        return image.tobytes()
