"""Every file here is written by the test: by Pillow, or chunk by chunk where Pillow can't."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import time
import types
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from distildire.provenance import Declaration, declares, findings

SETTINGS = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Model: demo"
TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
WORKFLOW = json.dumps({"last_node_id": 9, "nodes": [{"type": "KSampler", "widgets_values": []}]})
PROMPT = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}})


def picture(kind: str, size: tuple[int, int] = (40, 40), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "grey").save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    """A PNG with these chunks before its last."""
    plain = picture("PNG")
    return plain[:-12] + b"".join(chunks) + plain[-12:]


def png_text(**texts: str) -> bytes:
    return png(*(chunk(b"tEXt", f"{key}\0{text}".encode()) for key, text in texts.items()))


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments: bytes) -> bytes:
    plain = picture("JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def xmp(properties: str = "", elements: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description rdf:about="" '
        f"{properties}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def exif(tags: dict[int, str | bytes], shot: dict[int, bytes] | None = None) -> bytes:
    written = Image.Exif()
    written.update(tags)
    written.get_ifd(0x8769).update(shot or {})
    return written.tobytes()


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I", len(body) + 8) + kind + body


def mp4(*boxes: bytes) -> bytes:
    return box(b"ftyp", b"isom\0\0\2\0isom") + b"".join(boxes) + box(b"mdat", bytes(64))


def jumbf(*words: str) -> bytes:
    """A C2PA superbox with a content that names source types, as CBOR writes text."""
    kind = bytes.fromhex("63327061 0011 0010 8000 00AA00389B71")
    named = b"".join(b"\x78\x48" + (TERMS + word).encode() + b"jparameters" for word in words)
    return box(b"jumb", box(b"jumd", kind, b"\3c2pa\0"), box(b"cbor", named))


def first(data: bytes) -> Declaration:
    return findings(data)[0]


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


@pytest.mark.parametrize(
    ("texts", "program"),
    [
        ({"parameters": SETTINGS}, "Stable Diffusion"),
        ({"prompt": PROMPT}, "ComfyUI"),
        ({"workflow": WORKFLOW}, "ComfyUI"),
        ({"Description": "a cat --ar 3:2 --v 6.0 Job ID: 0a1b2c3d-0000-1111"}, "Midjourney"),
        ({"Description": "a cat --v 5.2", "Author": "someone"}, "Midjourney"),
        ({"Software": "NovelAI", "Source": "NovelAI Diffusion V4"}, "NovelAI"),
        ({"Comment": '{"prompt": "a cat", "sampler": "k", "uncond_scale": 1.0}'}, "NovelAI"),
        ({"invokeai_metadata": '{"positive_prompt": "a cat"}'}, "InvokeAI"),
        ({"sd-metadata": "{}"}, "InvokeAI"),
        ({"Dream": '"a cat" -s 50 -S 1'}, "InvokeAI"),
        ({"fooocus_scheme": "fooocus", "parameters": '{"prompt": "a cat"}'}, "Fooocus"),
        ({"parameters": '{"metadata_scheme": "fooocus", "version": "Fooocus v2.5"}'}, "Fooocus"),
        ({"parameters": '{"sui_image_params": {"prompt": "a cat"}}'}, "SwarmUI"),
        ({"Comment": '{"c":"a","uc":"","sampler":"k","steps":8,"model":"m"}'}, "Draw Things"),
        ({"use_stable_diffusion_model": "sd-v1-4"}, "Easy Diffusion"),
        ({"Software": "DALL-E 3"}, "DALL-E"),
        ({"Software": "Adobe Firefly"}, "Adobe Firefly"),
        ({"Software": "Sora"}, "Sora"),
        ({"Software": "SDXL 1.0"}, "Stable Diffusion"),
        ({"Software": "Google Gemini 2.5 Flash Image"}, "Gemini"),
        ({"Software": "AUTOMATIC1111 webui 1.9"}, "Stable Diffusion"),
        ({"parameters": "a cat\nSteps: 20, Size: 512x512, Model hash: 0a1b2c3d"}, "Stable Diff"),
        ({"parameters": "cat " * 2**16 + SETTINGS}, "Stable Diffusion"),
    ],
)
def test_generators_in_png_text(texts: dict[str, str], program: str) -> None:
    data = png_text(**texts)
    assert first(data).kind == "generated"
    assert f"image generator {program}" in first(data).says
    assert program in (declares(data) or "")


@pytest.mark.parametrize(
    "texts",
    [
        {"Software": "Adobe Photoshop 25.0", "Comment": "Created with GIMP"},
        {"Artist": "Sora Tanaka", "Author": "Gemini Studios"},
        {"Description": "Ten Steps: a stair in the rain"},
        {"Title": "not AI-generated", "Comment": "A talk about Midjourney and DALL-E"},
        {"Comment": '{"nodes": [], "links": []}'},
        {"Title": "Firefly", "Artist": "Firefly", "Author": "Maria Dalle"},
        {"Title": "ideogram", "Credit": "OpenAI headquarters", "Comment": "dalle"},
        {"Credit": "no AI generated content", "Source": "isn't AI-generated"},
        {"Credit": "not generated by AI", "Comment": "Not made with Midjourney"},
        {"Comment": "Steps: 1. Wash the rice. Seed: take it out of the pepper."},
        {"Comment": "Steps: 4, Cook: slowly, Seed: 2 cups"},
        {"Description": "convert --v 2"},
        {"Software": "Gemini Telescope"},
        {"Software": "imagen-viewer"},
        {"Software": "Midjourney viewer"},
        {"Software": "OpenAI headquarters camera"},
    ],
)
def test_other_texts_declare_nothing(texts: dict[str, str]) -> None:
    assert declares(png_text(**texts)) is None


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


SOURCE_TYPES = [
    ("trainedAlgorithmicMedia", "generated", "it was generated"),
    ("compositeWithTrainedAlgorithmicMedia", "edited", "parts of it were generated"),
    ("TrainedAlgorithmicMedia", "generated", "it was generated"),
    ("digitalCapture", "captured", "it was captured by a camera"),
    ("negativeFilm", "captured", "film"),
    ("digitalArt", "other", "another digital source type"),
]


@pytest.mark.parametrize(("term", "kind", "words"), SOURCE_TYPES)
def test_digital_source_types(term: str, kind: str, words: str) -> None:
    name = "Iptc4xmpExt:DigitalSourceType"
    for packet in (
        xmp(f'{name}="{TERMS}{term}"'),
        xmp(f"{name}='{TERMS}{term}'"),
        xmp("", f"<{name}>{TERMS}{term}</{name}>"),
        xmp("", f'<{name} rdf:resource="{TERMS}{term}"/>'),
    ):
        (found,) = findings(picture("JPEG", xmp=packet))
        assert (found.kind, found.source) == (kind, "XMP DigitalSourceType")
        assert words in found.says
        assert term in found.says
    assert declares(picture("JPEG", xmp=xmp(f'{name}="nil"'))) is None


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


def test_names_of_cameras_are_no_declarations() -> None:
    made = exif({0x010F: "Firefly", 0x0110: "Firefly 8SE", 0x013B: "Sora", 0x010E: "dalle"})
    assert declares(picture("JPEG", exif=made)) is None


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


def test_xmp_credits_and_tools() -> None:
    def says(properties: str, elements: str = "") -> str:
        return first(picture("JPEG", xmp=xmp(properties, elements))).says

    assert says('photoshop:Credit="Made with Google AI"') == (
        'it is described as "Made with Google AI" (XMP Credit)'
    )
    edited = first(picture("JPEG", xmp=xmp('photoshop:Credit="Edited with Google AI"')))
    assert edited.kind == "edited"
    assert "Adobe Firefly" in says('xmp:CreatorTool="Adobe Firefly 2.0"')
    assert "Draw Things" in says('xmp:CreatorTool="Draw Things"')
    assert "edited with" in says('stEvt:softwareAgent="Adobe Firefly"')
    assert "image generator Model X" in says('Iptc4xmpExt:AISystemUsed="Model X"')
    nested = "<exif:UserComment><rdf:Alt><rdf:li xml:lang='x-default'>a cat&#xA;Steps: 8, Seed: 1"
    assert "Stable Diffusion" in says("", nested + "</rdf:li></rdf:Alt></exif:UserComment>")
    assert "(label AIGC 1, XMP AIGC)" in says('TC260:AIGC="{&quot;Label&quot;:&quot;1&quot;}"')


def iptc(**fields: str) -> bytes:
    numbers = {"credit": 110, "software": 65, "description": 120}
    sets = b"".join(
        struct.pack(">BBBH", 0x1C, 2, numbers[name], len(text)) + text.encode()
        for name, text in fields.items()
    )
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(sets)) + sets


def test_iptc_credit() -> None:
    data = jpeg(segment(0xED, b"Photoshop 3.0\0" + iptc(credit="Made with Google AI")))
    assert first(data).says == 'it is described as "Made with Google AI" (IPTC credit)'
    sets = iptc(software="Adobe Firefly")[12:]
    assert "Adobe Firefly" in first(picture("TIFF", tiffinfo={33723: sets})).says


USER_COMMENTS = [
    b"ASCII\0\0\0" + SETTINGS.encode(),
    b"UNICODE\0" + SETTINGS.encode("utf-16-be"),
    b"UNICODE\0" + SETTINGS.encode("utf-16-le"),
    b"UNICODE\0" + SETTINGS.encode("utf-16"),
    b"UNICODE\0" + SETTINGS.encode(),
    b"Unicode\0" + SETTINGS.encode("utf-16-le"),
    b"UNICODE\0" + ("cat " * 2**12 + SETTINGS).encode("utf-16-be"),
    b"JIS\0\0\0\0\0" + ("猫 " + SETTINGS).encode("iso2022_jp"),
    b"\0" * 8 + SETTINGS.encode(),
    SETTINGS.encode(),
]


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


def test_comfyui_in_webp_exif() -> None:
    for tags in (
        {0x010F: "workflow:" + WORKFLOW, 0x0110: "prompt:" + PROMPT},
        {0x010E: "Workflow: " + WORKFLOW},
    ):
        found = findings(picture("WEBP", exif=exif(tags, {0x927C: b"x" * 40})))
        assert {one.kind for one in found} == {"generated"}
        assert "ComfyUI" in found[0].says


def test_windows_comment_and_maker_notes_of_generators() -> None:
    comment = (SETTINGS + "\0").encode("utf-16-le")
    assert "Stable Diffusion" in first(picture("JPEG", exif=exif({0x9C9C: comment}))).says
    notes = exif({}, {0x927C: b"OpenAI--ImageGeneration--generation-1"})
    assert "OpenAI" in first(picture("JPEG", exif=notes)).says
    made = exif({}, {0x9286: b"ASCII\0\0\0Made with OpenAI Labs"})
    assert "Made with OpenAI Labs" in first(picture("JPEG", exif=made)).says


def camera(**more: str) -> bytes:
    tags = {0x010F: "Canon", 0x0110: "Canon EOS R5"} | ({0x0131: more["software"]} if more else {})
    return picture("JPEG", exif=exif(tags, {0x927C: bytes(range(1, 80))}))


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


def test_generators_stand_before_cameras_and_two_are_named() -> None:
    data = camera(software="Midjourney")
    assert [one.kind for one in findings(data)] == ["generated", "camera"]
    sentence = declares(data) or ""
    assert sentence.index("Midjourney") < sentence.index("Canon EOS R5")
    many = png_text(parameters=SETTINGS, prompt=PROMPT, workflow=WORKFLOW, Software="NovelAI")
    assert len(findings(many)) == 4
    assert (declares(many) or "").count("it was made with") == 2


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


def test_values_are_printable_and_bounded() -> None:
    found = first(png_text(prompt=PROMPT + "\x1b[31m\u202e" + "x" * 9000))
    assert len(found.value) == 4000
    assert found.value.isprintable()


# C2PA


CONTAINERS: list[Callable[[bytes], bytes]] = [
    lambda manifest: jpeg(segment(0xEB, b"JP\0\1\0\0\0\1" + manifest)),
    lambda manifest: jpeg(
        segment(0xEB, b"JP\0\1\0\0\0\1" + manifest[:70]),
        segment(0xEB, b"JP\0\1\0\0\0\2" + manifest[:8] + manifest[70:]),
    ),
    lambda manifest: png(chunk(b"caBX", manifest)),
    lambda manifest: picture("WEBP") + b"C2PA" + struct.pack("<I", len(manifest)) + manifest,
    lambda manifest: mp4(box(b"uuid", bytes(16), manifest)),
    lambda manifest: picture("TIFF", tiffinfo={0xCD41: manifest}),
    lambda manifest: picture("GIF")[:-1] + b"!\xff\x0bC2PA_GIF\1\0\0" + manifest + b"\0;",
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_manifests_without_the_package(
    container: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    (found,) = findings(container(jumbf("trainedAlgorithmicMedia")))
    assert (found.kind, found.source) == ("generated", "C2PA manifest, not validated")
    assert "names trainedAlgorithmicMedia, not validated" in found.says
    composite = container(jumbf("compositeWithTrainedAlgorithmicMedia"))
    assert first(composite).kind == "edited"
    assert "C2PA manifest, not validated" in first(container(jumbf())).says


def act(action: str = "created", term: str = "", agent: object = None) -> dict[str, object]:
    made: dict[str, object] = {"action": f"c2pa.{action}", "softwareAgent": agent}
    return made | ({"digitalSourceType": TERMS + term} if term else {})


def manifest(*acts: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": list(acts)}}],
        "signature_info": {"issuer": "Some CA"},
        "claim_generator_info": [{"name": "Tool"}],
    } | more


def store(
    state: str, active: dict[str, object], *failed: str, **others: object
) -> dict[str, object]:
    failures = [{"code": code, "explanation": f"{code} in words"} for code in failed]
    return {
        "active_manifest": "a",
        "manifests": {"a": active} | others,
        "validation_state": state,
        "validation_results": {"activeManifest": {"failure": failures}},
    }


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], tuple[Declaration, ...]]:
    """Findings where c2pa-python would report this store."""

    def find(answer: object) -> tuple[Declaration, ...]:
        class Context(io.BytesIO):
            json = staticmethod(lambda: json.dumps(answer))

        class Reader:
            try_create = staticmethod(lambda stream, context: None if answer is None else Context())

        stub = types.ModuleType("c2pa")
        settings = types.SimpleNamespace(from_dict=lambda tree: tree)
        vars(stub).update(C2paError=RuntimeError, Context=Context, Reader=Reader, Settings=settings)
        stub.Context = lambda tree: Context()
        monkeypatch.setitem(sys.modules, "c2pa", stub)
        return findings(png(chunk(b"tEXt", b"Software\0NovelAI"), chunk(b"caBX", jumbf())))

    return find


Report = Callable[[object], tuple[Declaration, ...]]


def test_validated_manifests_stand_first(reported: Report) -> None:
    created = manifest(act("created", "trainedAlgorithmicMedia", {"name": "Model 4"}))
    found, second = reported(store("Valid", created, "signingCredential.untrusted"))
    assert found.source == "C2PA manifest, validated"
    assert found.kind == "generated"
    assert found.says == (
        'it was generated with "Model 4" (C2PA manifest of "Some CA"; signature valid, issuer '
        "not checked against any list; trainedAlgorithmicMedia)"
    )
    assert "NovelAI" in second.says
    captured = manifest(act("created", "digitalCapture", "Camera X"))
    found, second = reported(store("Trusted", captured))
    assert found.kind == "captured"
    assert "issuer trusted" in found.says
    assert second.kind == "generated"


def test_edits_and_ingredients(reported: Report) -> None:
    edited = manifest(
        act("created", "digitalCapture"),
        act("edited", "compositeWithTrainedAlgorithmicMedia", "Fill"),
    )
    found = reported(store("Valid", edited))[0]
    assert (found.kind, "parts of it were generated" in found.says) == ("edited", True)
    placed = manifest(act("placed", "trainedAlgorithmicMedia"))
    assert reported(store("Valid", placed))[0].kind == "edited"
    created = manifest(act("created", "trainedAlgorithmicMedia", "Model 4"))
    parent = {"relationship": "parentOf", "active_manifest": "b"}
    resaved = manifest(act("opened"), ingredients=[parent])
    assert reported(store("Valid", resaved, b=created))[0].kind == "generated"
    part = {"relationship": "componentOf", "active_manifest": "b"}
    collage = manifest(act("created", "digitalCapture"), ingredients=[part])
    found = reported(store("Valid", collage, b=created))[0]
    assert found.kind == "edited"
    assert "a picture that went into it was generated" in found.says


def test_manifests_before_source_types(reported: Report) -> None:
    bing = act("created", agent="Bing Image Creator") | {"description": "AI Generated Image"}
    for label, content in (("actions", [bing]), ("c2pa.actions", {"actions": [bing]})):
        made = manifest() | {"assertions": [{"label": label, "data": content}]}
        assert 'generated with "Bing Image Creator"' in reported(store("Valid", made))[0].says
    note = {"label": "com.adobe.generative-ai", "data": {"description": "Model 4"}}
    found = reported(store("Valid", manifest() | {"assertions": [note]}))[0]
    assert found.kind == "edited"
    assert found.says.startswith('generative AI was used in it with "Model 4"')


def test_broken_and_lapsed_manifests(reported: Report) -> None:
    captured = manifest(act("created", "digitalCapture"))
    second = reported(store("Invalid", captured, "assertion.dataHash.mismatch"))[1]
    assert second.kind == "broken"
    assert second.source == "C2PA manifest, signature broken"
    assert "the signature is broken" in second.says
    created = manifest(act("created", "trainedAlgorithmicMedia"))
    found = reported(store("Invalid", created, "signingCredential.expired"))[0]
    assert (found.kind, found.source) == ("generated", "C2PA manifest, not valid")
    assert "it does not validate: signingCredential.expired in words" in found.says


@pytest.mark.parametrize(
    "answer",
    [None, [], 7, {}, {"manifests": []}, {"active_manifest": "a", "manifests": {"a": None}},
     store("Valid", {"assertions": [None]}), store("Valid", {"ingredients": 3})],
)  # fmt: skip
def test_reports_of_another_shape(reported: Report, answer: object) -> None:
    assert any(one.source == "C2PA manifest, not validated" for one in reported(answer))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A JPEG signed by c2pa-python with a chain of certificates made for the purpose."""
    c2pa = pytest.importorskip("c2pa")
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("chain")
    leaf = "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,emailProtection\n"
    leaf += "basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n"
    (folder / "leaf.ext").write_text(leaf)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
             "-subj", "/O=Test Root/CN=root")  # fmt: skip
    _openssl(folder, "req", *curve, "-keyout", "leaf.key", "-out", "leaf.csr",
             "-subj", "/O=Test Issuer/CN=leaf")  # fmt: skip
    _openssl(folder, "x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "20", "-extfile", "leaf.ext",
             "-out", "leaf.pem")  # fmt: skip
    _openssl(folder, "pkcs8", "-topk8", "-nocrypt", "-in", "leaf.key", "-out", "leaf.p8")
    chain = (folder / "leaf.pem").read_bytes() + (folder / "ca.pem").read_bytes()
    info = c2pa.C2paSignerInfo(b"es256", chain, (folder / "leaf.p8").read_bytes(), b"")
    info.ta_url = None
    action = {
        "action": "c2pa.created",
        "softwareAgent": {"name": "Model 4"},
        "digitalSourceType": TERMS + "trainedAlgorithmicMedia",
    }
    about = {
        "claim_generator_info": [{"name": "Tool", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    target = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(about)) as builder:
        builder.sign(signer, "image/jpeg", io.BytesIO(picture("JPEG", (64, 64))), target)
    return target.getvalue()


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def test_a_signed_file(signed: bytes) -> None:
    (found,) = findings(signed)
    assert (found.kind, found.source) == ("generated", "C2PA manifest, validated")
    assert 'generated with "Model 4" (C2PA manifest of "Test Issuer"; signature valid' in found.says


def test_a_signed_file_changed_afterwards(signed: bytes) -> None:
    (found,) = findings(signed[:-20] + bytes([signed[-20] ^ 1]) + signed[-19:])
    assert found.kind == "broken"
    assert "the signature is broken" in found.says


# Damage and malice


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


SIZE = 20 * 2**20


def tiled(head: bytes, tile: bytes) -> bytes:
    return head + tile * ((SIZE - len(head)) // len(tile))


def hostile() -> dict[str, Callable[[], bytes]]:
    signature = b"\x89PNG\r\n\x1a\n"
    bomb = zlib.compress(bytes(16 * 2**20))
    loop = b"II*\0" + struct.pack("<IH", 8, 512)
    loop += struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x0131, 2, 2**31, 0) * 511
    return {
        "zeros": lambda: bytes(SIZE),
        "empty PNG chunks": lambda: tiled(signature, chunk(b"tEXt", b"")),
        "PNG texts": lambda: tiled(signature, chunk(b"tEXt", b"Software\0" + b"m" * 190)),
        "long PNG texts": lambda: tiled(
            signature, chunk(b"tEXt", b"parameters\0" + b"Steps: 1, Steps: 2, " * 2**16)
        ),
        "settings without end": lambda: tiled(
            signature, chunk(b"tEXt", b"parameters\0Steps: 1," + b"Seed: 1 Model: " * 250)
        ),
        "XMP in UTF-16": lambda: tiled(
            b"\xff\xd8", segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\0<" * 32000)
        ),
        "nearly shapes": lambda: tiled(
            signature, chunk(b"tEXt", b'a\0"class_type' + b'"nodes"' * 9000)
        ),
        "zTXt bombs": lambda: tiled(signature, chunk(b"zTXt", b"parameters\0\0" + bomb)),
        "iTXt bombs": lambda: tiled(
            signature, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)
        ),
        "XMP starts": lambda: tiled(b"\xff\xd8", b"<rdf:RDF"),
        "XMP names": lambda: tiled(b"\xff\xd8<rdf:RDF", b":Credit>" + b"<" * 50),
        "XMP entities": lambda: tiled(b"<rdf:RDF x:Credit='", b"&amp;"),
        "JPEG segments": lambda: tiled(b"\xff\xd8", segment(0xFE, b"")),
        "JPEG EXIF": lambda: tiled(b"\xff\xd8", segment(0xE1, b"Exif\0\0" + loop)),
        "fill bytes": lambda: b"\xff\xd8" + b"\xff" * SIZE,
        "TIFF loop": lambda: loop + bytes(SIZE),
        "GIF blocks": lambda: tiled(b"GIF89a" + bytes(7) + b"!\xfe", b"\1a"),
        "boxes": lambda: tiled(box(b"ftyp", b"isom"), box(b"free")),
        "nested boxes": lambda: tiled(box(b"ftyp", b"isom"), struct.pack(">I", SIZE) + b"moov"),
        "box EXIF": lambda: tiled(box(b"ftyp", b"isom"), loop),
        "JUMBF": lambda: tiled(signature, jumbf("print")),
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_files_take_no_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = hostile()[name]()
    monkeypatch.setitem(sys.modules, "c2pa", None)
    taken = []
    for _ in range(3):  # the least of three, in time of its own: the machine is shared
        start = time.thread_time()
        declares(data)
        taken.append(time.thread_time() - start)
    # The slowest takes a twentieth of a second; what reads a part again and again takes minutes.
    assert min(taken) < 3, f"{name}: {min(taken):.3f} s"
