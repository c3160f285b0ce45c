"""Equal bytes scored once: each file has its row, and those of equal files are copies."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from distildire.detector import Detector
from distildire.io.hashing import sha256_of
from distildire.io.pictures import read_bytes
from distildire.loading import Given, Loaded, Unread
from distildire.scale.items import Item, failing

READERS = 8
"""Files read at a time, ahead of those at work."""

AHEAD = 32
"""Files in memory at most, beside those at work."""

_OF_THE_BYTES = (
    "probability", "logit", "verdict", "width", "height", "error", "note", "declares",
)  # fmt: skip
"""Fields that equal bytes have in common."""

Facts = tuple[Any, ...]


def facts_of(row: dict[str, Any]) -> Facts:
    """What a row says of its bytes."""
    return tuple(row[name] for name in _OF_THE_BYTES)


class Once:
    """Rows of items, without a second run of the network for bytes that it has seen.

    Some 400 bytes of memory for each picture that is not a copy.
    """

    def __init__(
        self,
        detector: Detector,
        before: Iterable[dict[str, Any]] = (),
        load: Callable[[Given], Loaded] | None = None,
    ) -> None:
        """Start from earlier rows; `load` as for `Detector.stream`."""
        self._detector, self._load = detector, load
        self.known: dict[bytes, Facts | None] = {
            bytes.fromhex(row["sha256"]): facts_of(row) for row in before
        }
        """What is known of each hash; None while its picture is at work."""
        self.copies = 0
        """Rows that were not scored."""

    def rows(self, items: Iterable[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        """(item, row) in the order of the items."""
        waiting: deque[tuple[Item, bytes | None]] = deque()

        def fresh() -> Iterator[Unread]:
            for item, data in _read_ahead(items):
                if isinstance(data, str):
                    waiting.append((item, None))
                    yield Unread(item.path, partial(failing, data))
                    continue
                digest = bytes.fromhex(sha256_of(data))
                waiting.append((item, digest))
                if digest not in self.known:
                    self.known[digest] = None
                    yield Unread(item.path, partial(bytes, data))

        for verdict in self._detector.stream(fresh(), load=self._load):
            yield from self._copies(waiting)
            item, digest = waiting.popleft()
            row = verdict.to_dict()
            if digest is not None:
                self.known[digest] = facts_of(row)
            yield item, row
        yield from self._copies(waiting)

    def _copies(
        self, waiting: deque[tuple[Item, bytes | None]]
    ) -> Iterator[tuple[Item, dict[str, Any]]]:
        """The rows at the head of the line that are known already."""
        while waiting and waiting[0][1] is not None:
            facts = self.known[waiting[0][1]]
            if facts is None:
                return
            item, digest = waiting.popleft()
            assert digest is not None
            self.copies += 1
            row = self._detector.not_scored(item.path, "", digest.hex()).to_dict()
            yield item, row | dict(zip(_OF_THE_BYTES, facts, strict=True))


def _read_ahead(items: Iterable[Item]) -> Iterator[tuple[Item, bytes | str]]:
    """Items and their bytes, or what is wrong with them, in order."""
    source = iter(items)
    at_work: deque[tuple[Item, Future[bytes | str]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while True:
            for item in itertools.islice(source, AHEAD - len(at_work)):
                at_work.append((item, pool.submit(_bytes_of, item)))
            if not at_work:
                return
            item, future = at_work.popleft()
            yield item, future.result()


def _bytes_of(item: Item) -> bytes | str:
    try:
        return read_bytes(Path(item.path)) if item.read is None else item.read()
    except Exception as error:  # the row says so
        return str(error).strip() or type(error).__name__
