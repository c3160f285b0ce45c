"""One evaluation from a model (or another tool's scores) and a manifest to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distildire.data.audit import Audit, audit, refuse_leak
from distildire.data.audit_report import save_audit
from distildire.data.manifest import FAKE, fingerprint, read_manifest, rows_of_split
from distildire.evaluate.breakdown import VerdictOf, parts_of
from distildire.evaluate.checks import (
    heatmap_check,
    refuse_without_map,
    robustness_figures,
    stability_check,
)
from distildire.evaluate.generators import check_prefixes
from distildire.evaluate.kept_logits import keeping_logits
from distildire.evaluate.report import report_page
from distildire.evaluate.robustness import robustness
from distildire.evaluate.scores import Scorer, read_scores, score_manifest
from distildire.evaluate.summary import By, Figures, summarize
from distildire.io.progress import DoneOf, StageDoneOf
from distildire.io.tars import split_member
from distildire.io.writing import whole_file, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated."""

    equalize: bool | Literal["both"] = True
    """True: every picture is equalised before it is scored; False: as it is; "both": side by
    side, and metrics.json has `raw` and `equalized` above the figures. The scores of a CSV are
    taken as they are; equalising can't reach them."""
    accept_leak: bool = False
    """Go on over a leak."""
    split: str | None = None
    """Keep only the rows of this split."""
    known: Sequence[str] = ()
    """Beginnings of the names of generators that the model was trained on; the fakes are then
    told in two parts, see `parts_of`."""
    robustness_count: int = 0
    """Pictures of the robustness grid; 0 leaves it out."""
    stability_count: int = 0
    """Pictures of `stability_check`; 0 leaves it out."""
    heatmap_count: int = 0
    """Pictures of each class for `heatmap_check`; 0 leaves it out."""
    intervals: By = "image"
    """What the bootstrap draws, see `summarize`."""
    repeats: int = 1000
    """Bootstrap resamples."""
    seed: int = 0
    """Of the bootstrap and the subsamples."""

    @property
    def variants(self) -> tuple[str, ...]:
        """In which forms a detector scores each picture."""
        return {True: ("equalized",), False: ("raw",), "both": ("raw", "equalized")}[self.equalize]


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
    options: EvaluationOptions | None = None,
    *,
    progress: StageDoneOf | None = None,
) -> Evaluation:
    """Evaluate a model on a manifest and write the results to a folder.

    Written: scores.parquet and scores.csv, metrics.json, report.html, report.md; audit.json
    and audit.html where the files were audited; robustness.json where it was measured. Until
    the end, a model's logits are kept in logits.jsonl: a run that was stopped goes on there.

    Args:
        model: name or folder of a bundle, a detector, or a CSV of `path,score` from any tool.
        manifest: Parquet or CSV, see `read_manifest`.
        out: folder of the results.
        options: see there; the defaults where None.
        progress: hears of each stage, and how far it is.

    Raises:
        ManifestError: unusable manifest or CSV, or no row in `split`.
        LeakError: the class shows in the files, and `equalize` is False.
        BundleError: unusable model.
        ValueError: no picture has a score; a word of `known` with which no generator begins;
            scores and a check that asks the model for more, or the heat map of a model without
            one is to be checked.
    """
    options = options or EvaluationOptions()
    manifest, out = Path(manifest), Path(out)
    table = rows_of_split(read_manifest(manifest), options.split)
    about = {"model": str(model), "manifest": manifest.name, "data fingerprint": fingerprint(table)}
    given = isinstance(model, str | Path) and str(model).lower().endswith(".csv")
    if given and (options.robustness_count or options.stability_count or options.heatmap_count):
        raise ValueError(
            "robustness, stability and heat maps are measured by a model, and scores were given"
        )
    found = None
    if not given or _any_file(table):
        found = _audited(table, out, options, progress)
    check_prefixes(table["generator"][table["label"] == FAKE], options.known)
    detector = None if given else _detector(model)
    if detector is not None and options.heatmap_count:
        refuse_without_map(detector)
    # What is kept goes when all is written: whatever fails before, no picture is scored again.
    with nullcontext() if detector is None else _kept(detector, out) as scorer:
        checks: dict[str, Any] = {}
        if detector is None or scorer is None:
            scores = read_scores(Path(str(model)), table)
            about["note"] = "scores of another tool, taken as they are: nothing was equalised"
            if found is not None and found.leaky:
                about["note"] += ". " + found.verdict
        else:
            about["model"] = getattr(detector, "name", type(detector).__name__)
            scores = score_manifest(scorer, table, options.variants, _stage(progress, "score"))
            checks = _checks(scorer, table, options, progress)
            if count := options.heatmap_count:
                checks["heatmap"] = heatmap_check(detector, table, count, seed=options.seed)
        if found is not None:
            about["leak audit"] = found.verdict
        figures = _figures(scores, detector, options)
        about["intervals"] = next(iter(figures.values()))["intervals"]
        metrics: dict[str, Any] = figures if len(figures) > 1 else next(iter(figures.values()))
        metrics = {**metrics, "about": about, **checks}
        if grid := checks.get("robustness"):
            metrics["robustness"] = robustness_figures(grid)
        _write_tables(out, scores, metrics, grid)
        title = f"Evaluation of {about['model']} on {manifest.name}"
        page = report_page(title, about, figures, scores, checks)
        write_text(out / "report.html", page.html())
        write_text(out / "report.md", page.markdown())
    return Evaluation(scores, metrics, found, grid, out)


def _audited(
    table: pd.DataFrame, out: Path, options: EvaluationOptions, progress: StageDoneOf | None
) -> Audit:
    """The audit, written to `out`; raises LeakError over a leak that nobody accepts or mends."""
    found = audit(table, seed=options.seed, progress=_stage(progress, "audit"))
    save_audit(found, out)
    refuse_leak(found, accept=options.accept_leak, equalized=options.equalize is not False)
    return found


def _figures(
    scores: pd.DataFrame, detector: Scorer | None, options: EvaluationOptions
) -> dict[str, Figures]:
    """By variant: `summarize`, with `parts_of` under "parts"."""
    found = {}
    for name, rows in scores.groupby("variant", sort=False):
        figures = summarize(
            rows, intervals=options.intervals, repeats=options.repeats, seed=options.seed
        )
        figures["parts"] = parts_of(
            rows, known=options.known, verdict=_verdict(detector), intervals=options.intervals,
            repeats=max(1, options.repeats // 2), seed=options.seed,
        )  # fmt: skip
        found[str(name)] = figures
    return found


def _checks(
    detector: Scorer,
    table: pd.DataFrame,
    options: EvaluationOptions,
    progress: StageDoneOf | None,
) -> dict[str, Any]:
    """What was asked for of `robustness` and `stability`."""
    found: dict[str, Any] = {}
    seed = options.seed
    if count := options.robustness_count:
        stage = _stage(progress, "robustness")
        found["robustness"] = robustness(detector, table, count=count, seed=seed, progress=stage)
    if count := options.stability_count:
        stage = _stage(progress, "stability")
        found["stability"] = stability_check(detector, table, count, seed=seed, progress=stage)
    return found


def _any_file(table: pd.DataFrame) -> bool:
    for path in table["path"]:
        member = split_member(path)
        if Path(path if member is None else member[0]).is_file():
            return True
    return False


def _detector(model: str | Path | Scorer) -> Scorer:
    if not isinstance(model, str | Path):
        return model
    from distildire.detector import Detector

    return Detector(model)


def _kept(detector: Scorer, out: Path) -> AbstractContextManager[Scorer]:
    """A model's logits are kept until the end; what else can score is asked anew."""
    from distildire.detector import Detector

    if isinstance(detector, Detector):
        return keeping_logits(detector, out / "logits.jsonl")
    return nullcontext(detector)


def _verdict(detector: Scorer | None) -> VerdictOf | None:
    if detector is None:
        return None
    return lambda logit, budget: str(detector.verdict_of(logit, budget)[1])


def _stage(progress: StageDoneOf | None, name: str) -> DoneOf | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)


def _write_tables(
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
