"""Two processes walk the path of one with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch.distributed import TCPStore

from distildire.distill.config import TrainConfig
from distildire.distill.train import train
from distildire.io.config import load_config

STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny set (fakes are smooth), and a report at every step."""
    folder = tmp_path_factory.mktemp("two")
    rng = np.random.default_rng(0)
    rows = []
    for source in ("t", "v"):
        for label in ("real", "fake"):
            for i in range(12):
                rgb = rng.integers(60, 190) + rng.normal(
                    0, 18 if label == "real" else 1, (48, 48, 3)
                )
                name = f"{source}-{label}-{i}.png"
                Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(folder / name)
                rows.append([name, label, "train", source, source])
    columns = ["path", "label", "split", "source", "repository"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    tree = {
        "data": {"manifests": [str(folder / "manifest.csv")], "val_sources": ["v"]},
        "preprocessing": {"crop": 32, "crops": 1},
        "noise": "nano",
        "student": {"backbone": "resnet18", "stage": 2},
        "teacher": {"backbone": "resnet18", "stage": 2, "pretrained": False, "lambda_": 0.1},
        "augment": {"jpeg": 0.2, "webp": 0.0},
        # Batch statistics are each process's own, as in any data-parallel run; held still,
        # nothing is left that two processes may do otherwise than one.
        "optim": {"steps": STEPS, "lr": 0.002, "warmup": 2, "workers": 0, "ema": 0.8,
                  "report_every": 1, "freeze_norm": True},
        "validation": {"every": 12, "patience": 9},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder / "config.yaml"


def in_two_processes(config: Path, out: Path, batch: int, workers: int) -> None:
    """`train` twice over, told of each other by the variables that torchrun would set.

    On a CPU `accelerate launch --num_processes 2` quietly starts one process.
    """
    command = [
        sys.executable, "-m", "distildire", "train", "--config", str(config), "--out", str(out),
        "--set", f"optim.batch={batch}", "--set", f"optim.workers={workers}",
        "--accept-leak",
    ]  # fmt: skip
    # The store by which they meet is held here, as torchrun does: a port that was looked for and
    # closed again may be anyone's by the time that torch is imported.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
             "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
             "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    files = [out.with_name(f"errors-{rank}.txt") for rank in (0, 1)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank, file in enumerate(files):
            with file.open("w") as stderr:  # a pipe that nobody empties would stop its process
                processes.append(subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=stderr,
                    env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                ))  # fmt: skip
        until = time.monotonic() + 1200
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            if any(process.poll() for process in processes):
                break  # the other would wait for it
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
        ends = [process.wait() for process in processes]
    errors = [file.read_text() for file in files]
    assert ends == [0, 0], "\n".join(said[-3000:] for said in errors)
    # What torch says of a group that nobody took down; such an end aborts now and then.
    assert not any("destroy_process_group" in said for said in errors)


def rows_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").open()]


@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_learn_what_one_learns(workers: int, config: Path, tmp_path: Path) -> None:
    """With workers, the loaders' threads are at work until the end."""
    in_two_processes(config, tmp_path / "two", 8, workers)
    train(load_config(TrainConfig, config, ["optim.batch=16"]), tmp_path / "one")
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert len(two) == len(one)  # the main process alone writes
    for name in ("loss", "bce", "imitation"):
        curves = [[row[name] for row in rows if name in row] for rows in (one, two)]
        assert len(curves[0]) == STEPS
        np.testing.assert_allclose(curves[0], curves[1], rtol=2e-3, atol=1e-4)
    scores = [[row["val_auc"] for row in rows if "val_auc" in row] for rows in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    saved = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["learner"]
        for name in ("one", "two")
    ]
    worst = max(float((saved[0][k].float() - saved[1][k].float()).abs().max()) for k in saved[0])
    assert worst < 5e-3
