"""What the world does to a command: names, consoles, full disks, kills, pipes, second runs."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distildire.cli import app, main
from distildire.io.writing import WriteError, only_writer


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    stdout: int | io.IOBase = subprocess.PIPE,
    limit: Callable[[], None] | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "distildire", *map(str, arguments)], cwd=cwd, input=stdin,
        stdout=stdout, stderr=subprocess.PIPE, timeout=300, check=False, preexec_fn=limit,
        env=os.environ | environment,
    )  # fmt: skip


def rows_of(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def one_line(error: bytes, *words: str) -> None:
    text = error.decode()
    assert text.startswith("distildire: ")
    assert text.count("\n") == 1
    for word in words:
        assert word in text


NAMES = (
    "00012-[a1b2c3] cat.png",
    "set[",
    "[red]x.png",
    "写.png",
    b"caf\xe9.png",
    "a\nb\x1b[2J.png",
)


@pytest.fixture
def named(folder: Path) -> Path:
    """A folder of names that are markup, no ASCII, no UTF-8, or control a terminal."""
    for name in NAMES:
        target = folder / os.fsdecode(name)
        if name == "set[":
            target = target / "img].png"
            target.parent.mkdir()
        shutil.copy(folder / "a.png", target)
    shutil.rmtree(folder / "sub folder")
    return folder


@pytest.mark.parametrize("code", ["utf-8", "cp1252", "ascii"])
def test_every_row_comes_out_on_every_console(named: Path, bundle: Path, code: str) -> None:
    options = ("detect", ".", "--model", bundle)
    expected = {"a.png", "00012-[a1b2c3] cat.png", "set[/img].png", "[red]x.png", "写.png",
                "caf\\xe9.png", "a\nb\x1b[2J.png"}  # fmt: skip
    done = run(*options, "--format", "jsonl", cwd=named, PYTHONIOENCODING=code)
    assert done.returncode == 0, done.stderr
    assert {row["path"] for row in rows_of(done.stdout)} == expected
    done = run(*options, "--format", "csv", cwd=named, PYTHONIOENCODING=code)
    assert done.returncode == 0, done.stderr
    found = {row["path"] for row in csv.DictReader(io.StringIO(done.stdout.decode(code), ""))}
    held = {name.encode(code, "backslashreplace").decode(code) for name in expected}
    assert found == held
    done = run(*options, cwd=named, PYTHONIOENCODING=code)
    assert done.returncode == 0, done.stderr
    table = done.stdout.decode(code)
    for name in held - {"a\nb\x1b[2J.png"} | {"a\\nb\\x1b[2J.png"}:
        assert name in table
    assert "\x1b" not in table


def test_names_in_files_and_on_stderr(named: Path, bundle: Path, tmp_path: Path) -> None:
    name, out = os.fsdecode(b"caf\xe9.png"), tmp_path / "o.jsonl"
    asked = ("detect", ".", "--model", bundle, "--format", "jsonl", "--out", out, "--resume")
    for _ in range(2):
        assert run(*asked, cwd=named).returncode == 0
        assert len(rows_of(out.read_bytes())) == 7
    done = run("record", name, "--model", bundle, "--out", tmp_path / "r", cwd=named)
    assert done.returncode == 0, done.stderr
    assert rb"caf\xe9.png.record.json" in done.stdout
    tree = json.loads((tmp_path / "r" / f"{name}.record.json").read_text())
    assert tree["input"]["name"] == "caf\\xe9.png"
    (named / name).write_text("[/red] no picture")
    done = run("record", name, "--model", bundle, cwd=named, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    one_line(done.stderr, "caf\\xe9.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("format", ["jsonl", "csv", "table"])
def test_a_full_disk_under_stdout(folder: Path, bundle: Path, format: str) -> None:
    options = ("detect", folder, "--model", bundle, "--format", format)
    with Path("/dev/full").open("wb") as full:
        done = run(*options, stdout=full)
    assert done.returncode == 2
    one_line(done.stderr, "standard output", "No space left")
    done = run(*options, "--out", "/dev/full")
    assert done.returncode == 2
    one_line(done.stderr, "/dev/full", "No space left")
    assert Path("/dev/full").is_char_device()


def test_a_reader_that_goes_away(folder: Path, bundle: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run("detect", folder, "--model", bundle, "--format", "jsonl", stdout=write)
    os.close(write)
    assert done.stderr == b""


def small_files() -> None:
    """Files of at most 1,500 bytes, as on a disk that is nearly full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


def test_a_full_disk_leaves_nothing_half_written(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    for i in range(8):
        shutil.copy(folder / "a.png", folder / f"{i}.png")
    out = tmp_path / "out"
    out.mkdir()
    common = ("--model", bundle)
    for arguments, file in (
        (("detect", folder, *common, "--heatmap", out), ".png"),
        (("record", folder / "a.png", *common, "--out", out), "a.png.record."),
        (("detect", folder, *common, "--format", "csv", "--out", out / "o.csv"), "o.csv"),
        (("score", folder, *common, "--out", out), "part-000000.parquet"),
    ):
        done = run(*arguments, limit=small_files)
        assert done.returncode == 2, done.stderr
        one_line(done.stderr, file, "File too large")
        assert [p.name for p in out.iterdir() if p.name != "_score.json"] == []


def test_rows_on_a_full_disk_are_whole_and_gone_on_with(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    for i in range(8):
        shutil.copy(folder / "a.png", folder / f"{i}.png")
    out = tmp_path / "o.jsonl"
    asked = ("detect", folder, "--model", bundle, "--format", "jsonl", "--out", out, "--resume")
    done = run(*asked, limit=small_files)
    assert done.returncode == 2
    one_line(done.stderr, str(out), "File too large")
    held = rows_of(out.read_bytes())
    assert 0 < len(held) < 10
    assert run(*asked).returncode == 0
    rows = rows_of(out.read_bytes())
    assert rows[: len(held)] == held
    assert len({row["path"] for row in rows}) == len(rows) == 10
    assert [p.name for p in tmp_path.iterdir() if "o.jsonl" in p.name] == ["o.jsonl"]


def test_a_folder_where_a_file_should_be(folder: Path, bundle: Path, tmp_path: Path) -> None:
    file = folder / "a.png"
    for arguments in (
        ("detect", file, "--out", folder),
        ("detect", file, "--heatmap", file),
        ("record", file, "--out", file / "below"),
        ("score", folder, "--out", file),
    ):
        done = run(*arguments, "--model", bundle)
        assert done.returncode == 2
        one_line(done.stderr, str(arguments[-1]))


def test_errors_are_tried_again_in_their_place(folder: Path, bundle: Path, tmp_path: Path) -> None:
    good, bad, out = folder / "a.png", folder / "b.png", tmp_path / "r.jsonl"
    late = folder / "c.png"
    shutil.copy(good, late)
    bad.write_text("no picture")
    asked = ("detect", good, bad, late, "--model", bundle, "--format", "jsonl", "--out", out)
    assert run(*asked).returncode == 1
    first = out.read_bytes().splitlines()
    for _ in range(2):
        assert run(*asked, "--resume").returncode == 1
        assert out.read_bytes().splitlines() == first
    # The row of a file that this run doesn't ask for stands, and is none of its errors.
    assert run("detect", good, *asked[4:], "--resume").returncode == 0
    assert out.read_bytes().splitlines() == first
    shutil.copy(good, bad)
    assert run(*asked, "--resume").returncode == 0
    rows = rows_of(out.read_bytes())
    assert [row["path"] for row in rows] == [str(good), str(bad), str(late)]
    assert [row["error"] for row in rows] == [None] * 3
    again = run("detect", late, late, good, folder / "new", *asked[4:], "--resume")
    assert again.returncode == 1
    assert len(rows_of(out.read_bytes())) == 4


def test_a_file_that_is_gone_is_no_error_for_ever(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    bad, out = folder / "b.png", tmp_path / "r.jsonl"
    bad.write_text("no picture")
    asked = ("detect", folder, "--model", bundle, "--format", "jsonl", "--out", out, "--resume")
    assert [run(*asked).returncode for _ in range(2)] == [1, 1]
    bad.unlink()
    assert run(*asked).returncode == 0
    assert len(rows_of(out.read_bytes())) == 3
    assert run(*asked[:2], bad, *asked[2:]).returncode == 1


def test_a_file_that_was_replaced_is_judged_again(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    fake, real, out = (
        folder / "a.png",
        folder / "sub folder/Ärger über Öl.png",
        tmp_path / "r.jsonl",
    )
    asked = ("detect", folder, "--model", bundle, "--out", out, "--resume")
    assert run(*asked).returncode == 0
    shutil.copy(real, fake)
    assert run(*asked).returncode == 0
    rows = rows_of(out.read_bytes())
    assert [(row["path"], row["verdict"]) for row in rows] == [
        (str(fake), "real"), (str(real), "real"),
    ]  # fmt: skip
    fake.write_text("no picture")
    assert run(*asked).returncode == 1
    fake.unlink()
    os.mkfifo(fake)
    assert run(*asked).returncode == 1
    assert ["a.png" in str(row["path"]) for row in rows_of(out.read_bytes())] == [True, False]


def test_rows_made_otherwise_are_not_mixed(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    asked = ("detect", folder, "--format", "jsonl", "--out", out)
    assert run(*asked, "--model", bundle).returncode == 0
    before = out.read_bytes()
    for extra, words in (
        (("--model", bundle, "--fpr", "0.4"), ("another fpr",)),
        (("--model", "nano"), ("another model_sha256",)),
        (("--model", bundle, "--stability"), ("without --stability",)),
        (("--model", bundle, "--kind", "phone"), ("of no kind", "not of phone")),
    ):
        done = run(*asked, *extra, "--resume")
        assert done.returncode == 2
        one_line(done.stderr, str(out), *words)
        assert out.read_bytes() == before
    for file, extra, words in (
        ("s.jsonl", ("--stability",), "made with --stability"),
        ("k.jsonl", ("--kind", "phone"), "of the kind phone"),
    ):
        made = (*asked[:-1], tmp_path / file, "--model", bundle)
        assert run(*made, *extra).returncode == 0
        assert run(*made, *extra, "--resume").returncode == 0
        done = run(*made, "--resume")
        assert done.returncode == 2
        one_line(done.stderr, file, words)
    old = [
        {key: row[key] for key in row if key not in {"model_sha256", "fpr"}}
        for row in rows_of(before)
    ]
    foreign = '{"rows": [1, 2, 3], "machine": "important"}'
    for text in (
        "\n".join(map(json.dumps, old)) + "\n", "path,verdict\na.png,real\n", "notes",
        foreign, f"{foreign}\n", before.decode() + foreign, '{"path": "a.png", "mine": 1}',
        "[" * 99_999,
    ):  # fmt: skip
        out.write_text(text)
        done = run(*asked, "--model", bundle, "--resume")
        assert done.returncode == 2
        one_line(done.stderr, str(out))
        assert out.read_text() == text


def test_rows_of_another_calibration_are_not_mixed(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    """One that moves no probability, and one that moves no verdict; what was never read stays."""
    Image.new("RGB", (90, 80), "grey").save(folder / "grey.png")
    clips = pytest.importorskip("clips")
    clips.write_clip(folder / "b.mp4", [np.asarray(Image.open(folder / "a.png"))] * 5)
    model, about = tmp_path / "model", json.loads((bundle / "bundle.json").read_text())
    for files in (["a.png"], ["b.mp4"], ["a.png", "--stability"], ["grey.png"]):
        shutil.copytree(bundle, model)
        out = tmp_path / f"{''.join(files)}.jsonl"
        asked = ("detect", folder / files[0], *files[1:], "--model", model, "--out", out)
        for extra in ((), ("--resume",)):
            done = run(*asked, *extra)
            assert (done.returncode, done.stderr) == (0, b"")
        before, fit = out.read_bytes(), about["calibration"]
        higher = [q + 40 for q in fit["real_quantiles"]]
        for change in ({"bias": 0.001}, {"real_quantiles": higher}):
            changed = json.dumps(about | {"calibration": fit | change})
            (model / "bundle.json").write_text(changed)
            done = run(*asked, "--resume")
            assert out.read_bytes() == before
            if files == ["grey.png"]:
                assert done.returncode == 0
            else:
                assert done.returncode == 2
                one_line(done.stderr, str(out), "of another calibration of this model: give")
        shutil.rmtree(model)


def test_one_writer_at_a_time(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    asked = ("detect", folder, "--model", bundle, "--format", "jsonl", "--out", out)
    with only_writer(out):
        for extra in ((), ("--resume",)):
            done = run(*asked, *extra)
            assert done.returncode == 2
            one_line(done.stderr, str(out), "another run", str(os.getpid()))
    command = [sys.executable, "-c",
               "import sys, time, pathlib; from distildire.io.writing import only_writer\n"
               "with only_writer(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(600)",
               str(out)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert run(*asked).returncode == 2
        other.kill()
    assert (tmp_path / ".r.jsonl.lock").exists()
    assert run(*asked).returncode == 0
    assert len(rows_of(out.read_bytes())) == 2
    assert not (tmp_path / ".r.jsonl.lock").exists()


KILLED = """
import os, signal, sys
from distildire.cli import main
from distildire.io import resuming

def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("r.jsonl"):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

left = [int(sys.argv.pop(1))]
resuming.replace_rows.__kwdefaults__["seconds"] = -1.0
sys.addaudithook(watch)
main()
"""
"""The command, which replaces its first row at once, and is killed before the file takes its name
for the time that is given."""


def test_killed_while_errors_are_tried_again(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    for i in range(150):
        (folder / f"{i:03d}.png").write_text("no picture")
    asked = ("detect", folder, "--model", bundle, "--format", "jsonl", "--out", out, "--resume")
    assert run(*asked).returncode == 1
    order = [row["path"] for row in rows_of(out.read_bytes())]
    for i in range(150):
        shutil.copy(folder / "a.png", folder / f"{i:03d}.png")
    for before, good in ((1, 0), (2, 1), (2, 2)):
        command = [sys.executable, "-c", KILLED, str(before), *map(str, asked)]
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        rows = rows_of(out.read_bytes())
        assert [row["path"] for row in rows] == order
        assert sum(row["error"] is not None for row in rows) == 150 - good
    for wait in (0.5, 0.8, 1.1, 1.4):  # anywhere; on a busy machine while it still starts
        command = [sys.executable, "-m", "distildire", *map(str, asked)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            time.sleep(wait)
            process.kill()
        assert [row["path"] for row in rows_of(out.read_bytes())] == order
    assert run(*asked).returncode == 0
    rows = rows_of(out.read_bytes())
    assert [row["path"] for row in rows] == order
    assert {row["error"] for row in rows} == {None}


def test_pipes_devices_and_huge_files_cost_a_row(folder: Path, bundle: Path) -> None:
    os.mkfifo(folder / "fifo.jpg")
    os.mkfifo(folder / "fifo.mp4")
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(2**33)
    arguments = (folder, "/dev/zero", folder / "huge.jpg", "https://example.org/u.png",
                 "HTTP://example.org/u.mp4")  # fmt: skip
    done = run("detect", *arguments, "--model", bundle, "--format", "jsonl")
    assert done.returncode == 1
    rows = {Path(str(row["path"])).name: row["error"] for row in rows_of(done.stdout)}
    assert len(rows) == 8
    assert [name for name, error in rows.items() if error is None] == [
        "a.png", "Ärger über Öl.png",
    ]  # fmt: skip
    assert "nothing is fetched" in str(rows["u.mp4"])
    assert "512 MiB" in str(rows["huge.jpg"])
    assert all("pipe" in str(rows[name]) for name in ("fifo.jpg", "fifo.mp4", "zero"))


def test_one_picture_on_standard_input(folder: Path, bundle: Path, tmp_path: Path) -> None:
    data = (folder / "a.png").read_bytes()
    options = ("--model", bundle, "--format", "jsonl")
    done = run("detect", "-", *options, "--heatmap", tmp_path / "h", stdin=data)
    (row,) = rows_of(done.stdout)
    (same,) = rows_of(run("detect", folder / "a.png", *options).stdout)
    assert (done.returncode, row["path"]) == (0, "-")
    assert {**same, "path": "-"}.items() <= row.items()
    assert Path(str(row["heatmap"])).is_file()
    done = run("detect", "-", folder / "a.png", *options)
    assert [bool(row["error"]) for row in rows_of(done.stdout)] == [True, False]
    done = run("record", "-", "--model", bundle, "--out", tmp_path / "r", stdin=data)
    assert done.returncode == 0
    assert json.loads((tmp_path / "r/stdin.record.json").read_text())["input"]["name"] == "-"


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command in this process, which must end with exit code 2 and one line: the line."""

    def run_here(*arguments: str | Path) -> str:
        monkeypatch.setattr("sys.argv", ["distildire", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code, said.out) == (2, "")
        one_line(said.err.encode())
        return said.err

    return run_here


def test_no_command_writes_over_what_it_reads(
    folder: Path, bundle: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    odd = tmp_path / "picture"
    shutil.copy(folder / "a.png", odd)
    (tmp_path / "link.csv").symlink_to(odd)
    listed, page = tmp_path / "list.csv", tmp_path / "page.html"
    shutil.copy(odd, page)
    listed.write_text("filename,typ\npicture,real\n")
    scores = tmp_path / "scores.csv"
    scores.write_text("path,score\npicture,0.5\n")
    (tmp_path / "m.csv").write_text("path,label\npicture,real\n")
    before = {path: path.read_bytes() for path in (folder / "a.png", odd, page, listed, scores)}
    for arguments in (
        ("detect", folder / "a.png", "--model", bundle, "--out", folder / "a.png"),
        ("detect", folder, "--model", bundle, "--out", folder / "a.png"),
        ("detect", odd, "--model", bundle, "--out", odd),
        ("detect", odd, "--model", bundle, "--out", tmp_path / "link.csv"),
        ("record", page, "--model", bundle, "--out", page),
        ("prepare", listed, "--out", listed),
        ("prepare", tmp_path, "--out", listed),
        ("evaluate", scores, tmp_path / "m.csv", "--out", tmp_path),
        ("export", bundle, "--format", "openvino", "--out", bundle),
    ):
        assert str(arguments[-1]) in refused(*arguments)
        assert {path: path.read_bytes() for path in before} == before


def test_results_go_through_a_link_to_a_file_that_is_not_there(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    link, target = tmp_path / "link.csv", tmp_path / "below/target.csv"
    target.parent.mkdir()
    link.symlink_to(target)
    done = run("detect", folder, "--model", bundle, "--out", link)
    assert done.returncode == 0
    assert link.is_symlink()
    assert len(list(csv.DictReader(target.open()))) == 2  # as the name ends, so is the format


def test_options_that_can_not_be_meant(
    folder: Path, bundle: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "m.csv").write_text("path,label,split\npictures/a.png,real,train\n")
    noise = ("noise", tmp_path / "m.csv", "--source", "nano", "--out", tmp_path / "n")
    for arguments, words in (
        (("score", folder, "--model", bundle, "--out", ""), "--out is empty"),
        (("record", folder / "a.png", "--out="), "--out is empty"),
        (("score", folder, "--model", bundle, "--out", tmp_path / "s", "--price", "inf"), "inf"),
        (("detect", folder, "--model", bundle, "--out", tmp_path / "r.json"), "as .json: let it"),
        (("detect", folder, "--model", bundle, "--out", tmp_path / "r.Parquet"), "--format jsonl"),
        ((*noise, "--split", "test"), "no row has the split 'test' (splits: train)"),
        ((*noise, "--device", "gpu"), "device is gpu"),
    ):
        assert words in refused(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "pictures"]
    for name, extra, begin in (
        ("r.json", ["--format", "jsonl"], '{"path"'), ("r.txt", [], "picture"),
        ("r", [], "picture"),
    ):  # fmt: skip
        out = tmp_path / name
        assert run("detect", folder, "--model", bundle, "--out", out, *extra).returncode == 0
        assert out.read_text().lstrip().startswith(begin)


def test_heat_maps_are_not_drawn_among_what_is_judged(
    folder: Path, bundle: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be passed over with the pictures, and a folder of nothing is no error."""
    monkeypatch.chdir(folder.parent)
    below = folder / "sub folder"
    for paths, heat in (
        ([folder], folder), (["pictures"], "."), ([folder / "a.png", below], folder),
        ([folder, below], below), (["", below], folder / ".." / folder.name),
    ):  # fmt: skip
        words = refused("detect", *paths, "--model", bundle, "--heatmap", heat)
        assert f"--heatmap {heat}: holds the pictures of" in words
    done = run("detect", "a.png", "--model", bundle, "--format", "jsonl", "--heatmap", ".",
               cwd=folder)  # fmt: skip
    assert [row["heatmap"] is not None for row in rows_of(done.stdout)] == [True]


def test_long_names_cost_no_heat_map_and_no_record(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    for name in ("\N{CAMERA}" * 60, "a" * 251, "b" * 240):
        shutil.copy(folder / "a.png", folder / f"{name}.png")
    done = run("detect", folder, "--model", bundle, "--format", "jsonl",
               "--heatmap", tmp_path / "h")  # fmt: skip
    assert done.returncode == 0, done.stderr
    heats = {Path(str(row["heatmap"])) for row in rows_of(done.stdout)}
    assert heats == set((tmp_path / "h").iterdir())
    assert len(heats) == 5
    for name in ("c" * 250 + "1.png", "c" * 250 + "2.png", "b" * 240 + ".png"):
        shutil.copy(folder / "a.png", folder / name)
        done = run("record", folder / name, "--model", bundle, "--out", tmp_path / "r",
                   "--no-stability", "--no-heatmap")  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "r").iterdir())) == 6


def test_a_name_that_a_heat_map_can_not_have_costs_its_row(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that take no colon, or fewer bytes."""

    def save(path: Path, *_: object, **__: object) -> None:
        if path.name.startswith("a-"):
            raise WriteError(errno.ENAMETOOLONG, "File name too long", str(path))

    monkeypatch.setattr("distildire.explain.heatmap.save_heatmap", save)
    command = ["detect", folder, "--model", bundle, "--format", "jsonl"]
    command += ["--heatmap", tmp_path / "h"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 1
    bad, good = rows_of(done.stdout.encode())
    assert "File name too long" in str(bad["error"])
    assert good["heatmap"]


def test_a_record_says_that_memory_is_short(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("distildire.explain.record.make_record", short)
    done = CliRunner().invoke(app, ["record", str(folder / "a.png"), "--model", str(bundle)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("a.png: too large to judge in the memory at hand\n")


def test_a_kind_without_thresholds_is_told_and_is_no_rows_kind(folder: Path, bundle: Path) -> None:
    asked = ("detect", folder / "a.png", "--model", bundle)
    for kind, taken in (("phone", "phone"), ("art", None)):
        rows = run(*asked, "--kind", kind, "--format", "jsonl")
        assert [row["kind"] for row in rows_of(rows.stdout)] == [taken]
        cells = run(*asked, "--kind", kind, "--format", "csv")
        found = csv.DictReader(io.StringIO(cells.stdout.decode()))
        assert [row["kind"] for row in found] == [taken or ""]
        for done in (rows, cells, run(*asked, "--kind", kind)):
            if taken:
                assert done.stderr == b""
            else:
                one_line(done.stderr, "--kind art: too few", "those of all pictures")


def test_a_small_budget_is_told_as_it_is(folder: Path, bundle: Path) -> None:
    done = run("detect", folder, "--model", bundle, "--fpr", "0.001")
    assert b"budget of 0.1%" in done.stdout.replace(b"\n", b" ")
    assert b"--fpr: 0.1% is less than one of the 500 real and 500 fake" in done.stderr
