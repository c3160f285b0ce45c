"""A whole experiment, from its YAML to results.json, table.md, table.csv and plot.png."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distildire.data.ranking import auc
from distildire.experiments.config import EXPERIMENTS, ExperimentConfig
from distildire.experiments.families import with_family_arms
from distildire.experiments.runs import FIGURES, Figures, read_test_scores, run_arm, run_folder
from distildire.experiments.seeds import over_seeds, paired

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

OnRow = Callable[[str, dict[str, Any]], None]
"""Called with (run, one row of its training)."""

_MORE = ("latency_ms", "params", "graph_bytes", "seconds_a_step", "seconds")


def run_experiment(
    name: str,
    config: ExperimentConfig,
    out: Path,
    *,
    arms: Sequence[str] = (),
    command: str = "",
    progress: OnRow | None = None,
) -> dict[str, Any]:
    """Run every arm with every seed and write the results after each; resumable.

    Args:
        name: one of `EXPERIMENTS`.
        config: as `load_experiment` gives it.
        out: folder; runs lie in `out`/runs/<arm>-<seed>.
        arms: only these; by default all that are not on request.
        command: that started it, for the record.
        progress: hears of the training rows.

    Returns:
        The content of results.json. A run that failed has `error`, one line, and costs no
        other run.
    """
    from distildire.experiments.report import write_report

    tests: dict[str, pd.DataFrame] = {}
    out.mkdir(parents=True, exist_ok=True)
    if config.families is not None:
        config, tests = with_family_arms(config, out)
    chosen = config.chosen(arms)
    runs: dict[str, dict[int, Figures]] = {arm: {} for arm in chosen}
    results: dict[str, Any] = {}
    # Seed by seed: a stopped experiment has compared all arms on the seeds it finished.
    for seed in config.seeds:
        for arm in chosen:
            title = f"{arm}, seed {seed}"
            report = None if progress is None else (lambda row, t=title: progress(t, row))
            try:
                runs[arm][seed] = run_arm(
                    config.arm(arm, seed), run_folder(out, arm, seed),
                    latency=name == "backbones", test=tests.get(arm), report=report,
                )  # fmt: skip
            except Exception as error:  # whatever stops one arm must not lose the others
                line = " ".join(str(error).split()) or type(error).__name__
                log.warning("%s failed: %s", title, line)
                runs[arm][seed] = {"error": line}
            results = collect(name, config, runs, command)
            if tests:
                results["matrix"] = matrix_of(runs, out)
            write_report(results, out)
    return results


def collect(
    name: str, config: ExperimentConfig, runs: dict[str, dict[int, Figures]], command: str = ""
) -> dict[str, Any]:
    """Runs by arm and seed -> results.json."""
    first = next(iter(runs))
    arms = {}
    for arm, by_seed in runs.items():
        summary = {
            figure: over_seeds([run[figure] for run in by_seed.values() if _has(run, figure)])
            for figure in (*FIGURES, *_MORE)
        }
        values, base = ({s: r["auc"] for s, r in runs[a].items() if _has(r, "auc")}
                        for a in (arm, first))  # fmt: skip
        summary["auc_vs_first"] = paired(values, base)
        arms[arm] = {
            "changes": config.arms.get(arm, {}),
            "runs": [{"seed": seed, **run} for seed, run in by_seed.items()],
            "summary": {key: value.to_dict() for key, value in summary.items()},
        }
    return {
        "experiment": name,
        "question": EXPERIMENTS[name],
        "command": command,
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "seeds": list(config.seeds),
        "first": first,
        "base": config.base,
        "arms": arms,
    }


def _has(run: Figures, figure: str) -> bool:
    return run.get(figure) is not None


def matrix_of(runs: dict[str, dict[int, Figures]], out: Path) -> dict[str, Any]:
    """Mean AUC over seeds of every arm on every family that it was not trained on.

    A family's fakes against the held-out reals; None where the arm has seen all its sources.
    """
    import numpy as np

    cells: dict[str, dict[str, list[float]]] = {}
    for arm, by_seed in runs.items():
        cells[arm] = {}
        for seed, run in by_seed.items():
            if "error" in run:
                continue
            scores = read_test_scores(run_folder(out, arm, seed))
            scores = scores[np.isfinite(scores["logit"])]
            fake = (scores["label"] == "fake").to_numpy()
            for family in sorted(set(scores["generator"][fake]) - {""}):
                rows = ~fake | (scores["generator"] == family).to_numpy()
                value = auc(fake[rows], scores["logit"].to_numpy(float)[rows])
                cells[arm].setdefault(family, []).append(value)
    families = sorted({f for row in cells.values() for f in row})
    values = [
        [over_seeds(row[f]).mean if f in row else None for f in families] for row in cells.values()
    ]
    return {"trained_on": list(cells), "tested_on": families, "auc": values}
