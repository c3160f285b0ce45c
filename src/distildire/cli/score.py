"""`distildire score`: very many pictures into Parquet parts."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
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
    from distildire.io.finding import OnError
    from distildire.scale.pace import Pace
    from distildire.scale.score import OnPace

CLEAR = "\r\033[K"
"""To the beginning of a terminal's line, which is empty then."""


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
    Exit code 0: every file of SOURCE has a score; 1: some have an error; 2: wrong usage.
    """
    if price is not None and not math.isfinite(price):
        fail(f"--price {price}: give a finite number")
    from distildire.scale.pace import cost_per_million
    from distildire.scale.score import score as run

    def say(took: str) -> None:
        typer.echo(f"distildire: device {took}", err=True)

    if out.lower().startswith("memory://"):
        warn(f"--out {out}: ends with this process: nothing of it is kept")
    with pace_line() as (draw, warn_above):
        report = run(
            source, out, model=model, fpr=fpr, engine=engine.value, device=device.value,
            dedup=dedup, isolate=isolate, gpu_share=gpu_share,
            progress=draw, on_error=warn_above,
            on_device=say if device is DeviceName.auto else None,
        )  # fmt: skip
    copies = f", {report.copies} of them copies" if dedup else ""
    lines = [
        f"{report.scored} scored{copies}, {report.present} there already, "
        f"{report.errors} with an error"
    ]
    if price is not None and report.scored and report.seconds:
        cost = cost_per_million(price, report.cores, report.scored, report.seconds)
        lines.append(
            f"{cost:.2f} a million pictures, at {price:g} a core-hour "
            f"({report.scored / report.seconds:.1f} a second on {report.cores} cores)"
        )
    for line in (*lines, out):
        typer.echo(shown(line))
    raise typer.Exit(1 if report.errors else 0)


@contextlib.contextmanager
def pace_line() -> Iterator[tuple[OnPace | None, OnError]]:
    """(what draws the pace on stderr, twice a second, if that is a terminal; what warns there).

    Warnings, those of the log too, stand above the line, which is gone at the end.
    """
    is_drawn, last = sys.stderr.isatty(), 0.0

    def clear() -> None:
        if is_drawn:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()

    def draw(pace: Pace) -> None:
        nonlocal last
        if pace.seconds - last >= 0.5:
            last = pace.seconds
            sys.stderr.write(f"{CLEAR}pictures: {pace}")
            sys.stderr.flush()

    def warn_above(message: str) -> None:
        clear()
        warn(message)

    handler = _Handler(warn_above)
    logging.getLogger("distildire").addHandler(handler)
    try:
        yield draw if is_drawn else None, warn_above
    finally:
        logging.getLogger("distildire").removeHandler(handler)
        clear()


class _Handler(logging.Handler):
    """Hands the warnings of a log on."""

    def __init__(self, tell: OnError) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging` asks for it."""
        self._tell(record.getMessage())
