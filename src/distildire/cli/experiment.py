"""`distildire experiment`: ablations with seeds, a table and a plot."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import distildire
from distildire.cli.app import app, fail, say, show_row, stage_bar


@app.command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="no-distill, lambda, eps0, noise-branch, teachers, bodies, backbones, "
            "noise-sources, cross-generator or small-world."
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
    small-world checks the paper's claims at 64 pixels, with generators that it trains itself.
    """
    if name == "small-world":
        if seeds or arm:
            fail("small-world takes its seeds and arms from --config and --set")
        _small_world(config, out, set_ or [])
        return
    from distildire.experiments.config import EXPERIMENTS, load_experiment
    from distildire.experiments.run import run_experiment

    if name not in EXPERIMENTS:
        fail(f"no experiment {name!r} (there are {', '.join(EXPERIMENTS)}, small-world)")
    try:
        chosen = [int(part) for part in seeds.split(",") if part.strip()]
    except ValueError:
        fail(f"--seeds {seeds}: give whole numbers with commas between, for instance 0,1,2")
    options = load_experiment(name, config, set_ or [], chosen)
    command = shlex.join(["distildire", *sys.argv[1:]])
    results = run_experiment(
        name,
        options,
        out,
        arms=arm or [],
        command=command,
        progress=lambda run, row: show_row(row, run),
    )
    runs = [run for a in results["arms"].values() for run in a["runs"]]
    failed = sum("error" in run for run in runs)
    say(out / "table.md", f"{len(runs) - failed} runs, {failed} failed")
    raise typer.Exit(1 if failed else 0)


def _small_world(config: Path, out: Path, overrides: list[str]) -> None:
    projects = Path(distildire.__file__).parents[2] / "projects"
    if not (projects / "small_world").is_dir():
        fail(
            "small-world is not in the package: it runs from a checkout of the repository, "
            "installed there with pip install -e"
        )
    sys.path.insert(0, str(projects))
    options_of: Any = importlib.import_module("small_world.config")
    world: Any = importlib.import_module("small_world.run")
    from distildire.io.config import load_config

    options = load_config(options_of.WorldConfig, config, overrides)
    result = world.small_world(
        options, out, lambda stage, done, total, _: stage_bar(stage, done, total)
    )
    lines = [f"{a['claim']} ({a['family']}): {a['verdict']}" for a in result["answers"]]
    say(out / "small-world.md", *lines)
