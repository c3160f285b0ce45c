from __future__ import annotations

import io
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distildire import Detector
from distildire.io.tars import braces
from distildire.scale import addresses
from distildire.scale.items import SourceError
from distildire.scale.parts import PartsError
from distildire.scale.score import score
from distildire.scale.sources import how_many, items_of

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


def tar_of(path: Path, files: Pictures, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


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
    import os

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
        judged.extend(batch)
        return judge(self, batch, *given, **named)

    monkeypatch.setattr(Detector, "judge", counted)
    report = score(folder, out, model=bundle, dedup=True)
    assert (report.scored, report.copies, len(judged)) == (16, 11, 5)
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
        (str(tmp_path / "a.bin"), "it is no text"),
        (str(tmp_path / "two.parquet"), "two columns path"),
    ):
        with pytest.raises(SourceError, match=words):
            list(items_of(source))
