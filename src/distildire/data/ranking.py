"""How well scores rank fakes above reals, over all pictures and inside each repository.

`fake` is [N] booleans (the positive class), `scores` [N] rise with "fake". A figure that needs
both classes is nan without them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def auc(fake: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    fake = np.asarray(fake)
    if len(np.unique(fake)) < 2:
        return float("nan")
    return float(roc_auc_score(fake, scores))


def pair_auc(
    fake: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, min_class: int
) -> tuple[float, dict[str, float]]:
    """(mean AUC inside the groups that hold both classes, the AUC of each such group).

    The fairest figure where a source or repository has both classes: content, size and
    history are alike inside it. Groups with fewer than `min_class` of a class, 1 or more, are
    left out; nan where no group is left.
    """
    fake, scores, groups = np.asarray(fake, bool), np.asarray(scores, float), np.asarray(groups)
    inside = {}
    for name in np.unique(groups):
        rows = groups == name
        if min(int(fake[rows].sum()), int((~fake[rows]).sum())) >= min_class:
            inside[str(name)] = auc(fake[rows], scores[rows])
    return (float(np.mean(list(inside.values()))) if inside else float("nan")), inside
