"""How a source is scored; travels to Ray's actors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class ScoreOptions:
    """The keywords of `score.score` but for its callbacks; what they mean stands there."""

    model: str | Path
    fpr: float
    engine: Engine
    device: str
    dedup: bool
    isolate: bool
    gpu_share: float
    part_rows: int
    part_seconds: float
    decoder: str | None = None
    """With `isolate`, for tests: see `isolation.pool.Workers`."""
