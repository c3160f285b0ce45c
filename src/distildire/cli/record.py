"""`distildire record`: one picture's forensic record, to file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distildire.cli.app import (
    STDIN,
    FprOption,
    KindOption,
    ModelOption,
    app,
    fail,
    read_stdin,
    refuse_input,
    say,
    say_kind,
    warn,
)
from distildire.io.writing import make_folder, name_within

_SUFFIXES = frozenset({".json", ".html", ".htm"})


@app.command()
def record(
    picture: Annotated[str, typer.Argument(help="The picture to examine; - is one on stdin.")],
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

    targets = _targets("stdin" if picture == STDIN else picture, out)
    for target in targets:
        refuse_input(target, picture)
    detector = Detector(model, fpr=fpr, kind=kind)
    say_kind(detector)
    try:
        source = read_stdin() if picture == STDIN else picture
        made = make_record(
            detector, source, name=STDIN if picture == STDIN else None, fpr=fpr,
            stability=stability, heatmap=heatmap,
        )  # fmt: skip
    except (ImageError, MemoryError) as error:
        warn(f"{picture}: {str(error) or 'too large to judge in the memory at hand'}")
        raise typer.Exit(1) from None
    for target in targets:
        make_folder(target.parent)
    made.save_all(targets)
    say(targets[-1], *targets[:-1])


def _targets(picture: str, out: Path | None) -> list[Path]:
    """One file where `out` names one; else both kinds, named after the picture."""
    if out is not None and out.suffix.lower() in _SUFFIXES and not out.is_dir():
        return [out]
    folder = out or Path()
    if folder.exists() and not folder.is_dir():
        fail(f"--out {out}: give a folder, or a file that ends in .json or .html")
    # The whole name, so that a.jpg and a.png of one folder don't meet.
    name = name_within(Path(picture).name, 240)
    return [folder / f"{name}.record{suffix}" for suffix in (".json", ".html")]
