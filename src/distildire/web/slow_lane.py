"""Slow work, one piece at a time, so that it never holds up the scoring of pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from distildire.web.scoring import Busy

T = TypeVar("T")


class SlowLane:
    """A bounded line before one thread."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._pool = ThreadPoolExecutor(1, "slow")

    @property
    def pending(self) -> int:
        """Pieces waiting or at work."""
        return self._taken

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in the thread.

        A place is held until the work is over, even where its caller has left.

        Raises:
            Busy: no place is free.
        """
        if self._taken >= self._places:
            raise Busy(min(60, 2 * self._taken))
        self._taken += 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits and end the thread once its work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self) -> None:
        self._taken -= 1
