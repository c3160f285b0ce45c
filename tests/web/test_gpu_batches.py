"""What waits for a GPU is scored together, and nothing waits for more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from distildire.loading import Loaded
from distildire.web.scoring import ScoringQueue
from distildire.web.uploads import Upload


class OnGpu:
    """A detector that takes four pictures at a time, and its time for the first.

    One core decodes, so that of what came before the answer to a file that is none all is decoded.
    """

    cores, batch = 1, 4

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.first, self.go_on = threading.Event(), threading.Event()

    def load(self, data: bytes, *, name: str, max_pixels: int) -> Loaded:
        return Loaded(name, error="no picture" if name == "none" else None)

    def not_scored(self, path: str, error: str, sha256: str | None, *, fpr: float) -> str:
        return error

    def judge(self, batch: Sequence[Loaded], fprs: Sequence[float], *, alone: bool) -> list[Any]:
        self.sizes.append(len(batch))
        self.first.set()
        assert self.go_on.wait(60)
        if any(item.path == "bad" for item in batch):
            raise RuntimeError("out of memory")
        return [(item.path, fpr, alone) for item, fpr in zip(batch, fprs, strict=True)]


def test_what_waits_is_scored_together() -> None:
    detector = OnGpu()
    queue = ScoringQueue(detector)  # type: ignore[arg-type]
    (lone,) = queue.submit([Upload("lone", b"")], 0.01)
    assert detector.first.wait(60)  # at work, while seven more come
    others = queue.submit([Upload(f"{n}", b"") for n in range(7)], 0.05)
    (none,) = queue.submit([Upload("none", b"")], 0.05)
    assert none.result(60) == "no picture"  # all seven are decoded, and wait
    detector.go_on.set()
    assert lone.result(60) == ("lone", 0.01, True)
    assert [future.result(60)[:2] for future in others] == [(f"{n}", 0.05) for n in range(7)]
    assert detector.sizes == [1, 4, 3]
    assert queue.pending == 0
    queue.close()


def test_an_error_reaches_all_that_it_concerns() -> None:
    detector, before = OnGpu(), set(threading.enumerate())
    detector.go_on.set()
    queue = ScoringQueue(detector)  # type: ignore[arg-type]
    (bad,) = queue.submit([Upload("bad", b"")], 0.01)
    with pytest.raises(RuntimeError, match="out of memory"):
        bad.result(60)
    (good,) = queue.submit([Upload("good", b"")], 0.01)
    assert good.result(60)[0] == "good"
    queue.close()
    assert set(threading.enumerate()) <= before
