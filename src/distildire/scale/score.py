"""Score pictures, wherever they lie, into Parquet parts; resumable, in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distildire import __version__
from distildire.bundle import load_bundle
from distildire.detector import DEFAULT_FPR, Detector
from distildire.io.cores import usable_cores
from distildire.io.finding import OnError
from distildire.isolation.pool import Workers
from distildire.loading import Given, Loaded, Unread
from distildire.scale.folders import folder_of
from distildire.scale.items import Item, SourceError, digest
from distildire.scale.once import Once
from distildire.scale.options import Engine, ScoreOptions
from distildire.scale.pace import Pace
from distildire.scale.parts import (
    PART_ROWS,
    PART_SECONDS,
    DoneItems,
    PartWriter,
    drop_stale,
    open_folder,
    scored_before,
)
from distildire.scale.sources import how_many, items_of

if TYPE_CHECKING:
    from distildire.scale.ray_engine import Actors

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
    """Files of the source that have no score, those of earlier runs among them, or that couldn't be
    reached and keep their score; folders that can't be listed, and rows of a list that name no
    file."""
    copies: int = 0
    """Of `scored`, those whose bytes had been scored already (`dedup`)."""
    seconds: float = 0.0
    """From the first file that had no row yet to the last row."""
    cores: int = 1
    """That the run could use."""


def score(  # noqa: PLR0913
    source: str | Path,
    out: str | Path,
    *,
    model: str | Path = "nano",
    fpr: float = DEFAULT_FPR,
    engine: Engine = "local",
    device: str = "cpu",
    dedup: bool = False,
    isolate: bool = False,
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
        out: folder, or its address in a store, of this model, calibration, error budget and
            device alone.
        model: bundled model by name, or the folder of a bundle.
        fpr: error budget of the verdicts, 0..0.5.
        engine: "local", or "ray" for the cluster that `ray.init` finds, whose machines must
            see the files under the same paths. Without one it is started, and ended with the run.
        device: what runs the network, see `Detector`.
        dedup: score equal bytes once; every file has its row.
        isolate: decode in processes of their own, so that a file that crashes its decoder costs
            its row alone; the engine "ray" always does.
        gpu_share: for the engine "ray" on GPUs: part of one that an actor takes, 0..1.
        progress: hears of each file.
        part_rows: rows of a part at most.
        part_seconds: time after which what was scored is written.
        on_error: takes a sentence for each folder that can't be listed, and for each row of a
            manifest that names no file; with the engine "ray", in another thread.
        on_device: takes what runs the network, before the first file: "cpu", "cuda" or
            "openvino".

    Raises:
        ValueError: a source, folder or model that can't be used; the message says why.
        ImportError: pyarrow, fsspec for an address or, for its engine, ray is missing.
    """
    options = ScoreOptions(
        model=model, fpr=fpr, engine=engine, device=device, dedup=dedup, isolate=isolate,
        gpu_share=gpu_share, part_rows=part_rows, part_seconds=part_seconds,
    )  # fmt: skip
    return score_with(source, out, options, progress, on_error, on_device)


def score_with(
    source: str | Path,
    out: str | Path,
    options: ScoreOptions,
    progress: OnPace | None = None,
    on_error: OnError | None = None,
    on_device: Callable[[str], None] | None = None,
) -> Report:
    """`score`, with its keywords as options."""
    with _engine(options) as (detector, actors, options):
        if on_device is not None:
            on_device(options.device)
        about = {
            "model": detector.name, "sha256": detector.bundle.sha256, "fpr": options.fpr,
            "device": options.device, "version": __version__,
        }  # fmt: skip
        if detector.bundle.calibration is not None:
            about["calibration"] = detector.bundle.calibration.sha256
        pending = _Pending(source, on_error)  # refuses an empty one before there is a folder for it
        folder = folder_of(out)
        with open_folder(folder, about), _loading(detector, options) as load:
            drop_stale(folder)
            pending.done = DoneItems(folder)
            once = Once(detector, scored_before(folder), load) if options.dedup else None
            writer = PartWriter(folder, rows=options.part_rows, seconds=options.part_seconds)
            tell = _telling(progress, source, pending)
            if actors is not None:
                from distildire.scale.ray_engine import score_items

                rows = score_items(pending, options, actors, once)
            elif once is not None:
                rows = (row | facts_of_file(item) for item, row in once.rows(pending))
            else:
                rows = score_here(detector, pending, load)
            scored = _write(rows, writer, tell, pending.wrong)
            if pending.trouble is not None:
                raise pending.trouble
            seconds = pending.seconds
            pending.done = None  # its memory is needed
            errors = pending.errors + drop_stale(folder, pending.whole, pending.wrong)
            copies = once.copies if once is not None else 0
            cores = detector.cores if actors is None else actors.count * actors.cores
            return Report(scored, pending.present, errors, copies, seconds, cores)


@contextlib.contextmanager
def _engine(options: ScoreOptions) -> Iterator[tuple[Detector, Actors | None, ScoreOptions]]:
    """The detector; where Ray is asked for, the actors in its place; the device that works."""
    if options.engine != "ray":
        cores = usable_cores()
        detector = Detector(options.model, fpr=options.fpr, device=options.device, threads=cores)
        yield detector, None, replace(options, device=detector.device)
        return
    from distildire.scale.ray_engine import actors_for, connected, device_of

    # The driver scores nothing, and may have no GPU.
    here = options.device
    if here in {"cuda", "auto"}:
        here = "openvino" if here == "auto" and load_bundle(options.model).is_ir else "cpu"
    detector = Detector(options.model, fpr=options.fpr, device=here)
    if detector.bundle.folder == Path(options.model):  # actors are at work in another folder
        options = replace(options, model=Path(options.model).absolute())
    with connected() as nodes:
        actors = actors_for(nodes, options.device, options.gpu_share)
        options = replace(options, device=device_of(actors, options) if actors.gpus else here)
        yield detector, actors_for(nodes, options.device, options.gpu_share), options


def _telling(
    progress: OnPace | None, source: str | Path, pending: _Pending
) -> Callable[[int], None]:
    """Tells `progress` how far so many rows are; the source is counted beside the work."""
    if progress is None:
        return lambda scored: None
    total = _Total(source)

    def tell(scored: int) -> None:
        progress(Pace(scored, pending.present, total.number, pending.seconds))

    return tell


def _write(rows: Rows, writer: PartWriter, tell: Callable[[int], None], wrong: bytearray) -> int:
    """Write all rows, and give their number; what came before an error is written too.

    The digests of paths that have no score go to the end of `wrong`.
    """
    scored = 0
    try:
        for scored, row in enumerate(rows, 1):
            writer.add(row)
            if row["error"] is not None:
                wrong += digest(row["path"])
            tell(scored)
    finally:
        writer.flush()
    return scored


class _Pending:
    """The items of a source that have no row yet, and what was found on the way; for one pass."""

    def __init__(self, source: str | Path, on_error: OnError | None) -> None:
        """Look at the first of them.

        Raises:
            SourceError: it gives nothing at all, neither a picture nor what is wrong with one.
        """
        self._on_error = on_error
        self.done: DoneItems | None = None
        self.present = self.errors = 0
        self.wrong = bytearray()
        """Digests of the paths that have a row with an error."""
        self.whole: set[str] = set()
        """Shards that were read to their end."""
        self.trouble: Exception | None = None
        """What ended the source; raised when all that it gave before has its row."""
        self._began: float | None = None
        items = items_of(source, self._failed)
        first = list(itertools.islice(items, 1))
        if not first and not self.errors:
            raise SourceError(f"{source}: holds no pictures")
        self._items = itertools.chain(first, items)

    @property
    def seconds(self) -> float:
        """Since the first item; those before it that have a row already are no work."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def __iter__(self) -> Iterator[Item]:
        try:
            for item in self._items:
                if item.shard is not None:
                    self.whole.add(item.shard)
                self.whole.discard(item.path)  # a shard stands here where it is wrong
                if self.done is not None and item in self.done:
                    self.present += 1
                    if self.done.has_error(item):
                        self.wrong += digest(item.path)
                else:
                    self._began = self._began or time.monotonic()
                    yield item.held()
        except Exception as error:
            self.trouble = error

    def _failed(self, message: str) -> None:
        self.errors += 1
        if self._on_error is not None:
            self._on_error(message)


class _Total:
    """Counts a source beside the work."""

    def __init__(self, source: str | Path) -> None:
        self.number: int | None = None
        self._source = source
        threading.Thread(target=self._count, name="count", daemon=True).start()

    def _count(self) -> None:
        self.number = how_many(self._source)


@contextlib.contextmanager
def _loading(detector: Detector, options: ScoreOptions) -> Iterator[Load | None]:
    """What loads items in processes of their own, if asked; Ray's actors do so themselves."""
    if not options.isolate or options.engine == "ray":
        yield None
        return
    workers = Workers(detector.bundle.preprocessing, detector.cores, decoder=options.decoder)
    try:
        yield workers.load_item
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
