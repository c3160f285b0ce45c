"""The body of a request as files, in memory and within limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from distildire.io.text import brief, storable
from distildire.web.problems import Problem
from distildire.web.settings import Settings

FIELD = "file"


@dataclass(frozen=True)
class Upload:
    """One file of a request."""

    name: str
    """As the caller gave it, as UTF-8 can hold it; empty for a raw body."""
    data: bytes


async def read_uploads(request: Request, settings: Settings) -> list[Upload]:
    """The files of a request: multipart fields named `file`, or the raw body as one file.

    Raises:
        Problem: 400 malformed multipart, 408 too slow, 413 over a limit, 422 no file.
    """
    try:
        async with asyncio.timeout(settings.read_seconds):
            body = await _read_body(request, settings.max_body)
    except TimeoutError:
        raise Problem(
            408,
            f"the body did not arrive within {settings.read_seconds:g} seconds",
            headers={"Connection": "close"},
        ) from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        if not body:
            raise Problem(422, "the body is empty: send a picture, or multipart fields `file`")
        return [Upload("", body)]
    return await _read_multipart(request, body, settings)


def announced_length(request: Request) -> int | None:
    """Bytes of the body as the header says; None where it doesn't say."""
    text = request.headers.get("content-length", "")
    if not text.isdecimal() or "transfer-encoding" in request.headers:
        return None
    # Python refuses to read numbers of thousands of digits.
    return int(text.lstrip("0")[:20] or "0")


async def _read_body(request: Request, limit: int) -> bytes:
    body, more = bytearray(), True
    while more and (announced_length(request) or 0) <= limit and len(body) <= limit:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the caller left before the body was whole")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if more or len(body) > limit:
        words = f"the body is over the limit of {limit / 2**20:.0f} MiB"
        raise Problem(413, words, headers={"Connection": "close"}, unread=more)
    return bytes(body)


_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')


class _Parser(MultiPartParser):
    """Starlette's parser, with names after RFC 5987, in memory, and aware of the body's end."""

    spool_max_size = 2**40
    """It writes files over 1 MB to disk; an upload is to stay in memory."""

    ended = False
    """Whether the closing boundary was read."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        header = part.content_disposition or b""
        parameters = {name.lower(): value for name, value in _PARAMETER.findall(header)}
        extended = parameters.get(b"filename*")
        if extended is not None and b"filename" not in parameters:
            # Without this parameter the part would be read as text.
            part.content_disposition = header + b'; filename=""'
        super().on_headers_finished()
        name = None if extended is None else _extended_name(extended)
        if name is not None and part.file is not None:
            part.file.filename = name

    def on_end(self) -> None:
        self.ended = True


def _extended_name(value: bytes) -> str | None:
    """RFC 5987's `charset'language'percent-encoded`, of its two charsets; None where it isn't."""
    charset, _, rest = value.strip().strip(b'"').partition(b"'")
    _, quote, name = rest.partition(b"'")
    if not quote or charset.lower() not in {b"utf-8", b"iso-8859-1"}:
        return None
    try:
        return unquote_to_bytes(name).decode(charset.decode())
    except UnicodeDecodeError:
        return None


async def _read_multipart(request: Request, body: bytes, settings: Settings) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    # One more than allowed, so that the excess is told from a malformed body.
    parser = _Parser(
        request.headers,
        stream(),
        max_files=settings.max_files + 1,
        max_fields=64,
        max_part_size=settings.max_body,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(settings) from None
        raise Problem(400, f"malformed multipart body: {error.message}") from None
    # The parser under Starlette's lets decoding errors of hostile headers through.
    except (KeyError, ValueError, LookupError, AssertionError) as error:
        raise Problem(400, f"malformed multipart body: {type(error).__name__}") from None
    if not parser.ended:
        raise Problem(
            400, "malformed multipart body: it is cut short, its closing boundary is missing"
        )
    files = [
        value
        for name, value in form.multi_items()
        if name == FIELD and isinstance(value, UploadFile)
    ]
    if len(files) > settings.max_files:
        raise _too_many(settings)
    # Of the charset that a caller names, half a letter can come.
    uploads = [Upload(storable(file.filename or ""), await file.read()) for file in files]
    names = [name for name, _ in form.multi_items()]
    await form.close()
    if not uploads:
        raise Problem(422, f"no file in the request: {_why_none(names)}")
    return uploads


def _why_none(names: list[str]) -> str:
    if FIELD in names:
        return (
            f"its part `{FIELD}` has no filename in its Content-Disposition, and so is text: send "
            "it as a file"
        )
    if names:
        shown = ", ".join(f"`{brief(name, 40)}`" for name in names[:5])
        return f"its parts are named {shown}: use the multipart field `{FIELD}`"
    return f"use the multipart field `{FIELD}`"


def _too_many(settings: Settings) -> Problem:
    return Problem(413, f"over {settings.max_files} files in one request: split it")
