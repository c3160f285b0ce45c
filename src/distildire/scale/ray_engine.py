"""Scoring with Ray Data: an actor a core, each with a detector of its own (extra `scale`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import ray

from distildire.detector import Detector
from distildire.scale.items import Item

BATCH = 32
"""Files that an actor takes at a time."""

CHUNK = 20_000
"""Files that are handed to Ray at a time, so that the list of all is never in memory."""


class Scorer:
    """What an actor does: batches of files to columns of results."""

    def __init__(self, model: str, fpr: float) -> None:
        self._detector = Detector(model, fpr=fpr, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Columns `path`, `size`, `mtime` -> the columns of the parts."""
        verdicts = self._detector.predict([str(path) for path in batch["path"]])
        rows = [verdict.to_dict() for verdict in verdicts]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return columns | {"size": list(batch["size"]), "mtime": list(batch["mtime"])}


def score_items(items: Iterable[Item], model: str, fpr: float) -> Iterator[dict[str, Any]]:
    """Rows of the parts, in no particular order.

    A cluster that runs already is used (`RAY_ADDRESS`), else one is started on this machine.
    """
    if not ray.is_initialized():
        ray.init(logging_level="warning", include_dashboard=False)
    actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    items = iter(items)
    while chunk := list(itertools.islice(items, CHUNK)):
        blocks = min(len(chunk), 4 * actors)
        rows = [{"path": i.path, "size": i.size, "mtime": i.mtime} for i in chunk]
        scored = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Scorer,
            fn_constructor_args=(model, fpr),
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
