"""`distildire record`: one picture's forensic record, to file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distildire.cli.app import FprOption, KindOption, ModelOption, app, fail

_SUFFIXES = frozenset({".json", ".html", ".htm"})


@app.command()
def record(
    picture: Annotated[str, typer.Argument(help="The picture to examine.")],
    model: ModelOption = "nano",
    out: Annotated[
        Path | None,
        typer.Option(help="A folder, or a file that ends in .json or .html; else here."),
    ] = None,
    fpr: FprOption = 0.01,
    kind: KindOption = None,
    stability: Annotated[bool, typer.Option(help="Score re-encoded copies too.")] = True,
    heatmap: Annotated[bool, typer.Option(help="Add where the score comes from.")] = True,
) -> None:
    """Write the record of a verdict, as JSON and as one self-contained page.

    The same picture, model and versions give the same bytes. Exit code 1: the picture could
    not be scored, and there is no record; 2: wrong usage.
    """
    from distildire.detector import Detector
    from distildire.explain.record import make_record
    from distildire.io.pictures import ImageError

    targets = _targets(picture, out)
    detector = Detector(model, fpr=fpr, kind=kind)
    try:
        made = make_record(detector, picture, fpr=fpr, stability=stability, heatmap=heatmap)
    except ImageError as error:
        typer.echo(f"distildire: {picture}: {error}", err=True)
        raise typer.Exit(1) from None
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        typer.echo(made.save(target))


def _targets(picture: str, out: Path | None) -> list[Path]:
    """One file where `out` names one; else both kinds, named after the picture."""
    if out is not None and out.suffix.lower() in _SUFFIXES and not out.is_dir():
        return [out]
    folder = out or Path()
    if folder.exists() and not folder.is_dir():
        fail(f"--out {out}: give a folder, or a file that ends in .json or .html")
    # The whole name, so that a.jpg and a.png of one folder don't meet.
    return [folder / f"{Path(picture).name}.record{suffix}" for suffix in (".json", ".html")]
