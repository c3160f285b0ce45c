"""The training stream: item i is always the same picture, place and degradation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from distildire.data.augment import AugmentConfig, augment, augment_twice
from distildire.data.manifest import FAKE, group_names
from distildire.io.pictures import RGB, ImageError, decode

if TYPE_CHECKING:
    import pandas as pd


def sampling_weights(
    table: pd.DataFrame, *, power: float, max_share: float, pair_weight: float = 1.0
) -> NDArray[np.float64]:
    """Probability of each row: half for each class, sources by size ** power, none above a share.

    Sources from a repository that holds both classes count `pair_weight` times: there, content
    and history are alike, and what remains to learn is how a picture was made. What a capped
    source loses goes to the others of its class; where a class has too few sources for the
    cap, they share alike.
    """
    weights = np.zeros(len(table))
    paired = (table["label"].groupby(group_names(table)).transform("nunique") > 1).to_numpy()
    for _, rows in table.groupby("label").indices.items():
        sources, inverse, sizes = np.unique(
            table["source"].to_numpy()[rows], return_inverse=True, return_counts=True
        )
        raw = sizes.astype(float) ** power
        raw[np.unique(inverse[paired[rows]])] *= pair_weight
        share = _capped(raw, max(max_share, 1.0 / len(sources)))
        weights[rows] = (share / sizes)[inverse] / table["label"].nunique()
    return weights


def _capped(raw: NDArray[np.float64], cap: float) -> NDArray[np.float64]:
    """Shares that sum to one, in proportion to `raw` but none above `cap` (>= 1 / len)."""
    share: NDArray[np.float64] = raw / raw.sum()
    while (over := share > cap + 1e-12).any():
        free = ~over & (share < cap)
        excess = (share[over] - cap).sum()
        share[over] = cap
        share[free] *= 1.0 + excess / share[free].sum()
    return share


class DireMaps(Protocol):
    """Where the DIRE maps come from; `data.cache.DireReader` is one."""

    def __call__(self, path: str) -> RGB:
        """The map of a picture, uint8 [h, w, 3]."""
        ...

    def align(self, rgb: RGB) -> RGB:
        """The pixels [h, w, 3] of a decoded picture that its map belongs to."""
        ...


@dataclass(frozen=True)
class Views:
    """How a crop is made of a picture."""

    crop: int
    """Its side in pixels."""
    config: AugmentConfig
    """How it is moved and degraded."""
    clean: AugmentConfig | None = None
    """How little the first of two views is degraded; none: there is one view."""


@dataclass(frozen=True)
class Draws:
    """Which items of the endless stream."""

    length: int
    """The number of the one after the last."""
    start: int = 0
    seed: int = 0


class TrainingStream(Dataset[tuple[Tensor, ...]]):
    """Augmented crops, drawn by weight; item i depends on the seed and i alone.

    Items are (crop uint8 [3, S, S], label float 0 or 1) and, with `dire`, the DIRE map of
    the same crop: the picture is first brought to the pixels that the map was computed from,
    then both are cropped and flipped alike; degradation touches the picture alone. With
    `views.clean`, items are (two views of one piece [2, 3, S, S], the first degraded by it;
    label). An unreadable picture is replaced by the next draw.

    Raises:
        ValueError: `views.clean` with DIRE maps, or with shuffled tiles.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        weights: NDArray[np.float64],
        views: Views,
        draws: Draws,
        *,
        dire: DireMaps | None = None,
    ) -> None:
        if dire is not None and views.clean is not None:
            raise ValueError("optim.consistency takes no DIRE maps: set it to 0")
        if views.clean is not None and max(views.clean.shuffle, views.config.shuffle) > 0:
            raise ValueError("optim.consistency compares views whose tiles lie as they are: set "
                             "augment.shuffle and clean.shuffle to 0")  # fmt: skip
        self.paths = table["path"].to_list()
        self.fake = (table["label"] == FAKE).to_numpy()
        self.cumulative = np.cumsum(weights / weights.sum())
        self.views, self.draws, self.dire = views, draws, dire

    def __len__(self) -> int:
        return self.draws.length - self.draws.start

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.draws.seed, self.draws.start + index))
        crop, config, clean = self.views.crop, self.views.config, self.views.clean
        for _ in range(20):
            row = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.paths) - 1)
            try:
                images = [decode(self.paths[row])]
                if self.dire is not None:
                    images = _aligned(images[0], self.dire, self.paths[row])
            except ImageError:
                continue
            label = torch.tensor(float(self.fake[row]))
            if clean is not None:
                views = augment_twice(images[0], crop, config, clean, rng)
                return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2), label
            crops = augment(images, crop, config, rng)
            first, *rest = (torch.from_numpy(np.array(c)).permute(2, 0, 1) for c in crops)
            return (first, label, *rest)
        raise ImageError("20 pictures in a row could not be read: check the manifest")


def _aligned(rgb: RGB, dire: DireMaps, path: str) -> list[RGB]:
    picture, dire_map = dire.align(rgb), dire(path)
    if picture.shape != dire_map.shape:
        (height, width), (map_height, map_width) = picture.shape[:2], dire_map.shape[:2]
        raise ValueError(
            f"{path}: its DIRE map is {map_width} x {map_height} pixels, the picture {width} x "
            f"{height}: the cache was filled in another way; run `distildire noise --dire` again"
        )
    return [picture, dire_map]
