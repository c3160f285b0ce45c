"""`distildire score`: very many pictures into Parquet parts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from distildire.cli.app import (
    DeviceName,
    DeviceOption,
    FprOption,
    ModelOption,
    app,
    fail,
    warn,
)
from distildire.io.text import shown

if TYPE_CHECKING:
    from distildire.scale.pace import Pace


class EngineName(StrEnum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


@app.command()
def score(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a manifest (.parquet, .csv), a list (one path per line), tar shards, "
            "Parquet with image bytes; a pattern or an address (s3://...) of them."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder of the part-*.parquet files, or its address.")],
    engine: Annotated[
        EngineName, typer.Option(help="This machine, or a Ray cluster (extra 'scale').")
    ] = EngineName.local,
    model: ModelOption = "nano",
    fpr: FprOption = 0.01,
    device: DeviceOption = DeviceName.cpu,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Score equal bytes once; every file has its row.")
    ] = False,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate/--no-isolate",
            help="Decode in processes of their own, as --engine ray always does: a file that "
            "crashes its decoder costs one row.",
        ),
    ] = False,
    gpu_share: Annotated[
        float,
        typer.Option(help="With --engine ray on GPUs: part of one that an actor takes, 0 to 1."),
    ] = 1.0,
    price: Annotated[
        float | None,
        typer.Option(help="Of a core-hour: says what a million pictures would cost.", min=0.0),
    ] = None,
) -> None:
    """Score very many pictures; run it again after a kill, and it goes on.

    One row per image, keyed by path, size and modification time; changed files are scored again.
    Exit code 0: every file has a score; 1: some rows have an error; 2: wrong usage.
    """
    if price is not None and not math.isfinite(price):
        fail(f"--price {price}: give a finite number")
    from distildire.scale.pace import cost_per_million
    from distildire.scale.score import score as run

    def say(took: str) -> None:
        typer.echo(f"distildire: device {took}", err=True)

    if out.lower().startswith("memory://"):
        warn(f"--out {out}: ends with this process: nothing of it is kept")
    report = run(
        source, out, model=model, fpr=fpr, engine=engine.value, device=device.value,
        dedup=dedup, isolate=isolate, gpu_share=gpu_share,
        progress=pace_line(), on_error=warn,
        on_device=say if device is DeviceName.auto else None,
    )  # fmt: skip
    copies = f", {report.copies} of them copies" if dedup else ""
    lines = [
        f"{report.scored} scored{copies}, {report.present} there already, "
        f"{report.errors} with an error"
    ]
    if price is not None and report.scored:
        cost = cost_per_million(price, report.cores, report.scored, report.seconds)
        lines.append(
            f"{cost:.2f} a million pictures, at {price:g} a core-hour "
            f"({report.scored / report.seconds:.1f} a second on {report.cores} cores)"
        )
    for line in (*lines, out):
        typer.echo(shown(line))
    raise typer.Exit(1 if report.errors else 0)


def pace_line() -> Callable[[Pace], None] | None:
    """A callback that draws on stderr, twice a second, if that is a terminal."""
    if not sys.stderr.isatty():
        return None
    last = 0.0

    def draw(pace: Pace) -> None:
        nonlocal last
        if pace.seconds - last >= 0.5:
            last = pace.seconds
            sys.stderr.write(f"\r\033[Kpictures: {pace}")
            sys.stderr.flush()

    return draw
