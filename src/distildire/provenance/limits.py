"""Limits of what is read of a file that may be hostile, and what keeps to them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

MAX_PARTS = 20_000
"""Chunks, segments or boxes of a file that are looked at."""
MAX_VALIDATED = 10_000
"""Chunks or boxes up to which manifests are validated: the validator takes 0.1 ms for each."""
MAX_PIECES = 128
"""Pieces of metadata that are read."""
MAX_PIECE = 2**20
"""Bytes of one piece, once inflated."""
MAX_INFLATED = 4 * 2**20
"""Bytes that all compressed pieces of a file may inflate to."""
MAX_TEXT = 2**18
"""Bytes of one text that are looked at."""
MAX_TEXTS = 2 * 2**20
"""Bytes of all texts of a file."""
MAX_VALUE = 4_000
"""Characters of a value in a finding."""
MAX_FINDINGS = 32
HEAD, TAIL = 8 * 2**20, 2 * 2**20
"""Bytes at either end of a file in which packets are looked for by their first bytes."""

DAMAGE = (struct.error, ValueError, IndexError, OverflowError)
"""What the readers raise on bytes that aren't what they should be."""

_T = TypeVar("_T")


def quietly(read: Callable[[bytes], Iterator[_T]], data: bytes) -> Iterator[_T]:
    """What a reader yields up to the damage that stops it."""
    try:
        yield from read(data)
    except DAMAGE:
        return


def clean(text: str, limit: int) -> str:
    """At most `limit` characters, all printable."""
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else " " for c in cut)
    return cut.strip() if len(text) <= limit else cut[: limit - 1] + "…"
