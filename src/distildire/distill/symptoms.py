"""What the two losses and the scores say went wrong in a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

CHANCE = log(2.0)
"""BCE of a student that knows nothing."""

IMITATING = "imitating, not classifying: the BCE stays near chance while the imitation loss falls"
OVERFITTING = "overfitting to the labels: the BCE is low while the imitation loss hardly falls"
TOO_SPECIFIC = "noise features too specific: diffusion is told apart, GANs are not"


def symptoms(
    history: Sequence[Mapping[str, float]], auc_by_family: Mapping[str, float] | None = None
) -> list[str]:
    """The failure signatures that a run shows.

    Args:
        history: rows with `bce` and `imitation`, in the order of training; others are passed over.
        auc_by_family: AUC of `diffusion` and of `gan` pictures, where they were scored.
    """
    rows = [row for row in history if "bce" in row and "imitation" in row]
    found = []
    if len(rows) >= 2 and rows[0]["imitation"] > 0.0:
        tail = rows[-max(1, len(rows) // 5) :]
        bce = sum(row["bce"] for row in tail) / len(tail)
        kept = sum(row["imitation"] for row in tail) / len(tail) / rows[0]["imitation"]
        if bce > 0.9 * CHANCE and kept < 0.7:
            found.append(IMITATING)
        if bce < 0.3 * CHANCE and kept > 0.9:
            found.append(OVERFITTING)
    auc = auc_by_family or {}
    if auc.get("diffusion", 0.0) >= 0.8 and auc.get("gan", 1.0) <= 0.65:
        found.append(TOO_SPECIFIC)
    return found
