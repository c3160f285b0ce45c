from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import crashing_decoder as crashing
from distildire import Detector
from distildire.bundle import load_bundle
from distildire.detector import MAX_WORKERS
from distildire.io.writing import BusyError, only_writer
from distildire.loading import Given, Loaded
from distildire.scale.folders import LOCK, LocalFolder
from distildire.scale.items import Item, SourceError, digest
from distildire.scale.parts import (
    SCHEMA,
    DoneItems,
    PartsError,
    PartWriter,
    drop_stale,
    write_part,
)
from distildire.scale.score import score, score_with
from distildire.scale.shards import Shard, parquet_items
from distildire.scale.sources import items_of
from distildire.verdict import COLUMNS
from scale.rows import rows_of, with_decoder


@pytest.fixture
def folder(folder: Path) -> Path:
    shutil.copy(folder / "a.png", folder / "twin of a.png")
    (folder / "text.jpg").write_text("hello")
    return folder


def test_a_row_an_image_with_the_detectors_scores(
    folder: Path, bundle: Path, detector: Detector, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = score(folder, out, model=bundle, part_rows=3)
    rows = rows_of(out)
    assert (report.scored, report.present, report.errors) == (4, 0, 1)
    assert len(list(out.glob("part-*.parquet"))) == 2
    assert len(rows) == 4
    for row in rows:
        assert tuple(row) == (*COLUMNS, "size", "mtime", "etag")
        facts = Path(str(row["path"])).stat()
        assert (row["size"], row["mtime"]) == (facts.st_size, facts.st_mtime)
        expected = detector.predict(str(row["path"]))[0].to_dict()
        assert {name: row[name] for name in COLUMNS} == expected
    twins = {row["sha256"] for row in rows if "a.png" in str(row["path"])}
    assert len(twins) == 1


def test_again_scores_what_is_new_or_changed(
    folder: Path, bundle: Path, busy: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score(folder, out, model=bundle)
    assert score(folder, out, model=bundle).scored == 0
    Image.fromarray(busy).save(folder / "a.png")
    shutil.copy(folder / "sub folder/Ärger über Öl.png", folder / "new.png")
    again = score(folder, out, model=bundle)
    assert (again.scored, again.present, again.errors) == (2, 3, 1)
    rows = {Path(str(row["path"])).name: row for row in rows_of(out)}
    assert len(rows) == len(rows_of(out)) == 5
    assert rows["a.png"]["verdict"] == "real"
    assert rows["twin of a.png"]["verdict"] == "fake"


def test_errors_of_files_that_a_run_does_not_ask_for_are_not_its_own(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out, bad = tmp_path / "out", folder / "text.jpg"
    assert [score(folder, out, model=bundle).errors for _ in range(2)] == [1, 1]
    assert score(folder / "sub folder", out, model=bundle).errors == 0
    shutil.copy(folder / "a.png", bad)
    assert score(folder, out, model=bundle).errors == 0
    bad.write_text("no picture")
    assert score(folder, out, model=bundle).errors == 1
    bad.unlink()
    report = score(folder, out, model=bundle)
    assert (report.present, report.errors, len(rows_of(out))) == (3, 0, 4)


def test_lists_and_manifests_name_the_same_files(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    names = ["a.png", "sub folder/Ärger über Öl.png", "a.png", "gone.png"]
    (folder / "list.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "list.csv").write_text("label,path\n" + "".join(f"x,{n}\n" for n in names))
    pq.write_table(pa.table({"path": names}), folder / "list.parquet")
    found = [list(items_of(folder / f"list.{kind}")) for kind in ("txt", "csv", "parquet")]
    assert found[0] == found[1] == found[2]
    report = score(folder / "list.txt", tmp_path / "out", model=bundle)
    rows = rows_of(tmp_path / "out")
    assert report.errors == 1
    names = sorted(Path(str(row["path"])).name for row in rows)
    assert names == ["a.png", "gone.png", "Ärger über Öl.png"]
    assert [row["mtime"] for row in rows if row["error"]] == [None]


def test_what_can_not_be_gone_on_with_is_refused(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        score(tmp_path / "nowhere", tmp_path / "out", model=bundle)
    (folder / "list.csv").write_text("name\na.png\n")
    with pytest.raises(SourceError, match="no column path"):
        score(folder / "list.csv", tmp_path / "out", model=bundle)
    score(folder, tmp_path / "out", model=bundle)
    with pytest.raises(PartsError, match=r"another fpr: .*\(fpr 0\.01 there, 0\.2 asked\)"):
        score(folder, tmp_path / "out", model=bundle, fpr=0.2)


def test_a_row_is_found_whatever_its_key_ends_in(tmp_path: Path) -> None:
    """One digest in 256 ends in a zero byte, which NumPy's byte strings drop."""
    items = [Item("a.png", size, 1.5) for size in range(5000)]
    ends = [item for item in items if item.key.endswith(b"\0")]
    assert ends
    columns: dict[str, list[object]] = {name: [None] * len(items) for name in SCHEMA.names}
    columns |= {"path": [i.path for i in items], "size": [i.size for i in items],
                "mtime": [i.mtime for i in items]}  # fmt: skip
    write_part(pa.table(columns, schema=SCHEMA), tmp_path, "part-000000.parquet")
    done = DoneItems(tmp_path)
    assert all(item in done for item in items)
    assert not any(Item("b.png", item.size, 1.5) in done for item in items)


@pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")
@pytest.mark.parametrize("dedup", [False, True])
def test_a_file_that_crashes_its_decoder_costs_its_row(
    folder: Path, bundle: Path, tmp_path: Path, dedup: bool
) -> None:
    score(folder, tmp_path / "plain", model=bundle)
    for name, word in (("b.png", crashing.ABORT), ("c.png", crashing.SEGFAULT)):
        (folder / name).write_bytes(word)
    out = tmp_path / "out"
    options = with_decoder(bundle, "crashing_decoder:decode", dedup=dedup)
    report = score_with(folder, out, options)
    assert (report.scored, report.errors) == (6, 3)
    rows = {Path(str(row["path"])).name: row for row in rows_of(out)}
    for name in ("b.png", "c.png"):
        assert rows.pop(name)["error"] == "this file makes its decoder crash"
    assert rows == {Path(str(row["path"])).name: row for row in rows_of(tmp_path / "plain")}


def test_every_core_has_a_picture(
    bundle: Path, busy: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beyond the eight that a detector takes by itself."""
    cores = MAX_WORKERS + 3
    (tmp_path / "many").mkdir()
    for n in range(cores):
        Image.fromarray(busy).save(tmp_path / "many" / f"{n}.png")
    together, load = threading.Barrier(cores, timeout=60), Detector.load

    def loaded_together(self: Detector, item: Given) -> Loaded:
        together.wait()  # broken, unless all are here in time
        return load(self, item)

    monkeypatch.setattr("distildire.scale.score.usable_cores", lambda: cores)
    monkeypatch.setattr(Detector, "load", loaded_together)
    report = score(tmp_path / "many", tmp_path / "out", model=bundle)
    assert (report.scored, report.errors, report.cores) == (cores, 0, cores)
    assert Detector(bundle, threads=1).workers == 1
    assert Detector(bundle).workers <= MAX_WORKERS


KILLED = """
import sys, time
from distildire.detector import Detector
from distildire.scale import score
# As slow as a large model, so that the kill comes in the middle.
load = Detector.load
Detector.load = lambda *given, **named: (time.sleep(0.02), load(*given, **named))[1]
print("start", flush=True)
score.score(sys.argv[1], score.Path(sys.argv[2]), model=sys.argv[3], part_rows=7)
print("end", flush=True)
"""


COUNT = 600


def test_kill_in_the_middle_then_one_row_a_file(folder: Path, bundle: Path, tmp_path: Path) -> None:
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    for i in range(COUNT):
        (many / f"{i:03d}.png").symlink_to(
            folder / ("a.png" if i % 2 else "sub folder/Ärger über Öl.png")
        )
    killed = 0
    for parts in (2, 20):
        command = [sys.executable, "-c", KILLED, str(many), str(out), str(bundle)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            end = time.monotonic() + 120
            while len(list(out.glob("part-*.parquet"))) < parts and time.monotonic() < end:
                time.sleep(0.01)
            process.kill()
            assert process.stdout is not None
            killed += b"end" not in process.stdout.read()
    assert killed == 2
    before = len(rows_of(out))
    assert 0 < before < COUNT
    report = score(many, out, model=bundle)
    assert (report.scored, report.present) == (COUNT - before, before)
    paths = [str(row["path"]) for row in rows_of(out)]
    assert sorted(paths) == sorted(map(str, many.iterdir()))


def test_the_folder_is_one_table_to_others(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(folder, out, model=bundle, part_rows=2)
    table = pq.read_table(out)
    assert table.schema.names == SCHEMA.names
    assert table.num_rows == 4
    assert [p.name for p in out.iterdir() if not p.name.startswith(("part-", "_"))] == []
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"SELECT count(model_sha256) FROM '{out}/*.parquet'").fetchall()
    assert found == [(4,)]


def test_a_folder_of_an_earlier_version_is_gone_on_with(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score(folder, out, model=bundle)
    new = rows_of(out)
    (part,) = out.glob("part-*")
    write_part(
        pq.read_table(part).drop(["note", "declares", "model_sha256", "fpr", "etag"]),
        out,
        part.name,
    )
    (out / "_score.json").rename(out / "score.json")
    assert score(folder, out, model=bundle).scored == 0
    assert rows_of(out) == new
    assert pq.read_table(out).schema.names == SCHEMA.names


def test_errors_that_lie_in_the_machine_are_tried_again(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    for error, again in (("cannot be read: Permission denied", 1), ("too small to judge", 0)):
        out = tmp_path / error
        score(folder, out, model=bundle)
        (part,) = out.glob("part-*")
        table = pq.read_table(part)
        place = table.schema.names.index("error")
        errors = [error if path.endswith("/a.png") else None for path in table["path"].to_pylist()]
        write_part(table.set_column(place, SCHEMA.field("error"), pa.array(errors)), out, part.name)
        assert score(folder, out, model=bundle).scored == again
        assert len(rows_of(out)) == 4
        assert sum(row["error"] == error for row in rows_of(out)) == 1 - again


def test_a_file_that_went_between_listing_and_reading_is_tried_again(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, source = folder / "a.png", folder / "list.txt"
    source.write_text("a.png\nnone.png\n")

    def listed_then_gone(*given: object) -> Iterator[Item]:
        for item in items_of(source):
            if away.exists():
                away.rename(tmp_path / "away")
            yield item

    with monkeypatch.context() as patch:
        patch.setattr("distildire.scale.score.items_of", listed_then_gone)
        assert score(source, tmp_path / "out", model=bundle).errors == 2
    (tmp_path / "away").rename(away)
    again = score(source, tmp_path / "out", model=bundle)
    assert (again.scored, again.present, again.errors) == (1, 1, 1)


def test_a_file_that_can_not_be_reached_keeps_its_score(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "out", folder / "list.txt"
    source.write_text("a.png\ntwin of a.png\nnone.png\n")
    score(source, out, model=bundle)
    before = rows_of(out)
    (folder / "a.png").unlink()
    for _ in range(2):
        assert score(source, out, model=bundle).errors == 2
        assert rows_of(out) == before


@pytest.mark.parametrize(
    ("later", "stays"),
    [
        ([(None, "the shard has no such picture")], 0),
        ([(9, "cannot be read: 503 slow down")], 0),
        ([(9, "cannot be read: 503"), (None, "cannot be read: no such file")], 0),
        ([(9, "damaged or truncated picture")], 1),
        ([(9, "damaged or truncated picture"), (None, "cannot be read: no such file")], 1),
        ([(None, "cannot be read: 503 slow down"), (9, None)], 2),
    ],
)
def test_an_error_that_says_nothing_of_the_file_takes_no_score_away(
    later: list[tuple[int | None, str | None]], stays: int, tmp_path: Path
) -> None:
    writer = PartWriter(tmp_path, rows=2)
    given: list[tuple[int | None, str | None]] = [(5, None), *later]
    for size, error in given:
        row = dict.fromkeys(SCHEMA.names) | {"path": "a.png", "size": size, "error": error}
        writer.add(row)
    writer.flush()
    drop_stale(LocalFolder(tmp_path))
    (row,) = rows_of(tmp_path)
    assert (row["size"], row["error"]) == given[stays]


@pytest.mark.parametrize("names", [1, 7, 1000])
def test_the_last_of_several_rows_stays(names: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(names)
    writer = PartWriter(tmp_path, rows=16)
    given, empty = [], dict.fromkeys(SCHEMA.names)
    for n, name in enumerate(rng.integers(0, names, 200).tolist()):
        error = "damaged" if rng.random() < 0.3 else None
        given.append(empty | {"path": f"{name}.png", "size": n, "error": error})
        writer.add(given[-1])
    writer.flush()
    mended = {"0.png", "3.png"}
    last = {row["path"]: row for row in given}
    stays = [r for r in last.values() if not (r["error"] and r["path"] in mended)]
    wrong = sum(row["error"] is not None for row in stays)
    for _ in range(2):  # and once more, where there is nothing to drop
        assert drop_stale(LocalFolder(tmp_path), mended) == wrong
        assert sorted(rows_of(tmp_path), key=lambda r: str(r["path"])) == sorted(
            stays, key=lambda r: str(r["path"])
        )
    asked = ["0.png", "1.png", "2.png", "no.png"]
    wrong = sum(row["error"] is not None for row in stays if row["path"] in asked)
    digests = bytearray(b"".join(map(digest, asked)))
    assert drop_stale(LocalFolder(tmp_path), mended, digests) == wrong


class Watched(io.BytesIO):
    """A file that knows which threads have read it."""

    def __init__(self, content: bytes, readers: set[int]) -> None:
        super().__init__(content)
        self._readers = readers

    def read(self, size: int | None = -1, /) -> bytes:
        self._readers.add(threading.get_ident())
        return super().read(size)


def test_parts_are_read_by_no_thread_of_arrows(tmp_path: Path) -> None:
    """One that still holds a file of Python's when the process ends aborts it."""
    readers: set[int] = set()

    class Folder(LocalFolder):
        def open(self, name: str) -> BinaryIO:
            return Watched((self.path / name).read_bytes(), readers)

    row = dict.fromkeys(SCHEMA.names) | {"path": "a.png", "size": 3, "mtime": 1.5}
    write_part(pa.Table.from_pylist([row], SCHEMA), tmp_path, "part-000000.parquet")
    assert Item("a.png", 3, 1.5) in DoneItems(Folder(tmp_path))
    assert readers == {threading.get_ident()}


def test_shards_are_read_by_no_thread_of_arrows() -> None:
    content = io.BytesIO()
    table = pa.table({"path": [f"{n}.png" for n in range(500)], "bytes": [b"x" * 999] * 500})
    pq.write_table(table, content, row_group_size=100)
    readers: set[int] = set()
    shard = Shard(Item("p.parquet", 9, 1.5), lambda: Watched(content.getvalue(), readers))
    assert len(list(parquet_items(shard, "bytes"))) == 500
    assert readers == {threading.get_ident()}


def test_a_second_writer_is_refused(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with only_writer(out.parent / "other", tmp_path / "lock"):
        score(folder, out, model=bundle)
    with only_writer(out, out / LOCK), pytest.raises(BusyError, match="another run"):
        score(folder, out, model=bundle)
    (out / LOCK).write_text("process 1, long dead")
    assert score(folder, out, model=bundle).scored == 0


def test_a_column_path_of_any_kind(folder: Path, bundle: Path, tmp_path: Path) -> None:
    text = pa.array(["a.png"])
    for number, table in enumerate(
        ({"Path": text}, {"PATH": text.dictionary_encode()}, {"Path": ["b.png"], "path": text})
    ):
        pq.write_table(pa.table(table), folder / f"{number}.parquet")
        assert score(folder / f"{number}.parquet", tmp_path / f"{number}", model=bundle).errors == 0
    for number, column in enumerate(([["a.png"]], [{"name": "a.png"}], [1], [None, 2.5], [True])):
        pq.write_table(pa.table({"path": column}), folder / "odd.parquet")
        with pytest.raises(SourceError, match=r"odd\.parquet: the column path holds .*, not text"):
            score(folder / "odd.parquet", tmp_path / f"odd{number}", model=bundle)


def test_marks_where_lists_were_joined_are_in_no_name(folder: Path, tmp_path: Path) -> None:
    lines = [name.encode("utf-8-sig") for name in ("a.png\n", "sub folder/b.png\n")]
    (folder / "joined.txt").write_bytes(b"".join(lines))
    found = [item.path for item in items_of(folder / "joined.txt")]
    assert found == [str(folder / "a.png"), str(folder / "sub folder/b.png")]


@pytest.mark.parametrize("name", ["none", "none.png/x", "none*", "empty", "empty.csv", "no.csv"])
def test_a_source_that_gives_nothing_leaves_no_folder(
    name: str, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("path\n")
    (tmp_path / "no.csv").write_text("name\na.png\n")
    with pytest.raises(SourceError):
        score(tmp_path / name, tmp_path / "out", model=bundle)
    assert not (tmp_path / "out").exists()


def test_tables_at_the_edge(folder: Path, bundle: Path, tmp_path: Path) -> None:
    """Two pictures are named, in every code; rows that name none are told and left out."""
    name = "sub folder/Ärger über Öl.png"
    lists: dict[str, bytes] = {
        "bom.csv": f"path,label\na.png,real\n{name},fake\n".encode("utf-8-sig"),
        "semicolon.csv": f"path;label\na.png;real\n{name};fake\n".encode(),
        "latin.csv": f"path\na.png\n{name}\n".encode("latin-1"),
        "short.csv": f"label,path\nreal,a.png\nreal\nfake,{name}\n".encode(),
        "bom.txt": f"a.png\r\n{name}\r\n".encode("utf-8-sig"),
        "utf16.txt": f"a.png\n{name}\n".encode("utf-16"),
        "latin.txt": f"a.png\n{name}\n".encode("latin-1"),
    }
    for file, content in lists.items():
        (folder / file).write_bytes(content)
    pq.write_table(pa.table({"path": ["a.png", None, name]}), folder / "null.parquet")
    for file in [*lists, "null.parquet"]:
        said: list[str] = []
        report = score(folder / file, tmp_path / file, model=bundle, on_error=said.append)
        bad = file in {"short.csv", "null.parquet"}
        assert (report.scored, report.errors, len(said)) == (2, bad, bad), file
        assert all(f"{file}: row 2: no path" in words for words in said)
        assert sorted(str(row["path"]) for row in rows_of(tmp_path / file)) == sorted(
            [str(folder / "a.png"), str(folder / name)]
        )


def test_bytes_that_are_no_utf_8_are_escaped(folder: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.png", folder / os.fsdecode(b"caf\xe9.png"))
    assert score(folder, tmp_path / "out", model=bundle).scored == 5
    assert any(str(row["path"]).endswith("caf\\xe9.png") for row in rows_of(tmp_path / "out"))


def test_a_folder_before_an_upgrade_is_gone_on_with_and_one_of_another_device_is_not(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out, took = tmp_path / "out", []
    score(folder, out, model=bundle, device="auto", on_device=took.append)
    assert took == ["cpu"]
    note = out / "_score.json"
    about = json.loads(note.read_text())
    assert about["device"] == "cpu"
    assert about["calibration"] == load_bundle(bundle).calibration.sha256  # type: ignore[union-attr]
    note.write_text(
        json.dumps({"model": "x", "sha256": about["sha256"], "fpr": 0.01, "version": "0"})
    )
    assert score(folder, out, model=bundle).scored == 0
    assert json.loads(note.read_text()) == about
    for content, words in (
        (json.dumps(about | {"device": "cuda"}), "another device: give another"),
        (json.dumps(about | {"sha256": "0"}), "another model: give another"),
        ("[1]", "damaged"), ("null", "damaged"), ("{}", "damaged"), ("[" * 99_999, "damaged"),
    ):  # fmt: skip
        note.write_text(content)
        with pytest.raises(PartsError, match=words):
            score(folder, out, model=bundle)


def test_a_folder_of_another_calibration_is_refused(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    shutil.copytree(bundle, model)
    score(folder, out, model=model)
    about = json.loads((model / "bundle.json").read_text())
    for change, same in (({"data": "in other words"}, True), ({"bias": 0.5}, False)):
        about["calibration"] |= change
        (model / "bundle.json").write_text(json.dumps(about))
        if same:
            assert score(folder, out, model=model).scored == 0
        else:
            with pytest.raises(PartsError, match="another calibration: give another --out"):
                score(folder, out, model=model)


def test_few_large_files_are_read_ahead(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 1 MB, where 3 MB may be ahead in either line."""
    monkeypatch.setattr("distildire.io.cores.AHEAD_BYTES", 3_000_000)
    monkeypatch.setattr("distildire.scale.once.AHEAD_BYTES", 3_000_000)
    source, read = tmp_path / "large", 0
    source.mkdir()
    for number in range(24):
        data = (folder / "a.png").read_bytes() + bytes([number])
        (source / f"{number:02}.png").write_bytes(data.ljust(1_000_000, b"\0"))

    def counted(path: Path) -> bytes:
        nonlocal read
        read += 1
        return path.read_bytes()

    monkeypatch.setattr("distildire.scale.once.read_bytes", counted)
    seen: list[int] = []
    score(source, tmp_path / "out", model=bundle, dedup=True,
          progress=lambda pace: seen.append(read - pace.scored))  # fmt: skip
    assert len(seen) == 24
    assert max(seen) <= 7


def test_parts_are_counted_past_a_million(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    row = dict.fromkeys(SCHEMA.names) | {"model": "x"}
    for name in ("part-999998.parquet", "part-999999.parquet", "part-1000000.parquet"):
        write_part(pa.Table.from_pylist([row | {"path": name}], SCHEMA), make(out), name)
    writer = PartWriter(out)
    writer.add(row | {"path": "new"})
    writer.flush()
    assert pq.read_table(out / "part-1000001.parquet")["path"].to_pylist() == ["new"]
    assert len(list(out.iterdir())) == 4


def make(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_parts_with_and_without_etags_are_one_table(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    writer = PartWriter(make(tmp_path / "out"), rows=1)
    for etag in ('"x"', None):
        writer.add(dict.fromkeys(SCHEMA.names) | {"path": str(etag), "etag": etag})
    found = duckdb.sql(f"SELECT count(etag) FROM '{tmp_path}/out/*.parquet'").fetchall()
    assert found == [(1,)]


@pytest.mark.parametrize("columns", [{"x": [1]}, {"path": ["a"], "size": ["much"]}])
def test_a_part_of_something_else_is_one_sentence(
    columns: dict[str, list[object]], folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score(folder, out, model=bundle)
    pq.write_table(pa.table(columns), out / "part-000007.parquet")
    with pytest.raises(PartsError, match=r"part-000007\.parquet: damaged: .*remove it"):
        score(folder, out, model=bundle)


@pytest.mark.parametrize("reads", [DoneItems, drop_stale])
def test_a_row_takes_19_bytes_at_the_peak(tmp_path: Path, reads: Callable[..., object]) -> None:
    """Less what a part takes while it is read, which is the same for a fifth of the rows."""
    parts, rows = 50, 4000
    times = {"mtime": 1.0, "size": 9}
    for part in range(parts):
        made = [{"path": f"{part}/{n}.jpg", **times} for n in range(rows)]
        write_part(pa.Table.from_pylist(made, SCHEMA), tmp_path, f"part-{part:06d}.parquet")

    def peak() -> int:
        tracemalloc.start()
        reads(LocalFolder(tmp_path))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    reads(LocalFolder(tmp_path))
    whole = peak()
    for part in range(parts // 5, parts):
        (tmp_path / f"part-{part:06d}.parquet").unlink()
    assert (whole - peak()) / (rows * parts * 4 / 5) < 19
