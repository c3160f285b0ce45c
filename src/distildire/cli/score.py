"""`distildire score`: very many pictures into Parquet parts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distildire.cli.app import (
    DeviceName,
    DeviceOption,
    FprOption,
    ModelOption,
    app,
    progress_bar,
    say,
)


class Engine(StrEnum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


@app.command()
def score(
    source: Annotated[
        Path,
        typer.Argument(help="A folder, a manifest (.parquet, .csv), or a list: one path a line."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the part-*.parquet files.")],
    engine: Annotated[
        Engine, typer.Option(help="This machine, or a Ray cluster (extra 'scale').")
    ] = Engine.local,
    model: ModelOption = "nano",
    fpr: FprOption = 0.01,
    device: DeviceOption = DeviceName.cpu,
) -> None:
    """Score very many pictures; run it again after a kill, and it goes on.

    A row an image, keyed by path, size and modification time; changed files are scored again.
    Exit code 0: every file has a score; 1: some rows have an error; 2: wrong usage.
    """
    from distildire.scale.score import score as run

    bar = progress_bar("pictures")
    report = run(
        source, out, model=model, fpr=fpr, engine=engine.value, device=device.value,
        progress=lambda done: bar(done, None),
    )  # fmt: skip
    say(
        out,
        f"{report.scored} scored, {report.present} there already, {report.errors} with an error",
    )
    raise typer.Exit(1 if report.errors else 0)
