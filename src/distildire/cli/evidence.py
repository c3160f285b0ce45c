"""Can it be trusted? audit, evaluate, calibrate, bench."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distildire.cli.app import (
    DeviceName,
    DeviceOption,
    app,
    fail,
    progress_bar,
    refuse_input,
    say,
    stage_bar,
    warn,
)

if TYPE_CHECKING:
    import pandas as pd

    from distildire.bundle import Bundle
    from distildire.calibration import Calibration
    from distildire.detector import Detector


@app.command()
def audit(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the pictures.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("audit"),
    split: Annotated[str, typer.Option(help="Only rows of this split.")] = "",
) -> None:
    """Do the files give the class away? Formats, sizes, quality, metadata, duplicates."""
    from distildire.data.audit import audit as run
    from distildire.data.audit_report import save_audit
    from distildire.data.manifest import read_manifest, rows_of_split

    table = rows_of_split(read_manifest(manifest), split)
    found = run(table, progress=progress_bar("audit"))
    save_audit(found, out)
    say(out / "audit.html", found.verdict)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A bundle, or a CSV of path,score.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of the test pictures.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    equalize: Annotated[
        bool, typer.Option(help="Bring every picture to one history first.")
    ] = True,
    both: Annotated[
        bool, typer.Option("--both", help="Raw and equalized results side by side.")
    ] = False,
    accept_leak: Annotated[
        bool,
        typer.Option(
            "--accept-leak",
            help="With --no-equalize, which refuses files that give the class away: go on all "
            "the same.",
        ),
    ] = False,
    split: Annotated[str, typer.Option(help="Only rows of this split.")] = "",
    robustness: Annotated[
        int, typer.Option(help="Pictures of the robustness grid; 0 leaves it out.")
    ] = 0,
    known: Annotated[
        str,
        typer.Option(
            help="Generators that were trained on, by how their names begin, with commas between "
            "(StyleGAN2,SD1,DALL-E 2): figures for these and for the others."
        ),
    ] = "",
    stability: Annotated[
        int, typer.Option(help="Pictures that measure the stability check; 0 leaves it out.")
    ] = 0,
    heatmap_check: Annotated[
        int,
        typer.Option(help="Pictures of each class to measure the heat map on; 0 leaves it out."),
    ] = 0,
    by_source: Annotated[
        bool, typer.Option("--by-source", help="Intervals that draw whole sources.")
    ] = False,
) -> None:
    """Judge a detector on a manifest: figures with intervals, per generator and source."""
    from distildire.evaluate.run import EvaluationOptions
    from distildire.evaluate.run import evaluate as run

    for name in ("scores.csv", "scores.parquet"):
        refuse_input(out / name, model, manifest)
    options = EvaluationOptions(
        equalize="both" if both else equalize, accept_leak=accept_leak, split=split or None,
        known=[word.strip() for word in known.split(",") if word.strip()],
        robustness_count=robustness, stability_count=stability, heatmap_count=heatmap_check,
        intervals="source" if by_source else "image",
    )  # fmt: skip
    result = run(model, manifest, out, options, progress=stage_bar)
    if result.audit is not None and result.audit.leaky:
        warn(result.audit.verdict)
    one = result.metrics.get("equalized", result.metrics)
    if lost := one["unscored"]["count"]:
        rows = (result.scores["variant"] == result.scores["variant"].iloc[0]).sum()
        warn(f"{lost} of {rows} pictures have no score")
    figures = one["overall"]
    shown = ("n_real", "n_fake", "acc", "ap", "auc", "tpr_at_5fpr", "ece")
    line = "  ".join(
        f"{k} {figures[k]:.3f}" if isinstance(figures[k], float) else f"{k} {figures[k]}"
        for k in shown
        if figures.get(k) is not None
    )
    say(out / "report.html", line)


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    manifest: Annotated[Path, typer.Argument(help="Held-out pictures with labels.")],
    split: Annotated[str, typer.Option(help="Only rows of this split.")] = "",
    equalize: Annotated[
        bool, typer.Option(help="Bring every picture to one history first.")
    ] = True,
    by: Annotated[
        str,
        typer.Option(help="Column of the manifest: each kind in it has thresholds of its own."),
    ] = "",
    confidence: Annotated[
        float,
        typer.Option(
            help="Share of choices of sources on which a budget is to hold (0.5: on these alone).",
            min=0.5,
            max=0.99,
        ),
    ] = 0.8,
    heatmap_check: Annotated[
        int,
        typer.Option(
            help="Pictures of each class to measure the heat map on (every heat map then says how "
            "far to trust it); 0 leaves it out."
        ),
    ] = 100,
) -> None:
    """Fit probability and thresholds on pictures that were not trained on.

    With `--by COLUMN`, each kind of pictures with at least 100 real ones also has thresholds
    of its own, which `distildire detect --kind NAME` uses.
    """
    from distildire.data.manifest import FAKE, read_manifest, rows_of_split
    from distildire.detector import Detector
    from distildire.evaluate.fit_calibration import calibrate as fit

    if not model.is_dir():
        fail(f"{model}: no such folder: give that of a bundle, where its calibration is written")
    # Never the installed model of that name; without the calibration that this one replaces.
    detector = Detector(model.resolve(), calibrated=False)
    table = rows_of_split(read_manifest(manifest), split)
    if by and by not in table:
        fail(f"--by {by}: {manifest} has no such column (it has {', '.join(table.columns)})")
    table = _scored(detector, table, equalize=equalize)
    if confidence > 0.5:
        _warn_of_few_sources(table)
    found = fit(
        table["logit"], table["label"] == FAKE, detector.bundle.sha256,
        kinds=table[by].fillna("").astype(str) if by else None,
        sources=table["source"], confidence=confidence,
    )  # fmt: skip
    form = "equalized" if equalize else "as they are"
    count = table["source"].nunique()
    stated = f"{count} source{'s' * (count > 1)}, {form}, confidence {confidence:g}"
    found = replace(found, data=stated)
    bundle = detector.bundle.with_calibration(found)
    if heatmap_check and "cam" in detector.graph_outputs:
        bundle = _with_heatmap(bundle, detector, table, heatmap_check)
    bundle.save()
    _show_calibration(bundle.name, found, by)


def _scored(detector: Detector, table: pd.DataFrame, *, equalize: bool) -> pd.DataFrame:
    """The rows whose pictures can be scored, with the column `logit`."""
    from distildire.evaluate.scores import logits_of

    logits = logits_of(
        detector, table["path"].to_list(), equalized=equalize, progress=progress_bar("calibrate")
    )
    scored = table.assign(logit=logits).dropna(subset="logit")
    if lost := len(table) - len(scored):
        warn(f"{lost} of {len(table)} pictures could not be scored, and are left out")
    return scored


def _warn_of_few_sources(table: pd.DataFrame) -> None:
    """Say where whole sources can't be drawn."""
    from distildire.evaluate.bootstrap import MIN_CLUSTERS

    for label, count in table.groupby("label")["source"].nunique().items():
        if count < MIN_CLUSTERS:
            warn(
                f"the {label} pictures are of {count} source{'s' * (count > 1)}, of the "
                f"{MIN_CLUSTERS} that --confidence needs: single pictures are drawn, and the "
                "budget may be missed on other sources"
            )


def _with_heatmap(bundle: Bundle, detector: Detector, table: pd.DataFrame, count: int) -> Bundle:
    """The bundle with what its heat maps are worth, on `count` pictures of each class."""
    from distildire.evaluate.checks import heatmap_check

    bundle = replace(bundle, heatmap=heatmap_check(detector, table, count))
    typer.echo(bundle.heatmap_note)
    return bundle


def _show_calibration(name: str, found: Calibration, by: str) -> None:
    typer.echo(
        f"{name}: temperature {found.temperature:.3f}, bias {found.bias:+.3f}, from "
        f"{found.n_real} real and {found.n_fake} fake pictures"
    )
    _show_thresholds(found)
    for kind_name, kind in found.kinds.items():
        few = "" if kind.has_thresholds else ": too few real pictures, thresholds of all pictures"
        typer.echo(f"{by} {kind_name}: {kind.n_real} real and {kind.n_fake} fake pictures{few}")
        if kind.has_thresholds:
            _show_thresholds(found.for_kind(kind_name))


def _show_thresholds(calibration: Calibration) -> None:
    from distildire.calibration import SPELLED_OUT

    for budget in SPELLED_OUT:
        below, above = calibration.thresholds(budget)
        typer.echo(f"  budget {budget:.0%}: real below {below:.3f}, fake above {above:.3f}")


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Extrapolate DIRE from two of its forty passes.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("bench"),
    device: DeviceOption = DeviceName.cpu,
    limit: Annotated[
        float, typer.Option(help="On a GPU: seconds for all of it.", min=10.0)
    ] = 450.0,
) -> None:
    """What a verdict costs: DIRE, DistilDIRE and nano side by side, on this machine.

    A pass of ADM takes seconds on a CPU and 4 GB of memory; random weights stand in where
    its own are missing. With --device cuda all run on the GPU, in float32 and bfloat16, many
    pictures at a time.
    """
    from distildire.bench import bench as run
    from distildire.bench import bench_gpu, gpu_works

    if device is DeviceName.cuda or (device is DeviceName.auto and gpu_works()):
        result = bench_gpu(out, limit=limit, progress=stage_bar)
    else:
        result = run(out, quick=quick, device=device.value, progress=stage_bar)
    for row in result["rows"]:
        if row["seconds_total"] is None:
            typer.echo(f"{row['method']}: {row['note']}")
            continue
        cost = f"{row['params']:,} parameters, {row['flops'] / 1e9:,.2f} GFLOP, "
        typer.echo(
            f"{row['method']}: {cost if row['flops'] else ''}{row['seconds_total']:.4g} s, "
            f"{row['peak_rss_bytes'] / 2**30:.2f} GiB; best {row['seconds_best_batch']:.4g} s "
            f"at {row['best_batch']}"
        )
    for claim in result["claims"]:
        typer.echo(
            f"{claim['method']} {claim['claim']}: {claim['value']:.6g} (at least "
            f"{claim['target']:g}: {'holds' if claim['holds'] else 'fails'})"
        )
    say(out / "bench.md")
