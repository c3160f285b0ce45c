"""The plots of the report; each returns a matplotlib Figure and draws on nothing global."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.evaluate.metrics import ECE_BINS, bin_of

REAL, FAKE = "#0969da", "#cf222e"

Curves = Mapping[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]
"""By name: (fake [N], values [N])."""


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def roc(curves: Curves) -> Any:
    """ROC of scores; false positives on a logarithmic axis, where the budgets lie."""
    from sklearn.metrics import roc_curve

    figure = _figure(5.2, 4.4)
    ax = figure.subplots()
    for name, (fake, scores) in curves.items():
        if len(np.unique(fake)) == 2:
            fpr, tpr, _ = roc_curve(fake, scores)
            ax.step(np.maximum(fpr, 1e-4), tpr, where="post", label=name)
    grid = np.geomspace(1e-3, 1, 50)
    ax.plot(grid, grid, ":", color="grey", label="chance")
    for budget in (0.01, 0.05):
        ax.axvline(budget, color="lightgrey", linewidth=1, zorder=0)
    ax.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.01))
    ax.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC")
    ax.legend(loc="upper left", frameon=False, fontsize=8)  # no curve of use passes there
    return figure


def reliability(curves: Curves) -> Any:
    """Share of fakes against the stated probability, in the bins of the ECE."""
    figure = _figure(5.2, 4.4)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], ":", color="grey")
    for name, (fake, probability) in curves.items():
        index = np.minimum(bin_of(probability), ECE_BINS - 1)
        count = np.bincount(index, minlength=ECE_BINS)
        used = count >= 5
        mean = np.bincount(index, probability, ECE_BINS)[used] / count[used]
        share = np.bincount(index, fake.astype(float), ECE_BINS)[used] / count[used]
        ax.plot(mean, share, "o-", label=name)
    ax.set(xlim=(0, 1), ylim=(0, 1), title="Reliability (bins with 5 images or more)")
    ax.set(xlabel="stated probability of fake", ylabel="share of fakes")
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    return figure


def histogram(fake: NDArray[np.bool_], logit: NDArray[np.float64], title: str) -> Any:
    """Logits of the two classes, as shares."""
    figure = _figure(5.2, 3.2)
    ax = figure.subplots()
    low, high = np.quantile(logit, (0.005, 0.995))
    bins = np.linspace(low, high if high > low else low + 1, 41)
    for name, rows, colour in (("real", ~fake, REAL), ("fake", fake, FAKE)):
        if rows.any():
            part = np.clip(logit[rows], bins[0], bins[-1])
            weights = np.full(len(part), 1 / len(part))
            ax.hist(part, bins, weights=weights, alpha=0.5, color=colour, label=name)
    ax.set(xlabel="logit", ylabel="share of the class", title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def heat_map(
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    limits: tuple[float, float] = (0.5, 1.0),
) -> Any:
    """Numbers [R, C] in coloured cells; nan cells stay empty."""
    figure = _figure(2.6 + 0.62 * len(columns), 1.4 + 0.28 * len(rows))
    ax = figure.subplots()
    ax.imshow(values, vmin=limits[0], vmax=limits[1], cmap="RdYlGn", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8)
    ax.set_yticks(np.arange(len(rows)), rows, fontsize=8)
    ax.set_xticks(np.arange(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    ax.set_title(title, fontsize=10)
    return figure


def forest(labels: Sequence[str], values: Sequence[float], intervals: Sequence[Any]) -> Any:
    """Estimates with their intervals, one line each (AUC by generator)."""
    figure = _figure(6.5, 1.2 + 0.26 * len(labels))
    ax = figure.subplots()
    for y, (value, interval) in enumerate(zip(values, intervals, strict=True)):
        if interval is not None:
            ax.plot(interval, (y, y), color="#57606a", linewidth=1.5)
        ax.plot(value, y, "o", color=FAKE if interval is not None else "#8c959f", markersize=4)
    ax.axvline(0.5, linestyle=":", color="grey")
    ax.set_yticks(np.arange(len(labels)), labels, fontsize=8)
    ax.set(xlim=(0, 1.02))
    # Of the whole figure: long names leave the axes less width than these words take.
    figure.supxlabel("AUC, 95% interval (grey: too few images for one)", fontsize="medium")
    ax.invert_yaxis()
    return figure


def dots(values: Mapping[str, Sequence[float]], title: str, label: str) -> Any:
    """Every run of every arm as a dot, the mean as a line."""
    figure = _figure(6.5, 1.4 + 0.32 * len(values))
    ax = figure.subplots()
    for y, numbers in enumerate(values.values()):
        ax.plot(numbers, [y] * len(numbers), "o", color="#57606a", alpha=0.6, markersize=5)
        ax.plot([np.mean(numbers)] * 2, (y - 0.3, y + 0.3), color=FAKE, linewidth=2)
    ax.set_yticks(np.arange(len(values)), list(values), fontsize=8)
    ax.set(xlabel=label)
    ax.set_title(title, fontsize=10)
    ax.invert_yaxis()
    return figure


def pareto(points: Mapping[str, tuple[Any, Any]], x_label: str, y_label: str) -> Any:
    """Cost against benefit by name, and the line of those that no other beats in both."""
    figure = _figure(6.5, 4.6)
    ax = figure.subplots()
    best = pareto_front(points)
    for name, (x, y) in points.items():
        ax.plot(x, y, "o", color=FAKE if name in best else "#8c959f", markersize=5)
        ax.annotate(name, (x, y), (4, 3), textcoords="offset points", fontsize=7)
    front = [points[name] for name in best]
    ax.step([x for x, _ in front], [y for _, y in front], where="post", color=FAKE, linewidth=1)
    ax.set(xlabel=x_label, ylabel=y_label, xscale="log")
    ax.margins(x=0.25)  # room for the last name
    for axis in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis("{x:g}")
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names, by rising cost, that no other point beats in both (low cost, high benefit)."""
    front: list[str] = []
    for name, (_, benefit) in sorted(points.items(), key=lambda p: (p[1][0], -p[1][1])):
        if not front or benefit > points[front[-1]][1]:
            front.append(name)
    return front
