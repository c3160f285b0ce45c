"""Rows that `score` wrote into a folder of parts, and its options with another decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distildire.detector import DEFAULT_FPR
from distildire.scale.options import ScoreOptions
from distildire.scale.parts import PART_ROWS, PART_SECONDS

Row = dict[str, object]


def rows_of(out: Path) -> list[Row]:
    """In the order of the parts."""
    return [
        row
        for part in sorted(out.glob("part-*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]


def without_order(out: Path) -> list[Row]:
    """Sorted by path; each path once."""
    rows = {str(row["path"]): row for row in rows_of(out)}
    assert len(rows) == len(rows_of(out))
    return [rows[path] for path in sorted(rows)]


def assert_same_rows(there: Path, here: Path) -> None:
    """Of two folders, in any order; a logit is a float32 sum, whose last digit has an order."""
    for one, other in zip(without_order(there), without_order(here), strict=True):
        assert one.pop("logit") == pytest.approx(other.pop("logit"), abs=1e-5)
        assert one == other


def with_decoder(model: Path, decoder: str, **changes: Any) -> ScoreOptions:
    """Those of `score` by default, and decoding by `decoder` in processes of its own."""
    defaults: dict[str, Any] = {
        "model": model, "fpr": DEFAULT_FPR, "engine": "local", "device": "cpu", "dedup": False,
        "isolate": True, "gpu_share": 1.0, "part_rows": PART_ROWS, "part_seconds": PART_SECONDS,
    }  # fmt: skip
    return ScoreOptions(decoder=decoder, **{**defaults, **changes})
