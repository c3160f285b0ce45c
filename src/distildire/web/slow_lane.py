"""Slow work, one piece at a time, so that it never holds up the scoring of pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from distildire.web.scoring import Busy

T = TypeVar("T")


class Place:
    """One request's place in the lane, for its pieces one after the other."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.last: Future[Any] | None = None
        """The piece begun last."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in the thread; dropped where it still waits when its caller leaves."""
        self.last = future = self._pool.submit(work)
        return await asyncio.wrap_future(future)


class SlowLane:
    """A bounded line before one thread."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._pool = ThreadPoolExecutor(1, "slow")

    @property
    def pending(self) -> int:
        """Places taken."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place, held until its work is over, even where its caller has left.

        Raises:
            Busy: no place is free.
        """
        if self._taken >= self._places:
            raise Busy(min(60, 2 * self._taken))
        self._taken += 1
        loop = asyncio.get_running_loop()
        place = Place(self._pool)
        try:
            yield place
        finally:
            if place.last is None:
                self._leave()
            else:
                place.last.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))

    def close(self) -> None:
        """Drop what waits and end the thread once its work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self) -> None:
        self._taken -= 1
