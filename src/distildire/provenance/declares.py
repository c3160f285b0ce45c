"""What a file says of its own origin, read from its metadata; none of it enters the score.

C2PA manifests, the IPTC digital source type, what image generators write into text chunks, EXIF
and XMP, credits, and the camera's make. The bytes are walked here, without an image library, so
that damage costs the part it lies in and nothing else. Every loop and every copy has a limit:
the time doesn't grow with what a hostile file claims.

Where the layouts come from: JPEG's segments (ITU-T T.81; XMP specification part 3), PNG's chunks
(W3C), RIFF, GIF89a, TIFF 6.0 and EXIF 2.32, boxes (ISO/IEC 14496-12), JUMBF (ISO/IEC 19566-5),
IPTC-IIM 4.2.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from distildire.io.containers import JXL_SIGNATURE, PNG_SIGNATURE

_MAX_PARTS = 20_000
"""Chunks, segments or boxes of a file that are looked at."""
_MAX_PIECES = 128
"""Pieces of metadata that are read."""
_MAX_PIECE = 2**20
"""Bytes of one piece, once inflated."""
_MAX_INFLATED = 4 * 2**20
"""Bytes that all compressed pieces of a file may inflate to."""
_MAX_TEXT = 2**18
"""Bytes of one text that are looked at."""
_MAX_TEXTS = 2 * 2**20
"""Bytes of all texts of a file."""
_MAX_VALUE = 4_000
"""Characters of a value in a finding."""
_MAX_FINDINGS = 32
_HEAD, _TAIL = 8 * 2**20, 2 * 2**20
"""Bytes at either end of a file in which packets are looked for by their first bytes."""

_DAMAGE = (struct.error, ValueError, IndexError, OverflowError)
"""What the readers raise on bytes that aren't what they should be."""


_T = TypeVar("_T")


@dataclass(frozen=True)
class Declaration:
    """One statement of a file about its own origin."""

    kind: str
    """What it comes to: "generated", "edited" (parts of it are generated), "captured", "camera"
    (make and model only), "broken" (a C2PA manifest that fits the file no more), "other"."""
    source: str
    """Where in the file it stands, for instance: XMP DigitalSourceType."""
    value: str
    """What stands there, printable, at most 4,000 characters."""
    says: str
    """The same as a clause after "The file says that"."""


class _Piece(NamedTuple):
    """A run of metadata in a file. `where`: EXIF, XMP, IPTC, C2PA, or the name of a text."""

    where: str
    key: str
    data: bytes


class _Field(NamedTuple):
    source: str
    key: str
    text: str


class _Found(NamedTuple):
    rank: int
    subject: str
    declaration: Declaration


def declares(data: bytes, *, whole: bool = True) -> str | None:
    """One sentence on what a picture or video file says of its own origin; None: nothing.

    At most two statements are named, in the order of `findings`. Where `data` is not the `whole`
    file but its beginning, manifests are not validated. Never raises.
    """
    ranked = _ranked(data, whole)
    if not ranked:
        return None
    first = ranked[0]
    second = next((found for found in ranked if found.subject != first.subject), None)
    clauses = [found.declaration.says for found in (first, second) if found is not None]
    return (
        f"The file says that {', and that '.join(clauses)}; this is its own statement, which can "
        "be removed or forged and is no part of the score, and a file without one may be either."
    )


def findings(data: bytes) -> tuple[Declaration, ...]:
    """All statements of a file about its origin.

    A validated C2PA manifest stands first, then what declares generation, wholly or in part,
    a broken manifest, a capture, anything else, and the camera's make last. Never raises.
    """
    return tuple(found.declaration for found in _ranked(data))


_RANKS = ("validated", "generated", "edited", "broken", "captured", "other", "camera")


def _ranked(data: bytes, whole: bool = True) -> list[_Found]:
    found: dict[tuple[str, str, str], _Found] = {}
    for one in _all_found(data, whole):
        about = one.declaration
        found.setdefault((about.kind, about.source, about.value), one)
        if len(found) >= _MAX_FINDINGS:
            break
    return sorted(found.values(), key=lambda one: (one.rank, one.subject != "C2PA"))


def _all_found(data: bytes, whole: bool) -> Iterator[_Found]:
    texts = 0
    for number, piece in enumerate(_pieces(data)):
        if number >= _MAX_PIECES:
            return
        if piece.where == "C2PA":
            yield from _manifest(data if whole else None, piece.data)
            continue
        for field in _fields(piece):
            one = _read(field)
            if one is not None:
                yield one
            texts += len(field.text)
            if texts > _MAX_TEXTS:
                return


def _quietly(read: Callable[[bytes], Iterator[_T]], data: bytes) -> Iterator[_T]:
    """What a reader yields up to the damage that stops it."""
    try:
        yield from read(data)
    except _DAMAGE:
        return


# Bytes to pieces


def _pieces(data: bytes) -> Iterator[_Piece]:
    if data[:4] in {b"II*\0", b"MM\0*"}:
        yield _Piece("EXIF", "", data)
    for signature, at, read in (
        (b"\xff\xd8", 0, _jpeg),
        (PNG_SIGNATURE, 0, _png),
        (b"WEBP", 8, _webp),
        (b"GIF8", 0, _gif),
        (b"ftyp", 4, _boxes),
        (JXL_SIGNATURE, 0, _boxes),
    ):
        if data[at : at + len(signature)] == signature:
            yield from _quietly(read, data)
    for at in _places(data, b"<rdf:RDF"):
        end = data.find(b"</rdf:RDF>", at, at + _MAX_PIECE)
        yield _Piece("XMP", "", data[at : end if end > 0 else at + _MAX_TEXT])
    if data[:2] != b"\xff\xd8":  # in JPEG it is cut into segments
        for at in _places(data, _C2PA_BOX):
            size = int.from_bytes(data[max(at - 12, 0) : max(at - 8, 0)], "big")
            yield _Piece("C2PA", "", data[at : at + min(size, 2 * _MAX_PIECE)])


_C2PA_BOX = b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
"""The description of the JUMBF superbox that holds the manifests, in any container."""


def _places(data: bytes, needle: bytes) -> Iterator[int]:
    for first, last in ((0, _HEAD), (max(_HEAD, len(data) - _TAIL), len(data))):
        at = first - 1
        for _ in range(4):
            at = data.find(needle, at + 1, last)
            if at < 0:
                break
            yield at


_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"


def _jpeg(data: bytes) -> Iterator[_Piece]:
    at = 2
    extended: dict[bytes, list[tuple[int, bytes]]] = {}
    jumbf: list[bytes] = []
    for _ in range(_MAX_PARTS):
        if data[at : at + 1] != b"\xff" or data[at + 1 : at + 2] in {b"", b"\xda", b"\xd9"}:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        body, at = data[at + 4 : at + 2 + size], at + 2 + max(size, 2)
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            yield _Piece("EXIF", "", body)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            yield _Piece("XMP", "", body[29:])
        elif marker == 0xE1 and body.startswith(_EXTENDED_XMP):
            guid, rest = body[35:67], body[67:]
            extended.setdefault(guid, []).append((int.from_bytes(rest[4:8], "big"), rest[8:]))
        elif marker == 0xEB and body.startswith(b"JP"):
            # Segments after a box's first repeat its length and type.
            jumbf.append(body[8:] if body[4:8] == b"\0\0\0\1" else body[16:])
        elif marker == 0xED and b"8BIM\x04\x04" in body:
            yield _Piece("IPTC", "", _photoshop_iptc(body))
        elif marker == 0xFE:
            yield _Piece("JPEG comment", "comment", body)
    for parts in extended.values():
        joined = b"".join(part for _, part in sorted(parts)[:64])
        yield _Piece("XMP", "", joined[: 4 * _MAX_PIECE])
    manifests = b"".join(jumbf[:64])
    if _C2PA_BOX in manifests:
        yield _Piece("C2PA", "", manifests)


def _photoshop_iptc(resources: bytes) -> bytes:
    at = resources.index(b"8BIM\x04\x04") + 6
    at += (resources[at] + 2) & ~1  # the resource's name, padded to an even length
    return resources[at + 4 :]


def _png(data: bytes) -> Iterator[_Piece]:
    at, spare = 8, _MAX_INFLATED
    for _ in range(_MAX_PARTS):
        size, kind = struct.unpack_from(">I4s", data, at)
        start, at = at + 8, at + 12 + size
        if kind == b"IEND":
            return
        if kind not in {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}:
            continue
        body = data[start : start + min(size, _MAX_PIECE)]
        if kind == b"eXIf":
            yield _Piece("EXIF", "", body)
            continue
        key, _, text = body.partition(b"\0")
        packed = kind == b"zTXt"
        if kind == b"iTXt":
            packed = text[:1] == b"\1"
            text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
        if packed:
            text = _inflate(text[1:] if kind == b"zTXt" else text, min(spare, _MAX_PIECE))
            spare -= len(text)
        yield from _png_text(key.decode("latin-1"), text)


def _png_text(key: str, text: bytes) -> Iterator[_Piece]:
    if key == "XML:com.adobe.xmp":
        yield _Piece("XMP", "", text)
    elif key.startswith("Raw profile type "):  # ImageMagick: name, length, hexadecimal
        words = text.split(None, 2)
        try:
            profile = bytes.fromhex(words[2].decode("ascii"))
        except (IndexError, ValueError):
            return
        if profile.startswith(b"Exif\0"):
            yield _Piece("EXIF", "", profile)
        elif b"8BIM\x04\x04" in profile:
            yield _Piece("IPTC", "", _photoshop_iptc(profile))
        else:
            yield _Piece("IPTC" if key.endswith("iptc") else "XMP", "", profile)
    else:
        yield _Piece(f'PNG text "{_clean(key, 40)}"', key, text)


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


def _webp(data: bytes) -> Iterator[_Piece]:
    at = 12
    for _ in range(_MAX_PARTS):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in {b"EXIF", b"XMP "}:
            body = data[at + 8 : at + 8 + min(size, _MAX_PIECE)]
            yield _Piece(kind.decode().strip(), "", body)
        at += 8 + size + size % 2


def _gif(data: bytes) -> Iterator[_Piece]:
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
            if steps > 5 * _MAX_PARTS:
                return
        if comment is not None:
            yield _Piece("GIF comment", "comment", b"".join(comment))
        at, comment = at + 1, None


_MP4_KEYS = {
    b"\xa9too": "software", b"\xa9swr": "software", b"\xa9enc": "software", b"\xa9cmt": "comment",
    b"\xa9des": "description", b"desc": "description", b"\xa9nam": "title", b"\xa9ART": "artist",
}  # fmt: skip


def _boxes(data: bytes) -> Iterator[_Piece]:
    """Of MP4, AVIF, HEIC and JPEG XL: EXIF by its first bytes, and the tags of videos."""
    for header in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        for at in _places(data, header):
            yield _Piece("EXIF", "", data[at : at + _MAX_PIECE])
    names: list[bytes] = []
    spans = [(0, len(data), b"")]
    for _ in range(_MAX_PARTS):
        at, end, parent = spans.pop() if spans else (0, 0, b"")
        if at + 8 > end:
            if not spans:
                return
            continue
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1:
            size, body = struct.unpack_from(">Q", data, body)[0], body + 8
        stop = min(at + size, end) if size else end
        if stop < body:
            continue
        spans.append((stop, end, parent))
        if kind in {b"moov", b"udta", b"meta", b"ilst"}:
            full = kind == b"meta" and data[body + 4 : body + 8] != b"hdlr"
            spans.append((body + 4 * full, stop, kind))
        elif kind == b"keys":
            names = _mp4_names(data[body : min(stop, body + 2**16)])
        elif parent == b"ilst":
            yield from _mp4_tag(kind, data[body : min(stop, body + _MAX_PIECE)], names)
        elif parent == b"udta" and kind in _MP4_KEYS:
            text = data[body + 4 : min(stop, body + _MAX_TEXT)]
            yield _Piece(f"MP4 {_MP4_KEYS[kind]}", _MP4_KEYS[kind], text)


def _mp4_names(body: bytes) -> list[bytes]:
    names: list[bytes] = []
    at = 8
    while at + 8 <= len(body) and len(names) < _MAX_PIECES:
        size = max(int.from_bytes(body[at : at + 4], "big"), 8)
        names.append(body[at + 8 : at + size])
        at += size
    return names


def _mp4_tag(kind: bytes, body: bytes, names: list[bytes]) -> Iterator[_Piece]:
    number, value = int.from_bytes(kind, "big"), body.find(b"data")
    name = _MP4_KEYS.get(kind, "")
    if 0 < number <= len(names):
        name = names[number - 1].rpartition(b".")[2].decode("latin-1").lower()
    elif kind == b"----" and (at := body.find(b"name")) >= 4:
        size = int.from_bytes(body[at - 4 : at], "big")
        name = body[at + 8 : at - 4 + size].decode("latin-1").lower()
    if name and value >= 4:
        yield _Piece(f"MP4 {_clean(name, 40)}", name, body[value + 12 :])


# Pieces to fields


def _fields(piece: _Piece) -> Iterator[_Field]:
    read = {"EXIF": _exif, "XMP": _xmp, "IPTC": _iptc}.get(piece.where)
    if read is not None:
        yield from _quietly(read, piece.data)
    else:
        yield _Field(piece.where, piece.key.lower(), _decoded(piece.data))


def _decoded(text: bytes) -> str:
    text = text[:_MAX_TEXT].rstrip(b"\0")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.start > len(text) - 4  # only the limit went through a character
        return text.decode("utf-8", "replace") if cut else text.decode("latin-1")


_EXIF_TEXTS = {
    0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software",
    0x013B: "Artist", 0x8298: "Copyright",
}  # fmt: skip
_XP_TEXTS = {0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9D: "XPAuthor", 0x9C9F: "XPSubject"}
_XMP_TAG, _IPTC_TAG, _EXIF_IFD, _MAKER_NOTE, _USER_COMMENT = 0x02BC, 0x83BB, 0x8769, 0x927C, 0x9286
_EXIF_TAGS = frozenset(
    [*_EXIF_TEXTS, *_XP_TEXTS, _XMP_TAG, _IPTC_TAG, _EXIF_IFD, _MAKER_NOTE, _USER_COMMENT]
)


def _exif(data: bytes) -> Iterator[_Field]:
    if data.startswith(b"Exif\0"):
        data = data[6:]
    order = "<" if data[:2] == b"II" else ">"
    tags = _directory(data, order, struct.unpack_from(order + "I", data, 4)[0])
    if len(pointer := tags.get(_EXIF_IFD, b"")) == 4:
        tags = _directory(data, order, struct.unpack(order + "I", pointer)[0]) | tags
    for tag, name in _EXIF_TEXTS.items():
        if tag in tags:
            yield _Field(f"EXIF {name}", name.lower(), _decoded(tags[tag]).strip("\0 "))
    for tag, name in _XP_TEXTS.items():
        if tag in tags:
            text = tags[tag].decode("utf-16-le", "replace")
            yield _Field(f"EXIF {name}", name[2:].lower(), text.strip("\0 "))
    if _USER_COMMENT in tags:
        yield _Field("EXIF UserComment", "usercomment", user_comment(tags[_USER_COMMENT], order))
    yield from _camera(*(tags.get(tag, b"") for tag in (0x010F, 0x0110, _MAKER_NOTE)))
    yield from _quietly(_xmp, tags.get(_XMP_TAG, b""))
    yield from _quietly(_iptc, tags.get(_IPTC_TAG, b""))


def _directory(data: bytes, order: str, at: int) -> dict[int, bytes]:
    """The values of the tags that are read here; damaged ones are left out."""
    tags: dict[int, bytes] = {}
    for entry in range(at + 2, at + 2 + 12 * min(_count(data, order, at), 256), 12):
        if entry + 12 > len(data):
            break
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        if tag in tags or tag not in _EXIF_TAGS:
            continue
        size = count * {3: 2, 4: 4, 5: 8, 9: 4, 10: 8}.get(kind, 1)
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        limit = _MAX_PIECE if tag in {_XMP_TAG, _IPTC_TAG} else _MAX_TEXT
        tags[tag] = data[start : start + min(size, limit)]
    return tags


def _count(data: bytes, order: str, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little" if order == "<" else "big")


def user_comment(value: bytes, order: str) -> str:
    """Text of an EXIF UserComment: eight bytes name the code, the Unicode's order is a guess."""
    code, text = value[:8], value[8:]
    if code.startswith(b"UNICODE"):
        even, odd = text[::2].count(0), text[1::2].count(0)
        if not even and not odd and text.isascii():
            return text.decode("ascii")
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            return text.decode("utf-16", "replace").rstrip("\0")
        big = even > odd if even != odd else order == ">"
        return text.decode("utf-16-be" if big else "utf-16-le", "replace").rstrip("\0")
    if code.startswith(b"JIS"):
        return text.decode("iso2022_jp" if b"\x1b" in text else "shift_jis", "replace")
    named = code in {b"ASCII\0\0\0", b"\0" * 8}
    return _decoded(text if named else value).strip("\0 ")


_CAMERA = "EXIF Make, Model and MakerNote"


def _camera(make: bytes, model: bytes, notes: bytes) -> Iterator[_Field]:
    """A camera with maker notes; generators that misuse the same tags aren't one."""
    maker, name = (_clean(_decoded(text).strip("\0 "), 65) for text in (make, model))
    if notes.lower().startswith((b"fooocus", b"openai")):
        yield _Field("EXIF MakerNote", "software", _decoded(notes[:200]))
    elif len(notes) >= 16 and maker and name and "{" not in maker + name:
        known = name.lower().startswith(maker.lower().split()[0])
        camera = name if known else f"{maker} {name}"
        yield _Field(_CAMERA, "", camera)


_ENTITIES = (
    ("&quot;", '"'), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&#xA;", "\n"),
    ("&#10;", "\n"), ("&amp;", "&"),
)  # fmt: skip
_XMP_NAMES = (
    "DigitalSourceType", "CreatorTool", "softwareAgent", "Credit", "UserComment", "description",
    "AISystemUsed", "AIGC", "Software", "creator", "title", "Source",
)  # fmt: skip


def _xmp(packet: bytes) -> Iterator[_Field]:
    """Properties by their local names, as attributes or elements; prefixes vary, XML may be cut.

    No XML parser: entities of a hostile packet expand in one, and a cut packet is none.
    """
    for name in _XMP_NAMES:
        needle, at = b":" + name.encode(), -1
        for _ in range(8):
            at = packet.find(needle, at + 1)
            if at < 0:
                break
            tag = packet[max(at - 40, 0) : at].rpartition(b"<")[2]
            rest = packet[at + len(needle) : at + len(needle) + _MAX_TEXT // 4]
            if not tag.startswith(b"/") and (text := _xmp_value(rest, needle)):
                yield _Field(f"XMP {name}", name.lower(), text)


def _xmp_value(rest: bytes, needle: bytes) -> str:
    if found := re.match(rb"""\s{0,9}=\s{0,9}(["'])""", rest):
        value = rest[found.end() :].partition(found[1])[0]
    elif re.match(rb"[\s/>]", rest):
        head, _, inner = rest.partition(b">")
        if b"resource=" in head:
            quoted = head.partition(b"resource=")[2]
            value = quoted[1:].partition(quoted[:1])[0] if quoted else b""
        elif head.endswith(b"/"):
            return ""
        else:
            inner = inner[:end] if (end := inner.find(needle + b">")) >= 0 else inner
            first, *runs = inner.split(b"<", 200)
            texts = [first, *(run.partition(b">")[2] for run in runs)]  # of nested lists as well
            value = b" ".join(filter(None, map(bytes.strip, texts)))
    else:
        return ""
    text = _decoded(value)
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text.strip()


_IPTC_TEXTS = {
    5: "title", 65: "software", 80: "artist", 110: "credit", 115: "source", 120: "description",
}  # fmt: skip


def _iptc(data: bytes) -> Iterator[_Field]:
    at = max(data.find(b"\x1c\x02"), 0)
    for _ in range(_MAX_PIECES):
        if data[at : at + 1] != b"\x1c":
            return
        record, number, size = struct.unpack_from(">BBH", data, at + 1)
        if record == 2 and number in _IPTC_TEXTS:
            name = _IPTC_TEXTS[number]
            yield _Field(f"IPTC {name}", name, _decoded(data[at + 5 : at + 5 + size]))
        at += 5 + size


# Fields to findings


def _found(
    kind: str, source: str, value: str, says: str, subject: str = "", rank: str = ""
) -> _Found:
    about = Declaration(kind, source, _clean(value, _MAX_VALUE), says)
    return _Found(_RANKS.index(rank or kind), subject or says, about)


def _clean(text: str, limit: int) -> str:
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else " " for c in cut)
    return cut.strip() if len(text) <= limit else cut[: limit - 1] + "…"


_SOURCE_TYPES = {
    "trainedAlgorithmicMedia": ("generated", "it was generated"),
    "compositeWithTrainedAlgorithmicMedia": ("edited", "parts of it were generated"),
    "algorithmicMedia": ("generated", "it was made by an algorithm without training data"),
    "compositeSynthetic": ("edited", "parts of it are synthetic"),
    "digitalCapture": ("captured", "it was captured by a camera"),
    "computationalCapture": ("captured", "it was captured by a camera, from several exposures"),
    "negativeFilm": ("captured", "it was scanned from a film negative"),
    "positiveFilm": ("captured", "it was scanned from a film"),
    "print": ("captured", "it was scanned from a print"),
}
"""Of http://cv.iptc.org/newscodes/digitalsourcetype/: what each comes to."""


def _meaning(source_type: str) -> tuple[str, str]:
    for known, meaning in _SOURCE_TYPES.items():
        if source_type.lower() == known.lower():
            return meaning
    return "other", "it is of another digital source type"


_CLAIMS = {"softwareagent", "creatortool", "software", "encoder", "originatingprogram"}
_SHORT = _CLAIMS | {"credit", "source", "title", "artist", "author", "creator", "make", "model"}
"""Keys whose values name a program, a maker or an author."""

_NAMES = (
    ("midjourney", "Midjourney"), ("novelai", "NovelAI"), ("stable diffusion", "Stable Diffusion"),
    ("stable-diffusion", "Stable Diffusion"), ("stablediffusion", "Stable Diffusion"),
    ("automatic1111", "Stable Diffusion"), ("sd.next", "SD.Next"), ("comfyui", "ComfyUI"),
    ("invokeai", "InvokeAI"), ("fooocus", "Fooocus"), ("draw things", "Draw Things"),
    ("drawthings", "Draw Things"), ("swarmui", "SwarmUI"), ("easy diffusion", "Easy Diffusion"),
    ("dall-e", "DALL-E"), ("dall·e", "DALL-E"), ("dalle", "DALL-E"), ("chatgpt", "ChatGPT"),
    ("gpt-image", "GPT Image"), ("openai", "OpenAI"), ("adobe firefly", "Adobe Firefly"),
    ("firefly", "Adobe Firefly"), ("google ai", "Google AI"), ("bing image creator", "Bing"),
    ("microsoft designer", "Microsoft Designer"), ("leonardo.ai", "Leonardo.Ai"),
    ("dreamstudio", "DreamStudio"), ("stability ai", "Stability AI"), ("nightcafe", "NightCafe"),
    ("black forest labs", "FLUX"), ("playground ai", "Playground AI"), ("craiyon", "Craiyon"),
    ("ideogram", "Ideogram"), ("meta ai", "Meta AI"), ("imagined with ai", "Meta AI"),
    ("artbreeder", "Artbreeder"), ("starryai", "starryai"), ("tensor.art", "Tensor.Art"),
    ("seaart", "SeaArt"), ("pixai", "PixAI"), ("amazon bedrock", "Amazon Bedrock"),
    ("titan image generator", "Amazon Titan"),
)  # fmt: skip
_NAMES_OF_PROGRAMS_ONLY = (
    ("sora", "Sora"), ("gemini", "Gemini"), ("imagen", "Imagen"), ("flux.1", "FLUX"),
    ("grok", "Grok"), ("recraft", "Recraft"), ("krea", "Krea"), ("runway", "Runway"),
    ("kling", "Kling"), ("dream machine", "Luma Dream Machine"), ("wombo", "Wombo"),
    ("generative fill", "Generative Fill"), ("generative expand", "Generative Expand"),
)  # fmt: skip
"""Words that also name people and places; believed where only a program can stand."""

_OWN_KEYS = {
    "invokeai_metadata": "InvokeAI", "invokeai_graph": "InvokeAI", "invokeai_workflow": "InvokeAI",
    "sd-metadata": "InvokeAI", "dream": "InvokeAI", "fooocus_scheme": "Fooocus",
    "sui_image_params": "SwarmUI", "use_stable_diffusion_model": "Easy Diffusion",
}  # fmt: skip
"""Keys of text chunks that one program alone writes."""

_SHAPES = (
    ("SwarmUI", ('"sui_image_params"',)),
    ("ComfyUI", ('"class_type"', '"inputs"')),
    ("ComfyUI", ('"nodes"', '"last_node_id"')),
    ("ComfyUI", ('"nodes"', '"widgets_values"')),
    ("NovelAI", ('"uncond_scale"', '"sampler"')),
    ("NovelAI", ('"signed_hash"', '"sampler"')),
    ("Fooocus", ('"metadata_scheme"', "fooocus")),
    ("Fooocus", ("Fooocus v",)),
    ("InvokeAI", ('"positive_prompt"', '"cfg_scale"', '"scheduler"')),
    ("Draw Things", ('"uc"', '"sampler"', '"steps"', '"model"')),
    ("Easy Diffusion", ('"use_stable_diffusion_model"',)),
)
"""Strings that stand together in what a program writes, under whatever key."""


def _read(field: _Field) -> _Found | None:
    """What one field says of the file's origin, if anything."""
    source, key, text = field
    if not text:
        return None
    if source == _CAMERA:
        article = "an" if text[0] in "AEIOUaeiou" else "a"
        says = f"it was taken with {article} {text} (make, model and maker notes can be copied)"
        return _found("camera", source, text, says)
    if key == "digitalsourcetype":
        value = _clean(text.rstrip("/").rpartition("/")[2], 80)
        if value.lower() in {"nil", "none", ""}:
            return None
        kind, says = _meaning(value)
        return _found(kind, source, text, f"{says} ({source}: {value})")
    if key == "aisystemused":
        return _made_with(_clean(text, 60), field)
    if (label := _china_label(field)) is not None:
        return label
    if program := _OWN_KEYS.get(key):
        return _made_with(program, field)
    for program, needles in _SHAPES:
        if all(needle in text for needle in needles):
            return _made_with(program, field)
    if settings := _diffusion_settings(text):
        model = re.search(r"\bModel: ([^,\n]{1,80})", settings)
        named = f', model "{_clean(model[1], 60)}"' if model else ""
        return _made_with("Stable Diffusion or a kin of it", field, named)
    if key in _CAPTIONS and _midjourney(text):
        return _made_with("Midjourney", field)
    return _named(field) if key in _SHORT or len(text) <= 120 else None


def _made_with(program: str, field: _Field, more: str = "") -> _Found:
    says = f"it was made with the image generator {program}{more} ({field.source})"
    return _found("generated", field.source, field.text, says, program)


def _diffusion_settings(text: str) -> str:
    """The settings that web interfaces of Stable Diffusion write below the prompt, or ""."""
    at = text.rfind("Steps: ")
    settings = text[at : at + 4096] if at >= 0 else ""
    known = any(setting in settings for setting in ("Sampler: ", "CFG scale: ", "Seed: "))
    return settings if known and settings[7:8].isdigit() else ""


_CAPTIONS = {"description", "imagedescription", "comment", "usercomment", "subject"}
_JOB = re.compile(r"Job ID: ?[0-9a-f]{8}-[0-9a-f]{4}-")
_SWITCH = re.compile(r" --(?:v|niji) \d")


def _midjourney(text: str) -> bool:
    if "Job ID:" in text and _JOB.search(text[-_MAX_VALUE:]):
        return True
    return " --" in text and _SWITCH.search(text[-_MAX_VALUE:]) is not None


def _china_label(field: _Field) -> _Found | None:
    """The implicit label of GB 45438-2025: a JSON object under the key AIGC."""
    at = 0 if field.key == "aigc" else field.text.find('"AIGC"')
    if at < 0:
        return None
    label = re.search(r"Label\W{1,8}([123])\b", field.text[at : at + 400])
    if label is None:
        return None
    kind, words = {
        "1": ("generated", "it was generated"),
        "2": ("other", "it was possibly generated"),
        "3": ("other", "it is suspected to be generated"),
    }[label[1]]
    return _found(
        kind, field.source, field.text, f"{words} (label AIGC {label[1]}, {field.source})"
    )


_ANNOUNCED = re.compile(r"(?:made|created|generated|imagined) (?:with|by|using) ")
_GENERIC = re.compile(
    r"(?<!not )(?<!non-)(?<!never )"
    r"\b(?:ai[- ]generated|(?:generated|made|created|imagined) (?:by|with|using) (?:an? )?ai)\b"
)


def _named(field: _Field) -> _Found | None:
    """A generator's name in a short field; a credit is quoted as it stands."""
    source, key, text = field
    lowered, words = text[:200].lower(), _clean(text, 60)
    quoted = f'it is described as "{words}" ({source})'
    if "edited with google ai" in lowered:
        return _found("edited", source, text, quoted, "Google AI")
    if key not in _SHORT and not _ANNOUNCED.match(lowered):
        return None
    for name, program in _NAMES + (_NAMES_OF_PROGRAMS_ONLY if key in _CLAIMS else ()):
        if name in lowered and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", lowered):
            if key == "softwareagent" or program.startswith("Generative"):
                says = f'it was edited with "{words}" ({source})'
                return _found("edited", source, text, says, program)
            if key in _CLAIMS or words.lower() == name:
                return _made_with(program, field)
            return _found("generated", source, text, quoted, program)
    return _found("generated", source, text, quoted) if _GENERIC.search(lowered) else None


# C2PA


def manifest_store(data: bytes) -> dict[str, Any] | str:
    """The C2PA manifests in a file as c2pa-python reports them, validated; or why there are none.

    The words: "unchecked" (the package is missing), "none", "unreadable". Manifests that lie
    elsewhere are not fetched.
    """
    try:
        from c2pa import C2paError, Context, Reader, Settings
    except ImportError:
        return "unchecked"
    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    try:
        with Context(Settings.from_dict(offline)) as context:
            reader = Reader.try_create(io.BytesIO(data), context=context)
            if reader is None:
                return "none"
            with reader:
                store = json.loads(reader.json())
    except C2paError as error:
        return "none" if "NotSupported" in str(error) else "unreadable"
    # A library in another language on hostile bytes: whatever it raises, nothing was read.
    except Exception:
        return "unreadable"
    return store if isinstance(store, dict) else "unreadable"


def _manifest(data: bytes | None, jumbf: bytes) -> Iterator[_Found]:
    store = "not whole" if data is None else manifest_store(data)
    if isinstance(store, dict):
        try:
            yield _validated(store)
            return
        except (KeyError, TypeError, AttributeError, ValueError):  # manifests of another shape
            pass
    why = {
        "unchecked": "the package c2pa-python is missing",
        "not whole": "the file is too long to check",
    }.get(store if isinstance(store, str) else "", "it is unreadable")
    named = [term for term in _SOURCE_TYPES if b"digitalsourcetype/" + term.encode() in jumbf]
    kind, says = _SOURCE_TYPES[named[0]] if named else ("other", "it was made or edited")
    names = f" that names {named[0]}" if named else ""
    says = f"{says} (C2PA manifest{names}, not validated: {why})"
    value = ", ".join(named) or "no digital source type"
    yield _found(kind, "C2PA manifest, not validated", value, says, "C2PA")


def _validated(store: dict[str, Any]) -> _Found:
    """What a store of manifests comes to, by the active one and those that it was made from."""
    manifests = store["manifests"]
    active = manifests[store["active_manifest"]]
    history = _history(manifests, active)
    acts = [act for manifest in history for act in _acts(manifest)]
    elsewhere = [
        act
        for manifest in list(manifests.values())[:32]
        if all(manifest is not own for own in history)
        for act in _acts(manifest)
    ]
    kind, says, act = _verdict(acts, elsewhere)
    if tool := _agent(act) or _generator(active):
        says += f' with "{_clean(tool, 60)}"'
    named = "".join(f"; {source}" for source in [_source_type(act)] if source)
    issuer = _clean(str((active.get("signature_info") or {}).get("issuer") or "not named"), 80)
    failures = _failures(store)
    state = str(store.get("validation_state", "Invalid" if failures else "Valid"))
    steps = dict.fromkeys(f"{act.get('action')} {_source_type(act)}".strip() for act in acts)
    value = "; ".join([f"issuer {issuer}", state, *steps, *failures])

    broken = [code for code in failures
              if code.endswith("mismatch") and not code.startswith(_INGREDIENT)]  # fmt: skip
    if broken:
        rank = kind = "broken"
        source = "C2PA manifest, signature broken"
        check = f"the signature is broken, file or manifest were changed after signing: {broken[0]}"
    elif state in {"Valid", "Trusted"}:
        rank, source = "validated", "C2PA manifest, validated"
        check = "signature valid, issuer "
        check += "trusted" if state == "Trusted" else "not checked against any list"
    else:
        rank, source = kind, "C2PA manifest, not valid"
        check = "it does not validate: " + ", ".join(list(failures.values())[:2] or [state])
    says += f' (C2PA manifest of "{issuer}"; {check}{named})'
    return _found(kind, source, value, says, "C2PA", rank)


def _history(manifests: dict[str, Any], active: dict[str, Any]) -> list[dict[str, Any]]:
    """The active manifest and those of the pictures that it was made from, one after the other.

    A manifest that states no source type and has one ingredient only passes that one on.
    """
    chain = [active]
    for _ in range(16):
        ingredients = chain[-1].get("ingredients") or []
        only = len(ingredients) == 1 and not any(map(_source_type, _acts(chain[-1])))
        parents = (
            manifests.get(ingredient.get("active_manifest"))
            for ingredient in ingredients
            if only or ingredient.get("relationship") == "parentOf"
        )
        parent = next((manifest for manifest in parents if manifest), None)
        if parent is None:
            break
        chain.append(parent)
    return chain


def _acts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Actions of a manifest, of old ones as well; Adobe's note of generative AI counts as one."""
    acts: list[dict[str, Any]] = []
    for assertion in manifest.get("assertions") or []:
        label, content = str(assertion.get("label", "")), assertion.get("data") or {}
        if label == _ADOBE_NOTE:
            acts.append({"action": label, "softwareAgent": content.get("description")})
        elif label.removeprefix("c2pa.").startswith("actions"):
            acts += content if isinstance(content, list) else content.get("actions") or []
    return acts[:64]


_ADOBE_NOTE = "com.adobe.generative-ai"


def _means(act: dict[str, Any]) -> tuple[str, str]:
    """What one action comes to; Bing's manifests have words instead of a source type."""
    if act.get("action") == _ADOBE_NOTE:
        return "edited", "generative AI was used in it"
    if _GENERIC.search(str(act.get("description") or "")[:200].lower()):
        return "generated", "it was generated"
    return _meaning(_source_type(act))


def _source_type(act: dict[str, Any]) -> str:
    return _clean(str(act.get("digitalSourceType") or "").rstrip("/").rpartition("/")[2], 80)


def _agent(act: dict[str, Any]) -> str:
    agent = act.get("softwareAgent") or ""
    return str(agent.get("name") or "") if isinstance(agent, dict) else str(agent)


def _generator(manifest: dict[str, Any]) -> str:
    names = (str(info.get("name") or "") for info in manifest.get("claim_generator_info") or [])
    return str(manifest.get("claim_generator") or "") or next(names, "")


def _verdict(
    acts: list[dict[str, Any]], elsewhere: list[dict[str, Any]]
) -> tuple[str, str, dict[str, Any]]:
    """What a history of actions comes to: its kind, in words, and the action that says so.

    A generator's source type makes a picture generated where it was created with it, and
    edited where it came to a picture that was there.
    """
    meant = [(*_means(act), act) for act in acts]
    for kind, says, act in meant:
        if kind == "generated" and act.get("action") == "c2pa.created":
            return kind, says, act
    for kind, says, act in meant:
        if kind in {"generated", "edited"}:
            return "edited", says if kind == "edited" else "parts of it were generated", act
    for act in elsewhere:
        if _means(act)[0] in {"generated", "edited"}:
            return "edited", "a picture that went into it was generated", act
    for kind, says, act in meant:
        if kind == "captured":
            return kind, says, act
    return "other", "it was made or edited", {}


def _failures(store: dict[str, Any]) -> dict[str, str]:
    """Codes with words of what failed in the active manifest; if nothing, in its ingredients."""
    results = store.get("validation_results")
    reported = _failed(store.get("validation_status"))
    if results is None:
        return reported
    active = _failed((results.get("activeManifest") or {}).get("failure"))
    return active or {
        f"{_INGREDIENT}{code}": f"{_INGREDIENT}{words}" for code, words in reported.items()
    }


_INGREDIENT = "ingredient: "


def _failed(statuses: list[dict[str, Any]] | None) -> dict[str, str]:
    # That the issuer is on no list of trusted ones is no failure: no such list is given.
    return {
        _clean(str(one.get("code")), 80): _clean(str(one.get("explanation") or one.get("code")), 80)
        for one in (statuses or [])[:32]
        if one.get("code") != "signingCredential.untrusted"
    }
