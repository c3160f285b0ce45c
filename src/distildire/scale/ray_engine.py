"""Scoring with Ray Data: an actor a core, each with a detector of its own (extra `scale`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import ray

from distildire.detector import Detector
from distildire.io.tars import BETWEEN
from distildire.isolation.pool import Workers
from distildire.loading import Unread
from distildire.scale.addresses import is_address, read_address
from distildire.scale.items import Item, failing

BATCH = 32
"""Files that an actor takes at a time."""

CHUNK = 20_000
"""Files that are handed to Ray at a time, so that the list of all is never in memory."""

CHUNK_BYTES = 256 * 2**20
"""The same where the driver has read them, out of a shard."""


class Scorer:
    """What an actor does: batches of files to columns of results."""

    def __init__(
        self,
        model: str,
        fpr: float,
        device: str = "cpu",
        isolate: bool = False,
        decoder: str | None = None,
    ) -> None:
        self._detector = Detector(model, fpr=fpr, threads=1, device=device)
        self._load = None
        if isolate:
            preprocessing = self._detector.bundle.preprocessing
            self._load = Workers(preprocessing, 1, decoder=decoder).load_item

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Columns `path`, `size`, `mtime`, `etag`, `data`, `wrong` -> those of the parts."""
        given = zip(batch["path"], batch["data"], batch["wrong"], strict=True)
        verdicts = list(self._detector.stream(itertools.starmap(_picture, given), load=self._load))
        rows = [verdict.to_dict() for verdict in verdicts]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return columns | {name: list(batch[name]) for name in ("size", "mtime", "etag")}


def _picture(path: Any, data: Any, wrong: Any) -> str | Unread:
    path = str(path)
    if isinstance(wrong, str):
        return Unread(path, partial(failing, wrong))
    if isinstance(data, bytes):
        return Unread(path, partial(bytes, data))
    return Unread(path, partial(read_address, path)) if is_address(path) else path


def _row_of(item: Item) -> dict[str, Any]:
    """What an actor is told; bytes only of what stands in a shard."""
    row: dict[str, Any] = {name: getattr(item, name) for name in ("path", "size", "mtime", "etag")}
    row |= {"data": None, "wrong": None}
    if item.read is not None and not (is_address(item.path) and BETWEEN not in item.path):
        try:
            row["data"] = item.read()
        except Exception as error:  # the row says so
            row["wrong"] = str(error)
    return row


def _chunks(items: Iterable[Item]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    held = 0
    for row in map(_row_of, items):
        chunk.append(row)
        held += len(row["data"] or b"")
        if len(chunk) == CHUNK or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def score_items(
    items: Iterable[Item],
    model: str,
    fpr: float,
    device: str = "cpu",
    isolate: bool = False,
    decoder: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the parts, in no particular order; `isolate` and `decoder` as for `score`.

    A cluster that runs already is used (`RAY_ADDRESS`), else one is started on this machine.
    """
    if not ray.is_initialized():
        ray.init(logging_level="warning", include_dashboard=False)
    actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    for chunk in _chunks(items):
        blocks = min(len(chunk), 4 * actors)
        scored = ray.data.from_items(chunk, override_num_blocks=blocks).map_batches(
            Scorer,
            fn_constructor_args=(model, fpr, device, isolate, decoder),
            batch_size=BATCH,
            concurrency=min(actors, blocks),
        )
        yield from map(_plain, scored.iter_rows())


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numpy's scalars and missing numbers as Python has them."""
    values = {k: v.item() if hasattr(v, "item") else v for k, v in row.items()}
    values = {k: None if v != v else v for k, v in values.items()}
    for name in ("width", "height", "size"):
        values[name] = None if values[name] is None else int(values[name])
    return values
