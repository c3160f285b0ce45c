from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distildire import Detector
from distildire.io.addresses import local_form
from distildire.io.pictures import read_bytes
from distildire.io.tars import braces
from distildire.scale import addresses
from distildire.scale.items import SourceError
from distildire.scale.parts import PartsError
from distildire.scale.score import score
from distildire.scale.sources import how_many, items_of
from scale.packing import tar_of

Pictures = dict[str, bytes]


@pytest.fixture
def pictures(flat: np.ndarray, busy: np.ndarray) -> Pictures:
    """Six files of bytes, the last two equal to the first."""
    found = {}
    for i, rgb in enumerate((flat, busy, flat[:180], busy[:180])):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "PNG")
        found[f"a/{i}.png"] = buffer.getvalue()
    return found | {"b/4.png": found["a/0.png"], "b/5.PNG": found["a/0.png"]}


def rows_in(out: Path) -> dict[str, dict[str, Any]]:
    rows = [
        r for part in sorted(out.glob("part-*.parquet")) for r in pq.read_table(part).to_pylist()
    ]
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def check_scores(rows: dict[str, dict[str, Any]], files: Pictures, detector: Detector) -> None:
    """Each file's row is what the detector says of its bytes."""
    for name, data in files.items():
        (row,) = [row for path, row in rows.items() if path.endswith(name)]
        expected = detector.predict(data)[0]
        assert (row["logit"], row["verdict"]) == (expected.logit, expected.verdict)
        assert row["size"] == len(data)


def test_tar_shards_give_a_row_a_member(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    names = list(pictures)
    extra = {"a/0.json": b"{}", "a/0.cls": b"1"}
    tar_of(tmp_path / "s-00.tar", {n: pictures[n] for n in names[:3]} | extra)
    tar_of(tmp_path / "s-01.tar", {n: pictures[n] for n in names[3:5]})
    tar_of(tmp_path / "s-02.tar.gz", {n: pictures[n] for n in names[5:]}, "w:gz")
    source, out = str(tmp_path / "s-{00..01}.tar"), tmp_path / "out"
    assert how_many(source) == 5
    report = score(source, out, model=bundle)
    rows = rows_in(out)
    assert (report.scored, report.errors) == (5, 0)
    assert f"{tmp_path}/s-00.tar::a/0.png" in rows
    check_scores(rows, {n: pictures[n] for n in names[:5]}, detector)
    again = score(str(tmp_path / "s-*.tar*"), out, model=bundle)
    assert (again.scored, again.present) == (1, 5)


def test_a_shard_that_was_replaced_is_scored_again(
    pictures: Pictures, bundle: Path, tmp_path: Path
) -> None:
    shard, out = tar_of(tmp_path / "s.tar", pictures), tmp_path / "out"
    score(shard, out, model=bundle)
    os.utime(shard, (1e9, 1e9))
    assert score(shard, out, model=bundle).scored == len(pictures)
    assert len(rows_in(out)) == len(pictures)


def test_a_tar_cut_short_keeps_what_comes_before(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    shard = tar_of(tmp_path / "s-0.tar", pictures)
    whole = tar_of(
        tmp_path / "s-1.tar", {"z.png": pictures["a/0.png"], "poison.png": b"no picture"}
    )
    sizes = [512 + -(-len(data) // 512) * 512 for data in pictures.values()]
    shard.write_bytes(shard.read_bytes()[: sum(sizes[:3]) + 1000])
    (tmp_path / "s-2.tar").write_bytes(b"no tar at all" * 100)
    out = tmp_path / "out"
    report = score(str(tmp_path / "s-{0..3}.tar"), out, model=bundle)
    rows = rows_in(out)
    check_scores(rows, dict(list(pictures.items())[:3]), detector)
    assert rows[f"{whole}::z.png"]["verdict"] == "fake"
    errors = {
        re.split("/|::", path)[-1]: row["error"] for path, row in rows.items() if row["error"]
    }
    assert "cut short" in errors["s-0.tar"]
    assert "cut short or damaged" in errors["s-2.tar"]
    assert errors["s-3.tar"] == "cannot be read: no such file"
    assert "poison.png" in errors
    assert report.errors == len(errors)
    assert sorted(errors) == ["3.png", "poison.png", "s-0.tar", "s-2.tar", "s-3.tar"]
    assert score(str(tmp_path / "s-{0..3}.tar"), out, model=bundle).scored == 0


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_parquet_with_image_bytes(
    form: str, pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    names: list[str | None] = [*pictures, "gone.png", None, "a/0.png"]
    data = [*pictures.values(), None, pictures["a/1.png"], pictures["a/2.png"]]
    if form == "bytes":
        table = pa.table({"path": names, "bytes": data, "label": ["x"] * 9})
    else:
        image = [{"bytes": b, "path": n} for n, b in zip(names, data, strict=True)]
        table = pa.table({"image": image, "label": ["x"] * 9})
    part, out = tmp_path / "part.parquet", tmp_path / "out"
    pq.write_table(table, part)
    assert how_many(part) == 9
    report = score(part, out, model=bundle)
    rows = rows_in(out)
    assert (report.scored, report.errors) == (9, 1)
    check_scores(rows, {f"::{name}": data for name, data in pictures.items()}, detector)
    assert rows[f"{part}::gone.png"]["error"] == "the row holds no bytes"
    check_scores(rows, {"::row 7": data[7], "::a/0.png#8": data[8]}, detector)  # type: ignore[dict-item]
    assert score(part, out, model=bundle).scored == 0


def test_equal_bytes_are_scored_once(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, data in (pictures | {"bad.png": b"bad", "worse.png": b"bad"}).items():
        (folder / Path(name).name).write_bytes(data)
    shutil.copytree(folder, folder / "copies")
    judged = []
    judge = Detector.judge

    def counted(self: Detector, batch: Any, *given: Any, **named: Any) -> Any:
        judged.extend(item for item in batch if item.crops is not None)
        return judge(self, batch, *given, **named)

    monkeypatch.setattr(Detector, "judge", counted)
    report = score(folder, out, model=bundle, dedup=True)
    assert (report.scored, report.copies, len(judged)) == (16, 11, 4)
    plain = tmp_path / "plain"
    score(folder, plain, model=bundle)
    assert rows_in(out) == rows_in(plain)
    (folder / "new.png").write_bytes(pictures["a/1.png"])
    judged.clear()
    again = score(folder, out, model=bundle, dedup=True)
    assert (again.scored, again.copies, judged) == (1, 1, [])


def test_stores_are_read_and_written(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.rm("/score-test", recursive=True) if store.exists("/score-test") else None
    root = "memory://score-test"
    for name, data in pictures.items():
        store.pipe_file(f"/score-test/in/{name}", data)
    store.pipe_file("/score-test/in/list.txt", b"a/0.png\na/none.png\n")
    store.pipe_file("/score-test/s-0.tar", tar_of(tmp_path / "s.tar", pictures).read_bytes())
    for number, (source, scored, errors) in enumerate(
        [
            (f"{root}/in", 6, 0),
            (f"{root}/in/a/*.png", 4, 0),
            (f"{root}/in/list.txt", 2, 1),
            (f"{root}/s-{{0..1}}.tar", 7, 1),
        ]
    ):
        out = f"{root}/out-{number}"
        report = score(source, out, model=bundle, part_rows=3)
        assert (report.scored, report.errors) == (scored, errors)
        again = score(source, out, model=bundle)
        assert (again.scored, again.present) == (0, scored)
        copy = tmp_path / f"out-{number}"
        store.get(f"/score-test/out-{number}", str(copy), recursive=True)
        rows = rows_in(copy)
        assert len(rows) == scored
        if scored > 4:
            check_scores(rows, pictures, detector)
    with pytest.raises(PartsError, match="another fpr"):
        score(f"{root}/in", f"{root}/out-0", model=bundle, fpr=0.2)
    local = score(f"file://{tmp_path}/s.tar", f"file://{tmp_path}/local", model=bundle)
    assert local.scored == len(rows_in(tmp_path / "local")) == 6


def test_a_store_that_is_busy_is_asked_again(
    pictures: Pictures, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    store = fsspec.filesystem("memory")
    store.pipe_file("/busy-test/a.png", pictures["a/0.png"])
    answers = [OSError("503 Slow Down"), OSError("503 Slow Down")]
    cat = type(store).cat_file

    def sometimes(self: Any, *given: Any, **named: Any) -> Any:
        if answers:
            raise answers.pop()
        return cat(self, *given, **named)

    monkeypatch.setattr(type(store), "cat_file", sometimes)
    assert score("memory://busy-test", tmp_path / "out", model=bundle).errors == 0
    assert not answers


def test_etags_stand_in_for_times() -> None:
    item = addresses.item_from("https://x/a.png", {"size": 3, "ETag": '"abc"'})
    changed = addresses.item_from("https://x/a.png", {"size": 3, "ETag": '"abd"'})
    assert (item.mtime, item.etag) == (None, '"abc"')
    assert item.key != changed.key
    timed = addresses.item_from("s3://b/a", {"LastModified": "2026-01-01T00:00:00+00:00"})
    assert timed.mtime == 1767225600.0


def test_braces() -> None:
    assert list(braces("s-{08..10}.tar")) == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert list(braces("{a,b}/{0..1}")) == ["a/0", "a/1", "b/0", "b/1"]
    assert list(braces("plain")) == ["plain"]


def test_what_is_no_source_is_one_sentence(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.jsonl"):
        (tmp_path / name).write_text("a.png\n")
    (tmp_path / "a.bin").write_bytes(b"a\0b\1\2\3\n")
    column = pa.array(["a.png"])
    pq.write_table(pa.Table.from_arrays([column] * 2, ["path"] * 2), tmp_path / "two.parquet")
    (tmp_path / "a.tsv").write_text("label\tpath\nreal\ta.png\n")
    assert [item.path for item in items_of(tmp_path / "a.tsv")] == [str(tmp_path / "a.png")]
    for source, words in (
        (str(tmp_path / "*.tar"), "nothing matches"),
        ("nothing://here/a.png", "Protocol not known"),
        (str(tmp_path / "none"), "no such folder"),
        ("memory://none-at-all/x.csv", "no such folder"),
        (str(tmp_path / "a.mp4"), ".mp4 is no kind of source"),
        (str(tmp_path / "a.jsonl"), ".jsonl is no kind of source"),
        (str(tmp_path / "a.bin"), "its bytes are no text"),
        (str(tmp_path / "two.parquet"), "two columns path"),
    ):
        with pytest.raises(SourceError, match=words):
            list(items_of(source))


def damaged_pax(path: Path, pictures: Pictures) -> Path:
    """A tar whose third header says something that is no number."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, (name, data) in enumerate(pictures.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == 2:
                info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_tar_with_a_damaged_header_costs_its_rest_alone(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    damaged_pax(tmp_path / "s-0.tar", pictures)
    tar_of(tmp_path / "s-1.tar", {"z.png": pictures["a/1.png"]})
    out = tmp_path / "out"
    report = score(str(tmp_path / "s-{0..1}.tar"), out, model=bundle)
    rows = rows_in(out)
    assert (report.scored, report.errors) == (4, 1)
    check_scores(rows, {n: pictures[n] for n in ("a/0.png", "a/1.png")}, detector)
    assert rows[f"{tmp_path}/s-1.tar::z.png"]["error"] is None
    assert "damaged" in rows[f"{tmp_path}/s-0.tar"]["error"]


def test_what_was_scored_is_kept_when_the_source_ends_in_trouble(
    pictures: Pictures, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tar_of(tmp_path / "s.tar", pictures)

    def some(*_: Any) -> Any:
        yield from itertools.islice(items_of(shard), 3)
        raise RuntimeError("the store is gone")

    monkeypatch.setattr("distildire.scale.score.items_of", some)
    with pytest.raises(RuntimeError, match="gone"):
        score(shard, tmp_path / "out", model=bundle)
    assert len(rows_in(tmp_path / "out")) == 3


def test_names_that_come_again_have_rows_of_their_own(
    pictures: Pictures, bundle: Path, tmp_path: Path
) -> None:
    data = list(pictures.values())
    shard, out = tmp_path / "s.tar", tmp_path / "out"
    with tarfile.open(shard, "w") as tar:
        for number, name in enumerate(["x.png", "x.png", "x.png", "y.png"]):
            info = tarfile.TarInfo(name)
            info.size = len(data[number])
            tar.addfile(info, io.BytesIO(data[number]))
    part = tmp_path / "p.parquet"
    names = ["x", "x#2", "x", "row 5", "x", None]
    pq.write_table(pa.table({"path": names, "bytes": data}), part)
    for source, marks in (
        (shard, ["x.png", "x.png#2", "x.png#3", "y.png"]),
        (part, ["x", "x#2", "x#2#2", "row 5", "x#4", "row 5#5"]),
    ):
        report = score(source, out, model=bundle)
        assert (report.scored, report.errors) == (len(marks), 0)
        assert set(rows_in(out)) >= {f"{source}::{mark}" for mark in marks}
        assert score(source, out, model=bundle).scored == 0
    assert len(rows_in(out)) == 10


def test_links_in_a_tar_are_pictures_and_litter_is_none(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    for mode in ("w", "w:gz"):
        shard, out = tmp_path / f"{mode[2:]}.tar", tmp_path / f"out{mode[2:]}"
        tar_of(shard, pictures, mode)
        litter = ("._x.png", "a/._0.png", "__MACOSX/a/0.png")
        with tarfile.open(shard, mode) as tar:  # type: ignore[call-overload]
            for name, data in (pictures | dict.fromkeys(litter, b"x")).items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, target in (("l.png", "a/1.png"), ("m.png", "a/1.png"), ("n.png", "gone")):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.LNKTYPE, target
                tar.addfile(info)
            for name, target in (("a/s.png", "../a/1.png"), ("t.png", "./a/1.png")):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)
        report = score(shard, out, model=bundle)
        rows = rows_in(out)
        assert (report.scored, report.errors) == (len(pictures) + 5, 1)
        linked = ("l.png", "m.png", "a/s.png", "t.png")
        check_scores(rows, dict.fromkeys(linked, pictures["a/1.png"]), detector)
        assert rows[f"{shard}::n.png"]["error"] == "a link to gone, which is not in the tar"
    assert how_many(tmp_path / ".tar") == len(pictures) + 5


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_row_of_a_tar_names_one_picture_on_every_route(
    pictures: Pictures, bundle: Path, tmp_path: Path, mode: str
) -> None:
    """Names that come again, two spellings of one, and links."""
    shard = tmp_path / f"s.tar{mode[1:].replace(':', '.')}"
    data = list(pictures.values())
    with tarfile.open(shard, mode) as tar:  # type: ignore[call-overload]
        for number, name in enumerate(["x.png", "x.png", "./x.png", "x.png"]):
            info = tarfile.TarInfo(name)
            info.size = len(data[number])
            tar.addfile(info, io.BytesIO(data[number]))
        for name, target, kind in (
            ("l.png", "x.png", tarfile.LNKTYPE), ("./a/l.png", "../x.png", tarfile.SYMTYPE),
            ("x.png", "x.png", tarfile.SYMTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    assert score(shard, tmp_path / "out", model=bundle).errors == 0
    rows = rows_in(tmp_path / "out")
    assert len(rows) == 7
    (tmp_path / "list.txt").write_text("\n".join(rows))
    assert score(tmp_path / "list.txt", tmp_path / "out", model=bundle).present == 7
    if mode == "w":
        for path, row in rows.items():
            assert hashlib.sha256(read_bytes(Path(path))).hexdigest() == row["sha256"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_path_in_parquet_that_is_no_utf8_costs_nothing(
    inside: bool, pictures: Pictures, bundle: Path, tmp_path: Path
) -> None:
    names = pa.array([b"a", b"caf\xe9", b"c"]).view(pa.string())
    data = pa.array([pictures["a/0.png"]] * 3)
    table = {"path": names, "bytes": data}
    if inside:
        table = {"image": pa.StructArray.from_arrays([data, names], ["bytes", "path"])}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    report = score(tmp_path / "p.parquet", tmp_path / "out", model=bundle)
    assert (report.scored, report.errors) == (3, 0)
    ends = {path.rpartition("::")[2] for path in rows_in(tmp_path / "out")}
    assert {"a", "c"} < ends
    assert any(end.startswith("caf") for end in ends)
    assert score(tmp_path / "p.parquet", tmp_path / "out", model=bundle).scored == 0


@pytest.mark.parametrize("kind", ["large_binary", "binary_view", "fixed", "dictionary", "struct"])
def test_parquet_of_other_types(
    kind: str, pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    data = pictures["a/0.png"]
    types = {
        "large_binary": pa.large_binary(), "binary_view": pa.binary_view(),
        "fixed": pa.binary(len(data)), "dictionary": pa.dictionary(pa.int32(), pa.binary()),
        "struct": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    }  # fmt: skip
    part = tmp_path / "p.parquet"
    if kind == "struct":
        table = pa.table({"photo": pa.array([{"bytes": data, "path": "x"}], types[kind])})
    elif kind == "dictionary":
        table = pa.table({"path": ["x"], "bytes": pa.array([data]).dictionary_encode()})
    else:
        table = pa.table({"path": ["x"], "bytes": pa.array([data], types[kind])})
    pq.write_table(table, part)
    score(part, tmp_path / "out", model=bundle)
    check_scores(rows_in(tmp_path / "out"), {"x": data}, detector)


def test_the_address_of_what_a_store_finds_keeps_its_host() -> None:
    account = "abfs://box@me.dfs.core.windows.net"
    for like, path, other, expected in (
        ("s3://b/k/", "b/k", "b/k/a.png", "s3://b/k/a.png"),
        ("memory://x", "/x", "/x/a.png", "memory://x/a.png"),
        ("sftp://me@host:22/d", "/d", "/d/a.png", "sftp://me@host:22/d/a.png"),
        ("sftp://host/d/*.png", "/d/*.png", "/d/a.png", "sftp://host/d/a.png"),
        (f"{account}/d", "box/d", "box/d/a.png", f"{account}/d/a.png"),
        ("zip://*.png::s3://b/x.zip", "*.png", "a.png", "zip://a.png::s3://b/x.zip"),
        ("https://h/d", "https://h/d", "https://h/d/a.png", "https://h/d/a.png"),
    ):
        assert addresses.address_of(like, path, other) == expected


class Web(SimpleHTTPRequestHandler):
    """Files and their folders; each file fails so often first, as `busy` says."""

    busy = 0

    def do_GET(self) -> None:
        if self.path.endswith("none.png") and type(self).busy:
            type(self).busy -= 1
            self.close_connection = True  # the client sees no answer at all
            return
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web(tmp_path: Path, pictures: Pictures) -> Iterator[tuple[str, Path]]:
    pytest.importorskip("aiohttp")
    root = tmp_path / "web"
    root.mkdir()
    for name in ("a/0.png", "a/1.png", "a/2.png"):
        (root / Path(name).name).write_bytes(pictures[name])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=str(root))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", root
        server.shutdown()


def test_shards_in_a_folder_are_told_of(
    pictures: Pictures, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    (tmp_path / "in").mkdir()
    tar_of(tmp_path / "in/s-0.tar", pictures)
    tar_of(tmp_path / "in/s-1.tar", pictures)
    pq.write_table(pa.table({"path": ["a.png"]}), tmp_path / "in/manifest.parquet")
    memory.pipe_file("/left-test/s-0.tar", (tmp_path / "in/s-0.tar").read_bytes())
    for folder, shards in ((str(tmp_path / "in"), "2 shards"), ("memory://left-test", "1 shard")):
        words = re.escape(f"{folder}: holds no pictures, but {shards} ")
        with pytest.raises(SourceError, match=f"^{words}.*{re.escape(folder)}/\\*\\.tar'"):
            score(folder, tmp_path / "out", model=bundle)
        assert not (tmp_path / "out").exists()
        assert not caplog.records
    (tmp_path / "in/x.png").write_bytes(pictures["a/0.png"])
    (tmp_path / "in/deep").mkdir()
    part = {"path": ["a.png"], "bytes": [pictures["a/0.png"]]}
    pq.write_table(pa.table(part), tmp_path / "in/deep/p.parquet")
    (tmp_path / "in/manifest.parquet").unlink()
    memory.pipe_file("/left-test/x.png", pictures["a/0.png"])
    for number, (folder, pattern, shards) in enumerate(
        (
            (str(tmp_path / "in"), "/**/*.{.parquet,.tar}", 3),
            ("memory://left-test", "/*.tar", 1),
        )
    ):
        caplog.clear()
        report = score(folder, tmp_path / f"out-{number}", model=bundle)
        assert (report.scored, report.errors) == (1, 0)
        (said,) = [record.getMessage() for record in caplog.records]
        assert f"left out: {shards} shard" in said
        assert f"'{folder}{pattern.replace('*.{', '*{')}'" in said
        assert how_many(folder) == 1
    whole = score(f"{tmp_path}/in/**/*{{.parquet,.tar}}", tmp_path / "all", model=bundle)
    assert (whole.scored, whole.errors) == (13, 0)


@pytest.mark.parametrize("where", ["here", "store"])
def test_lines_of_a_list_may_be_shards(
    where: str, pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    tar_of(tmp_path / "s.tar", pictures)
    tar_of(tmp_path / "z.tar.gz", {"z.png": pictures["a/0.png"]}, "w:gz")
    part = {"path": ["p.png"], "bytes": [pictures["a/1.png"]]}
    pq.write_table(pa.table(part), tmp_path / "p.parquet")
    pq.write_table(pa.table({"path": ["x.png"]}), tmp_path / "names.parquet")
    (tmp_path / "x.png").write_bytes(pictures["a/3.png"])
    lines = ["s.tar", "z.tar.gz", "p.parquet", "x.png", "names.parquet", "gone.parquet"]
    lines += ["gone.tar"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "short.csv").write_text("path\ns.tar\np.parquet\nx.png\n")
    root = str(tmp_path)
    if where == "store":
        memory = pytest.importorskip("fsspec").filesystem("memory")
        root = f"memory://lists{tmp_path.name}"
        for file in tmp_path.iterdir():
            memory.pipe_file(f"/lists{tmp_path.name}/{file.name}", file.read_bytes())
    report = score(f"{root}/list.txt", tmp_path / "out", model=bundle)
    rows = rows_in(tmp_path / "out")
    assert (report.scored, report.errors) == (6 + 1 + 1 + 1 + 3, 3)
    check_scores(rows, {f"s.tar::{name}": data for name, data in pictures.items()}, detector)
    others = {"::z.png": "a/0.png", "p.parquet::p.png": "a/1.png", "/x.png": "a/3.png"}
    check_scores(rows, {path: pictures[name] for path, name in others.items()}, detector)
    for name, words in (
        ("names.parquet", "holds no image bytes, and a list can't name another list"),
        ("gone.parquet", "cannot be read: no such file"),
        ("gone.tar", "cannot be read: no such file"),
    ):
        assert rows[f"{root}/{name}"]["error"] == words
    assert how_many(f"{root}/short.csv") == (8 if where == "here" else None)


def test_rows_that_score_wrote_are_a_list(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    """The column `path` names pictures of Parquet, of tars that are packed, and of stores."""
    names = [*pictures, "gone.png"]
    tar_of(tmp_path / "z.tar.gz", pictures, "w:gz")
    part = {"path": [*pictures], "bytes": [*pictures.values()]}
    pq.write_table(pa.table(part), tmp_path / "p.parquet")
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe_file("/rows-test/s.tar", tar_of(tmp_path / "s.tar", pictures).read_bytes())
    for number, shard in enumerate(
        (f"{tmp_path}/p.parquet", f"{tmp_path}/z.tar.gz", "memory://rows-test/s.tar")
    ):
        lines = [f"{shard}::{name}" for name in names[2:]]
        (tmp_path / "list.txt").write_text("\n".join([*lines, f"{tmp_path}/none.parquet::a.png"]))
        report = score(tmp_path / "list.txt", tmp_path / f"{number}", model=bundle)
        assert (report.scored, report.errors) == (6, 2)
        rows = rows_in(tmp_path / f"{number}")
        assert set(rows) == {*lines, f"{tmp_path}/none.parquet::a.png"}
        check_scores(rows, {f"::{name}": pictures[name] for name in names[2:-1]}, detector)
        assert rows[f"{shard}::gone.png"]["error"] == "the shard has no such picture"
        assert "no such file" in rows[f"{tmp_path}/none.parquet::a.png"]["error"]
    assert how_many(tmp_path / "list.txt") == 6


def test_parquet_without_pictures_names_what_is_looked_for(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [b"x"], "key": ["1"]}), tmp_path / "p.parquet")
    with pytest.raises(SourceError, match=r"looked for in bytes, in image.*it has jpg \(binary\)"):
        list(items_of(tmp_path / "p.parquet"))


def test_pictures_on_the_web(
    web: tuple[str, Path], pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    host, root = web
    tar_of(root / "s.tar", pictures)
    for source, number in ((f"{host}/0.png?key=a/b", 1), (f"{host}/s.tar?key=1", 6)):
        assert score(source, tmp_path / f"out-{number}", model=bundle).scored == number
        assert not any(row["error"] for row in rows_in(tmp_path / f"out-{number}").values())
    (root / "s.tar").unlink()
    out = tmp_path / "out"
    assert score(f"{host}/", out, model=bundle).scored == 3
    (root / "2.png").write_bytes(pictures["a/3.png"])
    os.utime(root / "2.png", (2e9, 2e9))
    assert score(f"{host}/", out, model=bundle).scored == 1
    check_scores(rows_in(out), {"/2.png": pictures["a/3.png"]}, detector)


def test_a_web_server_that_drops_a_connection_is_asked_again(
    web: tuple[str, Path], pictures: Pictures, bundle: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    host, root = web
    (root / "none.png").write_bytes(pictures["a/0.png"])
    (tmp_path / "list.txt").write_text(f"{host}/0.png\n{host}/none.png\n{host}/gone.png\n")
    for busy, errors in ((2, 1), (20, 2)):
        monkeypatch.setattr(Web, "busy", busy)
        report = score(tmp_path / "list.txt", tmp_path / f"{busy}", model=bundle)
        assert (report.scored, report.errors) == (3, errors)
        rows = rows_in(tmp_path / f"{busy}")
        assert rows[f"{host}/gone.png"]["error"] == "cannot be read: no such file"
    assert "isconnected" in rows[f"{host}/none.png"]["error"]
    monkeypatch.setattr(Web, "busy", 0)
    assert score(tmp_path / "list.txt", tmp_path / "20", model=bundle).scored == 1
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:1/"):
        list(items_of("http://127.0.0.1:1/"))


def test_a_shard_that_was_mended_leaves_no_error(
    pictures: Pictures, bundle: Path, tmp_path: Path
) -> None:
    shard, out = tar_of(tmp_path / "s.tar", pictures), tmp_path / "out"
    whole, facts = shard.read_bytes(), shard.stat()
    shard.write_bytes(whole[:2000])
    assert score(shard, out, model=bundle).errors == 2
    shard.write_bytes(whole)
    os.utime(shard, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))
    assert score(shard, out, model=bundle).errors == 0
    assert len(rows_in(out)) == len(pictures)
    assert score(shard, out, model=bundle).errors == 0


def test_an_error_goes_when_its_shard_was_read_whole_alone(
    pictures: Pictures, bundle: Path, tmp_path: Path
) -> None:
    """Not for another file whose name goes on after `::`, nor for one picture of a cut tar."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no picture")
    (folder / "a.jpg::b.jpg").write_bytes(pictures["a/0.png"])
    assert score(folder, out, model=bundle).errors == 1
    assert set(rows_in(out)) == {f"{folder}/a.jpg", f"{folder}/a.jpg::b.jpg"}

    shard, some = tar_of(tmp_path / "cut.tar", pictures), tmp_path / "list.txt"
    shard.write_bytes(shard.read_bytes()[:2000])
    packed = tar_of(tmp_path / "cut.tar.gz", pictures, "w:gz")
    packed.write_bytes(packed.read_bytes()[:-2000])
    for path in (shard, packed):
        score(path, tmp_path / path.name[3:], model=bundle)
        before = rows_in(tmp_path / path.name[3:])
        assert "cut short" in before[str(path)]["error"]
        some.write_text(f"{path}::a/0.png\n")
        score(some, tmp_path / path.name[3:], model=bundle)
        assert rows_in(tmp_path / path.name[3:]) == before


def test_copies_are_written_as_they_come_and_passing_errors_tried_again(
    pictures: Pictures, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03d}.png").write_bytes(pictures["a/0.png"])
    paces: list[tuple[int, int]] = []
    listed = 0

    def counted(*given: Any) -> Iterator[Any]:
        nonlocal listed
        for item in items_of(*given):
            listed += 1
            yield item

    monkeypatch.setattr("distildire.scale.score.items_of", counted)
    report = score(
        folder, out, model=bundle, dedup=True, progress=lambda p: paces.append((p.scored, listed))
    )
    assert (report.scored, report.copies) == (300, 299)
    assert max(seen - done for done, seen in paces) < 150

    (part,) = out.glob("part-*.parquet")
    rows = pq.read_table(part).to_pylist()
    for row in rows:
        row |= {"error": "too large to judge in the memory at hand", "logit": None}
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), part)
    again = score(folder, out, model=bundle, dedup=True)
    assert (again.scored, again.copies, again.errors) == (300, 299, 0)


def test_files_whose_names_say_nothing(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    (tmp_path / "photo").write_bytes(pictures["a/0.png"])
    tar_of(tmp_path / "s.tbz2", pictures, "w:bz2")
    for name, number in (("photo", 1), ("s.tbz2", 6)):
        assert score(tmp_path / name, tmp_path / f"out-{name}", model=bundle).scored == number
    check_scores(rows_in(tmp_path / "out-photo"), {"photo": pictures["a/0.png"]}, detector)
    with zipfile.ZipFile(tmp_path / "z", "w") as file:
        file.writestr("a.png", pictures["a/0.png"])
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 9)
    for name, words in (("z", "ZIP archive"), ("noise", "not a text file")):
        with pytest.raises(SourceError, match=words):
            list(items_of(tmp_path / name))


def test_members_that_a_manifest_names_are_scored_again_when_their_tar_changes(
    pictures: Pictures, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    shard, out = tmp_path / "s.tar", tmp_path / "out"
    (tmp_path / "m.csv").write_text("path\ns.tar::x.png\ns.tar::gone.png\n")
    for time, name in ((1e9, "a/0.png"), (2e9, "a/3.png")):
        tar_of(shard, {"x.png": pictures[name]})
        os.utime(shard, (time, time))
        assert score(tmp_path / "m.csv", out, model=bundle).errors == 1
        check_scores(
            {p: r for p, r in rows_in(out).items() if not r["error"]},
            {"::x.png": pictures[name]}, detector,
        )  # fmt: skip
    assert score(tmp_path / "m.csv", out, model=bundle).present == 1


def test_addresses_of_files_are_paths(folder: Path) -> None:
    (folder / "100% a.png").write_bytes(b"x")
    for address in (f"file://localhost{folder}/100%25%20a.png", f"file://{folder}/100%20*.png"):
        assert local_form(address).startswith(str(folder))
    (item,) = items_of(f"FILE://localhost{folder}/100%25%20a.png")
    assert item.path == f"{folder}/100% a.png"


@pytest.mark.parametrize("pattern", ["{a,b}" * 40, "{0..999999999999}.tar", "{1..2000}{1..2000}"])
def test_a_pattern_of_too_many_names_is_refused(pattern: str) -> None:
    with pytest.raises(SourceError, match="over the limit of 1,000,000"):
        list(items_of(pattern))


@pytest.mark.parametrize("where", ["here", "store"])
def test_a_pattern_gives_what_lies_in_its_folders_once(
    pictures: Pictures, tmp_path: Path, where: str
) -> None:
    root = str(tmp_path / "in")
    names = ["x.png", "a/0.png", "a/b/1.png", "a-b/2.png"]
    if where == "store":
        memory = pytest.importorskip("fsspec").filesystem("memory")
        root = "memory://once-test"
    for name in names:
        if where == "store":
            memory.pipe_file(f"/once-test/{name}", pictures["a/0.png"])
        else:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(pictures["a/0.png"])
    shard = tar_of(tmp_path / "s.tar", {"y.png": pictures["a/0.png"]}).read_bytes()
    if where == "store":
        memory.pipe_file("/once-test/a/s.tar", shard)
    else:
        (tmp_path / "in/a/s.tar").write_bytes(shard)
    for pattern in ("**/*", "{*,a/*.png,a*/**/*}"):
        found = [item.path.removeprefix(f"{root}/") for item in items_of(f"{root}/{pattern}")]
        assert sorted(found) == sorted([*names, "a/s.tar::y.png"])
        assert how_many(f"{root}/{pattern}") == (None if where == "store" else 5)


def test_a_folder_without_pictures_is_told(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="holds no pictures"):
        score(tmp_path / "in", tmp_path / "out", model=bundle)
