"""Which calibration holds its error budget on repositories that it hasn't seen?

    python benchmarks/budgets.py MANIFEST [MANIFEST ...] [--model nano] [--scores scores.csv]

Pictures of the split `val`, equalised. Half of the repositories calibrate, the others are judged,
`--draws` times; the means over the draws. `confidence`: of the thresholds, see `calibrate`. The
first line is the model's own calibration on all pictures, which may be those it was fitted to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from distildire import Detector
from distildire.bundle import load_bundle
from distildire.calibration import Calibration
from distildire.data.manifest import FAKE, read_manifest
from distildire.evaluate.fit_calibration import calibrate
from distildire.evaluate.metrics import expected_calibration_error
from distildire.evaluate.scores import logits_of


def scores_of(manifests: list[Path], model: str, per_source: int) -> pd.DataFrame:
    """The validation pictures with their logits."""
    table = pd.concat([read_manifest(manifest) for manifest in manifests])
    table = table[table["split"] == "val"].groupby("source").head(per_source)
    logits = logits_of(Detector(model), table["path"].to_list())
    return table.assign(logit=logits).dropna(subset="logit")


def halves(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two halves of the repositories."""
    names = np.array(sorted(table["repository"].unique()))
    chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    inside = table["repository"].isin(chosen)
    return table[inside], table[~inside]


def judged(table: pd.DataFrame, confidence: float, draws: int) -> dict[str, float]:
    """Means over the draws of what becomes of the pictures that didn't calibrate."""
    found = []
    for seed in range(draws):
        fitted, other = halves(table, seed)
        calibration = calibrate(
            fitted["logit"], fitted["label"] == FAKE, "0", sources=fitted["source"],
            confidence=confidence,
        )  # fmt: skip
        found.append(figures(calibration, other))
    return {name: float(np.mean([row[name] for row in found])) for name in found[0]}


def figures(calibration: Calibration, table: pd.DataFrame) -> dict[str, float]:
    """What a calibration makes of the pictures."""
    fake = (table["label"] == FAKE).to_numpy()
    logits = table["logit"].to_numpy()
    row = {"ece": expected_calibration_error(fake, calibration.probability(logits))}
    for budget in (0.01, 0.05):
        below, above = calibration.thresholds(budget)
        row |= {
            f"real called fake, {budget:.0%}": float((logits[~fake] > above).mean()),
            f"fake called real, {budget:.0%}": float((logits[fake] < below).mean()),
            f"fake called fake, {budget:.0%}": float((logits[fake] > above).mean()),
            f"unsure, {budget:.0%}": float(((logits >= below) & (logits <= above)).mean()),
        }
    return row


def main() -> None:
    """Score once, then calibrate in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--model", default="nano")
    parser.add_argument(
        "--scores", type=Path, default=Path("scores.csv"), help="Kept between runs."
    )
    parser.add_argument("--per-source", type=int, default=20)
    parser.add_argument("--draws", type=int, default=40)
    args = parser.parse_args()
    if not args.scores.is_file():
        scores_of(args.manifests, args.model, args.per_source).to_csv(args.scores, index=False)
    table = pd.read_csv(args.scores)
    print(f"{len(table)} pictures of {table['repository'].nunique()} repositories\n")
    rows = []
    if shipped := load_bundle(args.model).calibration:
        rows.append({"confidence": "as shipped", **figures(shipped, table)})
    for confidence in (0.5, 0.7, 0.8, 0.9):
        rows.append({"confidence": f"{confidence:g}", **judged(table, confidence, args.draws)})
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "--:|" * len(rows[0]))
    for confidence, *values in (row.values() for row in rows):
        print(f"| {confidence} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


if __name__ == "__main__":
    main()
