"""The scores table: every picture of a manifest with its score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distildire.calibration import sigmoid
from distildire.data.manifest import FAKE, ManifestError, read_columns
from distildire.io.cores import over_cores, usable_cores
from distildire.io.hashing import sha256_of
from distildire.io.pictures import RGB, ImageError, decode, decode_bytes, read_bytes
from distildire.io.preprocessing import equalize
from distildire.io.progress import DoneOf
from distildire.io.text import brief
from distildire.loading import what_is_wrong

if TYPE_CHECKING:
    import pandas as pd

SCORE_COLUMNS = ("path", "label", "logit", "probability", "source", "generator", "sha256")


class Scorer(Protocol):
    """What is asked of a detector to evaluate it; `Detector` is one."""

    def logit(self, rgb: RGB, *, alone: bool = True) -> float:
        """Uncalibrated score of a decoded picture; not `alone`: others are scored beside it.

        Raises:
            ImageError: it has no score that is a finite number.
        """
        ...

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, Any]:
        """(calibrated probability of fake, verdict) of a logit."""
        ...


def score_manifest(
    detector: Scorer,
    table: pd.DataFrame,
    variants: tuple[str, ...] = ("equalized",),
    progress: DoneOf | None = None,
) -> pd.DataFrame:
    """Score every row of a manifest, `raw`, `equalized` or both.

    Returns the columns of `SCORE_COLUMNS`, `repository`, `split`, `variant` and `error` (empty, or
    why the picture has no score; its score is then nan): one row per picture and variant.
    """
    import pandas as pd

    blocks: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}

    def scored(path: str) -> list[tuple[str, dict[str, Any]]]:
        return list(_score(detector, path, variants))

    for done, found in enumerate(over_cores(scored, table["path"], usable_cores()), start=1):
        for variant, row in found:
            blocks[variant].append(row)
        if progress is not None:
            progress(done, len(table))
    parts = []
    for variant, rows in blocks.items():
        part = _about(table)
        for name in ("logit", "probability", "sha256", "error"):
            part[name] = [row[name] for row in rows]
        part["variant"] = variant
        parts.append(part)
    return _ordered(pd.concat(parts, ignore_index=True))


def logits_of(
    detector: Scorer, paths: Sequence[str], *, equalized: bool = True,
    progress: DoneOf | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """Uncalibrated logits alone, nan where a picture can't be scored; for calibration."""

    def logit(path: str) -> float:
        try:
            rgb = decode(path)
            return detector.logit(equalize(rgb) if equalized else rgb, alone=False)
        except (ImageError, MemoryError):
            return np.nan

    logits = []
    for value in over_cores(logit, paths, usable_cores()):
        logits.append(value)
        if progress is not None:
            progress(len(logits), len(paths))
    return np.array(logits)


def _score(
    detector: Scorer, path: str, variants: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    row: dict[str, Any] = {"logit": np.nan, "probability": np.nan, "sha256": "", "error": ""}
    try:
        data = read_bytes(Path(path))
        row["sha256"] = sha256_of(data)
        rgb = decode_bytes(data)
        logits = [
            detector.logit(equalize(rgb) if v == "equalized" else rgb, alone=False)
            for v in variants
        ]
    except (ImageError, MemoryError) as error:
        for variant in variants:
            yield variant, {**row, "error": what_is_wrong(error)}
        return
    for variant, logit in zip(variants, logits, strict=True):
        yield variant, {**row, "logit": logit, "probability": detector.verdict_of(logit)[0]}


def read_scores(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Scores of any tool, a CSV of `path,score`, laid beside a manifest.

    Scores that all lie in 0..1 are taken as probabilities of fake, others as logits. Paths
    may be absolute, relative to the CSV or to the manifest, or any ending (such as the file
    name) that fits one row alone.

    Returns what `score_manifest` does, with the variant "raw". Rows without a score, or with
    one that is no finite number, have nan and say so in `error`.

    Raises:
        ManifestError: unreadable CSV, a missing column, one path with two scores, or no path
            that is in the manifest.
    """
    import pandas as pd

    given = read_columns(path, {"path", "score"}, "CSV of path,score", {"path"})
    score = pd.to_numeric(given["score"], errors="coerce").to_numpy(float, copy=True)
    score[~np.isfinite(score)] = np.nan
    rows = _match(given["path"].to_list(), path.resolve().parent, table["path"].to_list())
    scores = np.full(len(table), np.nan)
    listed = np.zeros(len(table), bool)
    for row, value in zip(rows, score, strict=True):
        if row is None:
            continue
        if listed[row] and not (scores[row] == value or np.isnan([scores[row], value]).all()):
            raise ManifestError(f"{path}: two scores for {table['path'].iloc[row]}: keep one")
        scores[row], listed[row] = value, True
    if not listed.any():
        raise ManifestError(
            f"{path}: none of its {len(given)} paths is in the manifest (the first is "
            f"{brief(given['path'].iloc[0]) if len(given) else 'missing'})"
        )
    part = _about(table)
    part["logit"], part["probability"] = _logit_and_probability(scores)
    part["error"] = np.where(
        np.isfinite(scores), "", np.where(listed, "the score is no finite number", "no score")
    )
    part["sha256"] = table["sha256"].fillna("") if "sha256" in table else ""
    part["variant"] = "raw"
    return _ordered(part)


def _logit_and_probability(scores: Any) -> tuple[Any, Any]:
    """(logits, probabilities) of scores that are either, nan kept."""
    known = scores[np.isfinite(scores)]
    if len(known) and (known >= 0).all() and (known <= 1).all():
        tiny = np.finfo(float).tiny
        return np.log(np.maximum(scores, tiny)) - np.log(np.maximum(1 - scores, tiny)), scores
    return scores, sigmoid(np.clip(scores, -700, 700))


def _match(paths: list[str], folder: Path, known: list[str]) -> list[int | None]:
    """Row of the manifest of each path of a CSV in `folder`; None where it has none."""
    exact = {name: row for row, name in enumerate(known)}
    endings: dict[str, int | None] = {}
    for number, name in enumerate(known):
        parts = Path(name).parts
        for depth in range(1, len(parts)):
            ending = "/".join(parts[-depth:])
            endings[ending] = None if ending in endings else number
    found: list[int | None] = []
    for path in paths:
        place = exact.get(path, exact.get(str(folder / path)))
        if place is None:
            place = endings.get("/".join(p for p in Path(path).parts if p not in {".", "/"}))
        found.append(place)
    return found


def _about(table: pd.DataFrame) -> pd.DataFrame:
    names = [n for n in ("path", "label", "source", "generator", "split") if n in table]
    part = table[names].copy()
    repository = table["repository"].fillna("").astype(str) if "repository" in table else ""
    part["repository"] = repository
    return part


def _ordered(scores: pd.DataFrame) -> pd.DataFrame:
    rest = [name for name in scores.columns if name not in SCORE_COLUMNS]
    return scores[[*SCORE_COLUMNS, *rest]].reset_index(drop=True)


def is_fake(scores: pd.DataFrame) -> Any:
    """[N] booleans of a scores table."""
    return (scores["label"] == FAKE).to_numpy()
