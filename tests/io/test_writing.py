"""A file is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distildire.io.writing import (
    name_within,
    only_writer,
    whole_file,
    whole_files,
    write_json,
)


def test_a_broken_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"half of the ne", None])  # type: ignore[list-item]
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_bytes() == b"old"


def test_a_broken_write_leaves_all_old_files_alone(tmp_path: Path) -> None:
    def write(names: str) -> None:
        with whole_files(tmp_path / "out") as filling:
            for name in names:
                (filling / name).write_text(names)
            if "x" in names:
                raise KeyError(names)

    write("ab")
    with pytest.raises(KeyError):
        write("bcx")
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {"a": "ab", "b": "ab"}
    write("bc")
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {"a": "ab", "b": "bc", "c": "bc"}


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"{'é' * 126}{end}" for end in ("ab", "ac", "a", "")]
    with contextlib.ExitStack() as stack:  # all at once, as texts that belong together are
        for path in paths:
            stack.enter_context(only_writer(path))
            stack.enter_context(whole_file(path)).write(path.name.encode())
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    assert all(path.read_text() == path.name for path in paths)


@pytest.mark.parametrize("letter", ["a", "é", "\N{CAMERA}", "\udce9"])
def test_names_are_cut_between_letters(letter: str) -> None:
    size = len(letter.encode("utf-8", "surrogatepass"))
    whole = letter * (120 // size)
    assert name_within(whole, 120) == whole
    cut = [name_within(whole + end, 120).split("~") for end in ("a", "b")]
    assert [beginning for beginning, _ in cut] == [letter * (111 // size)] * 2
    assert len({end for _, end in cut}) == 2


def test_a_full_disk_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with only_writer(tmp_path / "a"):
        assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
    assert list(tmp_path.iterdir()) == []


def test_threads_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_json(path, [i] * 5000), range(64)))
    assert len(set(json.loads(path.read_text()))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
