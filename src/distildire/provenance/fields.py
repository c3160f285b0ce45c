"""From runs of metadata to named texts: EXIF, XMP and IPTC.

Where the layouts come from: TIFF 6.0 and EXIF 2.32, XMP specification part 1, IPTC-IIM 4.2.
"""

from __future__ import annotations

import html
import itertools
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from distildire.provenance.limits import MAX_PIECE, MAX_PIECES, MAX_TEXT, clean, quietly
from distildire.provenance.pieces import Piece


class Field(NamedTuple):
    """One text. `source`: where it stands, for people; `key`: its name in lower case."""

    source: str
    key: str
    text: str


def fields_of(piece: Piece) -> Iterator[Field]:
    """The texts of one piece that may speak of the file's origin."""
    read = {"EXIF": _exif, "XMP": _xmp, "IPTC": _iptc}.get(piece.where)
    if read is not None:
        yield from quietly(read, piece.data)
    else:
        yield Field(piece.where, piece.key.lower(), decoded(piece.data))


def decoded(text: bytes) -> str:
    """As UTF-8, else as Latin-1; of what is longer than `MAX_TEXT`, the beginning and the end."""
    return _ends(_decoded(text[:MAX_PIECE].rstrip(b"\0")))


def _ends(text: str) -> str:
    """At most `MAX_TEXT` characters: generators write a prompt first and settings last."""
    half = MAX_TEXT // 2
    return text if len(text) <= MAX_TEXT else f"{text[:half]}\n{text[1 - half :]}"


def _decoded(text: bytes) -> str:
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
_GPS_IFD = 0x8825
_SIZES = {3: 2, 4: 4, 5: 8, 9: 4, 10: 8}
"""Bytes of the types of TIFF 6.0 that take more than one."""
_EXIF_TAGS = frozenset(
    [*_EXIF_TEXTS, *_XP_TEXTS, _XMP_TAG, _IPTC_TAG, _EXIF_IFD, _MAKER_NOTE, _USER_COMMENT]
)


def _exif(data: bytes) -> Iterator[Field]:
    if data.startswith(b"Exif\0"):
        data = data[6:]
    order = "<" if data[:2] == b"II" else ">"
    tags = _directory(data, order, struct.unpack_from(order + "I", data, 4)[0])
    if len(pointer := tags.get(_EXIF_IFD, b"")) == 4:
        tags = _directory(data, order, struct.unpack(order + "I", pointer)[0]) | tags
    for tag, name in _EXIF_TEXTS.items():
        if tag in tags:
            yield Field(f"EXIF {name}", name.lower(), decoded(tags[tag]).strip("\0 "))
    for tag, name in _XP_TEXTS.items():
        if tag in tags:
            text = _ends(tags[tag].decode("utf-16-le", "replace"))
            yield Field(f"EXIF {name}", name[2:].lower(), text.strip("\0 "))
    if _USER_COMMENT in tags:
        yield Field(
            "EXIF UserComment", "usercomment", _ends(user_comment(tags[_USER_COMMENT], order))
        )
    yield from _camera(*(tags.get(tag, b"") for tag in (0x010F, 0x0110, _MAKER_NOTE)))
    yield from quietly(_xmp, tags.get(_XMP_TAG, b""))
    yield from quietly(_iptc, tags.get(_IPTC_TAG, b""))


def _directory(data: bytes, order: str, at: int) -> dict[int, bytes]:
    """The values of the tags that are read here; damaged ones are left out."""
    tags: dict[int, bytes] = {}
    for entry in range(at + 2, at + 2 + 12 * min(_count(data, order, at), 256), 12):
        if entry + 12 > len(data):
            break
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        if tag in tags or tag not in _EXIF_TAGS:
            continue
        size = count * _SIZES.get(kind, 1)
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        tags[tag] = data[start : start + min(size, MAX_PIECE)]
    return tags


def exif_is_damaged(data: bytes) -> bool:
    """Whether a directory of an EXIF, or a value in it, lies outside; False where there is none."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return bool(data)
    places = [struct.unpack_from(order + "I", data, 4)[0]]
    for at in places:
        first, count = at + 2, _count(data, order, at)
        if first + 12 * count > len(data) or not count:
            return True
        for entry in range(first, first + 12 * count, 12):
            tag, kind, many, value = struct.unpack_from(order + "HHII", data, entry)
            size = many * _SIZES.get(kind, 1)
            if size > 4 and value + size > len(data):
                return True
            if tag in {_EXIF_IFD, _GPS_IFD} and at == places[0]:
                places.append(value)
    return False


def _count(data: bytes, order: str, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little" if order == "<" else "big")


def user_comment(value: bytes, order: str) -> str:
    """Text of an EXIF UserComment: eight bytes name the code, the Unicode's order is a guess."""
    code, text = value[:8].upper(), value[8:]
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
    return decoded(text if named else value).strip("\0 ")


CAMERA = "EXIF Make, Model and MakerNote"


def _camera(make: bytes, model: bytes, notes: bytes) -> Iterator[Field]:
    """A camera with maker notes; generators that misuse the same tags aren't one."""
    maker, name = (clean(decoded(text).strip("\0 "), 65) for text in (make, model))
    if notes.lower().startswith((b"fooocus", b"openai")):
        yield Field("EXIF MakerNote", "software", decoded(notes[:200]))
    elif len(notes) >= 16 and maker and name and "{" not in maker + name:
        known = name.lower().startswith(maker.lower().split()[0])
        camera = name if known else f"{maker} {name}"
        yield Field(CAMERA, "", camera)


_XMP_NAMES = (
    "DigitalSourceType", "CreatorTool", "softwareAgent", "Credit", "UserComment", "description",
    "AISystemUsed", "AIGC", "Software", "creator", "title", "Source",
)  # fmt: skip


def _xmp(packet: bytes) -> Iterator[Field]:
    """Properties by their local names, as attributes or elements; prefixes vary, XML may be cut.

    No XML parser: entities of a hostile packet expand in one, and a cut packet is none.
    """
    packet = _own_xmp(_utf_8(packet))
    for name, before in itertools.product(_XMP_NAMES, (b":", b"<")):  # "<": a default namespace
        needle, at = before + name.encode(), -1
        for _ in range(8):
            at = packet.find(needle, at + 1)
            if at < 0:
                break
            closes = before == b":" and packet.startswith(b"</", packet.rfind(b"<", 0, at))
            rest = packet[at + len(needle) : at + len(needle) + MAX_TEXT // 4]
            if not closes and (text := _xmp_value(rest, needle[1:])):
                yield Field(f"XMP {name}", name.lower(), text)


_OF_OTHERS = re.compile(
    rb"<(/?)(?:[\w.-]{1,60}:)?(?:Pantry|Ingredients)\b([^<>]{0,1000})>", re.ASCII
)


def _own_xmp(packet: bytes) -> bytes:
    """A packet without `xmpMM:Pantry` and `xmpMM:Ingredients`: XMP of pictures placed in it."""
    kept, start, depth = [], 0, 0
    for tag in _OF_OTHERS.finditer(packet):
        if tag[2].endswith(b"/"):
            continue
        if depth == 0:
            kept.append(packet[start : tag.start()])
        depth = max(0, depth + (-1 if tag[1] else 1))
        start = tag.end()
    return b"".join([*kept, packet[start:] if depth == 0 else b""])


def _utf_8(packet: bytes) -> bytes:
    """A packet in UTF-16 recoded; others as they are."""
    head = packet[:64]
    zeros = head[::2].count(0), head[1::2].count(0)
    if max(zeros) < len(head) // 4:
        return packet
    code = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return packet.decode(code, "replace").encode("utf-8", "replace")


def _xmp_value(rest: bytes, name: bytes) -> str:
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
            inner = inner[:end] if (end := inner.find(name + b">")) >= 0 else inner
            first, *runs = inner.split(b"<", 200)
            texts = [first, *(run.partition(b">")[2] for run in runs)]  # of nested lists as well
            value = b" ".join(filter(None, map(bytes.strip, texts)))
    else:
        return ""
    text = decoded(value)
    return html.unescape(text).strip()


_IPTC_TEXTS = {
    5: "title", 65: "software", 80: "artist", 110: "credit", 115: "source", 120: "description",
}  # fmt: skip


def _iptc(data: bytes) -> Iterator[Field]:
    at = max(data.find(b"\x1c\x02"), 0)
    for _ in range(MAX_PIECES):
        if data[at : at + 1] != b"\x1c":
            return
        record, number, size = struct.unpack_from(">BBH", data, at + 1)
        if record == 2 and number in _IPTC_TEXTS:
            name = _IPTC_TEXTS[number]
            yield Field(f"IPTC {name}", name, decoded(data[at + 5 : at + 5 + size]))
        at += 5 + size
