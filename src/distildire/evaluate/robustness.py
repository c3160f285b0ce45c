"""How much of the ranking is left after what happens to pictures on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distildire.data.manifest import FAKE
from distildire.data.ranking import auc
from distildire.evaluate.bootstrap import MIN_IMAGES, auc_resamples
from distildire.evaluate.metrics import accuracies
from distildire.evaluate.scores import Scorer
from distildire.explain.reencode import ROBUSTNESS, Reencode
from distildire.io.cores import over_cores, usable_cores
from distildire.io.pictures import ImageError, decode
from distildire.io.preprocessing import equalize
from distildire.io.progress import DoneOf

if TYPE_CHECKING:
    import pandas as pd


def subsample(table: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """At most `count` rows, half of each class, the sources of a class in equal shares.

    Sources that run out leave their share to the others.
    """
    rng = np.random.default_rng(seed)
    source = table["source"].to_numpy(str)
    fake = (table["label"] == FAKE).to_numpy()
    kept: list[int] = []
    for c in (False, True):
        queues = [
            rng.permutation(np.flatnonzero((fake == c) & (source == name))).tolist()
            for name in sorted(set(source[fake == c]))
        ]
        room = count // 2
        while room > 0 and any(queues):
            for queue in queues:
                if queue and room > 0:
                    kept.append(queue.pop())
                    room -= 1
    return table.iloc[sorted(kept)].reset_index(drop=True)


def robustness(
    detector: Scorer,
    table: pd.DataFrame,
    *,
    count: int = 200,
    reencodings: Mapping[str, Reencode] = ROBUSTNESS,
    seed: int = 0,
    progress: DoneOf | None = None,
) -> dict[str, Any]:
    """Score a stated subsample under every re-encoding of its equalised pictures.

    Returns `n_real`, `n_fake`, `rows` (name -> `auc`, `real_acc`, `fake_acc`, `auc_lost`
    against "as it is" with `auc_lost_ci`, `auc_by_generator`) and `logits` (name -> [N], for
    `paths`).
    Pictures that can't be read are left out.
    """
    table = subsample(table, count, seed)
    logits, kept = _logits(detector, table["path"].to_list(), reencodings, progress)
    table = table.iloc[kept]
    fake = (table["label"] == FAKE).to_numpy()
    generator = table["generator"].to_numpy(str)
    rows = {name: _row(detector, fake, generator, values) for name, values in logits.items()}
    base = next(iter(rows.values()))["auc"] if rows else float("nan")
    enough = min((~fake).sum(), fake.sum()) >= MIN_IMAGES
    draws = {name: auc_resamples(fake, s, repeats=500) if enough else None
             for name, s in logits.items()}  # fmt: skip
    first = next(iter(draws.values()), None)
    for name, figures in rows.items():
        figures["auc_lost"] = base - figures["auc"]
        figures["auc_lost_ci"] = _loss_interval(first, draws[name], figures["auc_lost"])
    found: dict[str, Any] = _without_nan(
        {
            "n_real": int((~fake).sum()),
            "n_fake": int(fake.sum()),
            "rows": rows,
            "paths": table["path"].to_list(),
            "logits": logits,
        }
    )
    return found


def _logits(
    detector: Scorer,
    paths: Sequence[str],
    reencodings: Mapping[str, Reencode],
    progress: DoneOf | None,
) -> tuple[dict[str, list[float]], list[int]]:
    """(logits by re-encoding, which of the paths they are of)."""
    logits: dict[str, list[float]] = {name: [] for name in reencodings}
    kept = []

    def scored(path: str) -> list[float] | None:
        try:
            rgb = equalize(decode(path))
            return [detector.logit(change(rgb), alone=False) for change in reencodings.values()]
        except (ImageError, MemoryError):
            return None

    for row, found in enumerate(over_cores(scored, paths, usable_cores())):
        if found is not None:
            kept.append(row)
            for of_all, logit in zip(logits.values(), found, strict=True):
                of_all.append(logit)
        if progress is not None:
            progress(row + 1, len(paths))
    return logits, kept


def _row(
    detector: Scorer, fake: NDArray[np.bool_], generator: NDArray[np.str_], logits: list[float]
) -> dict[str, Any]:
    """The figures of one re-encoding."""
    scores = np.array(logits)
    _, real_acc, fake_acc = accuracies(fake, [detector.verdict_of(v)[0] for v in logits])
    by_generator = {
        g: auc(fake[~fake | (generator == g)], scores[~fake | (generator == g)])
        for g in sorted(set(generator[fake]) - {""})
    }
    return {
        "auc": auc(fake, scores),
        "real_acc": real_acc,
        "fake_acc": fake_acc,
        "auc_by_generator": by_generator,
    }


def _loss_interval(
    before: NDArray[np.float64] | None, after: NDArray[np.float64] | None, lost: float
) -> list[float] | None:
    """95% of the loss: the resamples draw the same pictures before and after."""
    if before is None or after is None:
        return None
    reach = NormalDist().inv_cdf(0.975) * float((before - after).std())
    return [lost - reach, lost + reach]


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, float) and np.isnan(tree):
        return None
    return tree
