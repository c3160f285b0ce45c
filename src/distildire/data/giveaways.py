"""The metadata-only classifier: how well do file facts alone tell the classes?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distildire.data.manifest import FAKE

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("format", "size", "quality", "metadata")

FOLDS = 5

MIN_CLASS = 4
"""Pictures of each class under which nothing can be tested."""

_TREES = 20


def overall_auc(about: pd.DataFrame, seed: int = 0) -> tuple[float | None, str]:
    """(AUC of all facts, mean over the folds, or None with one class; how folds were cut)."""
    fake = (about["label"] == FAKE).to_numpy()
    if min(fake.sum(), (~fake).sum()) < MIN_CLASS:
        return None, f"fewer than {MIN_CLASS} pictures of a class"
    fold, words = folds_of_groups(about["group"].to_numpy(), fake, seed=seed)
    features = np.column_stack([features_of(about, kind) for kind in KINDS])
    return cross_validated_auc(features, fake, fold, seed), words


def kind_auc(about: pd.DataFrame, kind: str, seed: int = 0) -> float | None:
    """AUC of one kind of facts; None where a class is (nearly) missing.

    Quality is compared only inside formats that both classes have, because otherwise it
    would repeat the format.
    """
    if kind == "quality":
        both = about.groupby("format")["label"].transform("nunique") == 2
        about = about[both]
    fake = (about["label"] == FAKE).to_numpy()
    if min(fake.sum(), (~fake).sum()) < MIN_CLASS:
        return None
    fold, _ = folds_of_groups(about["group"].to_numpy(), fake, seed=seed)
    return cross_validated_auc(features_of(about, kind), fake, fold, seed)


def features_of(about: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    """Numbers [N, F] of one kind of facts, -1 where a fact doesn't apply."""
    if kind == "format":
        names = sorted(about["format"].unique())
        columns = [about["format"] == name for name in names]
        columns += [about["mode"] == mode for mode in sorted(about["mode"].unique())]
        columns.append(about["progressive"])
    elif kind == "size":
        small = about[["width", "height"]].min(axis=1)
        columns = [about["width"], about["height"], about["aspect"], small]
        columns.append(about["width"] * about["height"])
    elif kind == "quality":
        unknown = about["quality"].isna()
        columns = [about["quality"], about["standard_tables"]]
        columns += [about["subsampling"] == s for s in ("4:4:4", "4:2:2", "4:2:0", "other")]
        columns.append(about["bytes_a_pixel"].where(unknown))
    elif kind == "metadata":
        columns = [about[name] for name in ("exif", "camera", "icc", "xmp", "c2pa", "text")]
    else:
        raise ValueError(f"kind is {kind!r}: give one of {', '.join(KINDS)}")
    numbers = np.column_stack([np.asarray(column, dtype=float) for column in columns])
    return np.asarray(np.nan_to_num(numbers, nan=-1.0))


def folds_of_groups(
    groups: NDArray[np.str_], fake: NDArray[np.bool_], *, folds: int = FOLDS, seed: int = 0
) -> tuple[NDArray[np.int64], str]:
    """(fold of each row [N], how they were cut): whole groups, both classes in every fold.

    Groups go, the largest first, to the fold that has the fewest rows of their classes
    (scikit-learn's StratifiedGroupKFold may leave a fold without a class).
    Where fewer than two groups hold a class (a fold of one class would give nonsense), rows
    are dealt out one by one inside each class, and the words say so.
    """
    rng = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    counts = np.stack([np.bincount(index[fake == c], minlength=len(names)) for c in (False, True)])
    holders = int(min((counts > 0).sum(axis=1)))
    if holders < 2:
        fold = np.zeros(len(fake), int)
        folds = max(2, min(folds, int(min(fake.sum(), (~fake).sum())) // 2))
        for c in (False, True):
            rows = rng.permutation(np.flatnonzero(fake == c))
            fold[rows] = np.arange(len(rows)) % folds
        return fold, f"{folds} folds of single pictures: fewer than two sources hold a class"
    folds = min(folds, holders)
    load = np.zeros((2, folds))
    share = counts / counts.sum(axis=1, keepdims=True)
    of_group = np.zeros(len(names), int)
    order = rng.permutation(len(names))
    order = order[np.argsort(-share[:, order].max(axis=0), kind="stable")]
    for g in order:
        mine = share[:, g] > 0
        of_group[g] = int(np.argmin(load[mine].sum(axis=0)))
        load[:, of_group[g]] += share[:, g]
    if (load == 0).any():
        return (
            folds_of_groups(groups, fake, folds=folds - 1, seed=seed)
            if folds > 2
            else (folds_of_groups(np.zeros_like(groups), fake, folds=FOLDS, seed=seed))
        )
    return of_group[index], f"{folds} folds of whole sources of both classes"


def cross_validated_auc(
    features: NDArray[np.float64],
    fake: NDArray[np.bool_],
    fold: NDArray[np.int64],
    seed: int = 0,
) -> float:
    """AUC of a random forest, mean over the folds: each is judged by trees of the others.

    0.5 where no feature varies.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score

    features = features[:, (features != features[0]).any(axis=0)]
    if not features.shape[1]:
        return 0.5
    values = []
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        forest = RandomForestClassifier(
            _TREES,
            min_samples_leaf=max(1, int(train.sum()) // 100),
            class_weight="balanced",
            random_state=seed,
        )
        forest.fit(features[train], fake[train])
        values.append(roc_auc_score(fake[test], forest.predict_proba(features[test])[:, 1]))
    return float(np.mean(values))
