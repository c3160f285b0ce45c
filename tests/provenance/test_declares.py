"""Findings of a file, in their order, and the sentence that they come to."""

from __future__ import annotations

import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from distildire.provenance import declares, findings
from provenance.made_files import (
    PROMPT,
    SETTINGS,
    TERMS,
    USER_COMMENTS,
    WORKFLOW,
    box,
    camera,
    chunk,
    exif,
    iptc,
    jpeg,
    jumbf,
    mp4,
    picture,
    png,
    png_text,
    segment,
    xmp,
)


def test_a_plain_file_declares_nothing() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"):
        assert declares(picture(kind)) is None
        assert findings(picture(kind)) == ()
    assert declares(b"") is None
    assert declares(mp4()) is None


def test_the_sentence_says_what_it_is_worth() -> None:
    sentence = declares(png_text(parameters=SETTINGS))
    assert sentence is not None
    assert sentence.startswith(
        "The file says that it was made with the image generator Stable Diffusion or a kin of it, "
        'model "demo" (PNG text "parameters"); '
    )
    for words in ("own statement", "removed or forged", "no part of the score", "without one"):
        assert words in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


def test_generators_stand_before_cameras_and_two_are_named() -> None:
    data = camera(software="Midjourney")
    assert [one.kind for one in findings(data)] == ["generated", "camera"]
    sentence = declares(data) or ""
    assert sentence.index("Midjourney") < sentence.index("Canon EOS R5")
    many = png_text(parameters=SETTINGS, prompt=PROMPT, workflow=WORKFLOW, Software="NovelAI")
    assert len(findings(many)) == 4
    assert (declares(many) or "").count("it was made with") == 2


def samples() -> list[bytes]:
    tiff = exif({0x010F: "Canon", 0x0131: "NovelAI"}, {0x9286: USER_COMMENTS[1]})
    packet = xmp(f'Iptc4xmpExt:DigitalSourceType="{TERMS}trainedAlgorithmicMedia"')
    resources = segment(0xED, b"Photoshop 3.0\0" + iptc(credit="Made with Google AI"))
    return [
        png_text(parameters=SETTINGS, prompt=PROMPT),
        png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(SETTINGS.encode()))),
        jpeg(resources, segment(0xE1, b"Exif\0\0" + tiff.removeprefix(b"Exif\0\0"))),
        jpeg(segment(0xEB, b"JP\0\1\0\0\0\1" + jumbf("digitalCapture"))),
        picture("WEBP", exif=tiff, xmp=packet),
        picture("AVIF", exif=tiff, xmp=packet),
        picture("TIFF", tiffinfo={700: packet, 0x0131: "NovelAI"}),
        picture("GIF", comment=SETTINGS.encode()),
        mp4(box(b"moov", box(b"udta", box(b"\xa9cmt", bytes(4), PROMPT.encode())))),
    ]


def test_truncated_files_never_raise() -> None:
    for data in samples():
        assert declares(data) is not None
        for end in range(0, len(data), 7):
            declares(data[:end])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(samples()), st.data())
def test_damaged_files_never_raise(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 8))):
        at = draw.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + draw.draw(st.integers(0, 4))] = draw.draw(st.binary(max_size=4))
    sentence = declares(bytes(damaged))
    assert sentence is None or sentence.isprintable()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"II*\0",
                     b"MM\0*", b"\0\0\0\x18ftyp", b"\0\0\0\x0cJXL \r\n\x87\n", b""]),
    st.binary(max_size=400),
)  # fmt: skip
def test_noise_never_raises(head: bytes, noise: bytes) -> None:
    declares(head + noise)
    declares(head + noise + b"<rdf:RDF" + noise + b":Credit>" + noise)
