"""Trained on one generator, asked about another: the matrix that shows what generalises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distildire.evaluate import plots
from distildire.evaluate.metrics import auc
from distildire.evaluate.scores import is_fake
from distildire.page import Page, markdown_table

if TYPE_CHECKING:
    import pandas as pd


def generator_matrix(
    runs: Mapping[str, pd.DataFrame],
) -> tuple[NDArray[np.float64], list[str], list[str]]:
    """AUC of every model on every generator: (values [models, generators], models, generators).

    Args:
        runs: scores tables by the name of what the model was trained on. Each is judged on
            a generator's fakes against all its reals; nan where a table lacks either.
    """
    models = list(runs)
    generators = sorted(
        {g for scores in runs.values() for g in scores["generator"][is_fake(scores)]} - {""}
    )
    values = np.full((len(models), len(generators)), np.nan)
    for i, scores in enumerate(runs.values()):
        known = scores[np.isfinite(scores["logit"].to_numpy(float))]
        fake, generator = is_fake(known), known["generator"].to_numpy(str)
        logit = known["logit"].to_numpy(float)
        for j, name in enumerate(generators):
            rows = ~fake | (generator == name)
            values[i, j] = auc(fake[rows], logit[rows])
    return values, models, generators


def leave_one_generator_out(table: pd.DataFrame, generator: str) -> tuple[Any, Any]:
    """(training rows, rows held out) as boolean arrays [N].

    The generator's fakes are held out, with every source (and repository) that holds any of
    them, and as many whole real sources as make up the same share of the reals.

    Raises:
        ValueError: no fake has this generator.
    """
    from distildire.data.leak_test import group_names

    fake = is_fake(table)
    theirs = fake & (table["generator"].to_numpy(str) == generator)
    if not theirs.any():
        names = ", ".join(sorted(set(table["generator"][fake]) - {""})) or "none"
        raise ValueError(f"no fake has the generator {generator!r} (generators: {names})")
    groups = group_names(table)
    out = np.isin(groups, np.unique(groups[theirs]))
    wanted = theirs.sum() / fake.sum() * (~fake).sum()
    only_real = sorted(set(groups[~fake]) - set(groups[fake]))
    for name in sorted(only_real, key=lambda g: int((groups == g).sum())):
        if (out & ~fake).sum() >= wanted:
            break
        out |= groups == name
    return ~out, out


def write_matrix(runs: Mapping[str, pd.DataFrame], out: Path) -> dict[str, Any]:
    """Write matrix.json, matrix.md and matrix.html into `out`; returns the first's content."""
    values, models, generators = generator_matrix(runs)
    cells = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    tree = {"metric": "auc", "trained_on": models, "tested_on": generators, "values": cells}
    rows = [
        {"trained on": model, **dict(zip(generators, row, strict=True))}
        for model, row in zip(models, cells, strict=True)
    ]
    page = Page("Train generator by test generator")
    page.text("AUC: a generator's fakes against all reals of the table.")
    page.figure(plots.heat_map(values, models, generators, "AUC"), "Rows: trained on.")
    page.table(rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / "matrix.json").write_text(json.dumps(tree, indent=1) + "\n")
    (out / "matrix.md").write_text(markdown_table(rows))
    (out / "matrix.html").write_text(page.html())
    return tree
