"""Stores that fail for a moment, or for good, while they are asked, listed and read."""

from __future__ import annotations

import contextlib
import io
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from distildire.cli.app import app
from distildire.scale import addresses
from distildire.scale.items import SourceError
from distildire.scale.score import score
from distildire.scale.sources import how_many, items_of
from distildire.scale.steady import SteadyFile, StoreError
from scale.packing import tar_of
from scale.rows import rows_of

fsspec = pytest.importorskip("fsspec")


class Store(BaseHTTPRequestHandler):
    """Files with ranges, and folders as pages of links; fails as it is told."""

    protocol_version = "HTTP/1.1"
    root: ClassVar[Path]
    busy: ClassVar[Counter[str]] = Counter()
    """Paths whose next requests get a 503."""
    busy_ranges: ClassVar[dict[str, list[bool]]] = {}
    """Whether the next requests for pieces of a path get one; the last goes on for ever."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path, piece = self.path, self.headers.get("Range")
        if self.busy[path] > 0:
            self.busy[path] -= 1
            return self.reply(503)
        script = self.busy_ranges.get(path, [False])
        if piece and (script.pop(0) if len(script) > 1 else script[0]):
            return self.reply(503)
        file = self.root / path.strip("/")
        if file.is_dir():
            links = "".join(
                f'<a href="{p.name}{"/" if p.is_dir() else ""}">x</a>' for p in file.iterdir()
            )
            return self.reply(200, links.encode(), {"Content-Type": "text/html"})
        if not file.is_file():
            return self.reply(404)
        data = file.read_bytes()
        facts = {"Accept-Ranges": "bytes", "ETag": '"1"'}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", piece or "")
        if found is None:
            return self.reply(200, data, facts)
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        facts["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self.reply(206, data[first : last + 1], facts)

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that has heard enough
            super().handle()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; the files are those of `tmp_path / "web"`."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    (tmp_path / "web").mkdir()
    monkeypatch.setattr(Store, "root", tmp_path / "web", raising=False)
    monkeypatch.setattr(Store, "busy", Counter())
    monkeypatch.setattr(Store, "busy_ranges", {})
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def png(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def shards(store: str, busy: np.ndarray, tmp_path: Path) -> str:
    """A tar and a Parquet file of four pictures, which take several requests to read."""
    noise = np.random.default_rng(0).bytes(6 * 2**20)
    pictures = [png(np.roll(busy, n, 0)) for n in range(4)]
    files = {f"{n}.png": data for n, data in enumerate(pictures)}
    packed = {"0.png": files["0.png"], "pad.bin": noise, **files}
    tar_of(tmp_path / "web/s.tar", packed)
    names = ["0.png", "pad.bin", "1.png", "pad.bin", "2.png", "3.png"]
    data = [files.get(name, noise) for name in names]
    table = pa.table({"path": names, "bytes": data})
    pq.write_table(table, tmp_path / "web/s.parquet", row_group_size=1, compression="none")
    return store


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_read_that_fails_for_a_moment_is_tried_again(
    kind: str, shards: str, bundle: Path, tmp_path: Path
) -> None:
    whole, address = tmp_path / f"web/s.{kind}", f"{shards}/s.{kind}"
    score(whole, tmp_path / "here", model=bundle)
    Store.busy_ranges[f"/s.{kind}"] = [False, *[True] * 3, False]
    score(address, tmp_path / "there", model=bundle)
    assert len(Store.busy_ranges[f"/s.{kind}"]) == 1  # all of that was met with
    here, there = rows_of(tmp_path / "here"), rows_of(tmp_path / "there")
    for one, other in zip(here, there, strict=True):
        assert str(other["path"]).removeprefix(address) == str(one["path"]).removeprefix(str(whole))
        assert (other["logit"], other["sha256"]) == (one["logit"], one["sha256"])


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_read_that_fails_for_good_is_the_stores_and_no_damage(
    kind: str, shards: str, bundle: Path, tmp_path: Path
) -> None:
    Store.busy_ranges[f"/s.{kind}"] = [False] * (1 if kind == "tar" else 2) + [True]
    report = score(f"{shards}/s.{kind}", tmp_path / "out", model=bundle)
    rows = {str(row["path"]).rpartition("/")[2]: row for row in rows_of(tmp_path / "out")}
    assert report.errors >= 1
    error = str(rows[f"s.{kind}"]["error"])
    assert "cannot be read to its end (503" in error
    assert not any("damaged" in str(row["error"]) for row in rows.values())
    Store.busy_ranges.clear()
    again = score(f"{shards}/s.{kind}", tmp_path / "out", model=bundle)
    assert again.scored >= 3
    assert not any("503" in str(row["error"]) for row in rows_of(tmp_path / "out"))


def test_a_stream_that_can_not_seek_is_read_up_to_its_place() -> None:
    tried: list[int] = []

    class Stream(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise ValueError("Cannot seek")

        def read(self, size: int | None = -1) -> bytes:
            tried.append(self.tell())
            if len(tried) == 2:
                raise OSError("503")
            return super().read(size)

    file = SteadyFile(lambda: Stream(b"abcdefgh"))
    assert (file.read(3), file.read(3), file.read()) == (b"abc", b"def", b"gh")
    assert tried[:4] == [0, 3, 0, 3]


def test_an_object_that_changes_under_a_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    sizes = iter([8, 9])

    class Sized(io.BytesIO):
        def __init__(self) -> None:
            super().__init__(b"abcdefgh")
            self.size = next(sizes)

        def read(self, size: int | None = -1) -> bytes:
            raise OSError("503")

    file = SteadyFile(Sized)
    with pytest.raises(StoreError, match="changed while it was read"):
        file.read(1)
    with pytest.raises(StoreError, match="changed while it was read"):
        file.read(1)


def test_what_hides_behind_failures_is_found(store: str, busy: np.ndarray, tmp_path: Path) -> None:
    web = tmp_path / "web"
    (web / "folder").mkdir()
    for name in ("a.png", "folder/b.png"):
        (web / name).write_bytes(png(busy))
    (web / "m.csv").write_text("path\na.png\n")
    (web / "list").write_text("a.png\n")
    tar_of(web / "s.tar", {"a.png": png(busy)})
    pq.write_table(pa.table({"path": ["a.png"], "bytes": [png(busy)]}), web / "p.parquet")
    pq.write_table(pa.table({"path": ["a.png"]}), web / "m.parquet")
    for name in ("m.csv", "list", "s.tar", "p.parquet", "m.parquet", "folder", "folder/", "a.png"):
        for times in (1, 2, 3):
            Store.busy[f"/{name}"] = times
            (data,) = [item.read and item.read() for item in items_of(f"{store}/{name}")]
            assert data == png(busy)
    Store.busy["/"] = 2
    assert len(list(items_of(f"{store}/*.png"))) == 1
    Store.busy |= {"/p.parquet": 10**6, "/": 10**6}
    for name in ("p.parquet", "*.png"):
        with pytest.raises(SourceError, match=rf"/{re.escape(name)}: cannot be read: 503"):
            list(items_of(f"{store}/{name}"))
    with pytest.raises(SourceError, match="no such folder"):
        list(items_of(f"{store}/gone.parquet"))


@pytest.fixture
def many() -> Iterator[str]:
    """The address of a folder of 20,000 names in a store, in folders of 2,000."""
    from fsspec.implementations.memory import MemoryFile

    memory = fsspec.filesystem("memory")
    file = MemoryFile(memory, "/many/0.jpg", b"x")
    names = [f"/many/{n // 2000}/{n:05d}.jpg" for n in range(20_000)]
    memory.store |= dict.fromkeys(names, file)
    yield "memory://many"
    for name in names:
        memory.store.pop(name)


def test_a_folder_is_listed_as_it_is_come_to(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    asked: list[str] = []
    ls = MemoryFileSystem.ls

    def counted(self: Any, path: str, *given: Any, **named: Any) -> Any:
        asked.append(path)
        return ls(self, path, *given, **named)

    monkeypatch.setattr(MemoryFileSystem, "ls", counted)
    items = items_of(many)
    first = next(items)
    assert (first.path, len(asked)) == ("memory://many/0/00000.jpg", 2)
    tracemalloc.start()
    paths = [first.path[-9:], *(item.path[-9:] for item in items)]
    held = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert paths == sorted(paths)
    assert len(paths) == 20_000
    assert len(asked) == 11
    assert held[1] - held[0] < 3e6  # all of them were 12 MB


def test_a_run_lists_a_folder_once_and_its_count_once_more(
    bundle: Path, busy: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/twice/a.png", png(busy))
    asked: list[str] = []
    ls = MemoryFileSystem.ls

    def counted(self: Any, path: str, *given: Any, **named: Any) -> Any:
        asked.append(path)
        return ls(self, path, *given, **named)

    monkeypatch.setattr(MemoryFileSystem, "ls", counted)
    assert score("memory://twice", tmp_path / "out", model=bundle).scored == 1
    assert asked == ["/twice"]
    assert how_many("memory://twice") == 1
    assert len(asked) == 2


def test_where_results_can_not_go_is_said_first(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match=r"http://x/out: HTTP stores can't be written to"):
        score(folder, "http://x/out", model=bundle)
    command = ["score", str(folder), "--out", "memory://gone/out", "--model", str(bundle)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "memory://gone/out: ends with this process" in done.stderr
    from fsspec.implementations.memory import MemoryFileSystem

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(MemoryFileSystem, "makedirs", refused)
    with pytest.raises(SourceError, match=r"memory://no/out: cannot be written to: 403"):
        score(folder, "memory://no/out", model=bundle)
