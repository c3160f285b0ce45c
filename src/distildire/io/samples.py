"""Deep and turned pictures: any sample format to 8 bits, any orientation upright."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TOPS = (255, 1023, 4095, 16383, 65535)
"""Largest values of samples of 8, 10, 12, 14 and 16 bits."""
# TIFF tags.
_BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _PER_PIXEL = 258, 259, 262, 273, 277
_COUNTS, _TOP, _PLANES, _FORMAT = 279, 281, 284, 339


class SampleError(ValueError):
    """Samples of a kind that isn't read; the message is one sentence."""


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; broken EXIF is passed over."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever Pillow raises on broken EXIF
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    # A profile and a transparent colour hold for the turned picture too.
    turned.info = dict(image.info)
    return turned


def eight_bits(image: Image.Image) -> Image.Image:
    """Samples of more than eight bits, or floats, as eight; other pictures as they are.

    Raises:
        SampleError: samples whose range can't be told.
    """
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (8,))
    deep = set(bits if isinstance(bits, tuple) else (bits,)) == {16}
    if tags.get(_PLANES) == 2 and deep and tags.get(_PER_PIXEL, 1) >= 3:
        return _planes(image, tags)
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
    elif image.mode == "I":
        values = np.asarray(image)
        unsigned = tags.get(_FORMAT, (1,))
        if bits in ((32,), 32) and unsigned in ((1,), 1):
            values = values.view(np.uint32)
    elif image.mode == "F":
        values = np.asarray(image)
    else:
        return image
    top = tags.get(_TOP)
    eight = to_eight_bits(values, int(top[0] if isinstance(top, tuple) else top) if top else None)
    if tags.get(_PHOTOMETRIC) == 0:
        eight = 255 - eight
    result = Image.fromarray(eight)
    result.info = {k: v for k, v in image.info.items() if k != "transparency"}
    result.getexif().update(_safe_exif(image))
    return result


def _safe_exif(image: Image.Image) -> dict[int, Any]:
    try:
        return {_ORIENTATION: image.getexif().get(_ORIENTATION, 1)}
    except Exception:  # as in `upright`
        return {}


def _planes(image: Image.Image, tags: Any) -> Image.Image:
    """16-bit colours in planes of their own, which Pillow reads as if they were interleaved."""
    if tags.get(_COMPRESSION, 1) != 1:
        raise SampleError("compressed 16-bit colour planes are not read: save it interleaved")
    file: Any = getattr(image, "fp", None)
    if file is None:
        raise SampleError("16-bit colour planes are read from the file alone: give its bytes")
    order = "<u2" if tags.prefix == b"II" else ">u2"
    content = bytearray()
    for offset, count in zip(tags[_STRIPS], tags[_COUNTS], strict=True):
        file.seek(offset)
        content += file.read(count)
    width, height = image.size
    values = np.frombuffer(bytes(content), order)
    planes = int(tags[_PER_PIXEL])
    if values.size != planes * height * width:
        raise SampleError("damaged or truncated picture: its planes are not whole")
    colours = values.reshape(planes, height, width)[:3].transpose(1, 2, 0)
    return Image.fromarray(to_eight_bits(colours.astype(np.uint16)))


def to_eight_bits(values: NDArray[Any], top: int | None = None) -> NDArray[np.uint8]:
    """Integers or floats to 0..255, by the range that they are plainly in.

    Integers: by `top`, or by the least of 8, 10, 12, 14, 16 and 32 bits that holds them all.
    Floats: 0..1, highlights and infinities over it clipped; or whole numbers as integers.

    Raises:
        SampleError: floats of no such range.
    """
    if values.dtype.kind == "f":
        numbers = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=0.0)
        finite = numbers[np.isfinite(numbers)]
        if not finite.size or np.quantile(finite, 0.99) <= 1.0:
            return np.asarray(np.rint(np.clip(numbers, 0.0, 1.0) * 255), np.uint8)
        if (finite != np.rint(finite)).any() or finite.max() > _TOPS[-1]:
            raise SampleError(
                "floating-point samples whose range can't be told: bring them to 0..1 or to "
                "8 or 16 bits"
            )
        values = np.clip(np.nan_to_num(numbers, posinf=float(finite.max())), 0, None)
    highest = int(values.max(initial=0))
    if top is None or highest > top:
        top = next((t for t in _TOPS if t >= highest), 2**32 - 1)
    if top == 65535 and values.dtype == np.uint16:
        return np.asarray(values >> 8, np.uint8)
    scaled = np.clip(values, 0, top).astype(np.float32) * (255.0 / top)
    return np.asarray(np.rint(scaled).clip(0, 255), np.uint8)
