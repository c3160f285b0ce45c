"""Statistics of a noise map: what tells one generator's first-step noise from another's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Noise = NDArray[np.float32]
"""[3, S, S]: a square noise map."""

RADIAL_BINS = 16

PEAK_PERIODS = (2, 4, 8)
"""Periods, in pixels, of the grids that doubling upsamplers leave (8 is also JPEG's)."""

LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))

FEATURE_NAMES = (
    *(f"log energy {c}" for c in "RGB"),
    "log kurtosis",
    *(f"radial power {i}" for i in range(RADIAL_BINS)),
    *(f"peak at period {p}" for p in PEAK_PERIODS),
    *(f"autocorrelation {dy},{dx}" for dy, dx in LAGS),
    *(f"correlation {pair}" for pair in ("RG", "RB", "GB")),
)


def statistics(noise: Noise) -> NDArray[np.float64]:
    """The numbers named in `FEATURE_NAMES` of one noise map: [F]."""
    spectrum = power_spectrum(noise)
    return np.concatenate(
        [
            log_energy(noise),
            [log_kurtosis(noise)],
            radial_power(spectrum),
            peaks(spectrum),
            autocorrelation(noise),
            channel_correlation(noise),
        ]
    )


def log_energy(noise: Noise) -> NDArray[np.float64]:
    """Natural logarithm of the mean square of each channel: [3]."""
    return np.asarray(np.log((noise.astype(float) ** 2).mean(axis=(1, 2)) + 1e-12))


def log_kurtosis(noise: Noise) -> float:
    """Logarithm of the fourth standardised moment over all channels (log 3 for a Gaussian)."""
    centred = noise.astype(float) - noise.mean(axis=(1, 2), keepdims=True)
    variance = (centred**2).mean()
    return float(np.log((centred**4).mean() / (variance**2 + 1e-24) + 1e-12))


def power_spectrum(noise: Noise) -> NDArray[np.float64]:
    """Power of the mean of the channels, Hann-windowed, zero frequency first: [S, S]."""
    grey = noise.mean(axis=0, dtype=float)
    window = np.hanning(len(grey))
    grey = (grey - grey.mean()) * window[:, None] * window[None, :]
    return np.asarray(np.abs(np.fft.fft2(grey)) ** 2 / len(grey) ** 2)


def radial_frequency(side: int) -> NDArray[np.float64]:
    """Distance from zero frequency, in cycles per pixel: [side, side]."""
    frequency = np.fft.fftfreq(side)
    return np.asarray(np.hypot(frequency[:, None], frequency[None, :]))


def radial_power(spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the mean power in rings up to 0.5 cycles per pixel, over all power: [16]."""
    ring = (radial_frequency(len(spectrum)) / 0.5 * RADIAL_BINS).astype(int)
    inside = ring < RADIAL_BINS
    power = np.bincount(ring[inside], spectrum[inside], RADIAL_BINS)
    count = np.bincount(ring[inside], minlength=RADIAL_BINS)
    return np.asarray(np.log(power / count / (spectrum.mean() + 1e-24) + 1e-12))


def peaks(spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the grid frequencies of each period stand out: [3], 0 for a smooth spectrum.

    For each grid point (multiples of 1/period that belong to no shorter period), the
    logarithm of its power over the median of the 9 x 9 frequencies around it; their mean.
    """
    side = len(spectrum)
    offsets = np.arange(-4, 5)
    found = []
    taken = {(0, 0)}
    for period in PEAK_PERIODS:
        grid = {
            (round(i * side / period), round(j * side / period))
            for i in range(period)
            for j in range(period)
        }
        y, x = np.array(sorted(grid - taken)).T
        taken |= grid
        rows = (y[:, None, None] + offsets[:, None]) % side
        columns = (x[:, None, None] + offsets) % side
        around = np.median(spectrum[rows, columns].reshape(len(y), -1), axis=1)
        found.append(np.log((spectrum[y, x] + 1e-24) / (around + 1e-24)).mean())
    # A single power follows the exponential law, whose mean log(power / median) is -0.2107;
    # at period 2 the spectrum is real: chi-squared with one degree of freedom, ln 2 lower.
    bias = (0.2107 + np.log(2), 0.2107, 0.2107)
    return np.asarray([mean + shift for mean, shift in zip(found, bias, strict=True)])


def autocorrelation(noise: Noise) -> NDArray[np.float64]:
    """Correlation of the map with itself moved by each of `LAGS`, mean over channels: [5]."""
    centred = noise.astype(float) - noise.mean(axis=(1, 2), keepdims=True)
    variance = (centred**2).mean() + 1e-24
    height, width = noise.shape[1:]
    return np.array(
        [
            (centred[:, dy:, dx:] * centred[:, : height - dy, : width - dx]).mean() / variance
            for dy, dx in LAGS
        ]
    )


def channel_correlation(noise: Noise) -> NDArray[np.float64]:
    """Correlation of R with G, R with B, G with B: [3]."""
    flat = noise.reshape(3, -1).astype(float)
    flat = flat - flat.mean(axis=1, keepdims=True)
    covariance = flat @ flat.T
    scale = np.sqrt(np.diag(covariance)) + 1e-12
    correlation = covariance / scale[:, None] / scale[None, :]
    return np.asarray(correlation[[0, 0, 1], [1, 2, 2]])
