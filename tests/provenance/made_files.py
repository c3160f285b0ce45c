"""Files that declare something, written by Pillow, or chunk by chunk where Pillow can't."""

from __future__ import annotations

import io
import json
import struct
import zlib

from PIL import Image

from distildire.provenance import Declaration, findings

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


def iptc(**fields: str) -> bytes:
    numbers = {"credit": 110, "software": 65, "description": 120}
    sets = b"".join(
        struct.pack(">BBBH", 0x1C, 2, numbers[name], len(text)) + text.encode()
        for name, text in fields.items()
    )
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(sets)) + sets


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


def camera(**more: str) -> bytes:
    tags = {0x010F: "Canon", 0x0110: "Canon EOS R5"} | ({0x0131: more["software"]} if more else {})
    return picture("JPEG", exif=exif(tags, {0x927C: bytes(range(1, 80))}))


def first(data: bytes) -> Declaration:
    """What is found of most weight."""
    return findings(data)[0]
