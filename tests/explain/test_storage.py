from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from distildire.explain.storage import (
    TEXT_LIMIT,
    storage_of,
)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_file_facts() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker\x00\n", 6
    exif.get_ifd(0x8769)[0x829A] = 0.5
    exif.get_ifd(0x8825)[1] = "N"
    facts = storage_of(encode(Image.new("RGB", (40, 50)), "JPEG", exif=exif))
    assert (facts.format, facts.mode, facts.width, facts.height) == ("JPEG", "RGB", 40, 50)
    assert facts.exif == {"Make": "Maker", "Orientation": "6", "ExposureTime": "0.5"}
    assert facts.gps


def test_prompts_in_text_chunks_are_kept_but_cut() -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "a cat " * 1000)
    facts = storage_of(encode(Image.new("L", (40, 40)), "PNG", pnginfo=about))
    assert facts.text["parameters"].startswith("a cat a cat")
    assert len(facts.text["parameters"]) == TEXT_LIMIT


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("order", ["ascii", "utf-16-be", "utf-16-le"])
def test_user_comments(kind: str, order: str) -> None:
    exif = Image.Exif()
    head = b"ASCII\0\0\0" if order == "ascii" else b"UNICODE\0"
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9286] = head + "a prompt, Steps: 20".encode(order)
    facts = storage_of(encode(Image.new("RGB", (40, 40)), kind, exif=exif))
    assert facts.exif["UserComment"] == "a prompt, Steps: 20"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_xmp_is_kept_whole(kind: str) -> None:
    xmp = b"<x:xmpmeta>" + b" " * 2000 + b"<rdf:RDF>the value</rdf:RDF></x:xmpmeta>"
    about = PngImagePlugin.PngInfo()
    about.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options = {"pnginfo": about} if kind == "PNG" else {"xmp": xmp}
    facts = storage_of(encode(Image.new("RGB", (40, 40)), kind, **options))
    (text,) = facts.text.values()
    assert "the value" in text


def test_a_tiff_that_pillow_does_not_open_has_its_facts() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.full((60, 80, 3), 0.5, np.float32), photometric="rgb")
    facts = storage_of(file.getvalue())
    assert (facts.format, facts.width, facts.height) == ("TIFF", 80, 60)


def test_damage_beside_the_pixels_is_named() -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "a cat")
    data = bytearray(encode(Image.new("L", (40, 40)), "PNG", pnginfo=about))
    data[data.index(b"a cat")] ^= 1
    facts = storage_of(bytes(data))
    assert any("tEXt has a wrong checksum" in sentence for sentence in facts.passed_over)
    assert (facts.format, facts.width) == ("PNG", 40)
    assert facts == storage_of(bytes(data))


def test_nothing_but_what_is_damaged_is_named() -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "a cat")
    about.add(b"abCd", b"private")
    data = encode(Image.new("L", (40, 40)), "PNG", pnginfo=about)
    assert storage_of(data).passed_over == ()
    facts = storage_of(data.replace(b"private", b"Private"))
    assert facts.passed_over == ("the PNG chunk abCd has a wrong checksum and was passed over",)
    assert facts.text == {"parameters": "a cat"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0" + b"\xff" * 60,
        b"MM\0*\0\0\0\x08\0\1" + b"\x01\x0f\0\2\0\0\0\x40\0\0\0\x1a" + bytes(4),
        b"MM\0*\0\0\0\x08\0\1" + b"\x87\x69\0\4\0\0\0\1\0\0\xff\x1a" + bytes(4),
    ],
)
def test_damaged_exif_is_named(kind: str, exif: bytes) -> None:
    data = encode(Image.new("RGB", (40, 40)), kind, exif=b"Exif\0\0" + exif)
    (sentence,) = storage_of(data).passed_over
    assert "EXIF" in sentence
    whole = Image.Exif()
    whole[0x010F], whole.get_ifd(0x8769)[0x9003] = "a maker of cameras", "2026:01:01 00:00:00"
    whole.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    assert not storage_of(encode(Image.new("RGB", (40, 40)), kind, exif=whole)).passed_over


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_profile_is_named(kind: str) -> None:
    data = encode(Image.new("RGB", (40, 40)), kind, icc_profile=b"nonsense" * 20)
    assert storage_of(data).passed_over == ("the colour profile is damaged and was passed over",)


def test_a_jpeg_with_a_segment_cut_short_has_its_facts() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = encode(Image.new("RGB", (40, 40)), "JPEG", exif=exif, comment=b"a cat")
    facts = storage_of(data[:2] + b"\xff\xee\0\x08Adobe\0" + data[2:])
    assert facts.passed_over == ("the JPEG segment APP14 is cut short and was passed over",)
    assert (facts.exif, facts.text) == ({"Make": "Maker"}, {"comment": "a cat"})


def test_texts_too_large_behind_the_pixels_leave_the_facts() -> None:
    data = encode(Image.new("L", (40, 40)), "PNG")
    content = b"Comment\0\0" + zlib.compress(b"x" * 5_000_000)
    text = struct.pack(">I", len(content)) + b"zTXt" + content
    text += struct.pack(">I", zlib.crc32(b"zTXt" + content))
    facts = storage_of(data[:-12] + text + data[-12:])
    assert (facts.format, len(facts.passed_over)) == ("PNG", 1)
    assert "texts" in facts.passed_over[0]
