"""The audit as a page for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from distildire.data.audit import Audit
from distildire.io.html_page import Page
from distildire.io.writing import make_folder, write_texts

_COLOURS = {"real": "#0969da", "fake": "#cf222e"}


def audit_page(result: Audit) -> str:
    """HTML of one audit: verdict, leaks, plots by class, tables by class and source."""
    page = Page("Data audit")
    page.text(result.verdict, "lead bad" if result.leaky or result.leaks else "lead good")
    page.text(
        f"{result.n_real} real and {result.n_fake} fake files were read, "
        f"{result.unreadable['count']} could not be. Classifier: a random forest on file facts "
        f"alone, {result.folds}; the AUC is the mean over the folds."
    )
    if result.leaks:
        page.heading("What gives the class away")
        page.bullets([f"{leak.kind}: {leak.detail}" for leak in result.leaks])
    page.heading("By kind of fact")
    page.table([{"facts": kind, "AUC alone": value} for kind, value in result.kind_auc.items()])
    if result.facts is not None:
        _plots(page, result.facts)
    page.heading("By class")
    page.table([_flat(row) for row in result.by_class])
    page.heading("By source")
    page.table([_flat(row) for row in result.by_source])
    _duplicates(page, result)
    if result.unreadable["count"]:
        page.heading("Files that can't be read")
        page.table(result.unreadable["examples"])
    page.heading("How to read this")
    page.bullets(
        [
            "An AUC of 0.5 is chance. Over the limit, a detector trained here may judge files, "
            "not pictures, and figures measured here may mean nothing.",
            "Bytes per pixel count as quality only where the format states none: at one JPEG "
            "quality they say how much detail the picture shows.",
            "resampling, jpeg_grid and detail are traces in the pixels. They differ where one "
            "class was rescaled or saved more often, but also because generators upsample: "
            "they are shown, not counted.",
            "The audit sees what files say. It does not see subjects: faces in one class and "
            "landscapes in the other are a leak that it cannot name.",
        ]
    )
    return page.html()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix("median_").replace("share_", "has "): value for name, value in row.items()
    }


def _duplicates(page: Page, result: Audit) -> None:
    page.heading("Duplicates")
    counts = {k: v for k, v in result.duplicates.items() if isinstance(v, int)}
    page.table([{"pairs": name.replace("_", " "), "count": n} for name, n in counts.items()])
    page.table(result.duplicates["examples"])


def _plots(page: Page, facts: Any) -> None:
    """Share of each format and the spread of every number, by class."""
    from matplotlib.figure import Figure

    fake = (facts["label"] == "fake").to_numpy()
    groups = {"real": ~fake, "fake": fake}
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    formats = sorted(facts["format"].unique())
    for shift, (name, rows) in zip((-0.2, 0.2), groups.items(), strict=True):
        shares = [float((facts["format"][rows] == f).mean()) if rows.any() else 0 for f in formats]
        axes[0].bar(np.arange(len(formats)) + shift, shares, 0.4, color=_COLOURS[name], label=name)
    axes[0].set_xticks(np.arange(len(formats)), formats)
    axes[0].set_ylabel("share")
    axes[0].set_title("format")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)  # no bar lies there
    numbers = {
        "shorter side, pixels": facts[["width", "height"]].min(axis=1),
        "aspect ratio": facts["aspect"],
        "JPEG quality": facts["quality"],
        "bytes per pixel": facts["bytes_a_pixel"],
        "share of fine detail (log10)": np.log10(facts["detail"].clip(lower=1e-6)),
    }
    for ax, (title, values) in zip(axes[1:], numbers.items(), strict=True):
        values = np.asarray(values, float)
        known = np.isfinite(values)
        ax.set_title(title)
        if not known.any():
            ax.text(0.5, 0.5, "none", ha="center", transform=ax.transAxes)
            continue
        low, high = np.quantile(values[known], (0.0, 0.99))
        bins = np.linspace(low, high if high > low else low + 1, 31)
        for name, rows in groups.items():
            part = np.clip(values[known & rows], bins[0], bins[-1])
            if len(part):
                weights = np.full(len(part), 1 / len(part))
                ax.hist(part, bins, weights=weights, color=_COLOURS[name], alpha=0.5)
    page.heading("The classes side by side")
    page.figure(figure, "Shares inside each class; the last bin holds what lies beyond.")


def save_audit(audit: Audit, folder: Path) -> None:
    """Write audit.json and audit.html into `folder`, both or none."""
    make_folder(folder)
    told = json.dumps(audit.to_dict(), indent=1) + "\n"
    write_texts({folder / "audit.json": told, folder / "audit.html": audit_page(audit)})
