"""Is the first-step noise discriminative? Statistics by generator, and a linear probe.

The probe asks whether a linear rule on statistics of eps0 alone separates the classes on
sources that it has not seen, before and after JPEG. The same statistics of a plain high-pass
residual stand beside it: what they tell as well is no merit of the diffusion model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distildire.data.giveaways import folds_of_groups
from distildire.data.manifest import FAKE, group_names
from distildire.data.ranking import auc
from distildire.io.pictures import RGB, ImageError, decode
from distildire.io.preprocessing import jpeg
from distildire.io.progress import DoneOf
from noise_analysis.statistics import (
    FEATURE_NAMES,
    RADIAL_BINS,
    Noise,
    power_spectrum,
    statistics,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

VARIANTS: Mapping[str, Callable[[RGB], RGB]] = {
    "as it is": lambda rgb: rgb,
    "jpeg 90": lambda rgb: jpeg(rgb, 90),
    "jpeg 70": lambda rgb: jpeg(rgb, 70),
}

GROUPS = {
    "energy": "log energy",
    "kurtosis": "log kurtosis",
    "radial spectrum": "radial power",
    "spectral peaks": "peak at",
    "autocorrelation": "autocorrelation",
    "channel correlation": "correlation ",
}
"""Kinds of statistics by the start of their names."""

MIN_PICTURES = 10
"""Generators with fewer pictures are put together as `FEW`."""

FEW = "others (few each)"


class GivesNoise(Protocol):
    """What is asked of a noise source."""

    def eps0(self, x0: Tensor) -> Tensor:
        """x0 [B, 3, H, W] in [-1, 1] -> first-step noise of the same shape."""
        ...


@dataclass(frozen=True)
class NoiseAnalysis:
    """Statistics of every picture, and what the probe makes of them."""

    table: Any
    """Rows of the manifest that were read (pandas)."""
    features: dict[str, NDArray[np.float64]]
    """By map ("eps0", "residual") and variant, as "eps0, jpeg 90": [N, F]."""
    spectra: dict[str, NDArray[np.float64]]
    """Mean logarithmic power spectrum of eps0 by generator ("real" for the reals): [S, S]."""
    probe: list[dict[str, Any]]
    by_generator: list[dict[str, Any]]
    side: int
    seed: int

    def save(self, out: Path) -> None:
        """Write noise.json, statistics.csv, spectra.png and radial.png into `out`."""
        import pandas as pd

        from noise_analysis.plots import radial_figure, spectra_figure

        out.mkdir(parents=True, exist_ok=True)
        tree = {"side": self.side, "seed": self.seed, "pictures": len(self.table),
                "probe": self.probe, "by_generator": self.by_generator}  # fmt: skip
        (out / "noise.json").write_text(json.dumps(tree, indent=1) + "\n")
        numbers = pd.DataFrame(self.features["eps0, as it is"], columns=list(FEATURE_NAMES))
        names = ["path", "label", "source", "generator"]
        pd.concat([self.table[names].reset_index(drop=True), numbers], axis=1).to_csv(
            out / "statistics.csv", index=False
        )
        spectra_figure(self.spectra).savefig(out / "spectra.png", dpi=70)
        radial = {str(r["generator"]): r["radial power"] for r in self.by_generator}
        radial_figure(radial).savefig(out / "radial.png", dpi=70)


def analyse_noise(
    source: GivesNoise,
    table: pd.DataFrame,
    *,
    side: int = 192,
    per_source: int = 40,
    seed: int = 0,
    progress: DoneOf | None = None,
) -> NoiseAnalysis:
    """Statistics of eps0 and of a residual for the central `side` x `side` of the pictures.

    Args:
        source: of the noise.
        table: manifest rows; at most `per_source` of each source are taken at random.
        side: of the square, in pixels; smaller pictures are left out, none is resampled.
        per_source: pictures of each source and label.
        seed: of the choice and the folds.
        progress: called after every picture.

    Raises:
        ValueError: no picture is large enough.
    """
    picked = table.groupby(["source", "label"], group_keys=False).sample(frac=1, random_state=seed)
    picked = picked.groupby(["source", "label"]).head(per_source).reset_index(drop=True)
    rows, collected, spectra = [], _empty(), _MeanSpectra()
    names = generator_names(picked)
    for row, path in enumerate(picked["path"]):
        square = _square(path, side)
        if square is not None:
            rows.append(row)
            maps = noise_maps(source, square)
            for name, noise in maps.items():
                collected[name].append(statistics(noise))
            spectra.add(str(names[row]), power_spectrum(maps["eps0, as it is"]))
        if progress is not None:
            progress(row + 1, len(picked))
    if not rows:
        raise ValueError(f"none of {len(picked)} pictures holds a square of {side} pixels")
    used = picked.iloc[rows].reset_index(drop=True)
    features = {name: np.array(values) for name, values in collected.items()}
    return NoiseAnalysis(
        table=used,
        features=features,
        spectra=spectra.means(),
        probe=probe_table(features, used, seed),
        by_generator=generator_table(features, used, seed),
        side=side,
        seed=seed,
    )


def noise_maps(source: GivesNoise, square: RGB) -> dict[str, Noise]:
    """eps0 and residual [3, S, S] of a square under every variant; JPEG comes before both."""
    import torch

    from distildire.noise.schedule import to_unit

    changed = {name: change(square) for name, change in VARIANTS.items()}
    pixels = np.ascontiguousarray(np.stack(list(changed.values())).transpose(0, 3, 1, 2))
    x0s = to_unit(torch.from_numpy(pixels))
    with torch.inference_mode():
        eps0 = source.eps0(x0s).float().numpy()
    maps: dict[str, Noise] = {}
    for name, x0, noise in zip(changed, x0s.numpy(), eps0, strict=True):
        maps[f"eps0, {name}"] = noise
        maps[f"residual, {name}"] = residual(x0)
    return maps


def residual(x0: Noise) -> Noise:
    """x0 [3, S, S] less its 3 x 3 binomial blur: a high-pass that no model had to learn."""
    padded = np.pad(x0, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blur = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return np.asarray(x0 - blur, np.float32)


def probe_table(
    features: Mapping[str, NDArray[np.float64]], table: pd.DataFrame, seed: int = 0
) -> list[dict[str, Any]]:
    """AUC of the probe for every map and variant, for all statistics and for each kind."""
    fake = (table["label"] == FAKE).to_numpy()
    fold, words = folds_of_groups(group_names(table), fake, seed=seed)
    rows = []
    for name, values in features.items():
        row: dict[str, Any] = {"map": name, "all statistics": _mean_auc(values, fake, fold)}
        for kind, start in GROUPS.items():
            columns = [i for i, feature in enumerate(FEATURE_NAMES) if feature.startswith(start)]
            row[kind] = _mean_auc(values[:, columns], fake, fold)
        rows.append({**row, "folds": words})
    return rows


def generator_table(
    features: Mapping[str, NDArray[np.float64]], table: pd.DataFrame, seed: int = 0
) -> list[dict[str, Any]]:
    """Means of the statistics by generator, and how well the probe tells each from the reals.

    `auc` is that of the probe trained without the source (nor its whole fold): the
    generator's fakes against the reals of the same fold, mean over folds weighted by fakes.
    """
    fake = (table["label"] == FAKE).to_numpy()
    fold, _ = folds_of_groups(group_names(table), fake, seed=seed)
    generator = generator_names(table)
    values = features["eps0, as it is"]
    scores = {
        name: out_of_fold(features[f"eps0, {name}"], fake, fold) for name in ("as it is", "jpeg 70")
    }
    radial = [i for i, name in enumerate(FEATURE_NAMES) if name.startswith("radial")]
    rows = []
    for name in ["real", *sorted(set(generator.tolist()) - {"real"})]:
        own = generator == name
        mean = dict(zip(FEATURE_NAMES, values[own].mean(axis=0).tolist(), strict=True))
        row: dict[str, Any] = {"generator": name, "pictures": int(own.sum())}
        row["sources"] = int(table["source"][own].nunique())
        for variant, score in scores.items():
            row[f"auc, {variant}"] = None if name == "real" else _within(score, own, fake, fold)
        row |= {k: round(v, 4) for k, v in mean.items() if not k.startswith("radial")}
        row["radial power"] = [round(v, 4) for v in values[own][:, radial].mean(axis=0).tolist()]
        rows.append(row)
    return rows


def generator_names(table: pd.DataFrame) -> NDArray[np.str_]:
    """[N] "real", the generator, "unstated", or `FEW` for one with under `MIN_PICTURES`."""
    fake = (table["label"] == FAKE).to_numpy()
    stated = table["generator"].replace("", "unstated").to_numpy(str)
    names, index, counts = np.unique(
        np.where(fake, stated, "real"), return_inverse=True, return_counts=True
    )
    short = [FEW if n < MIN_PICTURES and name != "real" else name
             for name, n in zip(names.tolist(), counts.tolist(), strict=True)]  # fmt: skip
    return np.asarray(np.array(short)[index])


def out_of_fold(
    values: NDArray[np.float64], fake: NDArray[np.bool_], fold: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores [N] of a logistic regression on standardised features, each fold by the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.full(len(fake), np.nan)
    for k in np.unique(fold):
        train = fold != k
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
        )
        model.fit(values[train], fake[train])
        scores[~train] = model.decision_function(values[~train])
    return scores


def _mean_auc(
    values: NDArray[np.float64], fake: NDArray[np.bool_], fold: NDArray[np.int64]
) -> float:
    scores = out_of_fold(values, fake, fold)
    return round(
        float(np.mean([auc(fake[fold == k], scores[fold == k]) for k in np.unique(fold)])), 4
    )


def _within(
    scores: NDArray[np.float64],
    own: NDArray[np.bool_],
    fake: NDArray[np.bool_],
    fold: NDArray[np.int64],
) -> float:
    values, weights = [], []
    for k in np.unique(fold[own]):
        rows = (fold == k) & (own | ~fake)
        values.append(auc(fake[rows], scores[rows]))
        weights.append(int((own & (fold == k)).sum()))
    return round(float(np.average(values, weights=weights)), 4)


def _square(path: str, side: int) -> RGB | None:
    try:
        rgb = decode(path)
    except ImageError:
        return None
    height, width = rgb.shape[:2]
    if min(height, width) < side:
        return None
    # On the 8-pixel grid, so that every picture's JPEG blocks start at the square's corner.
    top, left = (height - side) // 16 * 8, (width - side) // 16 * 8
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def _empty() -> dict[str, list[NDArray[np.float64]]]:
    return {f"{kind}, {name}": [] for kind in ("eps0", "residual") for name in VARIANTS}


class _MeanSpectra:
    """Running sums of logarithmic spectra by generator."""

    def __init__(self) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, int] = {}

    def add(self, generator: str, spectrum: NDArray[np.float64]) -> None:
        log = np.log10(spectrum / (spectrum.mean() + 1e-24) + 1e-12)
        self.sums[generator] = self.sums.get(generator, np.zeros_like(log)) + log
        self.counts[generator] = self.counts.get(generator, 0) + 1

    def means(self) -> dict[str, NDArray[np.float64]]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


assert sum(name.startswith("radial") for name in FEATURE_NAMES) == RADIAL_BINS
