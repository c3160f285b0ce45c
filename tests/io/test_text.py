"""Text at the borders: names, streams and tables in any code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from distildire.io.finding import find_files
from distildire.io.text import (
    TextError,
    holds,
    lines_of,
    name_meant,
    rows_of,
    shown,
    spellings,
    storable,
    western,
)

ROWS = [{"path": "a.png", "label": "real"}, {"path": "ä, b.png", "label": "fake"}]


def table(separator: str) -> str:
    return f'path{separator}label\na.png{separator}real\n\n"ä, b.png"{separator}fake\n'


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_a_table_in_any_code_and_separator(tmp_path: Path, code: str, separator: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(table(separator).encode(code))
    assert list(rows_of(file, ["path"])) == ROWS
    file.write_bytes("a.png\r\n\nb ü.png".encode(code))
    assert list(lines_of(file)) == ["a.png", "b ü.png"]


def test_latin_1_means_the_file_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(table(",").encode("latin-1"))
    name = list(rows_of(file, ["path"]))[1]["path"]
    assert name_meant(name, tmp_path) == "ä, b.png"
    raw = b"\xe4, b.png".decode("utf-8", "surrogateescape")
    (tmp_path / raw).touch()
    assert name_meant(name, tmp_path) == raw


def test_rows_that_cannot_be_right_are_named(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("label,path\nreal,a.png\nreal\nfake,b.png\nreal,c,d.png\n")
    with pytest.raises(TextError, match=r"t\.csv: row 2: no path"):
        list(rows_of(file, ["path"]))
    said: list[str] = []
    assert [row["path"] for row in rows_of(file, ["path"], said.append)] == ["a.png", "b.png"]
    assert [words.split(": ")[1] for words in said] == ["row 2", "row 4"]
    with pytest.raises(TextError, match="no column score"):
        list(rows_of(file, ["score"]))
    file.write_bytes(b"\xff\xfea")
    with pytest.raises(TextError, match=r"t\.csv"):
        list(rows_of(file, ["path"]))


def test_a_quote_that_is_not_closed_loses_no_row_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for text, line in (
        ('path,label\na.png,real\n"b.png,fake\nc.png,real\n', 3),
        ('\npath,label\n"a\n\nb.png",real\n"c.png,real\n"d.png",fake\n', 6),
    ):
        file.write_text(text)
        with pytest.raises(TextError, match=rf"t\.csv: line {line}: a quote"):
            list(rows_of(file, ["path"], lambda _: None))


def test_tables_of_spreadsheets_and_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for text in (
        'Path , LABEL\na.png, real\n"ä, b.png", fake\n',
        'sep=;\r\npath;Label\r\na.png;real\r\nä, b.png;fake\r\n',
        'sep=\t\npath\tlabel\na.png\treal\nä, b.png\tfake\n',
    ):  # fmt: skip
        file.write_text(text)
        assert list(rows_of(file, ["path", "label"])) == ROWS
    assert name_meant(" a.png ", tmp_path) == "a.png"
    (tmp_path / " a.png ").touch()
    assert name_meant(" a.png ", tmp_path) == " a.png "
    file.write_text("path,label,path\na.png,real,b.png\n")
    with pytest.raises(TextError, match="two columns have the name path"):
        list(rows_of(file, ["path"]))


@pytest.mark.parametrize("raw", [b"caf\xe9", b"\x81\x40", b"\x80\x81", bytes(range(128, 256))])
def test_a_text_in_another_code_spells_its_bytes_again(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    text = western(name)
    assert spellings(text) == [text, name]
    assert spellings(f" {text}")[1] == text
    assert spellings("a.png") == ["a.png"]


def test_names_go_out_as_they_are_or_escaped() -> None:
    assert storable("[a] Ä 写.png") == "[a] Ä 写.png"
    assert storable("caf\udce9.png") == "caf\\xe9.png"
    assert storable("\ud83d") == "\\ud83d"
    assert shown("a\nb\x1b[31m\u202e.png") == "a\\nb\\x1b[31m\\u202e.png"
    assert json.loads(json.dumps(shown("a\\b"))) == "a\\b"
    assert not holds(io.TextIOWrapper(io.BytesIO(), "cp1252"), "写")


def test_what_systems_leave_in_folders_is_passed_over(tmp_path: Path) -> None:
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/b.png", "@eaDir/c.png",
                 "d.png", "sub/._e.png", "sub/e.png", ".hidden.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(Path(path).relative_to(tmp_path)) for path in find_files([tmp_path])]
    assert found == [".hidden.png", "d.png", "sub/e.png"]
    assert list(find_files([""])) == [""]  # not the folder at hand
    (tmp_path / "code.ts").write_text("export const a = 1;\n")
    (tmp_path / "film.ts").write_bytes(b"G@\0\x10" + bytes(184))
    assert {Path(path).suffix for path in find_files([tmp_path])} == {".png", ".ts"}
    assert str(tmp_path / "code.ts") not in find_files([tmp_path])
    (tmp_path / "IMG_1.CR2").touch()
    (tmp_path / "IMG_1.xmp").touch()
    assert {Path(path).suffix for path in find_files([tmp_path])} == {".png", ".ts", ".CR2"}
    assert list(find_files([tmp_path / "._a.png"])) == [str(tmp_path / "._a.png")]
    assert list(find_files(["x" * 5000, "a\0b"])) == ["x" * 5000, "a\0b"]
