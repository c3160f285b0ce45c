"""Score a folder, a manifest or a list into Parquet parts; resumable, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distildire import __version__
from distildire.detector import DEFAULT_FPR, Detector
from distildire.scale.items import Item, list_items
from distildire.scale.parts import (
    PART_ROWS,
    PART_SECONDS,
    Done,
    PartWriter,
    drop_stale,
    open_folder,
)

Engine = Literal["local", "ray"]

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """What a run did."""

    scored: int
    """Files of this run, those with an error among them."""
    present: int
    """Files that were done before."""
    errors: int
    """Rows of the folder that have no score, and folders that could not be listed."""


def score(
    source: str | Path,
    out: Path,
    *,
    model: str | Path = "nano",
    fpr: float = DEFAULT_FPR,
    engine: Engine = "local",
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
    part_rows: int = PART_ROWS,
    part_seconds: float = PART_SECONDS,
) -> Report:
    """Write a row for each picture of `source` into `part-*.parquet` files under `out`.

    A file is known by its path, size and modification time: what an earlier run has scored
    is skipped, and a file that was changed since is scored again, its old row dropped. A
    file that can't be scored has a row with `error`.

    Args:
        source: folder, manifest or list of paths; see `list_items`.
        out: folder, of this model and error budget alone.
        model: bundled model by name, or the folder of a bundle.
        fpr: error budget of the verdicts, 0..0.5.
        engine: "local", or "ray" for the cluster that `ray.init` finds, whose machines must
            see the files under the same paths.
        device: what runs the network, see `Detector`.
        progress: called with the number of files scored.
        part_rows: rows of a part at most.
        part_seconds: time after which what was scored is written.

    Raises:
        ValueError: a source, folder or model that can't be used; the message says why.
        ImportError: pyarrow or, for its engine, ray is missing.
    """
    detector = Detector(model, fpr=fpr, device=device)
    sha256 = detector.bundle.sha256
    about = {"model": detector.name, "sha256": sha256, "fpr": fpr, "version": __version__}
    open_folder(out, about)
    drop_stale(out)
    done = Done(out)
    present = scored = errors = 0

    def failed(_: str) -> None:
        nonlocal errors
        errors += 1

    def pending() -> Iterator[Item]:
        nonlocal present
        for item in list_items(source, failed):
            if item in done:
                present += 1
            else:
                yield item

    writer = PartWriter(out, rows=part_rows, seconds=part_seconds)
    for row in _engine(engine, detector, model, fpr)(pending()):
        writer.add(row)
        scored += 1
        errors += row["error"] is not None
        if progress is not None:
            progress(scored)
    writer.flush()
    drop_stale(out)
    return Report(scored, present, errors + done.errors)


def _engine(
    engine: Engine, detector: Detector, model: str | Path, fpr: float
) -> Callable[[Iterable[Item]], Rows]:
    if engine == "ray":
        from distildire.scale.ray_engine import score_items

        return lambda items: score_items(items, str(model), fpr)
    return lambda items: score_here(detector, items)


def score_here(detector: Detector, items: Iterable[Item]) -> Rows:
    """Rows in the order of the items, on the cores of this machine."""
    at_work: deque[Item] = deque()

    def paths() -> Iterator[str]:
        for item in items:
            at_work.append(item)
            yield item.path

    for verdict in detector.stream(paths()):
        item = at_work.popleft()
        yield verdict.to_dict() | {"size": item.size, "mtime": item.mtime}
