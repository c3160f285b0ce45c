"""A long stream of rows in lists, each made in a thread while the one before is in work."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

Row = dict[str, Any]


@contextmanager
def chunks(rows: Iterable[Row], count: int, most: int) -> Iterator[Iterator[list[Row]]]:
    """Lists of `count` rows, or of fewer, as soon as their `data` come to `most` bytes.

    Rows are taken in a thread, one list ahead; when the block is left, none is taken any more.
    """
    is_left = threading.Event()
    lists = _lists(itertools.takewhile(lambda _: not is_left.is_set(), rows), count, most)
    with ThreadPoolExecutor(1, "chunks") as pool:
        try:
            yield _one_ahead(lists, pool)
        finally:
            is_left.set()


def _one_ahead(lists: Iterator[list[Row]], pool: ThreadPoolExecutor) -> Iterator[list[Row]]:
    coming = pool.submit(next, lists, None)
    while (chunk := coming.result()) is not None:
        coming = pool.submit(next, lists, None)
        yield chunk


def _lists(rows: Iterable[Row], count: int, most: int) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    held = 0
    for row in rows:
        chunk.append(row)
        held += len(row["data"] or b"")
        if len(chunk) == count or held >= most:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
