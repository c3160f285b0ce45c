"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "application/problem+json"

LINGER_BYTES, LINGER_SECONDS = 256 * 2**20, 15.0
"""How much of a body that is not wanted is waited for once that is said, and how long."""

_TYPES = {
    400: "bad-request",
    401: "unauthorized",
    408: "upload-too-slow",
    413: "too-large",
    422: "not-scorable",
    429: "busy",
    503: "too-slow",
}


class Problem(Exception):  # noqa: N818  (the RFC's name for it)
    """An answer that is no result: an HTTP status and one sentence for the caller."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        unread: bool = False,
        **extensions: Any,
    ) -> None:
        """`unread`: of the body more is to come, which nobody will read."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.unread = unread
        self.extensions = extensions

    def response(self) -> JSONResponse:
        """As `application/problem+json`."""
        kind = _TYPES.get(self.status)
        body = {
            "type": f"urn:distildire:problem:{kind}" if kind else "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.extensions,
        }
        answer = _Lingering if self.unread else JSONResponse
        return answer(body, self.status, self.headers, MEDIA_TYPE)


class _Lingering(JSONResponse):
    """An answer after which the connection stays open for a while.

    Most clients send their whole body before they read; where the connection closes under them,
    the answer is lost. What still comes is thrown away.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                left = LINGER_BYTES
                while left > 0 and (message := await receive()).get("more_body"):
                    left -= len(message["body"])
        await send({"type": "http.response.body", "body": b""})


def install(app: FastAPI, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Answer every error of `app` with a problem document.

    `headers`: of the answer to an error of the service, which no middleware sees.
    """

    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers) if error.headers else None
        return Problem(error.status_code, str(error.detail), headers=headers).response()

    async def validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        return Problem(422, "; ".join(faults)).response()

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        answer = Problem(500, "an error of the service; its log says more").response()
        answer.raw_headers.extend(headers)
        return answer

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(Exception, unexpected)
