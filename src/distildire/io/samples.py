"""Deep and turned pictures: any sample format to 8 bits, any orientation upright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION = 0x0112
_SWAPPING = frozenset([5, 6, 7, 8])
_FLIPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
"""By EXIF orientation: whether rows and columns change places, and which of them are backwards."""
_DEPTHS = (8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 56)
"""Of what cameras, scanners and programs put into wider samples, in bits."""
_BELOW_ZERO = "samples below zero, whose black and white can't be told: bring them to "
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339
"""Numbers of TIFF 6.0."""
_PROFILE = "icc_profile"
_BAND = 2**20
"""Samples that are scaled at a time."""


class SampleError(ValueError):
    """Samples of a kind that isn't read; the message is one sentence."""


def upright_canvas(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Room for a picture turned as its EXIF orientation says, and the same as it is stored.

    The second, [H, W, 3], is a view of the first. Broken EXIF is passed over.
    """
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever Pillow raises on broken EXIF
        turn = 1
    swapped = turn in _SWAPPING
    sides = (image.width, image.height) if swapped else (image.height, image.width)
    canvas = np.empty((*sides, 3), np.uint8)
    as_stored = canvas.swapaxes(0, 1) if swapped else canvas
    down, across = _FLIPS.get(turn, (1, 1))
    return canvas, as_stored[::down, ::across]


def eight_bits(image: Image.Image) -> Image.Image:
    """Samples of more than eight bits, or floats, as eight; other pictures as they are.

    A PNG, a PNM and a JPEG 2000 use the whole range of their 16 bits, dark as they may be; the
    samples of a TIFF, and of an image without a file, are those of `to_eight_bits`.

    Raises:
        SampleError: samples whose range can't be told.
    """
    if image.mode not in {"I", "F"} and not image.mode.startswith("I;16"):
        if _high_bytes(image):
            # High bytes of 0 may have low ones.
            _refuse_unlit(max(1, int(np.asarray(image.convert("RGB")).max())), 255)
        return image
    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits, signed = (np.max(tags.get(tag, 1)) for tag in (_BITS, _FORMAT))
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        values = values.astype(np.uint16)
    elif image.mode == "I" and tags:
        values = values.astype(f"{'i' if signed == 2 else 'u'}{bits // 8}")
    top = None
    if bits == 12:
        top = 4095
    elif image.mode != "F" and (image.format not in {None, "TIFF"} or image.info.get(_PROFILE)):
        top = int(np.iinfo(values.dtype).max)
    eight = to_eight_bits(values, top=top)
    if tags.get(_PHOTOMETRIC) == 0:
        eight = 255 - eight
    result = Image.fromarray(eight)
    result.info = {k: v for k, v in image.info.items() if k != "transparency"}
    result.getexif().update(_safe_exif(image))
    return result


def _high_bytes(image: Image.Image) -> bool:
    """Whether an image that isn't loaded yet is the high bytes of samples of 16 bits."""
    tiles: Any = getattr(image, "tile", None)
    how = tiles[0].args if tiles else None
    if image.format == "PPM":
        return isinstance(how, tuple) and how[-1] > 255
    return isinstance(how, str) and how.endswith(";16B")


def _refuse_unlit(highest: int, top: int) -> None:
    if 0 < highest * 16 <= top + 1:
        raise SampleError(
            "deep samples of which none is over a sixteenth of white: nearly black, or of fewer "
            "bits than the file says, which can't be told: bring them to their whole range"
        )


def _safe_exif(image: Image.Image) -> dict[int, Any]:
    try:
        return {ORIENTATION: image.getexif().get(ORIENTATION, 1)}
    except Exception:  # as in `upright`
        return {}


def to_eight_bits(
    values: NDArray[Any],
    highest: int = 0,
    *,
    top: int | None = None,
    colours: int | None = None,
) -> NDArray[np.uint8]:
    """Integers or floats to 0..255, by the range that they are plainly in.

    Integers: cameras and scanners put 10, 12 or 14 bits into samples of 16 and seldom say so;
    the range is that of the least of 8, 10, 12, 14, 16, 20, 24, 32, ... bits that holds them all.
    Floats: 0..1, what is over and a little below clipped; or whole numbers as integers.

    Args:
        values: of any shape.
        highest: of the values that are possible, as far as the file names it.
        top: what is white, where that is certain.
        colours: how many channels of the last axis tell the range; what follows is alpha.

    Raises:
        SampleError: floats of no such range, numbers below zero, or white far over all of them.
    """
    tops = _tops(values.dtype if values.dtype.kind != "f" else np.dtype(np.uint16))
    if values.dtype.kind == "f":
        finite = _numbers(values[..., :colours]).ravel()
        if not (known := np.isfinite(finite)).all():
            finite = finite[known]
        if finite.size and np.quantile(finite, 0.01, overwrite_input=True) < -0.05:
            raise SampleError(f"floating-point {_BELOW_ZERO}0..1 or to 8 or 16 bits")
        if not finite.size or np.quantile(finite, 0.99, overwrite_input=True) <= 1.0:
            return _in_bands(values, lambda v: _numbers(v).clip(0.0, 1.0) * np.float32(255))
        infinite = float(finite.max())
        broken = any((band != np.rint(band)).any() for band in _bands(finite))
        if broken or infinite > tops[-1]:
            raise SampleError(
                "floating-point samples whose range can't be told: bring them to 0..1 or to "
                "8 or 16 bits"
            )
        found = max(0, int(infinite))
    else:
        if values.dtype.kind == "i" and values.min(initial=0) < 0:
            raise SampleError(f"{_BELOW_ZERO}8 or 16 bits without a sign")
        infinite = np.inf
        found = int(values[..., :colours].max(initial=0))
    if top is None:
        top = next((t for t in tops if t >= max(highest, found)), tops[-1])
    if top > 255:
        _refuse_unlit(found, top)
    if top == 65535 and values.dtype == np.uint16:
        return np.asarray(values >> 8, np.uint8)
    white = top

    def scaled(band: NDArray[Any]) -> NDArray[Any]:
        return _numbers(band, infinite).clip(0, white).astype(np.float32) * (255.0 / white)

    return _in_bands(values, scaled)


def _numbers(values: NDArray[Any], infinite: float = np.inf) -> NDArray[Any]:
    """A copy with 0 for what is no number or below all, and `infinite` for what is above all."""
    return np.asarray(np.nan_to_num(values, nan=0.0, posinf=infinite, neginf=0.0))


def _bands(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in pieces along its first axis, so that what is made of it on the way is small."""
    length = max(1, _BAND * len(values) // max(1, values.size))
    for start in range(0, len(values), length):
        yield values[start : start + length]


def _in_bands(
    values: NDArray[Any], scaled: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[np.uint8]:
    """The `scaled` values rounded to 0..255."""
    result = np.empty(values.shape, np.uint8)
    for band, room in zip(_bands(values), _bands(result), strict=True):
        room[...] = np.rint(scaled(band)).clip(0, 255)
    return result


def _tops(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The largest values of the `_DEPTHS` that integers of a type hold, and their own."""
    own = int(np.iinfo(dtype).max)
    return (*(top for bits in _DEPTHS if (top := 2**bits - 1) < own), own)
