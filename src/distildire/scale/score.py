"""Score pictures, wherever they lie, into Parquet parts; resumable, in bounded memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distildire import __version__
from distildire.detector import DEFAULT_FPR, MAX_WORKERS, Detector
from distildire.io.finding import OnError
from distildire.io.tars import BETWEEN
from distildire.isolation.pool import Workers
from distildire.loading import Given, Loaded, Unread
from distildire.scale.folders import folder_of
from distildire.scale.items import Item, SourceError
from distildire.scale.once import Once
from distildire.scale.pace import Pace
from distildire.scale.parts import (
    PART_ROWS,
    PART_SECONDS,
    Done,
    PartWriter,
    drop_stale,
    open_folder,
    scored_before,
)
from distildire.scale.sources import how_many, items_of

Engine = Literal["local", "ray"]

Rows = Iterator[dict[str, Any]]

OnPace = Callable[[Pace], None]

Load = Callable[[Given], Loaded]


@dataclass(frozen=True)
class Report:
    """What a run did."""

    scored: int
    """Files of this run, those with an error among them."""
    present: int
    """Files that were done before."""
    errors: int
    """Rows of the folder that have no score; folders and rows of a list that name no file."""
    copies: int = 0
    """Of `scored`, those whose bytes had been scored already (`dedup`)."""
    seconds: float = 0.0
    """From the first file to the last row."""
    cores: int = 1
    """That the run could use."""


def score(
    source: str | Path,
    out: str | Path,
    *,
    model: str | Path = "nano",
    fpr: float = DEFAULT_FPR,
    engine: Engine = "local",
    device: str = "cpu",
    dedup: bool = False,
    isolate: bool = False,
    decoder: str | None = None,
    gpu_share: float = 1.0,
    progress: OnPace | None = None,
    part_rows: int = PART_ROWS,
    part_seconds: float = PART_SECONDS,
    on_error: OnError | None = None,
    on_device: Callable[[str], None] | None = None,
) -> Report:
    """Write a row for each picture of `source` into `part-*.parquet` files under `out`.

    A file is known by its path, size and modification time: what an earlier run has scored
    is skipped, and a file that was changed since is scored again, its old row dropped. A
    file that can't be scored has a row with `error`.

    Args:
        source: folder, pattern, manifest, list or shards, here or in a store; see `items_of`.
        out: folder, or its address in a store, of this model, error budget and device alone.
        model: bundled model by name, or the folder of a bundle.
        fpr: error budget of the verdicts, 0..0.5.
        engine: "local", or "ray" for the cluster that `ray.init` finds, whose machines must
            see the files under the same paths.
        device: what runs the network, see `Detector`.
        dedup: score equal bytes once; every file has its row. For the engine "local".
        isolate: decode in processes of their own, so that a file that crashes its decoder costs
            its row alone.
        decoder: with `isolate`, for tests, see `isolation.pool.Workers`.
        gpu_share: for the engine "ray" on GPUs: part of one that an actor takes, 0..1.
        progress: hears of each file.
        part_rows: rows of a part at most.
        part_seconds: time after which what was scored is written.
        on_error: takes a sentence for each folder that can't be listed, and for each row of a
            manifest that names no file.
        on_device: takes what runs the network, before the first file: "cpu", "cuda" or
            "openvino".

    Raises:
        ValueError: a source, folder or model that can't be used; the message says why.
        ImportError: pyarrow, fsspec for an address or, for its engine, ray is missing.
    """
    if dedup and engine == "ray":
        raise ValueError("--dedup goes with --engine local: actors don't know of each other")
    # Ray's driver scores nothing, and may have no GPU.
    here = "cpu" if engine == "ray" and device == "cuda" else device
    detector = Detector(model, fpr=fpr, device=here)
    cores, took = detector.cores, detector.device
    if engine == "ray":
        from distildire.scale.ray_engine import actors_for, connect, score_items

        actors = actors_for(connect(), device, gpu_share)
        cores, took = actors.count * actors.cores, "cuda" if actors.gpus else took
    if on_device is not None:
        on_device(took)
    about = {
        "model": detector.name, "sha256": detector.bundle.sha256, "fpr": fpr, "device": took,
        "version": __version__,
    }  # fmt: skip
    folder = folder_of(out)
    with open_folder(folder, about), contextlib.ExitStack() as stack:
        drop_stale(folder)
        done = Done(folder)
        present = scored = errors = 0
        whole: set[str] = set()
        trouble: Exception | None = None

        def failed(message: str) -> None:
            nonlocal errors
            errors += 1
            if on_error is not None:
                on_error(message)

        def pending() -> Iterator[Item]:
            nonlocal present, trouble
            try:
                for item in items_of(source, failed):
                    shard, inside, _ = item.path.partition(BETWEEN)
                    whole.add(shard) if inside else whole.discard(shard)
                    if item in done:
                        present += 1
                    else:
                        yield item.held()
            except Exception as error:  # raised when what was given before it has its rows
                trouble = error

        load = None
        if isolate and engine == "local":
            load = stack.enter_context(_isolated(detector, decoder)).load_item
        once = Once(detector, scored_before(folder), load) if dedup else None
        total = _Total(source) if progress is not None else None
        writer = PartWriter(folder, rows=part_rows, seconds=part_seconds)
        began = time.monotonic()
        if engine == "ray":
            rows = score_items(
                pending(), str(model), fpr, actors=actors, device=device, isolate=isolate,
                decoder=decoder,
            )  # fmt: skip
        elif once is not None:
            rows = (row | facts_of_file(item) for item, row in once.rows(pending()))
        else:
            rows = score_here(detector, pending(), load)
        try:
            for row in rows:
                writer.add(row)
                scored += 1
                if progress is not None and total is not None:
                    progress(Pace(scored, present, total.number, time.monotonic() - began))
        finally:
            writer.flush()
        if trouble is not None:
            raise trouble
        if not (scored or present or errors):
            raise SourceError(f"{source}: holds no pictures")
        seconds = time.monotonic() - began
        errors += drop_stale(folder, whole)
        copies = once.copies if once is not None else 0
        return Report(scored, present, errors, copies, seconds, cores)


class _Total:
    """Counts a source beside the work."""

    def __init__(self, source: str | Path) -> None:
        self.number: int | None = None
        self._source = source
        threading.Thread(target=self._count, name="count", daemon=True).start()

    def _count(self) -> None:
        self.number = how_many(self._source)


@contextlib.contextmanager
def _isolated(detector: Detector, decoder: str | None) -> Iterator[Workers]:
    count = min(MAX_WORKERS, detector.cores)
    workers = Workers(detector.bundle.preprocessing, count, decoder=decoder)
    try:
        yield workers
    finally:
        workers.close()


def facts_of_file(item: Item) -> dict[str, Any]:
    """The columns of a row that the listing knew."""
    return {"size": item.size, "mtime": item.mtime, "etag": item.etag}


def score_here(detector: Detector, items: Iterable[Item], load: Load | None = None) -> Rows:
    """Rows in the order of the items, on the cores of this machine; `load` as for a detector."""
    at_work: deque[Item] = deque()

    def pictures() -> Iterator[str | Unread]:
        for item in items:
            at_work.append(item)
            yield item.path if item.read is None else Unread(item.path, item.read)

    for verdict in detector.stream(pictures(), load=load):
        yield verdict.to_dict() | facts_of_file(at_work.popleft())
