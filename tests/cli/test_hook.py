from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

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
def test_the_examples_name_a_command_that_runs(where: str) -> None:
    tree = yaml.safe_load((ROOT / where).read_text())
    (entry,) = tree if isinstance(tree, list) else tree["repos"][0]["hooks"]
    words = [*entry["entry"].split(), *entry.get("args", [])]
    assert words[0] == "python"
    photo = str(ROOT / "examples/photo_rocket.jpg")
    done = subprocess.run([sys.executable, *words[1:], photo], check=False, capture_output=True)
    assert done.returncode in {0, 1}
    assert not done.stderr
