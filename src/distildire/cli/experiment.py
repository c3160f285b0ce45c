"""`distildire experiment`: ablations with seeds, a table and a plot."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distildire.cli.app import app, fail, say


@app.command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="no-distill, lambda, noise-branch, teachers, backbones, noise-sources or "
            "cross-generator."
        ),
    ],
    config: Annotated[Path, typer.Option(help="Its YAML, configs/experiments/NAME.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and results.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. base.optim.steps=100.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, e.g. 0,1,2; those of the YAML.")] = "",
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Only this arm (repeatable); the way to run those on request."),
    ] = None,
) -> None:
    """Compare arms that differ in one thing, on held-out sources, over several seeds.

    Finished runs are kept: start it again to go on, or with more seeds to add to it.
    """
    from distildire.experiments.config import load_experiment
    from distildire.experiments.run import run_experiment

    try:
        chosen = [int(part) for part in seeds.split(",") if part.strip()]
    except ValueError:
        fail(f"--seeds {seeds}: give whole numbers with commas between, for instance 0,1,2")
    options = load_experiment(name, config, set_ or [], chosen)
    command = shlex.join(["distildire", *sys.argv[1:]])
    results = run_experiment(
        name, options, out, arms=arm or [], command=command, progress=_progress
    )
    runs = [run for a in results["arms"].values() for run in a["runs"]]
    failed = sum("error" in run for run in runs)
    say(out / "table.md", f"{len(runs) - failed} runs, {failed} failed")
    raise typer.Exit(1 if failed else 0)


def _progress(run: str, row: dict[str, Any]) -> None:
    values = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step")
    typer.echo(f"{run}: step {row['step']}: {values}", err=True)
