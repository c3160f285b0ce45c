"""The files of an experiment: for machines, for a page, for the eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distildire.evaluate import plots
from distildire.experiments.runs import FIGURES
from distildire.experiments.seeds import OverSeeds
from distildire.io.html_page import markdown_table
from distildire.io.writing import whole_file, write_json, write_text

NOTE = (
    "Mean ± standard deviation over seeds, and the 95% interval of the mean (Student's t). It "
    "speaks of other seeds on the same pictures, not of other pictures. `vs first`: the "
    "difference of AUC to the first arm, seed by seed. The held-out sources chose the best of a "
    "run's validations; with a single one nothing was chosen."
)


def write_report(results: dict[str, Any], out: Path) -> None:
    """Write results.json, table.md, table.csv and plot.png into `out`."""
    import pandas as pd

    write_json(out / "results.json", results)
    text = [f"**{results['question']}**\n", markdown_table(table_rows(results)), NOTE + "\n"]
    if "matrix" in results:
        text.insert(2, "AUC by family, held-out reals against its fakes, mean over seeds:\n")
        text.insert(3, markdown_table(matrix_rows(results["matrix"])))
    if results["command"]:
        text.append(f"`{results['command']}`\n")
    write_text(out / "table.md", "\n".join(text))
    with whole_file(out / "table.csv") as file:
        pd.DataFrame(long_rows(results)).to_csv(file, index=False)
    figure = plot_of(results)
    if figure is not None:
        figure.savefig(out / "plot.png", dpi=110)


def table_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per arm, figures as text."""
    timed = any(_of(arm, "latency_ms").n for arm in results["arms"].values())
    rows = []
    for name, arm in results["arms"].items():
        row: dict[str, Any] = {"arm": name, "seeds": _of(arm, "auc").n}
        row |= {figure: _of(arm, figure).text() for figure in FIGURES}
        row["vs first"] = "" if name == results["first"] else _of(arm, "auc_vs_first").text()
        if timed:
            row["ms per picture"] = _of(arm, "latency_ms").mean
            params = _of(arm, "params").mean
            row["parameters"] = f"{params / 1e6:.2f} M" if params else None
        row["s per step"] = _of(arm, "seconds_a_step").mean
        errors = sorted({run["error"] for run in arm["runs"] if "error" in run})
        row["note"] = "; ".join(f"failed: {error[:160]}" for error in errors)
        rows.append(row)
    return rows


def _of(arm: dict[str, Any], figure: str) -> OverSeeds:
    return OverSeeds(**arm["summary"][figure])


def long_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per run, figures as numbers."""
    return [{"arm": name, **run} for name, arm in results["arms"].items() for run in arm["runs"]]


def matrix_rows(matrix: dict[str, Any]) -> list[dict[str, Any]]:
    """The matrix of `cross-generator` as table rows."""
    return [
        {"trained on": arm, **dict(zip(matrix["tested_on"], row, strict=True))}
        for arm, row in zip(matrix["trained_on"], matrix["auc"], strict=True)
    ]


def plot_of(results: dict[str, Any]) -> Any:
    """The figure that fits the experiment; None before anything was measured."""
    if "matrix" in results:
        matrix = results["matrix"]
        if not matrix["tested_on"]:
            return None
        values = np.array(matrix["auc"], dtype=float)
        title = "AUC: trained on (rows), tested on (columns)"
        return plots.heat_map(values, matrix["trained_on"], matrix["tested_on"], title)
    arms = {name: arm for name, arm in results["arms"].items() if _of(arm, "auc").n}
    if not arms:
        return None
    if all(_of(arm, "latency_ms").n for arm in arms.values()):
        points = {n: (_of(a, "latency_ms").mean, _of(a, "auc").mean) for n, a in arms.items()}
        return plots.pareto(points, "ms per picture, one thread", "AUC on held-out sources")
    by_arm = {
        name: [run["auc"] for run in arm["runs"] if run.get("auc") is not None]
        for name, arm in arms.items()
    }
    return plots.dots(by_arm, results["question"], "AUC on held-out sources")
