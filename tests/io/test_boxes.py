"""Headers of boxes, written out byte by byte (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from distildire.io.boxes import box_at
from made_pictures import picture, saved


@pytest.mark.parametrize(
    ("header", "content"),
    [
        (b"\0\0\0\x0bfree", b"abc"),
        (b"\0\0\0\1free\0\0\0\0\0\0\0\x13", b"abc"),
        (b"\0\0\0\0free", b"abcdef"),
        (b"\0\0\0\x08free", b""),
        (b"\0\0\1\0free", b"abcdef"),
        (b"\0\0\0\1free" + b"\xff" * 8, b"abcdef"),
    ],
    ids=["short", "long", "to the end", "empty", "claims more", "claims far more"],
)
def test_a_box_lies_where_its_size_says(header: bytes, content: bytes) -> None:
    data = b"before" + header + b"abcdef"
    box = box_at(data, 6, len(data))
    assert box is not None
    assert (box.kind, data[box.start : box.end]) == (b"free", content)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\x08fre", b"\0\0\0\x07free", b"\0\0\0\1free" + bytes(7) + b"\x0f",
             b"\0\0\0\1free" + bytes(7)],
)  # fmt: skip
def test_what_is_no_header(data: bytes) -> None:
    assert box_at(data, 0, len(data)) is None


def test_a_box_ends_with_the_one_around_it() -> None:
    data = b"\0\0\0\x10meta" + b"\0\0\0\0free" + b"more"
    outer = box_at(data, 0, len(data))
    assert outer is not None
    assert box_at(data, outer.start, outer.end) == (b"free", 16, 16)
    assert box_at(data, outer.end - 4, outer.end) is None


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_the_boxes_of_a_file_fill_it(kind: str) -> None:
    data = saved(Image.fromarray(picture()), kind)
    assert Image.open(io.BytesIO(data)).format == kind
    at, kinds = 0, []
    while (box := box_at(data, at, len(data))) is not None:
        kinds.append(box.kind)
        at = box.end
    assert at == len(data)
    assert kinds[:2] == {"AVIF": [b"ftyp", b"meta"], "JPEG2000": [b"jP  ", b"ftyp"]}[kind]
