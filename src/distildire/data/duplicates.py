"""Exact and near duplicates, within a split and across splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distildire.data.file_facts import THUMBNAIL_SIDE, AuditFacts

MAX_DISTANCE = 3
"""Bits in which the difference hashes of two versions of one picture may differ."""

MAX_DIFFERENCE = 8.0
"""Root mean square of the difference of two thumbnails, in grey levels, once both have the
same mean and contrast."""

MIN_CONTRAST = 8.0
"""Thumbnails flatter than this standard deviation (grey levels) have no telling hash."""

_BUCKET = 200


@dataclass(frozen=True)
class Duplicate:
    """Two rows of the table that hold one picture."""

    first: int
    second: int
    exact: bool
    """Equal bytes; otherwise the same picture by hash and thumbnail."""


def find_duplicates(facts: Sequence[AuditFacts]) -> list[Duplicate]:
    """Pairs (first < second) of rows that hold one picture.

    A row is paired with the first row of equal bytes. Near duplicates are found among the
    first rows: four bands of 16 bits of the difference hash, of which one must be equal
    where at most three bits differ, then the distance, then the thumbnails.
    """
    first_of: dict[str, int] = {}
    pairs = []
    for row, fact in enumerate(facts):
        if fact.sha256 and fact.error is None:  # an empty file shows no picture
            first = first_of.setdefault(fact.sha256, row)
            if first != row:
                pairs.append(Duplicate(first, row, exact=True))
    return sorted(
        pairs + _near(facts, list(first_of.values())), key=lambda pair: (pair.first, pair.second)
    )


def _near(facts: Sequence[AuditFacts], rows: Sequence[int]) -> list[Duplicate]:
    cells = THUMBNAIL_SIDE**2
    thumbnails = np.array(
        [np.frombuffer(facts[row].thumbnail, np.uint8) for row in rows], np.float32
    ).reshape(-1, cells)
    contrast = thumbnails.std(axis=1)
    telling = np.flatnonzero(contrast >= MIN_CONTRAST)
    level = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    hashes = np.array([facts[row].dhash for row in rows], np.uint64)
    seen: set[tuple[int, int]] = set()
    for shift in (0, 16, 32, 48):
        buckets: dict[int, list[int]] = defaultdict(list)
        for i in telling.tolist():
            buckets[int(hashes[i]) >> shift & 0xFFFF].append(i)
        for bucket in buckets.values():
            for start in range(0, len(bucket), _BUCKET):
                block, rest = np.array(bucket[start : start + _BUCKET]), np.array(bucket[start:])
                seen.update(_alike(block, rest, hashes, level, contrast))
    return [Duplicate(rows[a], rows[b], exact=False) for a, b in seen]


def _alike(
    block: NDArray[np.int64],
    rest: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    level: NDArray[np.float32],
    contrast: NDArray[np.float32],
) -> list[tuple[int, int]]:
    """Pairs of `block` x `rest`, first < second, that pass both comparisons."""
    distance = np.bitwise_count(hashes[block][:, None] ^ hashes[rest][None, :])
    a, b = np.nonzero((distance <= MAX_DISTANCE) & (block[:, None] < rest[None, :]))
    a, b = block[a], rest[b]
    gain = (contrast[a] / contrast[b])[:, None]
    difference = np.sqrt(((level[a] - gain * level[b]) ** 2).mean(axis=1))
    good = (difference <= MAX_DIFFERENCE) & (np.abs(np.log(gain[:, 0])) < 0.3)
    return list(zip(a[good].tolist(), b[good].tolist(), strict=True))
