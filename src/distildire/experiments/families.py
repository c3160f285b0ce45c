"""Arms from generators: trained on one family alone, or on all but one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distildire.data.manifest import group_names, read_manifest
from distildire.distill.config import TrainConfig
from distildire.evaluate.generators import begins_with
from distildire.evaluate.scores import is_fake
from distildire.experiments.config import ExperimentConfig, Families
from distildire.io.config import ConfigError, build

if TYPE_CHECKING:
    import pandas as pd


def with_family_arms(
    config: ExperimentConfig, out: Path
) -> tuple[ExperimentConfig, dict[str, pd.DataFrame]]:
    """(the experiment with an arm for each family, the test rows of each arm).

    Every arm has its own manifest under `out`/manifests. The repositories of the validation
    sources are held out in all arms; their reals are what every generator is told from. Fakes:

    - "only F" trains on the sources of F; where none of two or more is held out, the smallest
      is (F's own figure needs one that was not trained on);
    - "without F" trains on all sources that hold no picture of F.

    The test rows of an arm are the held-out reals and the fakes of every source that it was
    not trained on, with the family in the column `generator`.

    Raises:
        ConfigError: no family has `min_images` fakes, or no real source is held out.
    """
    import pandas as pd

    spec = config.families
    if spec is None:
        raise ConfigError("families: give their prefixes")
    base = build(TrainConfig, config.base, "base")
    table = pd.concat([read_manifest(m) for m in base.data.manifests], ignore_index=True)
    if base.data.split:
        table = table[table["split"] == base.data.split].reset_index(drop=True)
    family = family_of(table, spec)
    fake, source = is_fake(table), table["source"].to_numpy(str)
    groups = group_names(table)
    held = np.isin(groups, groups[np.isin(source, base.data.val_sources)])
    if not (held & ~fake).any() or not (held & fake).any():
        raise ConfigError("base.data.val_sources: name sources with real and with fake pictures")
    kinds = {(name, "only") for name in spec.prefixes if spec.only}
    kinds |= {(name, "without") for name in spec.prefixes if spec.without}
    arms, tests = {}, {}
    for name, kind in sorted(kinds, key=lambda k: (k[1], list(spec.prefixes).index(k[0]))):
        theirs = fake & (family == name)
        if (theirs & ~held).sum() < spec.min_images:
            continue
        train = ~held & _training(source, theirs, fake, held, kind)
        arm = f"{kind} {name}"
        # One of each class must be held out for training's own validation.
        path = out / "manifests" / f"{arm.replace('/', '-')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table[train | held].drop(columns="repository", errors="ignore").to_csv(path, index=False)
        arms[arm] = {"data.manifests": [str(path)]}
        tests[arm] = _test_rows(table.assign(generator=family), held, train, fake, spec.test_limit)
    if not arms:
        raise ConfigError(f"no family has {spec.min_images} fakes: lower families.min_images")
    return replace(config, arms={**config.arms, **arms}), tests


def family_of(table: pd.DataFrame, spec: Families) -> NDArray[np.str_]:
    """Family of each fake [N]; empty for reals and for generators of no family."""
    names = np.full(len(table), "", dtype=object)
    fake = is_fake(table)
    for name, prefixes in spec.prefixes.items():
        names[fake & begins_with(table["generator"], prefixes) & (names == "")] = name
    return names.astype(str)


def _training(
    source: NDArray[np.str_], theirs: NDArray[np.bool_], fake: NDArray[np.bool_],
    held: NDArray[np.bool_], kind: str,
) -> NDArray[np.bool_]:  # fmt: skip
    """Rows that an arm may train on, before the validation sources are taken out."""
    if kind == "without":
        return ~(fake & np.isin(source, source[theirs]))
    own, counts = np.unique(source[theirs & ~held], return_counts=True)
    if len(own) > 1 and not (theirs & held).any():
        own = np.delete(own, int(np.argmin(counts)))
    return ~fake | (theirs & np.isin(source, own))


def _test_rows(
    table: pd.DataFrame, held: NDArray[np.bool_], train: NDArray[np.bool_],
    fake: NDArray[np.bool_], limit: int,
) -> pd.DataFrame:  # fmt: skip
    source = table["source"].to_numpy(str)
    seen = np.isin(source, np.unique(source[train & fake]))
    rows = (held & ~fake) | (fake & ~seen & (table["generator"] != "").to_numpy())
    part = table[rows]
    return (part.groupby(["source", "label"]).head(limit) if limit else part).reset_index(drop=True)
