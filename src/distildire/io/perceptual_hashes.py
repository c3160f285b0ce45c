"""Hashes of what a picture shows: copies of it differ in few of their 64 bits.

The package imagehash brings SciPy and PyWavelets, which the base install goes without; its
difference hash is `look`, and its DCT hash takes the median with the constant term.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distildire.io.pictures import RGB
from distildire.io.preprocessing import limit_short_side

_SIDE = 8
"""Rows, and bits per row, of a difference hash."""


def look(image: Image.Image) -> str:
    """Difference hash of a picture as 16 hex digits: signs of the steps in a 9 x 8 thumbnail.

    By Lanczos, whatever the picture's size: manifests hold it, so that no bit may ever change.
    """
    grey = ImageOps.exif_transpose(image).convert("RGB").convert("L")
    small = np.asarray(grey.resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS))
    return np.packbits(small[:, :-1] < small[:, 1:]).tobytes().hex()


def dhash(grey: Image.Image) -> int:
    """64-bit difference hash: is a cell of a 9 x 8 picture darker than its right neighbour?

    By means over boxes, in two steps where the picture is large: an audit reads many files, and
    compares their hashes with each other alone.
    """
    cells = box_means(grey, _SIDE + 1, _SIDE).astype(int)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def box_means(grey: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """A thumbnail [height, width] of means over boxes."""
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))


def perceptual_hash(rgb: RGB) -> str:
    """64-bit DCT hash as 16 hex digits: near copies differ in few bits.

    The usual recipe ("pHash", Zauner 2010): 32 x 32 grey, two-dimensional DCT-II, the
    8 x 8 lowest frequencies, one bit each for above the median without the constant.
    Records hold it, beside a picture that others have in other sizes and formats.
    """
    # Two steps, so that a huge picture is not resampled in one long kernel.
    grey = Image.fromarray(limit_short_side(rgb, 512)).convert("L")
    pixels = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    k, n = np.arange(8)[:, None], np.arange(32)[None, :]
    basis = np.cos(np.pi * (2 * n + 1) * k / 64)
    low = (basis @ pixels @ basis.T).ravel()
    bits = low > np.median(low[1:])
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
