"""`distildire models`: list, show, fetch and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distildire.cli.app import app, in_words, progress_bar, warn

models_app = typer.Typer(no_args_is_help=True, help="List, show, fetch and convert models.")
app.add_typer(models_app, name="models")

_LONG = 10
"""Entries of a list that `show` prints at most."""


@models_app.command("list")
def models_list() -> None:
    """The bundled models, one per line: name, size, what it looks at, calibration.

    One that can't be opened is named on stderr with the reason; the exit code is then 1.
    """
    from distildire.bundle import bundled, load_bundle

    broken = 0
    for name in bundled():
        try:
            bundle = load_bundle(name)
        except (ValueError, OSError) as error:
            reason = in_words(error) if isinstance(error, OSError) else str(error)
            warn(f"{name}: {reason.removeprefix(f'{name}: ')}")
            broken += 1
            continue
        cut, size = bundle.preprocessing, bundle.graph.stat().st_size / 1e6
        images = bundle.calibration.n_real + bundle.calibration.n_fake if bundle.calibration else 0
        typer.echo(
            f"{name}\t{size:.1f} MB\t{cut.in_words()}\t"
            f"calibrated on {images:,} pictures\tsha256 {bundle.sha256[:12]}"
        )
    raise typer.Exit(1 if broken else 0)


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="Name or folder.")] = "nano",
    everything: Annotated[
        bool, typer.Option("--json", help="All that is recorded of it, as JSON, and no card.")
    ] = False,
) -> None:
    """A model's card, then what is recorded of it: without its config, long lists as a count."""
    import json

    from distildire.bundle import load_bundle

    bundle = load_bundle(model)
    about = json.loads((bundle.folder / "bundle.json").read_text())
    card = bundle.folder / "MODEL_CARD.md"
    if not everything:
        if card.is_file():
            typer.echo(card.read_text())
        (about.get("provenance") or {}).pop("config", None)
        about = _brief(about)
    typer.echo(json.dumps(about, indent=2))


def _brief(value: Any) -> Any:
    """A tree with its long lists as their length, and numbers of six digits."""
    if isinstance(value, dict):
        return {name: _brief(part) for name, part in value.items()}
    if isinstance(value, list):
        return f"{len(value)} entries" if len(value) > _LONG else [_brief(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


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
