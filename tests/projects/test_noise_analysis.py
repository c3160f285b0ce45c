"""The probe on pictures that differ, or don't, in a known way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from noise_analysis.analysis import analyse_noise, residual
from PIL import Image

from distildire.data.manifest import read_manifest


class HighPass:
    """A stand-in noise source."""

    def eps0(self, x0: torch.Tensor) -> torch.Tensor:
        return x0 - torch.nn.functional.avg_pool2d(x0, 3, 1, 1)


def build(folder: Path, grain: dict[str, float]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for label, sigma in grain.items():
        for i in range(24):
            coarse = Image.fromarray(rng.integers(60, 196, (6, 6, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((72, 72), Image.Resampling.BICUBIC), float)
            pixels = smooth + rng.normal(0, sigma, smooth.shape)
            path = folder / f"{label}{i}.png"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
            rows.append({"path": path.name, "label": label, "source": f"{label}{i % 6}",
                         "generator": "gan" if label == "fake" else ""})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return read_manifest(folder / "manifest.csv")


def test_a_difference_in_grain_is_found_and_equal_grain_is_not(tmp_path: Path) -> None:
    for name, grain in (
        ("differ", {"real": 6.0, "fake": 2.0}),
        ("same", {"real": 4.0, "fake": 4.0}),
    ):
        (tmp_path / name).mkdir()
        result = analyse_noise(HighPass(), build(tmp_path / name, grain), side=64)
        probe = {row["map"]: row["all statistics"] for row in result.probe}
        if name == "differ":
            assert probe["eps0, as it is"] > 0.98
            assert result.by_generator[1]["auc, as it is"] > 0.98
        else:
            assert 0.2 < probe["eps0, as it is"] < 0.8
    result.save(tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert [row["generator"] for row in tree["by_generator"]] == ["real", "gan"]
    assert (tmp_path / "out" / "spectra.png").is_file()


def test_pictures_too_small_are_left_out(tmp_path: Path) -> None:
    table = build(tmp_path, {"real": 4.0, "fake": 4.0})
    with pytest.raises(ValueError, match="square of 100"):
        analyse_noise(HighPass(), table, side=100)


def test_residual_is_a_high_pass() -> None:
    flat = np.full((3, 16, 16), 0.3, np.float32)
    np.testing.assert_allclose(residual(flat), 0, atol=1e-6)
    point = np.zeros((3, 9, 9), np.float32)
    point[:, 4, 4] = 1
    assert residual(point)[0, 4, 4] == pytest.approx(0.75)
