"""Small picture files of every kind that is read, to damage them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, features


@cache
def seeds(folder: Path | None = None) -> tuple[bytes, ...]:
    """Small valid files; with those of `folder` where one is given."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    saves: list[tuple[Image.Image, str, dict[str, object]]] = [
        (rgb, "JPEG", {"quality": 80, "exif": exif}),
        (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb, "PNG", {"exif": exif}),
        (rgb.convert("RGBA"), "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": 3}),
        (Image.fromarray(rng.integers(0, 65535, (40, 40)).astype(np.uint16)), "PNG", {}),
        (rgb.convert("1"), "PNG", {}),
        (rgb.quantize(16), "GIF", {"save_all": True, "append_images": [rgb.quantize(8)]}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb.convert("RGBA"), "TIFF", {"compression": "tiff_deflate"}),
        (Image.fromarray(rng.random((40, 40)).astype(np.float32)), "TIFF", {}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "BMP", {}),
        (rgb.quantize(16), "BMP", {}),
        (rgb, "WEBP", {"quality": 70}),
        (rgb.convert("RGBA"), "WEBP", {"lossless": True}),
    ]
    if features.check("avif"):
        saves.append((rgb, "AVIF", {}))
    files = []
    for image, kind, options in saves:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    if folder is not None:
        files += [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]
    return tuple(files)
