"""Pictures inside JSON and HTML: `data:` URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.io.pictures import RGB

THUMBNAIL = 480
"""Longest side of a picture kept in a record, in pixels."""


def data_uri(kind: str, data: bytes) -> str:
    """Bytes of a media type as a `data:` URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(rgb: RGB, longest: int = THUMBNAIL) -> str:
    """A small JPEG copy, at most `longest` pixels on its longer side."""
    image = Image.fromarray(rgb)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return data_uri("image/jpeg", buffer.getvalue())


def png(pixels: NDArray[np.uint8]) -> str:
    """uint8 [H, W], [H, W, 3] or [H, W, 4]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return data_uri("image/png", buffer.getvalue())
