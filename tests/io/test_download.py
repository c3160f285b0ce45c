"""Fetching against a server on this machine that breaks off, ignores ranges, or is absent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from distildire.io import download as module
from distildire.io.download import FetchError, Remote, cache_home, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `break_after` bytes it drops the connection, `breaks` times."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.break_after = 0
        self.breaks = 0
        self.ranges = True
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if wanted and self.server.ranges and start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            self.wfile.write(CONTENT[start : start + self.server.break_after])
            return
        self.wfile.write(CONTENT[start:])

    def do_HEAD(self) -> None:
        self.server.asked.append("HEAD")
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)


def test_resumes_a_broken_download(server: Server, tmp_path: Path) -> None:
    server.breaks, server.break_after = 2, 100_000
    heard: list[tuple[int, int | None]] = []
    remote = Remote("w.pt", server.url, size=len(CONTENT), sha256=SHA256)
    path = fetch("w", tmp_path, remote=remote, progress=lambda *b: heard.append(b))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-", "bytes=200000-"]
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert not list(tmp_path.glob("*.part"))
    # There already: no further connection.
    assert fetch("w", tmp_path, remote=remote) == path
    assert len(server.asked) == 3


def test_goes_on_from_a_part_of_an_earlier_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pt.part").write_bytes(CONTENT[:1234])
    path = fetch("w", tmp_path, remote=Remote("w.pt", server.url))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]
    path.unlink()
    # A part that is complete already (killed before the rename).
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
    assert fetch("w", tmp_path, remote=Remote("w.pt", server.url)).read_bytes() == CONTENT


def test_server_without_ranges_is_read_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "w.pt.part").write_bytes(b"x" * 1234)
    assert fetch("w", tmp_path, remote=Remote("w.pt", server.url)).read_bytes() == CONTENT


def test_first_download_is_pinned(server: Server, tmp_path: Path) -> None:
    remote = Remote("w.pt", server.url)
    path = fetch("w", tmp_path, remote=remote)
    assert json.loads((tmp_path / "pins.json").read_text()) == {
        "w": {"size": len(CONTENT), "sha256": SHA256}
    }
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(FetchError, match="299,999 bytes instead of 300,000"):
        fetch("w", tmp_path, remote=remote)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(FetchError, match="not the pinned"):
        fetch("w", tmp_path, remote=remote)


def test_without_network_one_line_says_what_to_do(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError) as caught:
        fetch("w", tmp_path, remote=Remote("w.pt", server.url))
    message = str(caught.value)
    assert "\n" not in message
    assert server.url in message
    assert str(tmp_path / "w.pt") in message


def test_the_hub_is_asked_once(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url)
    with pytest.raises(FetchError, match=r"cannot fetch paper-imagenet .*503.*by other means"):
        fetch("paper-imagenet", tmp_path)
    assert server.asked == ["HEAD"]
    assert "Retry" not in capfd.readouterr().err


def test_a_connection_that_always_breaks_gives_up_and_keeps_the_part(
    server: Server, tmp_path: Path
) -> None:
    server.breaks, server.break_after = 1000, 0
    with pytest.raises(FetchError, match="broke off"):
        fetch("w", tmp_path, remote=Remote("w.pt", server.url))
    assert len(server.asked) == module.TRIES
    server.breaks, server.break_after = 1, 5000
    assert fetch("w", tmp_path, remote=Remote("w.pt", server.url)).read_bytes() == CONTENT


def test_names_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match="paper-imagenet, paper-celebahq, adm-imagenet256"):
        fetch("adm", tmp_path)
    monkeypatch.setenv("DISTILDIRE_HOME", str(tmp_path))
    assert cache_home() == tmp_path
