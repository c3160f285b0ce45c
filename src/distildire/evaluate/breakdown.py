"""The parts in which a result is told honestly, each with its interval.

Known and unseen generators, the mean AUC inside repositories that hold both classes, the
worst source, and what is said at each error budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distildire.data.manifest import FAKE, REAL, group_names
from distildire.data.ranking import auc, pair_auc
from distildire.evaluate.bootstrap import MIN_IMAGES, auc_resamples, logit_interval
from distildire.evaluate.generators import begins_with, check_prefixes
from distildire.evaluate.scores import is_fake
from distildire.evaluate.summary import By, figure_cell, group_figures

if TYPE_CHECKING:
    import pandas as pd

VERDICT_BUDGETS = (0.01, 0.05)
"""Error budgets at which verdicts are counted."""

WORST_OF = 40
"""Images of one class that a source needs to be named the worst."""

VerdictOf = Callable[[float, float], str]
"""(logit, error budget) -> "real", "fake" or "unsure"."""


def parts_of(
    scores: pd.DataFrame,
    *,
    known: Sequence[str] = (),
    verdict: VerdictOf | None = None,
    intervals: By = "image",
    repeats: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """The parts of one variant of a scores table.

    `known` and `unseen` (only if `known` is given): the fakes whose generator's name begins
    with one of the words, and all the other fakes, those of no stated generator among them,
    each against all reals; figures as in `summarize`. `pairs`: mean AUC inside the
    repositories that hold both classes. `worst_source`: the lowest AUC among the reals of one
    source, or the fakes of one, against all images of the other class, where these are
    `WORST_OF` or more; being picked as the lowest, it is lower than it would be measured
    anew. `verdicts` (only with `verdict`): by budget, see `count_verdicts`. `drawn_by` of a part
    is what the bootstrap drew for its interval.

    Args:
        scores: as `score_manifest` or `read_scores` give it.
        known: beginnings of the names of generators that were trained on.
        verdict: of the detector, where there is one.
        intervals: of `known` and `unseen`, as in `summarize`; the others, which lie inside
            single sources, are drawn by image.
        repeats: bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ValueError: a word of `known` with which no generator begins.
    """
    good = np.isfinite(scores["logit"].to_numpy(float))
    good &= np.isfinite(scores["probability"].to_numpy(float))
    scores = scores[good]
    fake, logit = is_fake(scores), scores["logit"].to_numpy(float)
    probability = scores["probability"].to_numpy(float)
    generator = scores["generator"].to_numpy(str)
    groups = group_names(scores)
    parts: dict[str, Any] = {}
    if known:
        check_prefixes(generator[fake], known)
        theirs = begins_with(generator, known)
        for name, rows in (("known", ~fake | theirs), ("unseen", ~fake | ~theirs)):
            by = groups[rows] if intervals == "source" else None
            figures = group_figures(
                fake[rows], logit[rows], probability[rows], by, repeats=repeats, seed=seed
            )
            generators = sorted(set(generator[rows & fake]) - {""})
            parts[name] = {**figures, "generators": generators, "drawn_by": intervals}
    parts["pairs"] = _pairs(fake, logit, groups, repeats, seed)
    source = scores["source"].to_numpy(str)
    parts["worst_source"] = _worst(source, fake, logit, probability, repeats, seed)
    if verdict is not None:
        parts["verdicts"] = {
            str(budget): count_verdicts(fake, [verdict(v, budget) for v in logit.tolist()])
            for budget in VERDICT_BUDGETS
        }
    return parts


def _pairs(
    fake: NDArray[np.bool_], logit: NDArray[np.float64], groups: NDArray[np.str_],
    repeats: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """`pairs` of a report: of groups with five pictures of each class, as fewer rank by luck."""
    mean, inside = pair_auc(fake, logit, groups, min_class=5)
    found: dict[str, Any] = {"auc": None, "auc_ci": None, "inside": {}, "drawn_by": "image"}
    if not inside:
        return found
    draws = []
    smallest = len(fake)
    for i, (name, value) in enumerate(inside.items()):
        rows = groups == name
        n_real, n_fake = int((~fake[rows]).sum()), int(fake[rows].sum())
        found["inside"][name] = {"n_real": n_real, "n_fake": n_fake, "auc": value}
        draws.append(auc_resamples(fake[rows], logit[rows], repeats=repeats, seed=seed + i))
        smallest = min(smallest, n_real, n_fake)
    found["auc"] = mean
    if smallest >= MIN_IMAGES:
        found["auc_ci"] = list(logit_interval(mean, np.mean(draws, axis=0), smallest))
    else:
        found["note"] = f"too few images for an interval (a class of {smallest})"
    return found


def _worst(
    source: NDArray[np.str_], fake: NDArray[np.bool_], logit: NDArray[np.float64],
    probability: NDArray[np.float64], repeats: int, seed: int,
) -> dict[str, Any] | None:  # fmt: skip
    other = {REAL: fake, FAKE: ~fake}
    groups = {}
    for name in sorted(set(source.tolist()) - {""}):
        for label, others in other.items():
            own = ~others & (source == name)
            if own.sum() >= WORST_OF and others.any():
                groups[name, label] = own | others
    if not groups:
        return None
    name, label = min(groups, key=lambda group: auc(fake[groups[group]], logit[groups[group]]))
    rows = groups[name, label]
    part = group_figures(fake[rows], logit[rows], probability[rows], repeats=repeats, seed=seed)
    kept = {key: part[key] for key in ("auc", "auc_ci", "approximate")}
    return {"source": name, "label": label, "n": part[f"n_{label}"], **kept, "drawn_by": "image"}


def count_verdicts(fake: NDArray[np.bool_], verdicts: Sequence[str]) -> dict[str, Any]:
    """Verdicts by class, and shares with Wilson's interval.

    Returns `real` and `fake`: counts by verdict; `false_alarms` (reals called fake), `caught`
    (fakes called fake), `missed` (fakes called real) and `unsure` (of all), each `{share, ci}`.
    """
    said = np.asarray(verdicts, str)
    counts = {
        name: {word: int((said[rows] == word).sum()) for word in ("real", "fake", "unsure")}
        for name, rows in (("real", ~fake), ("fake", fake))
    }
    n_real, n_fake = int((~fake).sum()), int(fake.sum())
    unsure = counts["real"]["unsure"] + counts["fake"]["unsure"]
    return {
        **counts,
        "false_alarms": _share(counts["real"]["fake"], n_real),
        "caught": _share(counts["fake"]["fake"], n_fake),
        "missed": _share(counts["fake"]["real"], n_fake),
        "unsure": _share(unsure, n_real + n_fake),
    }


def _share(count: int, n: int) -> dict[str, Any]:
    if not n:
        return {"share": None, "ci": None}
    return {"share": count / n, "ci": list(wilson(count, n)) if n >= MIN_IMAGES else None}


def wilson(count: int, n: int) -> tuple[float, float]:
    """95% interval of a share from `count` of `n` (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def part_rows(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ranking parts as table rows."""
    rows = []
    for name in ("known", "unseen"):
        if name in parts:
            part = parts[name]
            rows.append({
                "part": f"{name} generators", "real": part["n_real"], "fake": part["n_fake"],
                **{m: figure_cell(part, m) for m in ("auc", "ap", "tpr_at_5fpr")},
                "interval": f"by {part['drawn_by']}",
            })  # fmt: skip
    pairs, worst = parts["pairs"], parts["worst_source"]
    if pairs["auc"] is not None:
        counts = {c: sum(p[f"n_{c}"] for p in pairs["inside"].values()) for c in ("real", "fake")}
        name = f"pairs: mean over {len(pairs['inside'])} repositories of both classes"
        rows.append({"part": name, **counts, "auc": figure_cell(pairs, "auc"),
                     "interval": "by image"})  # fmt: skip
    if worst is not None:
        name = f"worst source of {WORST_OF} images or more: {worst['source']}"
        rows.append({"part": name, worst["label"]: worst["n"], "auc": figure_cell(worst, "auc"),
                     "interval": "by image"})  # fmt: skip
    columns = ("part", "real", "fake", "auc", "ap", "tpr_at_5fpr", "interval")
    return [{column: row.get(column) for column in columns} for row in rows]


def verdict_rows(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The counts of verdicts as table rows."""
    return [
        {
            "budget": f"{float(budget):.0%}",
            "reals: real / unsure / fake": _counts(found["real"]),
            "fakes: real / unsure / fake": _counts(found["fake"]),
            **{
                name.replace("_", " "): figure_cell(found[name], "share", "ci")
                for name in ("false_alarms", "caught", "missed", "unsure")
            },
        }
        for budget, found in parts.get("verdicts", {}).items()
    ]


def _counts(by_word: Mapping[str, int]) -> str:
    return " / ".join(str(by_word[word]) for word in ("real", "unsure", "fake"))
