"""Noise statistics on maps whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from noise_analysis import statistics as ns


def white(seed: int = 0, side: int = 192) -> ns.Noise:
    return np.random.default_rng(seed).standard_normal((3, side, side)).astype(np.float32)


def test_one_number_for_every_name() -> None:
    values = ns.statistics(white())
    assert values.shape == (len(ns.FEATURE_NAMES),)
    assert np.isfinite(values).all()
    assert np.isfinite(ns.statistics(np.zeros((3, 64, 64), np.float32))).all()


def test_white_noise_is_flat_and_uncorrelated() -> None:
    noise = white()
    np.testing.assert_allclose(ns.log_energy(noise), 0, atol=0.03)
    assert ns.log_kurtosis(noise) == pytest.approx(np.log(3), abs=0.02)
    np.testing.assert_allclose(ns.radial_power(ns.power_spectrum(noise))[1:], 0, atol=0.25)
    np.testing.assert_allclose(ns.autocorrelation(noise), 0, atol=0.02)
    np.testing.assert_allclose(ns.channel_correlation(noise), 0, atol=0.02)
    mean = np.mean([ns.peaks(ns.power_spectrum(white(seed))) for seed in range(40)], axis=0)
    np.testing.assert_allclose(mean, 0, atol=0.4)


@pytest.mark.parametrize("period", ns.PEAK_PERIODS)
def test_a_grid_shows_at_its_period(period: int) -> None:
    noise = white()
    noise[:, ::period, ::period] += 1.0
    plain, grid = (ns.peaks(ns.power_spectrum(n)) for n in (white(), noise))
    at = ns.PEAK_PERIODS.index(period)
    assert grid[at] > plain[at] + 1.5
    for other in range(at + 1, len(ns.PEAK_PERIODS)):
        assert grid[other] < plain[other] + 1.5


def test_autocorrelation_of_a_moving_average_and_of_channels() -> None:
    noise = white()
    smooth = noise[:, :, 1:] + noise[:, :, :-1]
    np.testing.assert_allclose(ns.autocorrelation(smooth), [0.5, 0, 0, 0, 0], atol=0.02)
    noise[1] = noise[0]
    np.testing.assert_allclose(ns.channel_correlation(noise), [1, 0, 0], atol=0.02)


def test_parseval() -> None:
    noise = white(side=64)
    grey = noise.mean(axis=0, dtype=float)
    window = np.hanning(64)[:, None] * np.hanning(64)[None, :]
    energy = (((grey - grey.mean()) * window) ** 2).sum()
    assert ns.power_spectrum(noise).sum() == pytest.approx(energy)
