"""Containers by their first bytes: raw files, kinds that aren't read, PNG's ancillary chunks."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JXL_SIGNATURE = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
HEIC_BRANDS = frozenset(
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"]
)
"""Of ISO/IEC 23008-12: single pictures, sequences, and scalable or multi-view ones."""

# Numbers of TIFF 6.0 and of DNG.
_DNG_VERSION, _SUBFILE, _PHOTOMETRIC, _SUB_DIRECTORIES = 50706, 254, 262, 330
_RAW = frozenset([32803, 34892])
"""Photometric interpretations: a colour filter array, and what was made of one, undeveloped."""
_TIFF = frozenset([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
_MAX_PAGES = 64


def raw_kind(data: bytes) -> str | None:
    """The name of a camera's raw format, of which only an embedded preview could be decoded."""
    head = data[:16]
    for name, signature, offset in (
        ("Fujifilm RAF", b"FUJIFILMCCD-RAW", 0),
        ("Canon CRW", b"HEAPCCDR", 6),
        ("Sigma X3F", b"FOVb", 0),
        ("Minolta MRW", b"\0MRM", 0),
        ("Canon CR2", b"CR\x02", 8),
        ("Canon CR3", b"ftypcrx ", 4),
        ("Olympus ORF", b"IIRO", 0),
        ("Olympus ORF", b"IIRS", 0),
        ("Olympus ORF", b"MMOR", 0),
        ("Panasonic RW2", b"IIU\0", 0),
    ):
        if data[offset : offset + len(signature)] == signature:
            return name
    if head[:4] not in {b"II*\0", b"MM\0*"}:
        return None
    pages = [tags for _, tags in _directories(data)]
    first = pages[0] if pages else {}
    if _DNG_VERSION in first:
        return "DNG"
    # Nikon, Sony, Pentax and DNG: a small first picture, the raw data in other directories.
    elsewhere = _SUB_DIRECTORIES in first or all(map(_is_reduced, pages))
    raw = elsewhere or any(tags.get(_PHOTOMETRIC) in _RAW for tags in pages)
    return "DNG, NEF, ARW or PEF" if _is_reduced(first) and raw else None


def full_page_first(data: bytes) -> bytes:
    """A TIFF that begins with smaller versions of a later page as beginning with that page."""
    if data[:4] not in _TIFF:
        return data
    order, word = _layout(data)
    at = next((at for at, tags in _directories(data) if not _is_reduced(tags)), None)
    if at is None or at == int.from_bytes(data[word : 2 * word], order):
        return data
    return data[:word] + at.to_bytes(word, order) + data[2 * word :]


def _is_reduced(tags: dict[int, int]) -> bool:
    return bool(tags.get(_SUBFILE, 0) & 1)


def _layout(data: bytes) -> tuple[Literal["little", "big"], int]:
    """The byte order of a TIFF, and the bytes of its offsets: 8 in a BigTIFF."""
    return "little" if data[:2] == b"II" else "big", 8 if b"+" in data[2:4] else 4


def _directories(data: bytes) -> Iterator[tuple[int, dict[int, int]]]:
    """A TIFF's pages up to the first that is damaged: where they are, and tags with their values.

    Of a value that stands elsewhere it is the place.
    """
    order, word = _layout(data)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    place, counter, entry, seen = word, 8 if word == 8 else 2, 4 + 2 * word, set[int]()
    while (start := number(place, word)) and start not in seen and len(seen) < _MAX_PAGES:
        seen.add(start)
        first = start + counter
        place = first + number(start, counter) * entry
        if place > len(data):
            return
        tags = {
            number(at, 2): number(at + 4 + word, {3: 2, 4: 4}.get(number(at + 2, 2), word))
            for at in range(first, place, entry)[:512]
        }
        yield start, tags


def readable_kind(data: bytes) -> str | None:
    """The format that a file begins as, of those that are read without a package.

    Not a PNG packed for iPhones, whose pixels would come out wrong.
    """
    if data[12:16] == b"CgBI":
        return None
    if data[:2] == b"BM" and not any(data[6:10]):
        return "BMP"
    for kind, signature in (
        ("JPEG", b"\xff\xd8\xff"), ("PNG", PNG_SIGNATURE), ("GIF", b"GIF8"),
        ("TIFF", b"II*\0"), ("TIFF", b"MM\0*"), ("TIFF", b"II+\0"), ("TIFF", b"MM\0+"),
        ("ICO", b"\0\0\1\0"), ("JPEG 2000", b"\0\0\0\x0cjP  "), ("JPEG 2000", b"\xff\x4f\xff\x51"),
    ):  # fmt: skip
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and (data[8:12] == b"WEBP" or len(data) < 12):
        return "WebP"
    brands = data[8 : int.from_bytes(data[:4])]
    if data[4:8] == b"ftyp" and (data[8:12] in {b"avif", b"avis"} or b"avif" in brands[:256]):
        return "AVIF"
    return None


def heic_kind(data: bytes) -> bool:
    """Whether a file begins as a HEIC."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS


def jxl_kind(data: bytes) -> bool:
    """Whether a file begins as a JPEG XL."""
    return data[:2] == b"\xff\x0a" or data[:12] == JXL_SIGNATURE


def known_kind(data: bytes) -> str | None:
    """What a file is whose pixels aren't read here, with the mend where there is one."""
    if jxl_kind(data):
        return "JPEG XL needs a package: pip install pillow-jxl-plugin"
    if heic_kind(data):
        return "HEIC needs a package: pip install pillow-heif"
    if data[4:8] == b"ftyp":
        return "an MP4 or QuickTime file: a video by its content"
    if data[12:16] == b"CgBI":
        return "a PNG packed for iPhones (CgBI): save it as an ordinary PNG"
    for kind, signature in (
        ("a PDF document: export its pages as pictures", b"%PDF"),
        ("a PostScript document", b"%!PS"),
        ("a Photoshop document: export it as PNG or TIFF", b"8BPS"),
        ("a Krita, OpenRaster or ZIP archive", b"PK\x03\x04"),
        ("a GIMP document: export it as PNG", b"gimp xcf"),
        ("an OpenEXR picture: export it as PNG or TIFF", b"v/1\x01"),
        ("a Radiance HDR picture: export it as PNG or TIFF", b"#?RADIANCE"),
        ("a Matroska or WebM file: a video by its content", b"\x1a\x45\xdf\xa3"),
        ("a gzip archive", b"\x1f\x8b"),
        ("a PAM picture (P7): save it as PNG or PNM", b"P7\n"),
        ("a PFM picture in colour: save it as TIFF", b"PF\n"),
        ("a DirectDraw surface", b"DDS "),
        ("a pointer to a file in Git LFS", b"version https://git-lfs"),
    ):
        if data.startswith(signature):
            return kind
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "SVG, a drawing of lines: there are no pixels to judge"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, as servers send it in the place of a missing picture"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "an AVI file: a video by its content"
    return None


def tga_header(data: bytes) -> bool:
    """Whether the first 18 bytes are a whole Targa header, which has no signature."""
    if len(data) < 18:
        return False
    mapped, kind, depth, descriptor = data[1], data[2], data[16], data[17]
    width, height = struct.unpack_from("<HH", data, 12)
    plain = (mapped, kind, depth) in {
        (0, 2, 24), (0, 2, 32), (0, 3, 8), (0, 10, 24), (0, 10, 32), (0, 11, 8), (1, 1, 8),
        (1, 9, 8),
    }  # fmt: skip
    if not plain or not width or not height or descriptor & 0xC0:
        return False
    if data[-18:] == b"TRUEVISION-XFILE.\0":
        return True
    # An uncompressed one must have its bytes; a compressed one at least a packet per 128 pixels.
    least = width * height * depth // 8 if kind < 9 else width * height // 128
    return bool(len(data) >= 18 + data[0] + least)


_NO_HEADER = frozenset([0xD8, 0xD9, 0xDA, *range(0xD0, 0xD8)])
"""Markers of JPEG behind which pixels stand, or nothing."""
_SEGMENTS = {0xE0: (b"JFIF", 14), 0xE2: (b"ICC_PROFILE\0", 14), 0xEE: (b"Adobe", 12)}
"""JPEG's segments that tell of colours: marker, how they begin and the least that they hold."""


def without_damaged_segments(data: bytes, passed_over: list[str] | None = None) -> bytes:
    """A JPEG without the segments beside its pixels that are cut short.

    Each adds a sentence to `passed_over`.
    """
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in _NO_HEADER:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xFF:  # a fill byte
            end = at + 1
        name, least = _SEGMENTS.get(marker, (b"", 0))
        body = data[at + 4 : end]
        cut = body.startswith(name) and len(body) < least
        if cut or (marker == 0xED and body[-6:-2] == b"8BIM"):  # a resource without a name
            if passed_over is not None:
                passed_over.append(
                    f"the JPEG segment APP{marker & 15} is cut short and was passed over"
                )
        else:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


_ANIMATION = {b"acTL": 8, b"fcTL": 26, b"fdAT": 4}
"""APNG's chunks and the least that they hold, in bytes."""
_TEXTS = frozenset([b"tEXt", b"zTXt", b"iTXt"])
_END = b"\0\0\0\0IEND\xaeB`\x82"
_PALETTE = 3
"""The colour type of PNG whose pixels are numbers in PLTE."""
_TRANSPARENT = {0: 2, 2: 6, _PALETTE: 1}
"""By colour type, the least that tRNS holds, in bytes."""
_MAX_CHUNKS = 200_000
"""Of a PNG, each of at least 12 bytes: writers make them of some thousand."""
_MAX_PROFILE = 2**20
"""Bytes of a colour profile once inflated; larger ones are passed over."""


class _Chunk(NamedTuple):
    """`kind` is empty where the file ends within it."""

    kind: bytes
    content: bytes
    raw: bytes
    whole: bool


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Those of a PNG up to IEND; pixels are in `raw` alone."""
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            yield _Chunk(b"", b"", data[at:], whole=False)
            return
        whole = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end])
        content = b"" if kind == b"IDAT" else data[at + 8 : end - 4]
        yield _Chunk(kind, content, data[at:end], whole)
        if kind == b"IEND":
            return
        at = end


class _Frames:
    """How far the animation of a PNG is in order."""

    def __init__(self, width: int, height: int) -> None:
        self.announced = False
        self._size, self._next = (width, height), 0

    def take(self, chunk: _Chunk, *, of_still: bool) -> bool:
        """Whether the animation's next chunk, or the still picture's, is whole and in its place."""
        content = chunk.content
        if not chunk.whole or len(content) < _ANIMATION[chunk.kind]:
            return False
        (number,) = struct.unpack_from(">I", content)
        if chunk.kind == b"acTL":
            self.announced = 0 < number <= 2**31
            return True
        if number != self._next or (chunk.kind == b"fdAT" and (of_still or number == 0)):
            return False
        self._next += 1
        if chunk.kind == b"fdAT":
            return True
        sides, place = struct.unpack_from(">II", content, 4), struct.unpack_from(">II", content, 12)
        if of_still:
            return (sides, place) == (self._size, (0, 0))
        ends = zip(sides, place, self._size, strict=True)
        return all(0 < side <= whole - start for side, start, whole in ends)


def without_ancillary(
    data: bytes, passed_over: list[str] | None = None, *, texts: bool = False
) -> bytes:
    """A PNG with the chunks that make its pixels, its colour profile and its EXIF, if whole.

    Times, private chunks and, unless they are asked for, `texts` can't be in the way then,
    whatever they hold. What was left out because it is damaged or oversized is added to
    `passed_over`, a sentence each.

    An animation ends before its first frame that is damaged; where that is its beginning, the
    picture that readers without animations show is left.

    Raises:
        ValueError: a chunk of pixels has a wrong checksum, or there are very many chunks.
    """
    notes = [] if passed_over is None else passed_over
    chunks = list(itertools.islice(_chunks(data), _MAX_CHUNKS + 1))
    if len(chunks) > _MAX_CHUNKS:
        raise ValueError(f"the PNG has more than {_MAX_CHUNKS:,} chunks")
    header = next((chunk.content for chunk in chunks if chunk.kind == b"IHDR"), b"").ljust(13)
    colour_type, frames = header[9], _Frames(*struct.unpack_from(">II", header))
    needed = {b"IHDR", b"IDAT"} | ({b"PLTE"} if colour_type == _PALETTE else set())
    wanted = {b"tRNS", b"iCCP", b"eXIf"} | (_TEXTS if texts else set())
    first = next((at for at, chunk in enumerate(chunks) if chunk.kind == b"IDAT"), len(chunks))
    beginning = [chunk for chunk in chunks[:first] if chunk.kind in _ANIMATION]
    animated = all(frames.take(chunk, of_still=True) for chunk in beginning) and frames.announced
    if beginning and not animated:
        notes.append("the animation is damaged, and all but its still picture passed over")
    kept = [data[:8]]
    for at, chunk in enumerate(chunks):
        if chunk.kind in needed and not chunk.whole:
            name = chunk.kind.decode("latin-1")
            raise ValueError(f"the PNG chunk {name} has a wrong checksum")
        if chunk.kind in _ANIMATION:
            if animated and at > first and not frames.take(chunk, of_still=False):
                notes.append("a frame of the animation is damaged, and the rest passed over")
                kept.append(_END)
                break
            if animated:
                kept.append(chunk.raw)
        elif not chunk.kind or chunk.kind in needed:
            kept.append(chunk.raw)
        elif (reason := _damage(chunk, colour_type)) is not None:
            notes.append(reason)
        elif chunk.kind in wanted:
            kept.append(chunk.raw)
        if chunk.kind == b"IEND":
            kept.append(_END)
    return b"".join(kept)


def _damage(chunk: _Chunk, colour_type: int) -> str | None:
    """What is wrong with an ancillary chunk, as a sentence; None where nothing is."""
    kind, content, name = chunk.kind, chunk.content, chunk.kind.decode("latin-1")
    if not chunk.whole:
        return f"the PNG chunk {name} has a wrong checksum and was passed over"
    if kind == b"tRNS" and not _TRANSPARENT.get(colour_type, 0) <= len(content) <= 256:
        return "the PNG chunk tRNS has a wrong length and was passed over"
    if kind == b"eXIf" and content[:4] not in {b"II*\0", b"MM\0*"}:
        return "the PNG chunk eXIf holds no EXIF and was passed over"
    if kind == b"iCCP":
        _, _, rest = content.partition(b"\0")
        if rest[:1] != b"\0":
            return "the colour profile is packed by an unknown method and was passed over"
        inflate = zlib.decompressobj()
        try:
            inflate.decompress(rest[1:], _MAX_PROFILE)
        except zlib.error:
            return "the colour profile is damaged and was passed over"
        if inflate.unconsumed_tail:
            return "the colour profile is over 1 MiB and was passed over"
        if not inflate.eof:
            return "the colour profile is cut short and was passed over"
    return None
