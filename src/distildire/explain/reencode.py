"""What happens to a picture on its way: named, fixed re-encodings.

Each maps RGB uint8 [H, W, 3] to RGB, is deterministic, and is used both to ask whether one
verdict is stable and to chart a detector's robustness.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from distildire.io.pictures import MIN_SIDE, RGB
from distildire.io.preprocessing import JPEG_MAX_SIDE, jpeg, limit_short_side, resize, webp

WEBP_MAX_DIMENSION = 16_383

Reencode: TypeAlias = Callable[[RGB], RGB]


def by_jpeg(quality: int) -> Reencode:
    """One JPEG pass at `quality` 1..95, 4:2:0, at most 65,500 pixels a side, as JPEG has it."""
    return lambda rgb: jpeg(_limit_long_side(rgb, JPEG_MAX_SIDE), quality)


def by_webp(quality: int) -> Reencode:
    """One lossy WebP pass at `quality` 1..100, at most 16,383 pixels a side, as WebP has it."""
    return lambda rgb: webp(_limit_long_side(rgb, WEBP_MAX_DIMENSION), quality)


def _limit_long_side(rgb: RGB, long_side: int) -> RGB:
    height, width = rgb.shape[:2]
    factor = long_side / max(height, width)
    if factor >= 1.0:
        return rgb
    return resize(rgb, max(1, int(width * factor)), max(1, int(height * factor)))


def by_resize(scale: float) -> Reencode:
    """Both sides times `scale`, antialiased Lanczos; no side falls under `MIN_SIDE`."""

    def scaled(rgb: RGB) -> RGB:
        height, width = rgb.shape[:2]
        factor = max(scale, min(1.0, MIN_SIDE / min(height, width)))
        return resize(rgb, round(width * factor), round(height * factor))

    return scaled


def by_blur(sigma: float) -> Reencode:
    """Gaussian blur, sigma in pixels."""
    return lambda rgb: np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def by_noise(sigma: float) -> Reencode:
    """Gaussian noise, sigma in grey levels; the seed is the picture's own checksum."""

    def noisy(rgb: RGB) -> RGB:
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(rgb).tobytes()))
        noise = rng.standard_normal(rgb.shape, np.float32) * np.float32(sigma)
        return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)

    return noisy


def by_crop(share: float) -> Reencode:
    """The central part, `share` of each side, moved off the 8-pixel grid."""

    def cropped(rgb: RGB) -> RGB:
        height, width = rgb.shape[:2]
        high, wide = max(MIN_SIDE, round(height * share)), max(MIN_SIDE, round(width * share))
        top, left = (height - high) // 2 | 1, (width - wide) // 2 | 1
        return np.ascontiguousarray(rgb[top : top + high, left : left + wide])

    return cropped


def screenshot(rgb: RGB) -> RGB:
    """Shown on a screen at another size and captured: bilinear to 0.8, lossless."""
    height, width = rgb.shape[:2]
    factor = max(0.8, min(1.0, MIN_SIDE / min(height, width)))
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def social_network(rgb: RGB) -> RGB:
    """Uploaded and passed on: JPEG 85, shorter side to 75% (720 at most), JPEG 72."""
    smaller = by_resize(0.75)(limit_short_side(by_jpeg(85)(rgb), 960))
    return jpeg(smaller, 72)


STABILITY: Mapping[str, Reencode] = MappingProxyType(
    {
        "jpeg 85": by_jpeg(85),
        "jpeg 70": by_jpeg(70),
        "webp 80": by_webp(80),
        "resize 0.75": by_resize(0.75),
        "crop 0.9": by_crop(0.9),
    }
)
"""The re-encodings that a stable verdict survives."""

ROBUSTNESS: Mapping[str, Reencode] = MappingProxyType(
    {
        "as it is": lambda rgb: rgb,
        **{f"jpeg {q}": by_jpeg(q) for q in (95, 85, 70, 50, 30)},
        **{f"webp {q}": by_webp(q) for q in (90, 75, 50)},
        **{f"resize {s}": by_resize(s) for s in (0.5, 0.75, 1.5, 2.0)},
        **{f"blur {s}": by_blur(s) for s in (0.5, 1.0, 2.0)},
        **{f"noise {s}": by_noise(s) for s in (2, 5, 10)},
        **{f"crop {s}": by_crop(s) for s in (0.9, 0.6)},
        "screenshot": screenshot,
        "social network": social_network,
    }
)
"""The robustness grid, by name, mild to strong inside each kind."""
