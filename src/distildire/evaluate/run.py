"""One evaluation from a model (or another tool's scores) and a manifest to a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distildire.data.audit import Audit, audit, refuse_leak
from distildire.data.audit_report import save_audit
from distildire.data.manifest import fingerprint, read_manifest
from distildire.evaluate.breakdown import Verdict, parts_of
from distildire.evaluate.checks import heatmap_check, robustness_figures, stability_check
from distildire.evaluate.report import report_markdown, report_page
from distildire.evaluate.robustness import robustness
from distildire.evaluate.scores import Scorer, read_scores, score_manifest
from distildire.evaluate.summary import By, summarize
from distildire.io.progress import StageDoneOf
from distildire.io.writing import whole_file, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found and wrote."""

    scores: pd.DataFrame
    metrics: dict[str, Any]
    """The content of metrics.json."""
    audit: Audit | None
    robustness: dict[str, Any] | None
    folder: Path


def evaluate(
    model: str | Path | Scorer,
    manifest: str | Path,
    out: str | Path,
    *,
    equalize: bool | Literal["both"] = True,
    accept_leak: bool = False,
    split: str | None = None,
    known: Sequence[str] = (),
    robustness_count: int = 0,
    stability_count: int = 0,
    heatmap_count: int = 0,
    intervals: By = "image",
    repeats: int = 1000,
    seed: int = 0,
    progress: StageDoneOf | None = None,
) -> Evaluation:
    """Evaluate a model on a manifest and write the results to a folder.

    Written: scores.parquet and scores.csv, metrics.json, report.html, report.md; audit.json
    and audit.html where the files were audited; robustness.json where it was measured.

    Args:
        model: name or folder of a bundle, a detector, or a CSV of `path,score` from any tool.
        manifest: Parquet or CSV, see `read_manifest`.
        out: folder of the results.
        equalize: True: every picture is equalised before it is scored; False: as it is;
            "both": side by side, and metrics.json has `raw` and `equalized` above the
            figures. The scores of a CSV are taken as they are; equalising can't reach them.
        accept_leak: go on over a leak.
        split: keep only the rows of this split.
        known: beginnings of the names of generators that the model was trained on; the
            fakes are then told in two parts, see `parts_of`.
        robustness_count: pictures of the robustness grid; 0 leaves it out.
        stability_count: pictures of `stability_check`; 0 leaves it out.
        heatmap_count: pictures of each class for `heatmap_check`; 0 leaves it out.
        intervals: what the bootstrap draws, see `summarize`.
        repeats: bootstrap resamples.
        seed: of the bootstrap and the subsample.
        progress: hears of each stage, and how far it is.

    Raises:
        ManifestError: unusable manifest or CSV, or no row in `split`.
        LeakError: the class shows in the files, and `equalize` is False.
        BundleError: unusable model.
        ValueError: no picture has a score.
    """
    manifest, out = Path(manifest), Path(out)
    table = rows_of_split(read_manifest(manifest), split)
    given = Path(model) if isinstance(model, str | Path) and str(model).endswith(".csv") else None
    found = None
    if given is None or (equalize is False and _any_file(table)):
        found = audit(table, seed=seed, progress=_stage(progress, "audit"))
        out.mkdir(parents=True, exist_ok=True)
        save_audit(found, out)
        refuse_leak(found, accept=accept_leak, equalized=equalize is not False)
    about = {"model": str(model), "manifest": manifest.name, "data fingerprint": fingerprint(table)}
    detector: Scorer | None = None
    if given is not None:
        scores = read_scores(given, table)
        variants: tuple[str, ...] = ("raw",)
        about["note"] = "scores of another tool, taken as they are: nothing was equalised"
    else:
        detector = _detector(model)
        about["model"] = getattr(detector, "name", type(detector).__name__)
        variants = {True: ("equalized",), False: ("raw",), "both": ("raw", "equalized")}[equalize]
        scores = score_manifest(detector, table, variants, _stage(progress, "score"))
    if found is not None:
        about["leak audit"] = found.verdict
    figures = {
        variant: summarize(
            scores[scores["variant"] == variant], intervals=intervals, repeats=repeats, seed=seed
        )
        for variant in variants
    }
    for variant in variants:
        figures[variant]["parts"] = parts_of(
            scores[scores["variant"] == variant], known=known, verdict=_verdict(detector),
            repeats=max(1, repeats // 2), seed=seed,
        )  # fmt: skip
    about["intervals"] = next(iter(figures.values()))["intervals"]
    grid = None
    if detector is not None and robustness_count:
        stage = _stage(progress, "robustness")
        grid = robustness(detector, table, count=robustness_count, seed=seed, progress=stage)
    metrics: dict[str, Any] = dict(figures) if equalize == "both" and len(figures) > 1 else (
        figures[variants[0]]
    )  # fmt: skip
    metrics["about"] = about
    checks: dict[str, Any] = {}
    if grid is not None:
        metrics["robustness"] = robustness_figures(grid)
    if detector is not None and stability_count:
        checks["stability"] = stability_check(
            detector, table, stability_count, seed=seed, progress=_stage(progress, "stability")
        )
    if detector is not None and heatmap_count:
        checks["heatmap"] = heatmap_check(detector, table, heatmap_count, seed=seed)
    metrics |= checks
    _write(out, scores, metrics, grid)
    title = f"Evaluation of {about['model']} on {manifest.name}"
    write_text(out / "report.html", report_page(title, about, figures, scores, grid, checks))
    write_text(out / "report.md", report_markdown(title, about, figures, grid, checks))
    return Evaluation(scores, metrics, found, grid, out)


def rows_of_split(table: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """The rows of one split, or all; raises ManifestError where there are none."""
    from distildire.data.manifest import ManifestError

    if split is None:
        return table
    part = table[table["split"] == split].reset_index(drop=True)
    if not len(part):
        names = ", ".join(sorted(set(table["split"]))) or "none"
        raise ManifestError(f"no row has the split {split!r} (splits: {names})")
    return part


def _any_file(table: pd.DataFrame) -> bool:
    return any(Path(path).is_file() for path in table["path"])


def _detector(model: str | Path | Scorer) -> Scorer:
    if not isinstance(model, str | Path):
        return model
    from distildire.detector import Detector

    return Detector(model)


def _verdict(detector: Scorer | None) -> Verdict | None:
    if detector is None:
        return None
    return lambda logit, budget: str(detector.verdict_of(logit, budget)[1])


def _stage(progress: StageDoneOf | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)


def _write(
    out: Path, scores: pd.DataFrame, metrics: dict[str, Any], grid: dict[str, Any] | None
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / "scores.parquet") as file:
        scores.to_parquet(file, index=False)
    with whole_file(out / "scores.csv") as file:
        scores.to_csv(file, index=False)
    write_json(out / "metrics.json", metrics, allow_nan=False)
    if grid is not None:
        write_json(out / "robustness.json", grid, allow_nan=False)
