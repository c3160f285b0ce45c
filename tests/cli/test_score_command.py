from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distildire.cli.app import app
from distildire.scale.sources import SourceError


def test_score_says_what_it_did_and_what_it_costs(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "a.png", folder / "b.png")
    command = ["score", str(folder), "--out", str(tmp_path / "out"), "--model", str(bundle)]
    done = CliRunner().invoke(app, [*command, "--dedup", "--price", "0.04"])
    assert done.exit_code == 0, done.output
    first, cost, where = done.stdout.splitlines()
    assert first == "3 scored, 1 of them copies, 0 there already, 0 with an error"
    assert "a million pictures, at 0.04 a core-hour" in cost
    assert where == str(tmp_path / "out")
    (folder / "c.png").write_bytes(b"no picture")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert again.stdout.splitlines()[0] == "1 scored, 3 there already, 1 with an error"
    again = CliRunner().invoke(app, command)
    assert again.stdout.splitlines()[0] == "0 scored, 4 there already, 1 with an error"


def test_a_source_without_pictures_says_so(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("path\n")
    command = ["score", str(tmp_path / "empty.csv"), "--out", str(tmp_path / "out")]
    with pytest.raises(SourceError, match=r"empty\.csv: holds no pictures"):
        CliRunner().invoke(app, [*command, "--model", str(bundle)], catch_exceptions=False)


def test_what_can_not_be_scored_is_one_line(bundle: Path, tmp_path: Path) -> None:
    from distildire.cli import main

    with pytest.MonkeyPatch.context() as patch:
        command = ["distildire", "score", "nothing://x", "--out", str(tmp_path / "out")]
        patch.setattr("sys.argv", [*command, "--model", str(bundle)])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 2


def test_an_empty_source_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from distildire.cli import main

    out = tmp_path / "out"
    for source in ("", "file://"):
        command = ["distildire", "score", source, "--out", str(out), "--model", str(bundle)]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert "the source is empty" in capsys.readouterr().err
        assert not out.exists()


def test_a_price_that_is_no_number_is_refused(folder: Path, bundle: Path, tmp_path: Path) -> None:
    command = ["score", str(folder), "--out", str(tmp_path / "out"), "--model", str(bundle)]
    for price in ("inf", "nan"):
        done = CliRunner().invoke(app, [*command, "--price", price])
        assert done.exit_code == 2
        assert not (tmp_path / "out").exists()
    auto = CliRunner().invoke(app, [*command, "--device", "auto"])
    assert "distildire: device cpu" in auto.stderr
