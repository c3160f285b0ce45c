"""Picture files of every kind that is read, and ways to damage them."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
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


@st.composite
def damaged(draw: st.DrawFn, folder: Path | None = None) -> bytes:
    """A file with one to six faults: cut, flipped, overwritten, doubled, spliced."""
    data = bytearray(draw(st.sampled_from(seeds(folder))))
    for _ in range(draw(st.integers(1, 6))):
        if len(data) < 8:
            break
        # Headers hold the sizes and tables that decoders trust: they are hit as often as the rest.
        end = draw(st.sampled_from((min(64, len(data)), min(512, len(data)), len(data))))
        at = draw(st.integers(0, end - 1))
        fault = draw(st.sampled_from(("flip", "cut", "write", "number", "double", "splice")))
        if fault == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif fault == "cut":
            del data[at:]
        elif fault == "write":
            data[at : at + 4] = draw(st.binary(min_size=1, max_size=8))
        elif fault == "number":
            value = draw(st.sampled_from((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 100_000)))
            order = draw(st.sampled_from("<>"))
            data[at : at + 4] = struct.pack(f"{order}I", value)
        elif fault == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        else:
            other = draw(st.sampled_from(seeds(folder)))
            data[at:] = other[draw(st.integers(0, len(other) - 1)) :]
    return bytes(data)
