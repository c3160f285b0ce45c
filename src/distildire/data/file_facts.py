"""What a picture file says about itself, apart from what it shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from distildire.io.hashing import sha256_of
from distildire.io.perceptual_hashes import box_means, dhash
from distildire.io.pictures import MAX_PIXELS

THUMBNAIL_SIDE = 16
TRACE_SIDE = 256
"""Traces of resampling are looked for in the central square of at most this side."""

# ITU-T T.81, table K.1: libjpeg scales it by the quality, and nearly every writer follows.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()

# The UUID of a C2PA manifest store in its JUMBF description box (C2PA 2.1, section 11.1).
_C2PA = b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"


@dataclass(frozen=True)
class AuditFacts:
    """Facts of one file; the fields after `error` keep their defaults where it is set."""

    sha256: str = ""
    size: int = 0
    """In bytes."""
    error: str | None = None
    format: str = ""
    """Pillow's name: JPEG, PNG, WEBP, ..."""
    mode: str = ""
    width: int = 0
    height: int = 0
    quality: float = float("nan")
    """JPEG quality 1..100 read from the quantisation tables; nan for other formats."""
    standard_tables: bool = False
    """Whether the tables are libjpeg's at that quality, to the last entry."""
    subsampling: str = ""
    """4:4:4, 4:2:2, 4:2:0 or other for JPEG; empty for other formats."""
    progressive: bool = False
    exif: bool = False
    camera: bool = False
    """Whether EXIF names a camera (make or model)."""
    icc: bool = False
    xmp: bool = False
    c2pa: bool = False
    text: bool = False
    """A comment or text chunk (generators write their prompts there)."""
    resampling: float = float("nan")
    """Height of the strongest periodic peak of the second difference (see `traces`)."""
    jpeg_grid: float = float("nan")
    """The same at the 8-pixel period: an earlier or present JPEG pass."""
    detail: float = float("nan")
    """Share of the spectrum's power over 0.35 cycles per pixel: low after upscaling."""
    dhash: int = 0
    """64-bit difference hash of the grey picture."""
    thumbnail: bytes = b""
    """Grey 16 x 16, row by row."""


def read_facts(data: bytes, *, traces: bool = True) -> AuditFacts:
    """Facts of the bytes of a file; what can't be read has `error` set.

    `traces=False` leaves out what needs the decoded pixels at full size.
    """
    sha256 = sha256_of(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                return AuditFacts(sha256, len(data), error="too many pixels")
            header = _header(image, data)
            if not traces and image.format == "JPEG":
                image.draft("L", (4 * THUMBNAIL_SIDE, 4 * THUMBNAIL_SIDE))
            grey = image.convert("L")
    # Pillow raises many types on damaged files, all of which mean the same here.
    except Exception as error:
        return AuditFacts(sha256, len(data), error=str(error) or type(error).__name__)
    thumbnail = box_means(grey, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    found = trace(np.asarray(_centre(grey, TRACE_SIDE))) if traces else (float("nan"),) * 3
    return AuditFacts(
        sha256,
        len(data),
        **header,
        resampling=found[0],
        jpeg_grid=found[1],
        detail=found[2],
        dhash=dhash(grey),
        thumbnail=thumbnail.tobytes(),
    )


def _header(image: Image.Image, data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "format": "JPEG" if image.format == "MPO" else image.format or "",
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "progressive": bool(image.info.get("progressive")),
        "icc": bool(image.info.get("icc_profile")),
        "xmp": bool(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")),
        "text": bool(image.info.get("comment") or getattr(image, "text", None)),
        "c2pa": _C2PA in data,
    }
    exif = image.getexif()
    facts["exif"] = bool(exif)
    facts["camera"] = bool(exif.get(0x010F) or exif.get(0x0110))
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.quantization:
        facts["quality"], facts["standard_tables"] = jpeg_quality(image.quantization[0])
        kind = JpegImagePlugin.get_sampling(image)
        facts["subsampling"] = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(kind, "other")
    return facts


@cache
def _tables() -> NDArray[np.int64]:
    """libjpeg's luminance tables at quality 1..100: [100, 64] (jpeg_quality_scaling)."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.asarray(np.clip((_LUMINANCE[None, :] * scale[:, None] + 50) // 100, 1, 255))


def jpeg_quality(table: list[int]) -> tuple[float, bool]:
    """(quality 1..100, whether it is libjpeg's table exactly) of a luminance table [64].

    For other tables: the quality whose table is nearest in the mean of the logarithms.
    The order of the entries makes no difference to the nearest quality.
    """
    tables = _tables()
    given = np.clip(np.asarray(table), 1, None)
    exact = np.flatnonzero((np.sort(tables, axis=1) == np.sort(given)).all(axis=1))
    if len(exact):
        return float(exact[-1] + 1), True
    gap = np.abs(np.log(tables).mean(axis=1) - np.log(given).mean())
    return float(gap.argmin() + 1), False


def _centre(grey: Image.Image, side: int) -> Image.Image:
    width, height = min(side, grey.width), min(side, grey.height)
    left, top = (grey.width - width) // 2, (grey.height - height) // 2
    return grey.crop((left, top, left + width, top + height))


def trace(grey: NDArray[np.uint8]) -> tuple[float, float, float]:
    """(resampling peak, JPEG grid peak, share of fine detail) of a grey picture [H, W].

    Resampling by any linear kernel makes the size of the second difference periodic
    (Gallagher 2005, "Detection of linear and cubic interpolation in JPEG compressed
    images"): the spectrum of its mean over the rows and over the columns has a peak,
    given here over the median; multiples of 1/8 belong to the JPEG grid and are kept apart.
    nan for pictures under 64 pixels.
    """
    if min(grey.shape) < 64:
        return (float("nan"),) * 3
    pixels = grey.astype(np.float32)
    peaks, grids = [], []
    for view in (pixels, pixels.T):
        second = np.abs(2 * view[:, 1:-1] - view[:, :-2] - view[:, 2:]).mean(axis=0)
        n = len(second) // 8 * 8
        spectrum = np.abs(np.fft.rfft(second[:n] - second[:n].mean()))
        frequency = np.arange(len(spectrum)) / n
        middle = float(np.median(spectrum[1:])) + 1e-6
        off_grid = np.abs(frequency * 8 - np.rint(frequency * 8)) > 0.06
        peaks.append(float(spectrum[off_grid & (frequency > 0.1)].max(initial=0.0)) / middle)
        grids.append(float(spectrum[~off_grid & (frequency > 0.1)].mean()) / middle)
    power = np.abs(np.fft.rfft2(pixels - pixels.mean())) ** 2
    fine = np.hypot(
        np.fft.fftfreq(pixels.shape[0])[:, None], np.fft.rfftfreq(pixels.shape[1])[None, :]
    )
    detail = float(power[fine > 0.35].sum() / (power.sum() + 1e-6))
    return max(peaks), max(grids), detail
