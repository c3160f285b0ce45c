"""Scores on held-out sources, and the one number that chooses a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from distildire.data.manifest import FAKE, group_names
from distildire.data.ranking import auc, pair_auc
from distildire.distill.config import TrainConfig
from distildire.distill.networks import Networks, noise_of, unit_planes
from distildire.io.pictures import RGB, ImageError, decode
from distildire.io.preprocessing import Preprocessing, equalize

if TYPE_CHECKING:
    import pandas as pd

    from distildire.data.stream import DireMaps

Score = Callable[[Tensor], Tensor]
"""(uint8 crops [N, 3, S, S]) -> logits [N]."""


class _Crops(Dataset[Tensor]):
    """Crops [crops, 3, S, S] uint8 of each path; an unreadable picture gives an empty tensor."""

    def __init__(
        self, paths: list[str], preprocessing: Preprocessing, read: Callable[[str], RGB]
    ) -> None:
        self.paths, self.preprocessing, self.read = paths, preprocessing, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        try:
            crops = self.preprocessing(self.read(self.paths[index]))
        except ImageError:
            side = self.preprocessing.crop
            return torch.empty(0, 3, side, side, dtype=torch.uint8)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)


def _equalized(path: str) -> RGB:
    return equalize(decode(path))


def _map_of(dire: DireMaps, path: str) -> RGB:
    """The cached map of a picture; ImageError where the picture can have none."""
    try:
        return dire(path)
    except ValueError:
        dire.align(decode(path))
        raise


def score_table(
    score: Score,
    table: pd.DataFrame,
    preprocessing: Preprocessing,
    *,
    workers: int = 1,
    dire: DireMaps | None = None,
) -> NDArray[np.float64]:
    """Mean logit of every row's picture, equalised; nan where it can't be read.

    With `dire`, `score` gets crops of the cached DIRE maps instead, which are those of the
    files as they are: no picture is equalised after its DIRE was computed.

    Raises:
        ValueError: `score` gives nan.
    """
    read = _equalized if dire is None else partial(_map_of, dire)
    loader = DataLoader(
        _Crops(table["path"].to_list(), preprocessing, read),
        batch_size=16,
        num_workers=workers,
        collate_fn=list,
    )
    logits: list[float] = []
    for pictures in loader:
        crops = torch.cat(pictures)
        scores = score(crops).double() if len(crops) else torch.empty(0, dtype=torch.float64)
        if scores.isnan().any():
            raise ValueError("the student's logits are nan: it has diverged; lower optim.lr")
        logits += [float(v.mean()) for v in torch.split(scores, [len(p) for p in pictures])]
    return np.array(logits)


@dataclass(frozen=True)
class Validation:
    """The scores of one student on the validation rows."""

    table: pd.DataFrame
    logits: NDArray[np.float64]
    """[N], nan where a picture can't be read."""
    summary: dict[str, float]


@torch.no_grad()
def validate(
    student: nn.Module, networks: Networks, val: pd.DataFrame, config: TrainConfig
) -> Validation:
    """Score the validation rows, at most `validation.limit` of each source and class.

    Raises:
        ValueError: of one class no picture can be read, or the student gives nan.
    """
    student.eval()
    device = next(student.parameters()).device

    def score(crops: Tensor) -> Tensor:
        x0 = unit_planes(crops.to(device))
        logits: Tensor = student(x0, noise_of(networks.source, x0))
        return logits.float().cpu()

    if config.validation.limit:
        val = val.groupby(["source", "label"]).head(config.validation.limit)
    logits = score_table(
        score, val, config.preprocessing, workers=config.optim.workers,
        dire=networks.dire if config.student.inputs == "dire" else None,
    )  # fmt: skip
    if val["label"][~np.isnan(logits)].nunique() < 2:
        raise ValueError("validation: of one class no picture can be read")
    return Validation(val, logits, validation_summary(val, logits))


def validation_summary(table: pd.DataFrame, logits: NDArray[np.float64]) -> dict[str, float]:
    """What is watched in training.

    `pairs`: mean AUC inside the repositories that hold both classes, where content and
    history are alike (one picture of each is enough: rows are few; a report asks for five).
    `worst_quarter`: mean over the worst quarter of the sources, each against the other class
    of all. `choice`, their mean, chooses the checkpoint.
    """
    good = ~np.isnan(logits)
    table, logits = table[good], logits[good]
    fake = (table["label"] == FAKE).to_numpy()
    pairs, _ = pair_auc(fake, logits, group_names(table), min_class=1)
    by_source = []
    for rows in table.groupby(["source", "label"]).indices.values():
        if len(rows) >= 10:
            other = np.flatnonzero(fake != fake[rows[0]])
            pick = np.concatenate([rows, other])
            by_source.append(auc(fake[pick], logits[pick]))
    by_source.sort()
    overall = auc(fake, logits)
    worst = float(np.mean(by_source[: max(1, len(by_source) // 4)])) if by_source else overall
    inside = overall if np.isnan(pairs) else pairs
    return {
        "auc": overall,
        "pairs": inside,
        "worst_quarter": worst,
        "choice": (inside + worst) / 2,
    }
