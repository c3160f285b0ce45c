from __future__ import annotations

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs/accelerate"

MACHINES = {"one-gpu": (1, 1), "eight-gpus": (1, 8), "two-nodes": (2, 16)}


@pytest.mark.parametrize("name", MACHINES)
def test_accelerate_reads_each_config(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes) == MACHINES[name]
    assert config.use_cpu is False


def test_there_are_no_others() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(MACHINES)
