"""An evaluation as a page, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distildire.evaluate import plots
from distildire.evaluate.breakdown import part_rows, verdict_rows
from distildire.evaluate.checks import stability_rows
from distildire.evaluate.scores import is_fake
from distildire.evaluate.summary import figure_rows
from distildire.io.html_page import Page

if TYPE_CHECKING:
    import pandas as pd

_SETTINGS = (
    "Accuracies count a picture as fake over a probability of 0.5. AP, AUC and TPR rank by "
    "the logit. by_generator: that generator's fakes against all reals; by_source: a source "
    "of one class against the other class of all. pair_auc is the mean AUC inside the "
    "repositories or sources that hold both classes. Intervals are of 95%; one behind a ~ is "
    "approximate: the ECE, a TPR whose budget allows fewer than three reals (under 300 at 1%, "
    "under 60 at 5%), a class of fewer than 100 images."
)

_PARTS = (
    "Each generator part is against all reals; unseen are all fakes of no known generator, those "
    "of no stated one too. Inside a repository that holds both classes, content, size and "
    "history are alike: pairs is the fairest figure. The worst source was picked as the lowest. "
    "Shares of verdicts have Wilson's interval, by image; false alarms are reals called fake, "
    "caught are fakes called fake, missed are fakes called real."
)


def report_page(
    title: str,
    about: Mapping[str, str],
    variants: Mapping[str, Mapping[str, Any]],
    scores: pd.DataFrame,
    checks: Mapping[str, Any],
) -> Page:
    """The page of one evaluation.

    Args:
        title: heading of the page.
        about: model, data and notes, in words.
        variants: figures by variant ("raw", "equalized").
        scores: the scores table.
        checks: `robustness`, `stability` and `heatmap`, as `robustness`, `stability_check` and
            `heatmap_check` give them; those that were measured.
    """
    page = Page(title)
    page.bullets([f"{name}: {value}" for name, value in about.items()])
    page.heading("Over all")
    page.table(_overall_rows(variants))
    page.text(_SETTINGS)
    _score_plots(page, scores)
    for variant, figures in variants.items():
        page.heading(f"In parts ({variant})")
        page.table(part_rows(figures["parts"]))
        page.text(_PARTS)
        page.table(verdict_rows(figures["parts"]))
    for variant, figures in variants.items():
        page.heading(f"By generator and source ({variant})")
        _forest(page, figures)
        page.table(figure_rows(figures))
        _pairs(page, figures)
        _unscored(page, figures["unscored"])
    if "robustness" in checks:
        _robustness(page, checks["robustness"])
    if "stability" in checks:
        page.heading("Stability check")
        page.table(stability_rows(checks["stability"]))
    if "heatmap" in checks:
        page.heading("Heat map")
        page.text(checks["heatmap"]["sentence"])
    return page


def _overall_rows(variants: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for variant, figures in variants.items():
        row = figure_rows(figures, "variant")[0]
        note = row.pop("note")
        rows.append({**row, "variant": variant, "pair_auc": figures["overall"]["pair_auc"],
                     "note": note})  # fmt: skip
    return rows


def _score_plots(page: Page, scores: pd.DataFrame) -> None:
    known = scores[np.isfinite(scores["logit"].to_numpy(float))]
    ranked, stated = {}, {}
    for variant, part in known.groupby("variant", sort=False):
        fake = is_fake(part)
        ranked[str(variant)] = (fake, part["logit"].to_numpy(float))
        stated[str(variant)] = (fake, part["probability"].to_numpy(float))
    page.heading("Curves")
    page.figure(plots.roc(ranked), "ROC; the grey lines are budgets of 1% and 5%.")
    page.figure(plots.reliability(stated), "Reliability: on the diagonal, probabilities hold.")
    for name, (fake, logit) in ranked.items():
        page.figure(plots.histogram(fake, logit, f"Scores ({name})"), f"Scores, {name}.")


def _forest(page: Page, figures: Mapping[str, Any]) -> None:
    parts = {"all": figures["overall"], **figures["by_generator"]}
    known = {name: part for name, part in parts.items() if part["auc"] is not None}
    if len(known) > 1:
        values = [part["auc"] for part in known.values()]
        intervals = [part["auc_ci"] for part in known.values()]
        page.figure(plots.forest(list(known), values, intervals), "AUC by generator.")


def _pairs(page: Page, figures: Mapping[str, Any]) -> None:
    inside = figures["overall"]["pairs"]
    if inside:
        page.text("AUC inside repositories or sources that hold both classes:")
        page.table([{"inside": name, "auc": value} for name, value in inside.items()])


def _unscored(page: Page, unscored: Mapping[str, Any]) -> None:
    if unscored["count"]:
        count = unscored["count"]
        page.text(f"{count} pictures have no score and are in no figure.", "lead bad")
        page.table(unscored["examples"])


def _robustness_rows(robustness: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "re-encoding": name,
            **{k: v for k, v in row.items() if k not in ("auc_by_generator", "auc_lost_ci")},
            "95% of auc_lost": _range(row["auc_lost_ci"]),
        }
        for name, row in robustness["rows"].items()
    ]


def _range(interval: Any) -> str | None:
    return None if interval is None else f"[{interval[0]:+.3f}, {interval[1]:+.3f}]"


def _robustness(page: Page, robustness: Mapping[str, Any]) -> None:
    page.heading("Robustness")
    page.text(
        f"Measured on a subsample of {robustness['n_real']} real and {robustness['n_fake']} fake "
        "pictures, sources in equal shares, equalised first."
    )
    rows = robustness["rows"]
    generators = sorted({g for row in rows.values() for g in row["auc_by_generator"]})
    values = np.array(
        [
            [row["auc"], *(row["auc_by_generator"].get(g) for g in generators)]
            for row in rows.values()
        ],
        dtype=float,
    )
    figure = plots.heat_map(values, list(rows), ["all", *generators], "AUC by re-encoding")
    page.figure(figure, "AUC by re-encoding, over all and by generator.")
    page.table(_robustness_rows(robustness))
