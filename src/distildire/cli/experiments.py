"""`distildire experiment`: questions about the method, answered in one command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distildire.cli.app import app, say, stage_bar


class Experiment(StrEnum):
    """What can be run."""

    small_world = "small-world"


@app.command()
def experiment(
    name: Annotated[Experiment, typer.Argument(help="Which.")],
    config: Annotated[Path, typer.Option(help="YAML file of its options.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; a killed run goes on in it.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. adm.steps=200.")
    ] = None,
) -> None:
    """Run an experiment: small-world checks the paper's claims at 64 pixels on a CPU."""
    from distildire.config import load_config
    from distildire.experiments.small_world.config import WorldConfig
    from distildire.experiments.small_world.run import small_world

    options = load_config(WorldConfig, config, set_ or [])
    result = small_world(options, out, lambda stage, done, total, _: stage_bar(stage, done, total))
    lines = [f"{a['claim']} ({a['family']}): {a['verdict']}" for a in result["answers"]]
    say(out / f"{name.value}.md", *lines)
