"""From a dataset to a bundle: rebuild, prepare, noise, train and export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distildire.cli.app import AcceptLeak, app, fail, progress_bar, refuse_input, show_row


@app.command()
def prepare(
    dataset: Annotated[
        Path | None, typer.Argument(help="A folder or list in one of the field's layouts.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv.")] = Path(
        "manifest.parquet"
    ),
    real: Annotated[Path | None, typer.Option(help="Folder of real pictures.")] = None,
    fake: Annotated[Path | None, typer.Option(help="Folder of generated pictures.")] = None,
) -> None:
    """Write a manifest: any known layout, or --real DIR --fake DIR."""
    from distildire.data.prepare import prepare as run

    refuse_input(out, dataset)
    table = run(dataset, out, real=real, fake=fake)
    counts = table["label"].value_counts()
    typer.echo(
        f"{out}: {counts.get('real', 0)} real and {counts.get('fake', 0)} fake pictures "
        f"({table.attrs.get('layout', 'pairs')})"
    )


@app.command()
def rebuild(
    manifest: Annotated[Path, typer.Argument(help="Manifest of originals: repository, commit, "
                                             "original_path, label.")],
    clones: Annotated[Path, typer.Option(help="Folder of git clones: DIR/owner+name or "
                                         "DIR/owner/name, bare or not.")],
    out: Annotated[Path, typer.Option(help="Folder of the crops and of their manifest.")],
) -> None:  # fmt: skip
    """Make training crops again from local git clones, verified by hash; resumable."""
    from distildire.data.rebuild import rebuild as run

    result = run(manifest, clones, out, progress=progress_bar("rebuild"))
    typer.echo(f"{out}: {result}")
    if result.problems:
        typer.echo(f"reasons: {out / 'problems.csv'}", err=True)
    raise typer.Exit(1 if result.problems else 0)


@app.command()
def noise(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the pictures.")],
    source: Annotated[str, typer.Option(help="nano, adm, or a folder or .pt of a UNet.")],
    out: Annotated[Path, typer.Option(help="Folder of the cache.")],
    dire: Annotated[
        bool, typer.Option("--dire", help="DIRE in the place of eps0: 40 passes per picture.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    batch: Annotated[int, typer.Option(help="Pictures per pass.")] = 8,
    split: Annotated[str, typer.Option(help="Only rows of this split.")] = "",
) -> None:
    """Compute eps0, or DIRE if asked, of a manifest's pictures into a cache; resumable.

    `train` reads DIRE there (`data.dire_cache`). It computes eps0 itself, after augmentation:
    what is stored of that is for programs of your own (`distildire.data.cache.NoiseCache`).
    """
    from distildire.data.prepare import NoiseOptions
    from distildire.data.prepare import noise as run

    options = NoiseOptions(dire, device=device, dtype=precision, batch=batch, split=split)
    report = run(manifest, source, out, options, progress=progress_bar("noise"))
    typer.echo(
        f"{out}: {report.computed} computed, {report.present} there already, "
        f"{len(report.failed)} failed"
    )
    for path, error in report.failed:
        typer.echo(f"{path}: {error}", err=True)
    raise typer.Exit(1 if report.failed else 0)


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="YAML file; the keys are those of TrainConfig.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. optim.steps=500.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")
    ] = False,
    accept_leak: AcceptLeak = False,
) -> None:
    """Distil a detector: the student learns the labels and the teacher's feature map.

    A config with `task: noise` trains the nano noise predictor instead.

    On several GPUs: `accelerate launch -m distildire train --config FILE`.
    """
    from distildire.distill.config import TrainConfig
    from distildire.distill.train import train as run
    from distildire.io.config import load_config, task_of

    if task_of(config) == "noise":
        from distildire.distill.fit_noise import NoiseConfig, fit_from_manifest

        if resume:
            fail("--resume: a noise predictor is fitted in minutes, and from the start")
        fit = load_config(NoiseConfig, config, set_ or [])
        target = out or Path("runs") / fit.name
        fit_from_manifest(fit, target, log=show_row)
        typer.echo(target)
        return
    options = load_config(TrainConfig, config, set_ or [])
    if not resume:
        _refuse_leaks(options.data.manifests, accept_leak)
    best = run(options, out or Path("runs") / options.name, resume=resume, report=show_row)
    typer.echo(best)


def _refuse_leaks(manifests: tuple[str, ...], accept: bool) -> None:
    """Training crops are cut and recompressed alike, yet a leak of the files can shine through."""
    from distildire.data.audit import audit, refuse_leak
    from distildire.data.manifest import read_manifests

    if accept:
        return
    refuse_leak(audit(read_manifests(manifests), progress=progress_bar("audit")))


class ExportFormat(StrEnum):
    """What a checkpoint or a bundle is turned into."""

    bundle = "bundle"
    torch = "torch"
    safetensors = "safetensors"
    openvino = "openvino"


class StoredWeights(StrEnum):
    """Precision of the weights in a bundle."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    int4 = "int4"


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="best.pt of a training run; for openvino a bundle.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="A bundle; one that runs in torch; the plain state_dict; or OpenVINO's graph."
        ),
    ] = ExportFormat.bundle,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    crops: Annotated[int | None, typer.Option(help="Crops scored for each picture, 0-5.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of a crop, in pixels.")] = None,
    halves: Annotated[
        int | None, typer.Option(help="Crops of the picture at half its size, 0-5.")
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Largest shorter side, in pixels, that crops are cut from.")
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(
            help="Orientations that each crop is seen in: 1, 2 (mirrored), 4 (upside down), 8."
        ),
    ] = None,
    weights: Annotated[
        StoredWeights,
        typer.Option(
            help="How they are stored; int8, int4: matrices of CLIP's blocks in so many bits, "
            "with products in eight."
        ),
    ] = StoredWeights.float16,
) -> None:
    """Turn a checkpoint into a bundle: one ONNX graph from RGB to logit.

    `--format torch` writes a bundle that runs in torch beside its noise source (with ADM the
    graph would weigh gigabytes); `--format safetensors` writes the student alone, as
    `Student.from_pretrained` reads it; `--format openvino` converts the graph of a bundle that
    is there already.
    """
    asked = {
        "crops": crops, "crop": crop, "halves": halves, "short_side": short_side, "turns": turns,
    }  # fmt: skip
    if format is ExportFormat.openvino:
        _export_openvino(checkpoint, out)
    elif format is ExportFormat.torch:
        _export_torch(checkpoint, out, name)
    elif format is ExportFormat.safetensors:
        _export_safetensors(checkpoint, out)
    else:
        changes = {key: value for key, value in asked.items() if value is not None}
        _export_bundle(checkpoint, out, name, weights, changes)


def _export_openvino(bundle: Path, out: Path) -> None:
    from distildire.bundle import load_bundle
    from distildire.runtime.openvino import to_openvino

    refuse_input(out, bundle)
    typer.echo(to_openvino(load_bundle(bundle), out))


def _export_torch(checkpoint: Path, out: Path, name: str | None) -> None:
    from distildire.distill.torch_bundle import export_torch

    typer.echo(f"{export_torch(checkpoint, out, name=name).folder}: not calibrated yet")


def _export_safetensors(checkpoint: Path, out: Path) -> None:
    from distildire.distill.checkpoint import load_checkpoint

    load_checkpoint(checkpoint)[0].save_pretrained(out)  # type: ignore[operator]
    typer.echo(out / "model.safetensors")


def _export_bundle(
    checkpoint: Path, out: Path, name: str | None, weights: StoredWeights, changes: dict[str, int]
) -> None:
    from distildire.distill.checkpoint import load_checkpoint
    from distildire.distill.export import export as run
    from distildire.distill.split import describe_data

    bundle = run(
        checkpoint, out, name=name, weights=weights.value, preprocessing=changes,
        provenance={
            "command": "distildire train --config config.yaml; distildire export best.pt",
            "data": describe_data(load_checkpoint(checkpoint)[1]),
        },
    )  # fmt: skip
    typer.echo(f"{bundle.folder}: {bundle.graph.stat().st_size / 1e6:.1f} MB, not calibrated yet")
