from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distildire.bundle import models_folder
from distildire.cli import hook

ROOT = Path(__file__).parents[2]


def test_a_generated_picture_fails_the_commit(
    bundle: Path, tmp_path: Path, flat: np.ndarray, busy: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real, fake, other = (str(tmp_path / name) for name in ("r.png", "f.png", "o.png"))
    Image.fromarray(busy).save(real)
    Image.fromarray(flat).save(fake)
    Path(other).write_text("no picture")
    options = ["--fpr", "0.05", "--model", str(bundle)]
    assert hook.main([real, other, *options]) == 0
    assert "not scored" in capsys.readouterr().out
    assert hook.main([real, fake, *options]) == 1
    assert "f.png: likely generated" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--fpr", "0"], ["--model", "no-such"]])
def test_options_that_mean_nothing_are_no_verdict(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert hook.main(["a.png", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("where", [".pre-commit-hooks.yaml", "examples/pre-commit-hook.yaml"])
def test_the_examples_name_a_command_that_runs(where: str, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / where).read_text())
    (entry,) = tree if isinstance(tree, list) else tree["repos"][0]["hooks"]
    words = [*entry["entry"].split(), *entry.get("args", [])]
    assert words[0] == "python"
    shutil.copy(ROOT / "examples/photo_rocket.jpg", tmp_path / "-x.jpg")
    command = [sys.executable, *words[1:], "-x.jpg"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    (remark,) = done.stderr.splitlines()
    n_real = json.loads((models_folder() / "nano/bundle.json").read_text())["calibration"]["n_real"]
    assert remark.startswith("distildire: --fpr: 0.1% is less than one of the ")
    assert f" {n_real} real" in remark
    if where.startswith("examples"):
        assert f"one of the {n_real} real pictures" in (ROOT / where).read_text()
