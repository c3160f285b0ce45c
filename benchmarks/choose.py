"""Which of several models to take: their scores on the same held-out pictures, side by side.

    python benchmarks/choose.py scores-a.csv scores-b.csv [...]

Tables with `sha256`, `label`, `source`, `repository` and `logit`, as `train` (val_scores.csv) and
benchmarks/budgets.py write them; the pictures that all hold are compared. The first table is the
one to beat. Beside the figures over all stand those of five folds of whole repositories (standard
deviation over the folds), and the share of repositories whose pictures a model ranks better against
the other class of all than the first does. `a.csv+b.csv` are two models fused: the mean of their
logits, each over its deviation (`0.7*a.csv+0.3*b.csv` weighs them).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from distildire.data.manifest import FAKE
from distildire.distill.validation import validation_summary

FOLDS = 5

LEAST = 8
"""Pictures of a repository that are asked whether they are ranked better."""


def figures(table: pd.DataFrame) -> dict[str, float]:
    """AUC, inside repositories of both classes, over the worst quarter, and TPR at two FPR."""
    fake, logits = (table["label"] == FAKE).to_numpy(), table["logit"].to_numpy()
    found = validation_summary(table, logits)
    for fpr in (0.05, 0.01):
        found[f"TPR at {fpr:.0%}"] = float(
            np.mean(logits[fake] > np.quantile(logits[~fake], 1 - fpr))
        )
    del found["choice"]
    return found


def in_folds(table: pd.DataFrame) -> list[dict[str, float]]:
    """The figures of each fold of repositories."""
    folds = GroupKFold(FOLDS).split(table, groups=table["repository"])
    return [figures(table.iloc[rows]) for _, rows in folds]


def by_repository(table: pd.DataFrame) -> pd.Series:
    """AUC of each repository's pictures against the other class of all, mean over its classes."""
    fake, logits = (table["label"] == FAKE).to_numpy(), table["logit"].to_numpy()
    found = {}
    for name, rows in table.groupby("repository").indices.items():
        if len(rows) < LEAST:
            continue
        aucs = []
        for label in np.unique(fake[rows]):
            own = rows[fake[rows] == label]
            pick = np.concatenate([own, np.flatnonzero(fake != label)])
            aucs.append(roc_auc_score(fake[pick], logits[pick]))
        found[name] = float(np.mean(aucs))
    return pd.Series(found)


def read(name: str) -> pd.DataFrame:
    """A table of scores; of several, joined by +, the mean over the pictures that all hold."""
    fused: list[pd.DataFrame] = []
    for part in name.split("+"):
        weight, _, path = part.rpartition("*")
        table = pd.read_csv(path).dropna(subset="logit").drop_duplicates("sha256")
        if "+" in name:
            table["logit"] *= float(weight or 1) / table["logit"].std()
        fused.append(table)
    table = fused[0]
    for other in fused[1:]:
        both = table.merge(other[["sha256", "logit"]], on="sha256", suffixes=("", "_other"))
        table = both.assign(logit=both["logit"] + both.pop("logit_other"))
    return table


def main() -> None:
    """A row for each table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+")
    args = parser.parse_args()
    tables = [read(name) for name in args.tables]
    common = set.intersection(*(set(table["sha256"]) for table in tables))
    tables = [table[table["sha256"].isin(common)].sort_values("sha256") for table in tables]
    first = by_repository(tables[0])
    print(
        f"{len(tables[0])} pictures of {tables[0]['repository'].nunique()} repositories, "
        f"{len(first)} of them with {LEAST} or more\n"
    )
    names = list(figures(tables[0]))
    print("| scores | " + " | ".join(names) + " | repositories ranked better |")
    print("|---" + "|--:" * (len(names) + 1) + "|")
    for name, table in zip(args.tables, tables, strict=True):
        whole, folds = figures(table), in_folds(table)
        cells = [f"{whole[n]:.3f} ± {np.std([fold[n] for fold in folds]):.3f}" for n in names]
        better = float((by_repository(table) > first).mean())
        label = " + ".join(Path(part).stem for part in name.split("+"))
        print(f"| {label} | " + " | ".join(cells) + f" | {better:.0%} |", flush=True)


if __name__ == "__main__":
    main()
