"""Boxes, of which MP4, AVIF, HEIC, JPEG XL and JPEG 2000 are made (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Box(NamedTuple):
    """Where a box lies: its content is `data[start:end]`, and the next box begins at `end`."""

    kind: bytes
    """Four letters."""
    start: int
    end: int


def box_at(data: bytes, at: int, limit: int) -> Box | None:
    """The box whose header is at `at`; None where none fits before `limit`.

    A box of size 0 goes on to `limit`, and so does one that claims more than there is. A size of
    1 stands for eight bytes behind the header. None too for a size under that of the header.
    """
    limit = min(limit, len(data))
    if at + 8 > limit:
        return None
    size, kind = struct.unpack_from(">I4s", data, at)
    start = at + 8
    if size == 1:
        if at + 16 > limit:
            return None
        (size,) = struct.unpack_from(">Q", data, start)
        start += 8
    end = min(at + size, limit) if size else limit
    return Box(kind, start, end) if start <= end else None
