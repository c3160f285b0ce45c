"""Equal bytes scored once: each file has its row, and those of equal files are copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from distildire.detector import Detector
from distildire.io.cores import AHEAD_BYTES
from distildire.io.hashing import sha256_of
from distildire.io.pictures import read_bytes
from distildire.loading import Given, Loaded, Unread
from distildire.scale.items import Item, failing
from distildire.verdict import COLUMNS

READERS = 8
"""Files read at a time, ahead of those at work."""

AHEAD = 32
"""Files in memory at most, beside those at work; fewer where they have `AHEAD_BYTES`."""

_OF_THE_BYTES = tuple(
    name for name in COLUMNS if name not in {"path", "sha256", "model", "model_sha256", "fpr"}
)
"""Fields that equal bytes have in common, the name and the detector aside."""

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
        at_work: deque[tuple[Item, bytes | None, bool]] = deque()

        # Copies take their place in the line too: their turn comes after their original's.
        def all_of_them() -> Iterator[Unread]:
            for item, data in _read_ahead(items):
                digest = None if isinstance(data, str) else bytes.fromhex(sha256_of(data))
                copy = digest in self.known
                at_work.append((item, digest, copy))
                if digest is not None and not copy:
                    self.known[digest] = None
                wrong = data if isinstance(data, str) else "a copy" if copy else None
                if wrong is not None:
                    yield Unread(item.path, partial(failing, wrong))
                else:
                    yield Unread(item.path, partial(bytes, data), len(data))

        for verdict in self._detector.stream(all_of_them(), load=self._load):
            item, digest, copy = at_work.popleft()
            row = verdict.to_dict()
            if digest is not None and copy:
                row = row_of_copy(row, digest, self)
            elif digest is not None:
                self.learn(digest, row)
            yield item, row

    def learn(self, digest: bytes, row: dict[str, Any]) -> None:
        """Take the row of a picture that was scored."""
        self.known[digest] = facts_of(row)


def row_of_copy(row: dict[str, Any], digest: bytes, once: Once) -> dict[str, Any]:
    """The row of a file whose bytes were scored under another name."""
    facts = once.known[digest]
    assert facts is not None
    once.copies += 1
    return row | {"sha256": digest.hex(), **dict(zip(_OF_THE_BYTES, facts, strict=True))}


def _read_ahead(items: Iterable[Item]) -> Iterator[tuple[Item, bytes | str]]:
    """Items and their bytes, or what is wrong with them, in order."""
    source = iter(items)
    at_work: deque[tuple[Item, Future[bytes | str]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while True:
            while len(at_work) < AHEAD and sum(map(_held, at_work)) < AHEAD_BYTES:
                if (item := next(source, None)) is None:
                    break
                at_work.append((item, pool.submit(_bytes_of, item)))
            if not at_work:
                return
            item, future = at_work.popleft()
            yield item, future.result()


def _held(read: tuple[Item, Future[bytes | str]]) -> int:
    """Bytes that a file has in memory, as far as is known while it is read."""
    item, future = read
    return len(future.result()) if future.done() else item.size or 0


def _bytes_of(item: Item) -> bytes | str:
    try:
        return read_bytes(Path(item.path)) if item.read is None else item.read()
    except Exception as error:  # the row says so
        return str(error).strip() or type(error).__name__
