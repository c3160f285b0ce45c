"""The noise predictor's training, against the closed form of Wiener's filter.

Pictures are Gaussian noise of a known spectrum: the best predictor of the noise that is added to
them is then linear, and its error is known.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from distildire.data.manifest import ManifestError
from distildire.distill.fit_noise import (
    NoiseConfig,
    eps_error,
    fit_from_manifest,
    fit_noise,
    sample_patches,
)
from distildire.io.config import ConfigError
from distildire.noise.nano import NanoConfig, load_nano

ADDED = 1e-4
"""Variance of the noise at t = 0: 1 - alpha_bar[0] is beta[0]."""


def wiener_error(spectrum: NDArray[np.float64]) -> float:
    """Least mean squared error of eps, for a signal of this power at each frequency.

    E |eps - eps_hat|^2 = S / (S + N), frequency by frequency (Wiener 1949), for S the power of
    sqrt(alpha_bar) x0 and N that of the noise.
    """
    power = (1.0 - ADDED) * spectrum
    return float((power / (power + ADDED)).mean())


def pictures(kernel: list[float], grey_levels: float, count: int = 12) -> list[NDArray[np.uint8]]:
    """White noise, smoothed along both sides by `kernel`, of this deviation, as pictures."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        noise = rng.normal(size=(128, 128, 3))
        for axis in (0, 1):
            noise = sum(weight * np.roll(noise, shift, axis) for shift, weight in enumerate(kernel))  # type: ignore[assignment]
        noise *= grey_levels / np.prod([np.linalg.norm(kernel)] * 2)
        made.append(np.clip(np.rint(128 + noise), 0, 255).astype(np.uint8))
    return made


def spectrum_of(kernel: list[float], grey_levels: float) -> NDArray[np.float64]:
    """Power of those pictures in [-1, 1], at 128 x 128 frequencies; rounding adds 1 / 12."""
    along = np.abs(np.fft.fft(kernel, 128)) ** 2 / np.sum(np.square(kernel))
    return np.asarray((grey_levels**2 * np.outer(along, along) + 1 / 12) / 127.5**2)


def test_the_error_of_wieners_own_filter_is_the_closed_form() -> None:
    """White pictures: the best prediction is the noisy picture times one number."""
    white = pictures([1.0], 2.0)
    variance = (4.0 + 1 / 12) / 127.5**2
    gain = ADDED**0.5 / ((1.0 - ADDED) * variance + ADDED)
    middle = 128 / 127.5 - 1.0

    def wiener(x_t: Tensor, t: Tensor) -> Tensor:
        return gain * (x_t - (1.0 - ADDED) ** 0.5 * middle)

    expected = wiener_error(spectrum_of([1.0], 2.0))
    assert eps_error(wiener, white) == pytest.approx(expected, rel=0.01)
    assert eps_error(lambda x_t, t: 0 * x_t, white) == pytest.approx(1.0, rel=0.01)


def block_error(kernel: list[float], grey_levels: float, side: int = 4) -> float:
    """The same for a filter that sees one block of side x side pixels alone.

    S are then the eigenvalues of the block's covariance.
    """
    row = np.correlate(kernel, kernel, "full")[len(kernel) - 1 :] / np.sum(np.square(kernel))
    row = np.pad(row, (0, side))
    lags = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    covariance = grey_levels**2 * np.kron(row[lags], row[lags]) + np.eye(side * side) / 12
    return wiener_error(np.linalg.eigvalsh(covariance) / 127.5**2)


def fit(kernel: list[float], levels: float, steps: int, out: Path) -> float:
    """Fit on ten pictures; the error at t = 0 on two others."""
    config = NoiseConfig(
        steps=steps, batch=8, patch=32, warmup=10, lr=3e-3, max_t=0, network=NanoConfig(depth=1)
    )
    images = pictures(kernel, levels)
    network = fit_noise(images[:10], images[10:], config, out)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    saved, _ = load_nano(out)
    x_t, t = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, dtype=torch.int64)
    torch.testing.assert_close(saved(x_t, t), network(x_t, t))
    return float(last["eps_error_t0"])


def test_of_white_pictures_the_fit_is_wieners_filter(tmp_path: Path) -> None:
    """Neighbours tell nothing: no training is better than the filter that it starts from."""
    least = wiener_error(spectrum_of([1.0], 2.0))
    assert block_error([1.0], 2.0) == pytest.approx(least, rel=1e-6)
    assert fit([1.0], 2.0, 20, tmp_path) == pytest.approx(least, rel=0.02)


def test_of_smooth_pictures_the_fit_passes_the_filter_of_a_block(tmp_path: Path) -> None:
    """What lies beside a block tells of it: training gains, and never more than there is."""
    kernel, levels = [1.0, 2.0, 1.0], 4.0
    least, block = wiener_error(spectrum_of(kernel, levels)), block_error(kernel, levels)
    assert least < 0.9 * block
    found = fit(kernel, levels, 200, tmp_path)
    assert 0.99 * least < found < 0.985 * block, (least, found, block)


def test_patches_are_pieces_of_the_pictures() -> None:
    rng = np.random.default_rng(0)
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 251
    rgb = np.repeat(ramp[:, :, None], 3, 2).astype(np.uint8)
    patches = sample_patches([rgb], 8, 16, rng)
    assert patches.shape == (8, 3, 16, 16)
    whole = {
        tuple(np.unique(w))
        for w in np.lib.stride_tricks.sliding_window_view(ramp, (16, 16)).reshape(-1, 256)
    }
    for patch in patches:
        pixels = torch.round((patch[0] + 1) * 127.5).to(torch.uint8).numpy()
        assert tuple(np.unique(pixels)) in whole


@pytest.mark.parametrize(("steps", "warmup"), [(100, 200), (10, 10), (10, 1)])
def test_a_warm_up_as_long_as_the_run_is_refused(steps: int, warmup: int) -> None:
    with pytest.raises(ConfigError, match=rf"warmup is {warmup}: give fewer than steps"):
        NoiseConfig(steps=steps, warmup=warmup)


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_shortest_warm_ups(tmp_path: Path, warmup: int) -> None:
    images = pictures([1.0], 2.0, count=2)
    config = NoiseConfig(
        steps=3, batch=2, patch=32, warmup=warmup, network=NanoConfig(depth=1, width=8)
    )
    fit_noise(images, images, config, tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_manifest_that_leaves_nothing_to_fit_is_told(tmp_path: Path) -> None:
    """It tells no splits either, and is taken whole."""
    for name, rgb in zip("ab", pictures([1.0], 2.0, count=2), strict=True):
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label,source\na.png,real,a\nb.png,real,b\nc.png,real,c\n")
    config = NoiseConfig(manifest=str(manifest), held_out=("a", "b", "c"))
    with pytest.raises(ManifestError, match="pictures trained on none can be read"):
        fit_from_manifest(config, tmp_path / "out")
    with pytest.raises(ManifestError, match="pictures held out none can be read"):
        fit_from_manifest(replace(config, held_out=("c",)), tmp_path / "out")
