"""`distildire models`: list, show, fetch and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distildire.cli.app import app, progress_bar

models_app = typer.Typer(no_args_is_help=True, help="List, show, fetch and convert models.")
app.add_typer(models_app, name="models")


@models_app.command("list")
def models_list() -> None:
    """The bundled models, one per line: name, size, crops and calibration."""
    from distildire.bundle import bundled, load_bundle

    for name in bundled():
        bundle = load_bundle(name)
        cut, size = bundle.preprocessing, bundle.graph.stat().st_size / 1e6
        images = bundle.calibration.n_real + bundle.calibration.n_fake if bundle.calibration else 0
        typer.echo(
            f"{name}\t{size:.1f} MB\t{cut.views} crops of {cut.crop} px\t"
            f"calibrated on {images} pictures\tsha256 {bundle.sha256[:12]}"
        )


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="Name or folder.")] = "nano",
) -> None:
    """Everything that is recorded of a model, then its card."""
    import json

    from distildire.bundle import load_bundle

    bundle = load_bundle(model)
    about = json.loads((bundle.folder / "bundle.json").read_text())
    if about.get("calibration"):
        for key in ("real_quantiles", "fake_quantiles"):
            about["calibration"].pop(key, None)
    typer.echo(json.dumps(about, indent=2))
    card = bundle.folder / "MODEL_CARD.md"
    if card.is_file():
        typer.echo("\n" + card.read_text())


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="paper-imagenet, paper-celebahq or adm-imagenet256.")],
) -> None:
    """Download published weights into the cache folder, resumable and checked.

    Needs the network once; without it, one line says what to download and where to put it.
    """
    from distildire.io.download import fetch

    typer.echo(fetch(name, progress=progress_bar(name)))


@models_app.command("convert")
def models_convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint on disk.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    noise: Annotated[
        str, typer.Option(help="Noise source that a student will run on: adm, or a folder.")
    ] = "adm",
) -> None:
    """Convert a checkpoint: guided-diffusion's ADM to a noise source, a student to a bundle.

    `detect --model FOLDER` runs the bundle of a student once its noise source is there
    (`models fetch adm-imagenet256`) and it is calibrated.
    """
    from distildire.distill.convert import convert

    target = out or file.with_suffix("")
    typer.echo(f"{convert(file, target, noise=noise)}: {target}")
