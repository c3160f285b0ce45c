"""Photographs at 64 pixels, split so that no picture is both learnt by a generator and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distildire.data.manifest import FAKE, REAL, ManifestError, read_manifest
from distildire.data.pictures import load_all
from distildire.io.preprocessing import jpeg, resize_and_crop
from small_world.config import PicturesConfig

if TYPE_CHECKING:
    import pandas as pd

Pictures: TypeAlias = NDArray[np.uint8]
"""[N, S, S, 3]."""

UNSEEN = {
    "diffusion": ("ldm_t2i", "sd1", "sd2022", "glid3xl", "midjourney", "dalle2"),
    "gan": ("stylegan", "cyclegan", "gan_"),
}
"""Families of published generators, by the beginnings of their sources' names."""


def photographs(config: PicturesConfig) -> dict[str, Pictures]:
    """Real pictures by purpose: `generator`, `train` and `test`.

    Crops of one original stay together. Originals are drawn at random over all sources.

    Raises:
        ManifestError: too few photographs for the sizes asked.
    """
    table = _rows(config, REAL)
    origin = table["source"] + "/" + table.get("original_path", table["path"])
    names = np.unique(origin)
    order = np.random.default_rng(config.seed).permutation(len(names))
    rank = dict(zip(names[order], range(len(names)), strict=True))
    # One crop per original where pictures are judged; every crop where generators learn.
    rows = table.assign(rank=origin.map(rank)).sort_values("rank", kind="stable")
    held_out = rows.drop_duplicates("rank").head(config.train + config.test)
    rest = rows[~rows["rank"].isin(held_out["rank"])]
    if config.limit:
        rest = rest.head(config.limit)
    if len(held_out) < config.train + config.test or rest.empty:
        raise ManifestError(
            f"{len(names)} different photographs: too few for {config.train} to learn from, "
            f"{config.test} to judge and the rest for the generators"
        )
    return {
        "generator": small(rest["path"], config.side),
        "train": small(held_out["path"][: config.train], config.side),
        "test": small(held_out["path"][config.train :], config.side),
    }


def published_fakes(config: PicturesConfig) -> dict[str, Pictures]:
    """Pictures of published generators, scaled alike: at most `unseen` of each family."""
    table = _rows(config, FAKE)
    rng = np.random.default_rng(config.seed)
    families = {}
    for family, beginnings in UNSEEN.items():
        paths = table["path"][table["source"].str.startswith(beginnings)].to_numpy()
        if len(paths):
            families[family] = small(rng.permutation(paths)[: config.unseen], config.side)
    return families


def same_history(pictures: Pictures, quality: int) -> Pictures:
    """The one JPEG pass that pictures of both classes end with."""
    return np.stack([jpeg(rgb, quality, subsampling=0) for rgb in pictures])


def small(paths: pd.Series | NDArray[np.object_], side: int) -> Pictures:
    """Decode, scale the shorter side to `side`, cut the centre."""
    square = resize_and_crop(side)
    return np.concatenate([square(rgb) for rgb in load_all([str(p) for p in paths])[0]])


def _rows(config: PicturesConfig, label: str) -> pd.DataFrame:
    table = read_manifest(config.manifest)
    rows = table["label"] == label
    if config.split:
        rows &= table["split"] == config.split
    return table[rows].reset_index(drop=True)
