"""Where the service listens, and what it says of it."""

from __future__ import annotations

import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from distildire import Detector
from distildire.web import connections
from distildire.web.server import listen, page_of, serve


def test_the_address_that_is_said_answers(bundle: Path) -> None:
    command = [sys.executable, "-m", "distildire", "serve", "--model", str(bundle)]
    options = ["--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if "http://" in line)
            found = re.fullmatch(r"distildire: (http://127\.0\.0\.1:[1-9]\d+/)\n", said)
            assert found, said
            assert urllib.request.urlopen(found[1] + "healthz", timeout=60).status == 200
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


def test_addresses_that_can_not_be_had_are_one_sentence() -> None:
    with listen("localhost", 0) as taken:
        port = taken.getsockname()[1]
        assert page_of(taken) == f"http://127.0.0.1:{port}/"
        for host, number, words in (
            ("127.0.0.1", port, "in use"),
            ("no.such.host.invalid", 80, "no.such.host.invalid"),
            ("192.0.2.1", 0, "192.0.2.1"),
        ):
            with pytest.raises(OSError, match=f"cannot listen on .*{words}"):
                listen(host, number)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_addresses_of_ipv6_are_in_brackets(host: str) -> None:
    try:
        listener = listen(host, 0)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        assert page_of(listener) == f"http://[::1]:{listener.getsockname()[1]}/"


@contextmanager
def served(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """What `serve` gives its address as, in a thread."""
    servers: list[uvicorn.Server] = []
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Kept(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Kept)
    options = {"port": 0, "log_level": "error", "listening": said.put}
    thread = threading.Thread(target=serve, args=(detector,), kwargs=options, daemon=True)
    thread.start()
    host, port = said.get(timeout=60).removeprefix("http://").rstrip("/").split(":")
    try:
        yield host, int(port)
    finally:
        servers[0].should_exit = True
        thread.join(60)


def test_connections_without_a_whole_header_are_closed(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    whole = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with served(detector, monkeypatch) as address:
        for before, half in ((b"", b""), (b"", whole[:-2]), (whole, whole[:-2])):
            with socket.create_connection(address, timeout=10) as connection:
                if before:
                    connection.sendall(before)
                    assert b" 200 " in connection.recv(2**16)
                connection.sendall(half)
                while connection.recv(2**16):  # raises where the end doesn't come
                    pass


def test_a_whole_header_has_time_for_its_body(
    detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    head = f"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: {len(real_png)}\r\n\r\n"
    with (
        served(detector, monkeypatch) as address,
        socket.create_connection(address, timeout=60) as connection,
    ):
        connection.sendall(head.encode() + real_png[:100])
        time.sleep(0.6)
        connection.sendall(real_png[100:])
        assert b" 200 " in connection.recv(2**16)
