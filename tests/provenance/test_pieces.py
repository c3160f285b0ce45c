"""Metadata is found in every container, wherever it stands."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import PngImagePlugin

from distildire.provenance import declares
from provenance.made_files import (
    PROMPT,
    SETTINGS,
    TERMS,
    WORKFLOW,
    box,
    chunk,
    exif,
    first,
    iptc,
    jpeg,
    mp4,
    picture,
    png,
    segment,
    xmp,
)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"packed iTXt"])
def test_every_kind_of_png_text(kind: bytes) -> None:
    packed = zlib.compress(SETTINGS.encode())
    body = {
        b"tEXt": b"parameters\0" + SETTINGS.encode(),
        b"zTXt": b"parameters\0\0" + packed,
        b"iTXt": b"parameters\0\0\0en\0\0" + SETTINGS.encode(),
        b"packed iTXt": b"parameters\0\1\0en\0\0" + packed,
    }[kind]
    found = first(png(chunk(kind[-4:], body)))
    assert found.source == 'PNG text "parameters"'
    assert found.value == SETTINGS.replace("\n", " ")


def test_text_after_the_pixels_and_beside_a_damaged_chunk() -> None:
    broken = chunk(b"zTXt", b"about\0\0not deflated")
    assert declares(png(broken, chunk(b"tEXt", b"Software\0NovelAI"))) is not None


def test_xmp_in_png_is_not_cut() -> None:
    packet = xmp(
        f'dc:note="{"x" * 5000}" Iptc4xmpExt:DigitalSourceType="{TERMS}trainedAlgorithmicMedia"'
    )
    for packed in (False, True):
        text = zlib.compress(packet) if packed else packet
        data = png(chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([packed, 0, 0, 0]) + text))
        assert first(data).source == "XMP DigitalSourceType"
        assert first(data).value == TERMS + "trainedAlgorithmicMedia"


def test_imagemagick_profiles() -> None:
    tiff = exif({0x0131: "Stable Diffusion XL"})
    packet = xmp(f'x:DigitalSourceType="{TERMS}trainedAlgorithmicMedia"')
    for name, body in (("exif", tiff), ("xmp", packet), ("iptc", iptc(credit="Adobe Firefly"))):
        raw = f"\n{name}\n{len(body):8d}\n{body.hex()}\n".encode()
        data = png(chunk(b"zTXt", f"Raw profile type {name}\0\0".encode() + zlib.compress(raw)))
        assert first(data).kind == "generated", name


def test_exif_in_jpeg_2000() -> None:
    tiff = exif({0x0131: "NovelAI"}).removeprefix(b"Exif\0\0")
    data = picture("JPEG2000") + box(b"uuid", b"JpgTiffExif->JP2", tiff)
    assert "NovelAI" in first(data).says


def test_xmp_in_every_container() -> None:
    packet = xmp(f'Iptc4xmpExt:DigitalSourceType="{TERMS}trainedAlgorithmicMedia"')
    about = PngImagePlugin.PngInfo()
    about.add_itxt("XML:com.adobe.xmp", packet.decode())
    gif = picture("GIF")
    uuid = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
    for data in (
        picture("JPEG", xmp=packet),
        picture("PNG", pnginfo=about),
        picture("WEBP", xmp=packet),
        picture("AVIF", xmp=packet),
        picture("TIFF", tiffinfo={700: packet}),
        gif[:-1] + b"!\xff\x0bXMP DataXMP" + packet + b"\1" + bytes(range(255, -1, -1)) + b"\0;",
        mp4(box(b"uuid", uuid, packet)),
        picture("BMP") + packet,
    ):
        assert first(data).kind == "generated"
        assert first(data).source == "XMP DigitalSourceType"


def test_extended_xmp_in_pieces_out_of_order() -> None:
    packet = xmp(f'Iptc4xmpExt:DigitalSourceType="{TERMS}trainedAlgorithmicMedia"')
    cut = packet.index(b"SourceType")
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    parts = [
        segment(0xE1, head + struct.pack(">II", len(packet), at) + part)
        for at, part in ((cut, packet[cut:]), (0, packet[:cut]))
    ]
    assert first(jpeg(*parts)).kind == "generated"


def test_comments_of_jpeg_and_gif() -> None:
    assert "Stable Diffusion" in first(jpeg(segment(0xFE, SETTINGS.encode()))).says
    found = first(picture("GIF", comment=(SETTINGS * 4).encode()))
    assert found.source == "GIF comment"


def test_tags_of_videos() -> None:
    def data_box(text: str) -> bytes:
        return box(b"data", struct.pack(">II", 1, 0), text.encode())

    hdlr = box(b"hdlr", bytes(24))
    key = b"com.example.prompt"
    keys = box(b"keys", struct.pack(">II", 0, 1), struct.pack(">I4s", len(key) + 8, b"mdta"), key)
    numbered = box(b"ilst", box(struct.pack(">I", 1), data_box(PROMPT)))
    free = box(b"mean", bytes(4), b"x"), box(b"name", bytes(4), b"workflow"), data_box(WORKFLOW)
    text = SETTINGS.encode()
    for tags in (
        box(b"meta", hdlr, keys, numbered),
        box(b"udta", box(b"meta", bytes(4), hdlr, keys, numbered)),
        box(b"udta", box(b"meta", bytes(4), hdlr, box(b"ilst", box(b"----", *free)))),
        box(b"udta", box(b"meta", bytes(4), hdlr, box(b"ilst", box(b"\xa9cmt", data_box(PROMPT))))),
        box(b"udta", box(b"\xa9cmt", struct.pack(">HH", len(text), 0), text)),
    ):
        assert first(mp4(box(b"moov", tags))).kind == "generated"
    labelled = box(
        b"ilst", box(b"----", box(b"name", bytes(4), b"AIGC"), data_box('{"Label":"1"}'))
    )
    video = mp4(box(b"moov", box(b"udta", box(b"meta", bytes(4), hdlr, labelled))))
    assert "label AIGC 1" in first(video).says
