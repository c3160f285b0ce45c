"""What samples of more than eight bits show, or one sentence where that can't be told."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from distildire.io.pictures import ImageError, decode
from distildire.io.samples import SampleError, to_eight_bits
from distildire.io.tiff import HEIGHT, WIDTH, deep_pages, deep_picture
from made_pictures import picture, saved


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "bits"), [("u4", 20), ("u4", 24), ("u4", 32), ("i4", 24),
                                            ("i4", 31), ("u8", 24), ("u8", 32), ("u8", 48),
                                            ("u8", 64), ("i8", 63)])  # fmt: skip
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_wide_integers_keep_their_brightness(kind: str, bits: int, photometric: str) -> None:
    rgb = picture() if photometric == "rgb" else picture()[..., [0, 0, 0]]
    assert rgb.max() >= 250
    values = (rgb / 255 * (2.0**bits - 2.0**bits / 4096)).astype(kind)
    data = tiff(values if photometric == "rgb" else values[..., 0], photometric=photometric)
    assert np.abs(decode(data).astype(int) - rgb).max() <= 1


def test_pillow_knows_the_sign_of_integers_too() -> None:
    grey = picture()[..., 0]
    image = Image.fromarray(grey.astype(np.int32) * 8421504)
    for source in (image, saved(image, "TIFF"), Image.open(io.BytesIO(saved(image, "TIFF")))):
        assert np.abs(decode(source)[..., 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_floats_of_a_portable_map(scale: float) -> None:
    grey = picture()[..., 0]
    numbers = Image.fromarray((grey * scale).astype(np.float32))
    assert np.array_equal(decode(saved(numbers, "PPM"))[..., 0], grey)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scaled", [lambda p: p / 127.5 - 1, lambda p: p / 255 - 0.5,
                                    lambda p: p - 128.0])  # fmt: skip
def test_floats_below_zero_are_not_guessed_at(kind: Any, scaled: Any) -> None:
    numbers = scaled(picture()).astype(kind)
    sources: list[Any] = [tiff(numbers, photometric="rgb"), tiff(numbers[..., 0])]
    sources.append(Image.fromarray(numbers[..., 0].astype(np.float32)))
    for source in sources:
        with pytest.raises(ImageError, match=r"^floating-point samples below zero"):
            decode(source)


@pytest.mark.parametrize("scale", [1 / 255, 1, 10])
@pytest.mark.parametrize("kind", ["f8", "u2"])
def test_deep_samples_are_in_memory_three_times_at_most(kind: str, scale: float) -> None:
    values = (np.resize(picture(), (2000, 1500, 3)) * scale).astype(kind)
    tracemalloc.start()
    try:
        eight = to_eight_bits(values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert eight.shape == values.shape
    assert peak < 2 * values.nbytes  # beside themselves


def test_more_samples_than_memory_is_meant_for_are_refused() -> None:
    data = tiff(picture() / 255, photometric="rgb")
    (tags,) = deep_pages(data)
    with pytest.raises(SampleError, match=r"too large: its samples take 816 MB, .* 800 MB"):
        deep_picture(data, tags | {WIDTH: 10_000, HEIGHT: 3_400})


def test_a_little_below_zero_is_black() -> None:
    numbers = (picture() / 255).astype(np.float32)
    numbers[0, :8], numbers[1] = -0.4, -1e-4
    seen = decode(tiff(numbers, photometric="rgb"))
    assert np.array_equal(seen[2:], picture()[2:])
    assert not seen[0, :8].any()
    assert not seen[1].any()


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}])
def test_bits_that_are_stored_lowest_first(options: dict[str, Any]) -> None:
    data = tiff(picture().astype(np.uint16) * 257, photometric="rgb", rowsperstrip=60,
                extratags=[(65001, 3, 1, 2, True)], **options)  # fmt: skip
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        (at,), (size,) = opened.pages[0].dataoffsets, opened.pages[0].databytecounts
        order = opened.byteorder
    bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8)).reshape(-1, 8)
    # tifffile knows FillOrder, and doesn't write it.
    entries = (struct.pack(f"{order}HHI", tag, 3, 1) for tag in (65001, 266))
    data = (data[:at] + np.packbits(bits[:, ::-1]).tobytes() + data[at + size :]).replace(*entries)
    assert np.array_equal(decode(data), picture())


def test_fewer_bits_than_the_file_says_have_no_verdict() -> None:
    rgb = picture().astype(np.uint16)
    wide = (rgb * 16).astype(">u2").tobytes()
    for data in (
        saved(Image.fromarray(rgb[..., 0] * 16), "PNG"),
        saved(Image.fromarray(rgb[..., 0]), "PNG"),
        saved(Image.fromarray(rgb[..., 0] * 16), "JPEG2000"),
        b"P6 80 60 65535\n" + wide,
        png_of_sixteen_bits(wide),
        png_of_sixteen_bits(rgb.astype(">u2").tobytes()),
        tiff(rgb * 16, photometric="rgb", extratags=[(281, 3, 3, (65535,) * 3, True)]),
    ):
        with pytest.raises(ImageError, match="a sixteenth of white"):
            decode(data)
    assert not decode(saved(Image.fromarray(rgb[..., 0] * 0), "PNG")).any()
    dark = png_of_sixteen_bits((rgb * 64).astype(">u2").tobytes())
    assert np.array_equal(decode(dark), picture() >> 2)
    dim = picture() >> 4  # of eight bits, which nothing else can be
    assert np.array_equal(decode(saved(Image.fromarray(dim), "PNG")), dim)


def png_of_sixteen_bits(samples: bytes) -> bytes:
    """Of 80 x 60 colours."""
    rows = b"".join(b"\0" + samples[at : at + 480] for at in range(0, 60 * 480, 480))
    header = struct.pack(">IIBBBBB", 80, 60, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content)) for kind, content in parts
    )  # fmt: skip
