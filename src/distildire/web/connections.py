"""Connections that end when they keep the service waiting for a request's header."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_SECONDS = 60.0
"""From a connection's start, or from what comes behind an answer, to the end of a header."""

_Uvicorns: Any = AutoHTTPProtocol


class Impatient(_Uvicorns):  # type: ignore[misc]
    """Uvicorn's protocol, which by itself waits for a header for ever.

    Each connection takes a file descriptor, of which a process often has no more than 1,024.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the clock run while a header is to come, and only then."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
