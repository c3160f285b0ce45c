"""From a scores table to metrics.json: over all, by generator, by source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from distildire.data.manifest import group_names
from distildire.data.ranking import pair_auc
from distildire.evaluate.bootstrap import (
    MIN_CLUSTERS,
    MIN_IMAGES,
    approximate_intervals,
    bootstrap_intervals,
)
from distildire.evaluate.metrics import METRICS, all_metrics
from distildire.evaluate.scores import is_fake

if TYPE_CHECKING:
    import pandas as pd

Figures = dict[str, Any]

By = Literal["image", "source"]

_PART_REPEATS = 500


def summarize(
    scores: pd.DataFrame, *, intervals: By = "image", repeats: int = 1000, seed: int = 0
) -> Figures:
    """The figures of one variant of a scores table.

    `overall`; `by_generator`: that generator's fakes against all reals; `by_source`: a
    source with one class against the other class of all, a source with both by itself.
    Rows without a score are counted in `unscored` and left out of the figures. Each group
    has `n_real`, `n_fake`, the metrics (None where a class is missing), `<metric>_ci`
    [low, high] (None where too few images allow none), `approximate` (the metrics whose
    interval is that only) and `note`.

    Args:
        scores: as `score_manifest` or `read_scores` give it.
        intervals: what the bootstrap draws. "source" draws whole sources (repositories where
            the table names them), because images inside one are not independent; it is the
            honest choice where figures are to speak of other sources, and needs at least
            `MIN_CLUSTERS` of each class.
        repeats: bootstrap resamples; half as many for the parts.
        seed: of the bootstrap.

    Raises:
        ValueError: no row has a score.
    """
    good = np.isfinite(scores["logit"].to_numpy(float))
    good &= np.isfinite(scores["probability"].to_numpy(float))
    bad, scores = scores[~good], scores[good].reset_index(drop=True)
    if not len(scores):
        reason = bad["error"].iloc[0] if len(bad) else "the table is empty"
        raise ValueError(f"no picture has a score: {reason}")
    fake, clusters = is_fake(scores), group_names(scores)
    logit, probability = scores["logit"].to_numpy(float), scores["probability"].to_numpy(float)

    def figures(rows: NDArray[np.bool_], count: int, cluster: bool = True) -> Figures:
        by = clusters[rows] if intervals == "source" and cluster else None
        return group_figures(
            fake[rows], logit[rows], probability[rows], by, repeats=count, seed=seed
        )

    parts = max(1, min(repeats, _PART_REPEATS))
    everything = np.ones(len(scores), bool)
    overall = figures(everything, repeats)
    pairs, inside = pair_auc(fake, logit, clusters, min_class=5)
    overall["pair_auc"] = _none(pairs)
    overall["pairs"] = inside
    generator, source = scores["generator"].to_numpy(str), scores["source"].to_numpy(str)
    by_generator = {
        name: figures(~fake | (fake & (generator == name)), parts)
        for name in sorted(set(generator[fake]) - {""})
    }
    by_source = {}
    for name in sorted(set(source) - {""}):
        own = source == name
        classes = set(fake[own].tolist())
        rows = own if len(classes) == 2 else own | (fake != classes.pop())
        by_source[name] = figures(rows, parts, cluster=False)
    return {
        "overall": overall,
        "by_generator": by_generator,
        "by_source": by_source,
        "unscored": {
            "count": len(bad),
            "examples": bad[["path", "error"]].head(20).to_dict("records"),
        },
        "intervals": f"95% bootstrap, drawn by {intervals}",
    }


def group_figures(
    fake: NDArray[np.bool_],
    logit: NDArray[np.float64],
    probability: NDArray[np.float64],
    clusters: NDArray[np.str_] | None = None,
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> Figures:
    """Counts, metrics and intervals of one group of pictures, and a note on what is missing."""
    n_real, n_fake = int((~fake).sum()), int(fake.sum())
    values = all_metrics(fake, logit, probability)
    found = bootstrap_intervals(
        fake, logit, probability, clusters=clusters, repeats=repeats, seed=seed
    )
    figures: Figures = {"n_real": n_real, "n_fake": n_fake}
    figures |= {name: _none(values[name]) for name in METRICS}
    figures |= {f"{name}_ci": list(found[name]) if name in found else None for name in METRICS}
    loose = approximate_intervals(n_real, n_fake, clustered=clusters is not None)
    figures["approximate"] = [name for name in loose if name in found]
    figures["note"] = _note(n_real, n_fake, clustered=clusters is not None, missing=len(found) < 8)
    return figures


def _note(n_real: int, n_fake: int, *, clustered: bool, missing: bool) -> str:
    notes = []
    if not n_real or not n_fake:
        notes.append(f"one class only ({'fake' if n_fake else 'real'}): no ranking figures")
    few = [
        f"{count} {name}"
        for count, name in ((n_real, "real"), (n_fake, "fake"))
        if 0 < count < MIN_IMAGES
    ]
    if few:
        notes.append(f"too few images for an interval ({', '.join(few)}; {MIN_IMAGES} are needed)")
    elif missing and clustered:
        notes.append(
            f"too few sources for an interval by source ({MIN_CLUSTERS} of a class are needed)"
        )
    return "; ".join(notes)


def _none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def figure_rows(figures: Mapping[str, Any], first: str = "group") -> list[dict[str, Any]]:
    """One variant of metrics.json as table rows: estimate and interval in one cell."""
    rows = [{first: "all", **_cells(figures["overall"])}]
    for kind in ("by_generator", "by_source"):
        rows += [
            {first: f"{kind[3:]}: {name}", **_cells(part)} for name, part in figures[kind].items()
        ]
    return rows


def _cells(part: Mapping[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {"real": part["n_real"], "fake": part["n_fake"]}
    cells |= {name: figure_cell(part, name) for name in METRICS}
    cells["note"] = part["note"]
    return cells


def figure_cell(part: Mapping[str, Any], name: str, interval: str = "") -> str | None:
    """A figure of `part` with its interval for a table; None where there is no figure.

    The interval is `part[interval]`, `<name>_ci` by default, behind a ~ where it is approximate.
    """
    value, ends = part[name], part[interval or f"{name}_ci"]
    if value is None or ends is None:
        return None if value is None else f"{value:.3f}"
    about = "~" if name in part.get("approximate", ()) else ""
    return f"{value:.3f} {about}[{ends[0]:.3f}, {ends[1]:.3f}]"
