"""EXIF, XMP and IPTC are read in the forms that programs write."""

from __future__ import annotations

import struct

import pytest

from distildire.provenance import declares, findings
from provenance.made_files import (
    SETTINGS,
    TERMS,
    USER_COMMENTS,
    box,
    camera,
    exif,
    first,
    iptc,
    jpeg,
    mp4,
    picture,
    png_text,
    segment,
    xmp,
)


@pytest.mark.parametrize(
    "value",
    ["digsrctype:trainedAlgorithmicMedia",
     "http://cv.iptc.org/newscodes/digitalsourcetype#trainedAlgorithmicMedia",
     "http:&#x2F;&#47;cv.iptc.org&#x2f;x&#x2f;trained&#65;lgorithmicMedia"],
)  # fmt: skip
def test_digital_source_types_in_other_forms(value: str) -> None:
    for packet in (
        xmp(f'Iptc4xmpExt:DigitalSourceType="{value}"'),
        xmp("", f'<DigitalSourceType xmlns="urn:x">{value}</DigitalSourceType>'),
        xmp(f'Iptc4xmpExt:DigitalSourceType="{value}"').decode().encode("utf-16"),
        xmp(f'Iptc4xmpExt:DigitalSourceType="{value}"').decode().encode("utf-16-be"),
    ):
        (found,) = findings(picture("JPEG", xmp=packet))
        assert found.kind == "generated"
        assert found.says == "it was generated (XMP DigitalSourceType: trainedAlgorithmicMedia)"


@pytest.mark.parametrize("gap", [" ", "\n", "\n ", "\n   ", "\t", " " * 60])
@pytest.mark.parametrize("home", ["http://ns.adobe.com/photoshop/1.0/", "urn:x", "/" * 50])
@pytest.mark.parametrize("prefix", ["photoshop", "p", "p" * 60])
def test_a_credit_is_found_wherever_its_namespace_ends(gap: str, home: str, prefix: str) -> None:
    for words in ("Made with Google AI", "Edited with Google AI"):
        packet = xmp(f'xmlns:{prefix}="{home}"{gap}{prefix}:Credit="{words}"')
        (found,) = findings(picture("JPEG", xmp=packet))
        assert f'"{words}" (XMP Credit)' in found.says
        for elements in (
            f"<{prefix}:Credit>{words}</{prefix}:Credit>{gap}<x:y/>",
            f'<dc:type>x</dc:type><Credit xmlns="{home}">{words}</Credit>',
        ):
            (found,) = findings(picture("JPEG", xmp=xmp("", elements)))
            assert f'"{words}" (XMP Credit)' in found.says


@pytest.mark.parametrize("name", ["xmpMM:Pantry", "xmpMM:Ingredients", "Pantry"])
def test_xmp_of_placed_pictures_is_not_the_files_own(name: str) -> None:
    own, other = (
        f"<a:DigitalSourceType>{TERMS}{term}</a:DigitalSourceType>"
        for term in ("digitalCapture", "trainedAlgorithmicMedia")
    )
    placed = f'<{name} xmlns="urn:x">{other}<{name}>{other}</{name}>{other}</{name}>'
    cut = f"<{name}>{other}"
    for elements in (own + placed, placed + own, f"<{name}/>{own}{placed}", own + cut):
        (found,) = findings(picture("JPEG", xmp=xmp("", elements)))
        assert found.kind == "captured"


def test_iptc_credit() -> None:
    data = jpeg(segment(0xED, b"Photoshop 3.0\0" + iptc(credit="Made with Google AI")))
    assert first(data).says == 'it is described as "Made with Google AI" (IPTC credit)'
    sets = iptc(software="Adobe Firefly")[12:]
    assert "Adobe Firefly" in first(picture("TIFF", tiffinfo={33723: sets})).says


@pytest.mark.parametrize("comment", USER_COMMENTS)
def test_user_comments(comment: bytes) -> None:
    tiff = exif({}, {0x9286: comment})
    for data in (
        picture("JPEG", exif=tiff),
        picture("PNG", exif=tiff),
        picture("WEBP", exif=tiff),
        picture("AVIF", exif=tiff),
        tiff[6:] if tiff.startswith(b"Exif") else tiff,
    ):
        assert first(data).source == "EXIF UserComment"
        assert 'model "demo"' in first(data).says


def test_exif_of_both_byte_orders() -> None:
    text = b"NovelAI\0"
    for order, head in (("<", b"II*\0"), (">", b"MM\0*")):
        entry = struct.pack(order + "HHII", 0x0131, 2, len(text), 26)
        tiff = head + struct.pack(order + "IH", 8, 1) + entry + bytes(4) + text
        assert "NovelAI" in first(jpeg(segment(0xE1, b"Exif\0\0" + tiff))).says
        assert "NovelAI" in first(mp4(box(b"mdat", tiff))).says


def test_windows_comment_and_maker_notes_of_generators() -> None:
    comment = (SETTINGS + "\0").encode("utf-16-le")
    assert "Stable Diffusion" in first(picture("JPEG", exif=exif({0x9C9C: comment}))).says
    notes = exif({}, {0x927C: b"OpenAI--ImageGeneration--generation-1"})
    assert "OpenAI" in first(picture("JPEG", exif=notes)).says
    made = exif({}, {0x9286: b"ASCII\0\0\0Made with OpenAI Labs"})
    assert "Made with OpenAI Labs" in first(picture("JPEG", exif=made)).says


def test_cameras_are_the_weak_opposite() -> None:
    (found,) = findings(camera())
    assert found.kind == "camera"
    assert found.says == (
        "it was taken with a Canon EOS R5 (make, model and maker notes can be copied)"
    )
    other = exif({0x010F: "Apple", 0x0110: "iPhone 15"}, {0x927C: b"Apple iOS\0" * 4})
    assert "with an Apple iPhone 15 (" in first(picture("JPEG", exif=other)).says
    without_notes = exif({0x010F: "Canon", 0x0110: "Canon EOS R5"})
    assert declares(picture("JPEG", exif=without_notes)) is None
    assert findings(png_text(**{"EXIF Make, Model and MakerNote": "Canon"})) == ()
