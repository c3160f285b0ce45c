"""Pictures of the noise: mean spectra, radial curves, panels of eps0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noise_analysis.statistics import RADIAL_BINS


def spectra_figure(spectra: Mapping[str, NDArray[np.float64]]) -> Any:
    """Mean logarithmic spectrum of each generator less that of the reals, centred.

    The reals' own spectrum comes first. Bright dots away from the centre are grids.
    """
    from matplotlib.figure import Figure

    names = ["real", *sorted(set(spectra) - {"real"})]
    names = [name for name in names if name in spectra]
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.0 * columns, 2.15 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    base = spectra.get("real", 0.0)
    for ax in axes:
        ax.axis("off")
    for ax, name in zip(axes, names, strict=False):
        image = spectra[name] if name == "real" else spectra[name] - base
        limits = {} if name == "real" else {"vmin": -1.0, "vmax": 1.0}
        colours = "viridis" if name == "real" else "RdBu_r"
        ax.imshow(np.fft.fftshift(image), cmap=colours, **limits)
        title = "real (log power)" if name == "real" else f"{_short(name)} - real"
        ax.set_title(title, fontsize=6)
    return figure


def radial_figure(radial: Mapping[str, Sequence[float]]) -> Any:
    """Mean logarithmic power by ring for each generator; the reals in black."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    ax = figure.subplots()
    frequency = (np.arange(RADIAL_BINS) + 0.5) / RADIAL_BINS * 0.5
    for i, (name, power) in enumerate(radial.items()):
        style: dict[str, Any] = {"color": f"C{i % 10}", "linestyle": ("-", "--", ":")[i // 10 % 3]}
        if name == "real":
            style = {"color": "black", "linewidth": 3}
        ax.plot(frequency, power, label=_short(name), **style)
    ax.set(xlabel="cycles per pixel", ylabel="log power over the mean")
    ax.set_title("Radial power of eps0")
    ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
