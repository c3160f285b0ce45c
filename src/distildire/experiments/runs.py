"""One arm and seed: train, score, keep the figures; what is finished is not done again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distildire.distill.checkpoint import load_checkpoint
from distildire.distill.config import TrainConfig, as_of_now
from distildire.distill.export import export
from distildire.distill.networks import dire_reader, noise_of, noise_source_of, unit_planes
from distildire.distill.train import train
from distildire.distill.validation import score_table, validation_summary
from distildire.evaluate.metrics import average_precision
from distildire.evaluate.scores import is_fake
from distildire.io.config import to_dict
from distildire.io.writing import whole_file, write_json

if TYPE_CHECKING:
    import pandas as pd

Figures = dict[str, Any]

Report = Callable[[dict[str, Any]], None]

FIGURES = ("auc", "ap", "pairs", "worst_quarter")
"""What is measured on the held-out sources of every run."""

_SCORES = "test_scores.csv"


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where a run lies: `out`/runs/<arm>-<seed>."""
    return out / "runs" / f"{re.sub(r'[^A-Za-z0-9.=]+', '-', arm).strip('-')}-{seed}"


def run_arm(
    config: TrainConfig,
    folder: Path,
    *,
    latency: bool = False,
    test: pd.DataFrame | None = None,
    report: Report | None = None,
) -> Figures:
    """Figures of one run; trained, resumed or read, as the folder allows.

    A finished run of the same config is read. One that was cut short goes on from its last
    checkpoint; a run of another config is replaced.

    Args:
        config: of the run.
        folder: of the run.
        latency: export the detector and time it, too.
        test: rows to score besides the held-out sources; see `scores_of`.
        report: hears of the training rows.

    Raises:
        ValueError, RuntimeError, ImportError, OSError: whatever the run can't do without.
    """
    done = folder / "figures.json"
    same = _written_with(folder) == to_dict(config)
    if same and done.is_file():
        found: Figures = json.loads(done.read_text())
        return found
    done.unlink(missing_ok=True)
    started = time.monotonic()
    rows: list[dict[str, Any]] = []

    def heard(row: dict[str, Any]) -> None:
        rows.append(row)
        if report is not None:
            report(row)

    resume = same and (folder / "checkpoint.pt").is_file()
    best = train(config, folder, resume=resume, report=heard)
    figures: Figures = held_out_figures(folder)
    timed = [row["seconds_a_step"] for row in rows if "seconds_a_step" in row]
    figures["seconds_a_step"] = timed[-1] if timed else None
    if latency:
        figures |= latency_of(best, folder / "bundle")
    if test is not None:
        with whole_file(folder / _SCORES) as file:
            scores_of(best, test, workers=config.optim.workers).to_csv(file, index=False)
    figures["seconds"] = round(time.monotonic() - started, 1)
    write_json(done, figures)
    return figures


def _written_with(folder: Path) -> dict[str, Any] | None:
    """The config of an earlier run in this folder."""
    try:
        return as_of_now(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def held_out_figures(folder: Path) -> Figures:
    """`FIGURES` of the held-out sources, from the scores that training wrote."""
    import pandas as pd

    table = pd.read_csv(folder / "val_scores.csv", keep_default_na=False)
    logits = pd.to_numeric(table["logit"], errors="coerce").to_numpy(float)
    figures: Figures = dict(validation_summary(table, logits))
    good = ~np.isnan(logits)
    figures["ap"] = average_precision(is_fake(table)[good], logits[good])
    return {name: figures[name] for name in FIGURES}


def scores_of(checkpoint: Path, table: pd.DataFrame, *, workers: int = 1) -> pd.DataFrame:
    """`table` with the column `logit`: each picture equalised, the mean over its crops.

    A student of DIRE is shown the maps in the cache of its config.

    Raises:
        ValueError: no map of a picture there.
    """
    student, config, _ = load_checkpoint(checkpoint)
    source = noise_source_of(config)
    dire = dire_reader(config) if config.student.inputs == "dire" else None

    @torch.no_grad()
    def score(crops: torch.Tensor) -> torch.Tensor:
        x0 = unit_planes(crops)
        logits: torch.Tensor = student(x0, noise_of(source, x0))
        return logits

    names = [n for n in ("path", "label", "source", "repository", "generator") if n in table]
    return table[names].assign(
        logit=score_table(score, table, config.preprocessing, workers=workers, dire=dire)
    )


def read_test_scores(folder: Path) -> pd.DataFrame:
    """What `run_arm` scored besides the held-out sources."""
    import pandas as pd

    return pd.read_csv(folder / _SCORES, keep_default_na=False, na_values={"logit": [""]})


def latency_of(checkpoint: Path, bundle: Path, repeats: int = 21) -> Figures:
    """Milliseconds per picture (all its crops, one thread), parameters and bytes of the graph."""
    from distildire.detector import Detector

    student, _, _ = load_checkpoint(checkpoint)
    made = export(checkpoint, bundle, weights="float32")
    detector = Detector(bundle, threads=1)
    cut = made.preprocessing
    crops = np.random.default_rng(0).integers(
        0, 256, (cut.views, cut.crop, cut.crop, 3), dtype=np.uint8
    )
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        detector.score_crops(crops)
        times.append(time.perf_counter() - started)
    return {
        "latency_ms": round(1000 * float(np.median(times)), 2),
        "params": sum(p.numel() for p in student.parameters()),
        "graph_bytes": made.graph.stat().st_size,
    }
