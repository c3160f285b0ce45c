"""From the bytes of a file to its runs of metadata, without an image library.

Where the layouts come from: JPEG's segments (ITU-T T.81; XMP specification part 3), PNG's chunks
(W3C), RIFF, GIF89a, boxes (ISO/IEC 14496-12), JUMBF (ISO/IEC 19566-5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from distildire.io.boxes import box_at
from distildire.io.containers import JXL_SIGNATURE, PNG_SIGNATURE
from distildire.provenance.limits import (
    HEAD,
    MAX_INFLATED,
    MAX_PARTS,
    MAX_PIECE,
    MAX_PIECES,
    MAX_TEXT,
    MAX_VALIDATED,
    TAIL,
    clean,
    quietly,
)


class Piece(NamedTuple):
    """A run of metadata in a file. `where`: EXIF, XMP, IPTC, C2PA, or the name of a text."""

    where: str
    key: str
    data: bytes


_JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"


def pieces_of(data: bytes) -> Iterator[Piece]:
    """Of a JPEG, PNG, WebP, GIF, TIFF, AVIF, HEIC, JPEG XL, JPEG 2000 or MP4, in file order."""
    if data[:4] in {b"II*\0", b"MM\0*"}:
        yield Piece("EXIF", "", data)
    for signature, at, read in (
        (b"\xff\xd8", 0, _jpeg),
        (PNG_SIGNATURE, 0, _png),
        (b"WEBP", 8, _webp),
        (b"GIF8", 0, _gif),
        (b"ftyp", 4, _boxes),
        (JXL_SIGNATURE, 0, _boxes),
        (_JPEG_2000, 0, _boxes),
    ):
        if data[at : at + len(signature)] == signature:
            yield from quietly(read, data)
    for at in _places(data, b"<rdf:RDF"):
        end = data.find(b"</rdf:RDF>", at, at + MAX_PIECE)
        yield Piece("XMP", "", data[at : end if end > 0 else at + MAX_TEXT])
    if data[:2] != b"\xff\xd8":  # in JPEG it is cut into segments
        manifests = b"".join(_manifest_at(data, at) for at in _places(data, _C2PA_BOX))
        if manifests:  # one piece, as the file is validated for each
            yield Piece("C2PA", "", manifests)


_C2PA_BOX = b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
"""The description of the JUMBF superbox that holds the manifests, in any container."""


def _manifest_at(data: bytes, at: int) -> bytes:
    size = int.from_bytes(data[max(at - 12, 0) : max(at - 8, 0)], "big")
    return data[at : at + min(size, 2 * MAX_PIECE)]


_HOLDING_BOXES = frozenset(
    [
        *(b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl", b"mvex", b"moof", b"traf"),
        *(b"mfra", b"udta", b"meta", b"ilst", b"iprp", b"ipco", b"iinf", b"jumb"),
    ]
)


def has_few_parts(data: bytes) -> bool:
    """Whether a PNG has at most `MAX_VALIDATED` chunks, or another file as many boxes."""
    if data[:8] == PNG_SIGNATURE:
        at = 8
        for _ in range(MAX_VALIDATED):
            if at >= len(data):
                return True
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        return False
    if data[4:8] != b"ftyp":
        return True
    spans = [(0, len(data))]
    for _ in range(MAX_VALIDATED):
        box = None
        while spans and box is None:
            at, end = spans.pop()
            box = box_at(data, at, end)
        if box is None:
            return True
        kind, body, stop = box
        spans.append((stop, end))
        if kind in _HOLDING_BOXES:
            spans.append((body + 4 * (kind in {b"meta", b"iinf"}), stop))
    return False


def _places(data: bytes, needle: bytes) -> Iterator[int]:
    for first, last in ((0, HEAD), (max(HEAD, len(data) - TAIL), len(data))):
        at = first - 1
        for _ in range(4):
            at = data.find(needle, at + 1, last)
            if at < 0:
                break
            yield at


_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"


def _jpeg(data: bytes) -> Iterator[Piece]:
    at = 2
    extended: dict[bytes, list[tuple[int, bytes]]] = {}
    jumbf: list[bytes] = []
    for _ in range(MAX_PARTS):
        if data[at : at + 1] != b"\xff" or data[at + 1 : at + 2] in {b"", b"\xda", b"\xd9"}:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        body, at = data[at + 4 : at + 2 + size], at + 2 + max(size, 2)
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            yield Piece("EXIF", "", body)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            yield Piece("XMP", "", body[29:])
        elif marker == 0xE1 and body.startswith(_EXTENDED_XMP):
            guid, rest = body[35:67], body[67:]
            extended.setdefault(guid, []).append((int.from_bytes(rest[4:8], "big"), rest[8:]))
        elif marker == 0xEB and body.startswith(b"JP"):
            # Segments after a box's first repeat its length and type.
            jumbf.append(body[8:] if body[4:8] == b"\0\0\0\1" else body[16:])
        elif marker == 0xED and b"8BIM\x04\x04" in body:
            yield Piece("IPTC", "", _photoshop_iptc(body))
        elif marker == 0xFE:
            yield Piece("JPEG comment", "comment", body)
    for parts in extended.values():
        joined = b"".join(part for _, part in sorted(parts)[:64])
        yield Piece("XMP", "", joined[: 4 * MAX_PIECE])
    manifests = b"".join(jumbf[:64])
    if _C2PA_BOX in manifests:
        yield Piece("C2PA", "", manifests)


def _photoshop_iptc(resources: bytes) -> bytes:
    at = resources.index(b"8BIM\x04\x04") + 6
    at += (resources[at] + 2) & ~1  # the resource's name, padded to an even length
    return resources[at + 4 :]


def _png(data: bytes) -> Iterator[Piece]:
    at, spare = 8, MAX_INFLATED
    for _ in range(MAX_PARTS):
        size, kind = struct.unpack_from(">I4s", data, at)
        start, at = at + 8, at + 12 + size
        if kind == b"IEND":
            return
        if kind not in {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}:
            continue
        body = data[start : start + min(size, MAX_PIECE)]
        if kind == b"eXIf":
            yield Piece("EXIF", "", body)
            continue
        key, _, text = body.partition(b"\0")
        packed = kind == b"zTXt"
        if kind == b"iTXt":
            packed = text[:1] == b"\1"
            text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
        if packed:
            text = _inflate(text[1:] if kind == b"zTXt" else text, min(spare, MAX_PIECE))
            spare -= len(text)
        yield from _png_text(key.decode("latin-1"), text)


def _png_text(key: str, text: bytes) -> Iterator[Piece]:
    if key == "XML:com.adobe.xmp":
        yield Piece("XMP", "", text)
    elif key.startswith("Raw profile type "):  # ImageMagick: name, length, hexadecimal
        words = text.split(None, 2)
        try:
            profile = bytes.fromhex(words[2].decode("ascii"))
        except (IndexError, ValueError):
            return
        if profile.startswith(b"Exif\0"):
            yield Piece("EXIF", "", profile)
        elif b"8BIM\x04\x04" in profile:
            yield Piece("IPTC", "", _photoshop_iptc(profile))
        else:
            yield Piece("IPTC" if key.endswith("iptc") else "XMP", "", profile)
    else:
        yield Piece(f'PNG text "{clean(key, 40)}"', key, text)


def _inflate(packed: bytes, limit: int) -> bytes:
    """At most `limit` bytes, up to the first damage."""
    stream, out = zlib.decompressobj(), b""
    for at in range(0, len(packed), 4096):
        if len(out) >= limit or stream.eof:
            break
        try:
            out += stream.decompress(packed[at : at + 4096], limit - len(out))
        except zlib.error:
            break
    return out


def _webp(data: bytes) -> Iterator[Piece]:
    at = 12
    for _ in range(MAX_PARTS):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in {b"EXIF", b"XMP "}:
            body = data[at + 8 : at + 8 + min(size, MAX_PIECE)]
            yield Piece(kind.decode().strip(), "", body)
        at += 8 + size + size % 2


def _gif(data: bytes) -> Iterator[Piece]:
    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    comment: list[bytes] | None = None
    at, steps = 13 + table(data[10]), 0
    while data[at] in {0x21, 0x2C}:
        if data[at] == 0x21:
            comment, at = [] if data[at + 1] == 0xFE else None, at + 2
        else:
            at += 11 + table(data[at + 9])
        while size := data[at]:
            if comment is not None:
                comment.append(data[at + 1 : at + 1 + size])
            at, steps = at + 1 + size, steps + 1
            if steps > 5 * MAX_PARTS:
                return
        if comment is not None:
            yield Piece("GIF comment", "comment", b"".join(comment))
        at, comment = at + 1, None


_MP4_KEYS = {
    b"\xa9too": "software", b"\xa9swr": "software", b"\xa9enc": "software", b"\xa9cmt": "comment",
    b"\xa9des": "description", b"desc": "description", b"\xa9nam": "title", b"\xa9ART": "artist",
}  # fmt: skip


def _boxes(data: bytes) -> Iterator[Piece]:
    """Of MP4, AVIF, HEIC, JPEG XL, JPEG 2000: EXIF by its first bytes, and tags of videos."""
    for header in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        for at in _places(data, header):
            yield Piece("EXIF", "", data[at : at + MAX_PIECE])
    names: list[bytes] = []
    spans = [(0, len(data), b"")]
    for _ in range(MAX_PARTS):
        at, end, parent = spans.pop() if spans else (0, 0, b"")
        box = box_at(data, at, end)
        if box is None:
            if not spans:
                return
            continue
        kind, body, stop = box
        spans.append((stop, end, parent))
        if kind in {b"moov", b"udta", b"meta", b"ilst"}:
            full = kind == b"meta" and data[body + 4 : body + 8] != b"hdlr"
            spans.append((body + 4 * full, stop, kind))
        elif kind == b"keys":
            names = _mp4_names(data[body : min(stop, body + 2**16)])
        elif parent == b"ilst":
            yield from _mp4_tag(kind, data[body : min(stop, body + MAX_PIECE)], names)
        elif parent == b"udta" and kind in _MP4_KEYS:
            text = data[body + 4 : min(stop, body + MAX_TEXT)]
            yield Piece(f"MP4 {_MP4_KEYS[kind]}", _MP4_KEYS[kind], text)


def _mp4_names(body: bytes) -> list[bytes]:
    names: list[bytes] = []
    at = 8
    while at + 8 <= len(body) and len(names) < MAX_PIECES:
        size = max(int.from_bytes(body[at : at + 4], "big"), 8)
        names.append(body[at + 8 : at + size])
        at += size
    return names


def _mp4_tag(kind: bytes, body: bytes, names: list[bytes]) -> Iterator[Piece]:
    number, value = int.from_bytes(kind, "big"), body.find(b"data")
    name = _MP4_KEYS.get(kind, "")
    if 0 < number <= len(names):
        name = names[number - 1].rpartition(b".")[2].decode("latin-1").lower()
    elif kind == b"----" and (at := body.find(b"name")) >= 4:
        size = int.from_bytes(body[at - 4 : at], "big")
        name = body[at + 8 : at - 4 + size].decode("latin-1").lower()
    if name and value >= 4:
        yield Piece(f"MP4 {clean(name, 40)}", name, body[value + 12 :])
