"""Colours in a profile come out as in sRGB, wherever the profile stands and whatever its name."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from distildire.io.pictures import decode
from made_pictures import picture, saved

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189),
      b"bXYZ": (0.1571, 0.06657, 0.78407)}  # fmt: skip
"""The primaries of Display P3, adapted to D50."""


def changed(*, gamma: float | None = None, primaries: dict[bytes, tuple[float, ...]]) -> bytes:
    """The profile of sRGB, its name too, with another curve or other primaries."""
    profile = bytearray(SRGB)
    for entry in range(struct.unpack_from(">I", profile, 128)[0]):
        tag, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * entry)
        if gamma is not None and tag in {b"rTRC", b"gTRC", b"bTRC"}:
            curve = b"para" + bytes(8) + struct.pack(">i", round(gamma * 65536))
            profile[at : at + size] = curve.ljust(size, b"\0")
        if tag in primaries:
            numbers = (round(number * 65536) for number in primaries[tag])
            struct.pack_into(">iii", profile, at + 8, *numbers)
    return bytes(profile)


def muted() -> np.ndarray:
    """Colours that every profile here holds."""
    return picture() // 2 + 64


def in_profile(profile: bytes) -> Image.Image:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = Image.fromarray(muted())
    seen = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), opened)
    assert seen is not None
    assert np.abs(np.asarray(seen).astype(int) - muted()).mean() > 2
    return seen


@pytest.mark.parametrize("profile", [changed(gamma=1.0, primaries={}), changed(primaries=P3),
                                     changed(gamma=1.8, primaries={})])  # fmt: skip
def test_a_name_alone_makes_no_srgb(profile: bytes) -> None:
    name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    assert name.startswith("sRGB")
    seen = decode(saved(in_profile(profile), "PNG", icc_profile=profile))
    assert np.abs(seen.astype(int) - muted()).mean() < 1


def test_srgb_stays_to_the_bit() -> None:
    for profile in (SRGB, changed(gamma=2.2, primaries={})):
        data = saved(Image.fromarray(picture()), "PNG", icc_profile=profile)
        assert np.array_equal(decode(data), picture())


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def with_colour(data: bytes, *specifications: bytes) -> bytes:
    """A JPEG 2000 with other colour specifications than its one."""
    at, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    size, old = (struct.unpack_from(">I", data, place)[0] for place in (header, at))
    new = b"".join(box(b"colr", one) for one in specifications)
    inner = data[header + 8 : at] + new + data[at + old : header + size]
    return data[:header] + box(b"jp2h", inner) + data[header + size :]


def test_the_profile_of_a_jpeg_2000() -> None:
    profile = changed(primaries=P3)
    stored = np.asarray(in_profile(profile))
    data = saved(in_profile(profile), "JPEG2000")
    listed, whole = b"\1\0\0" + struct.pack(">I", 16), b"\2\0\0" + profile
    for specifications in ((whole,), (b"\4\0\0" + bytes(16), whole, listed)):
        file = with_colour(data, *specifications)
        for source in (file, Image.open(io.BytesIO(file))):
            seen = decode(source)
            assert np.abs(seen.astype(int) - muted()).mean() < 1
    for specification in (listed, b"\2\0\0nonsense"):
        assert np.array_equal(decode(with_colour(data, specification)), stored)
    assert np.array_equal(decode(with_colour(data, listed, whole)), stored)


def test_the_profile_of_a_bmp() -> None:
    profile = changed(primaries=P3)
    pixels = np.asarray(in_profile(profile))[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, 80, 60, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(52) + struct.pack("<II", 124 + len(pixels), len(profile))
    header = header.ljust(124, b"\0")
    size = 138 + len(pixels) + len(profile)
    data = b"BM" + struct.pack("<IHHI", size, 0, 0, 138) + header + pixels + profile
    assert np.abs(decode(data).astype(int) - muted()).mean() < 1
    assert np.abs(decode(data[:-100]).astype(int) - muted()).mean() > 2
