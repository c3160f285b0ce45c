"""Deep and turned pictures: any sample format to 8 bits, any orientation upright."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEPTHS = (8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 56)
"""Of what cameras, scanners and programs put into wider samples, in bits."""
_BELOW_ZERO = "samples below zero, whose black and white can't be told: bring them to "
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339
"""Numbers of TIFF 6.0."""
_PROFILE = "icc_profile"


class SampleError(ValueError):
    """Samples of a kind that isn't read; the message is one sentence."""


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; broken EXIF is passed over."""
    try:
        turn = _TURNS.get(image.getexif().get(ORIENTATION, 1))
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
        numbers = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=0.0)
        finite = numbers[..., :colours]
        finite = finite[np.isfinite(finite)]
        if finite.size and np.quantile(finite, 0.01) < -0.05:
            raise SampleError(f"floating-point {_BELOW_ZERO}0..1 or to 8 or 16 bits")
        if not finite.size or np.quantile(finite, 0.99) <= 1.0:
            return np.asarray(np.rint(np.clip(numbers, 0.0, 1.0) * np.float32(255)), np.uint8)
        if (finite != np.rint(finite)).any() or finite.max() > tops[-1]:
            raise SampleError(
                "floating-point samples whose range can't be told: bring them to 0..1 or to "
                "8 or 16 bits"
            )
        values = np.clip(np.nan_to_num(numbers, posinf=float(finite.max())), 0, None)
    elif values.dtype.kind == "i" and values.min(initial=0) < 0:
        raise SampleError(f"{_BELOW_ZERO}8 or 16 bits without a sign")
    found = int(values[..., :colours].max(initial=0))
    if top is None:
        top = next((t for t in tops if t >= max(highest, found)), tops[-1])
    if top > 255:
        _refuse_unlit(found, top)
    if top == 65535 and values.dtype == np.uint16:
        return np.asarray(values >> 8, np.uint8)
    scaled = np.clip(values, 0, top).astype(np.float32) * (255.0 / top)
    return np.asarray(np.rint(scaled).clip(0, 255), np.uint8)


def _tops(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The largest values of the `_DEPTHS` that integers of a type hold, and their own."""
    own = int(np.iinfo(dtype).max)
    return (*(top for bits in _DEPTHS if (top := 2**bits - 1) < own), own)
