"""Embedded colour profiles: what a picture's numbers mean, brought to sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from distildire.io.boxes import box_at

_COLOURS = np.mgrid[0:256:51, 0:256:51, 0:256:51].reshape(3, 1, -1).T.astype(np.uint8)
"""216 colours that a profile is tried on: [216, 1, 3]."""
_SAME = 2.0
"""Grey levels between a colour in sRGB and in a profile that means to be sRGB, on average."""


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB through its embedded profile; as it is where it has none.

    Display P3, Adobe RGB, grey and CMYK profiles are applied (perceptual intent), alpha is
    kept. A profile that is damaged or doesn't fit the picture's mode is passed over, and so is
    sRGB, by its name and what it does.
    """
    embedded = image.info.get("icc_profile")
    if not isinstance(embedded, bytes) or not embedded:
        return image
    try:
        if _is_srgb(embedded):
            return image
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if image.mode in {"P", "PA"}:
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if image.mode == "LA":
            grey, alpha = image.split()
            colour = _converted(grey, profile)
        elif image.mode == "RGBA":
            colour, alpha = _converted(image.convert("RGB"), profile), image.getchannel("A")
        elif image.mode in {"RGB", "L", "CMYK"}:
            return _converted(image, profile)
        else:
            return image
        colour.putalpha(alpha)
        return colour
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def is_profile(embedded: bytes) -> bool:
    """Whether it can be read as a profile."""
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    return True


def find_profile(image: Image.Image) -> None:
    """Give an image that isn't loaded yet the profile of its file, where Pillow looks for none."""
    read = {"JPEG2000": _of_jp2, "BMP": _of_bmp}.get(image.format or "")
    file: Any = getattr(image, "fp", None)
    if read is None or file is None:
        return
    place = file.tell()
    file.seek(0)
    profile = read(file.read())
    file.seek(place)
    if profile:
        image.info["icc_profile"] = profile


def _of_jp2(data: bytes) -> bytes | None:
    """Of the first colour specification that is known (ISO/IEC 15444-1, I.5.3.3)."""
    headers = (content for kind, content in _boxes(data) if kind == b"jp2h")
    for kind, content in _boxes(next(headers, b"")):
        if kind == b"colr" and content[:1] in {b"\1", b"\2", b"\3"}:
            return None if content[0] == 1 else content[3:]
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while (box := box_at(data, at, len(data))) is not None:
        yield box.kind, data[box.start : box.end]
        at = box.end


def _of_bmp(data: bytes) -> bytes | None:
    """Of a BITMAPV5HEADER whose colour space is PROFILE_EMBEDDED."""
    if data[14:18] != b"\x7c\0\0\0" or data[70:74] != b"DEBM" or len(data) < 134:
        return None
    start, size = struct.unpack_from("<II", data, 126)
    return data[14 + start : 14 + start + size]


@lru_cache(maxsize=16)
def _is_srgb(embedded: bytes) -> bool:
    """Whether a profile is named sRGB and leaves colours as they are."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    if not ImageCms.getProfileDescription(profile).lower().startswith("srgb"):
        return False
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    seen = np.asarray(_converted(Image.fromarray(_COLOURS), profile, intent))
    return float(np.abs(seen.astype(int) - _COLOURS).mean()) <= _SAME


def _converted(
    image: Image.Image,
    profile: ImageCms.ImageCmsProfile,
    intent: ImageCms.Intent = ImageCms.Intent.PERCEPTUAL,
) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, profile, srgb, intent, outputMode="RGB")
    assert converted is not None
    return converted
