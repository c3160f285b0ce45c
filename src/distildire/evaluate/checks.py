"""What the stability check and the heat map are worth, measured on a stated subsample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from distildire.data.manifest import FAKE
from distildire.evaluate.breakdown import VERDICT_BUDGETS, wilson
from distildire.evaluate.patch_insertion import patch_insertion
from distildire.evaluate.robustness import robustness, subsample
from distildire.evaluate.summary import figure_cell
from distildire.explain.heatmap import heat_of
from distildire.explain.reencode import STABILITY
from distildire.explain.stability import Judge, judge_scores
from distildire.io.pictures import RGB, ImageError, decode
from distildire.io.preprocessing import equalize
from distildire.io.progress import DoneOf

if TYPE_CHECKING:
    import pandas as pd


def stability_check(
    detector: Any, table: pd.DataFrame, count: int, *, seed: int = 0,
    progress: DoneOf | None = None,
) -> dict[str, Any]:  # fmt: skip
    """By error budget, `stability_gain` on a subsample of `count` pictures."""
    changes = {"as it is": _same, **STABILITY}
    found = robustness(
        detector, table, count=count, reencodings=changes, seed=seed, progress=progress
    )
    label = dict(zip(table["path"], table["label"], strict=True))
    fake = [label[path] == FAKE for path in found["paths"]]
    return {
        str(budget): stability_gain(detector, found["logits"], fake, fpr=budget)
        for budget in VERDICT_BUDGETS
    }


def stability_gain(
    detector: Judge,
    logits: Mapping[str, Sequence[float]],
    fake: Sequence[bool],
    *,
    fpr: float | None = None,
) -> dict[str, Any]:
    """Wrong verdicts that the check turns into "unsure", and right ones, on logits [N] by name.

    Returns `n_right`, `n_wrong` (definite verdicts before the check), `wrong_caught` and
    `right_lost` (shares of those, None without any), `..._ci` (Wilson).
    """
    turned: dict[bool, list[bool]] = {True: [], False: []}
    for i, is_fake in enumerate(fake):
        scores = {name: float(values[i]) for name, values in logits.items()}
        result = judge_scores(detector, scores, fpr=fpr)
        first = result.verdicts["as it is"]
        if first != "unsure":
            turned[(first == "fake") == is_fake].append(result.verdict == "unsure")
    gain: dict[str, Any] = {"n_right": len(turned[True]), "n_wrong": len(turned[False])}
    for name, flags in (("wrong_caught", turned[False]), ("right_lost", turned[True])):
        gain[name] = sum(flags) / len(flags) if flags else None
        gain[f"{name}_ci"] = list(wilson(sum(flags), len(flags))) if flags else None
    return gain


def _same(rgb: RGB) -> RGB:
    return rgb


def refuse_without_map(detector: Any) -> None:
    """Raise ValueError where `heatmap_check` could not be made of a detector."""
    if "cam" not in detector.graph_outputs:
        raise ValueError(
            "the model has no activation map: leave out the check of its heat map (--heatmap-check)"
        )


def heatmap_check(
    detector: Any, table: pd.DataFrame, count: int, *, seed: int = 0
) -> dict[str, Any]:
    """The pointing game of `patch_insertion`, on `count` pictures of each class.

    Raises:
        ValueError: fewer than two photographs or no generated picture can be scored.
    """
    rows = subsample(table, 2 * count, seed)
    pictures: dict[bool, list[RGB]] = {False: [], True: []}
    for path, label in zip(rows["path"], rows["label"], strict=True):
        with suppress(ImageError, MemoryError):
            rgb = decode(path)
            detector.bundle.preprocessing.scaled(equalize(rgb))  # refuses what can have no heat
            pictures[label == FAKE].append(rgb)
    found = patch_insertion(partial(heat_of, detector), pictures[False], pictures[True], seed=seed)
    return dict(found.to_dict())


def stability_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The stability check as table rows."""
    return [
        {
            "budget": f"{float(budget):.0%}",
            "wrong verdicts": row["n_wrong"],
            "turned unsure": figure_cell(row, "wrong_caught"),
            "right verdicts": row["n_right"],
            "turned unsure too": figure_cell(row, "right_lost"),
        }
        for budget, row in found.items()
    ]


def robustness_figures(grid: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json keeps of the grid: counts, AUC, and AUC lost with its interval."""
    kept = ("auc", "auc_lost", "auc_lost_ci")
    rows = {name: {key: row[key] for key in kept} for name, row in grid["rows"].items()}
    return {"n_real": grid["n_real"], "n_fake": grid["n_fake"], "rows": rows}
