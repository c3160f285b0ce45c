"""Pictures to train on, and the options of a short run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from distildire.distill.config import TrainConfig
from distildire.io.config import build


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fakes are smooth, reals are noisy: four sources, two of them for validation."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for source in ("t1", "t2", "v1", "v2"):
        for label in ("real", "fake"):
            for i in range(12):
                rgb = np.full((72, 72, 3), rng.integers(60, 190), float)
                rgb += rng.normal(0, 18 if label == "real" else 1, rgb.shape)
                path = folder / f"{source}-{label}-{i}.png"
                Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)
                rows.append([path.name, label, "train", source, source])
    table = pd.DataFrame(rows, columns=["path", "label", "split", "source", "repository"])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture
def config(manifest: Path) -> TrainConfig:
    return build(
        TrainConfig,
        {
            "name": "tiny",
            "data": {"manifests": [str(manifest)], "val_sources": ["v1", "v2"]},
            "preprocessing": {"crop": 32, "crops": 2},
            "student": {"backbone": "resnet18", "stage": 2},
            "teacher": {"backbone": "resnet18", "stage": 2, "pretrained": False, "lambda_": 0.01},
            "augment": {"jpeg": 0.2, "webp": 0.0, "blur": 0.0, "noise": 0.0},
            "optim": {"steps": 24, "batch": 8, "lr": 0.002, "warmup": 2, "workers": 0, "ema": 0.8},
            "validation": {"every": 12},
        },
    )


@pytest.fixture
def rough_fakes(tmp_path: Path) -> TrainConfig:
    """Noise against smooth colour, four repositories, two of them held out by their split."""
    rng, rows = np.random.default_rng(0), []
    for i in range(24):
        fake = i % 2 == 1
        smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((96, 96))
        noisy = Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8))
        (noisy if fake else smooth).save(tmp_path / f"{i}.png")
        split = "train" if i < 16 else "val"
        rows.append(
            {
                "path": f"{i}.png",
                "label": "fake" if fake else "real",
                "split": split,
                "repository": f"{split}{i % 4 // 2}",
                "source": f"{split}{i % 4}",
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    tree = {
        "data": {"manifests": [str(tmp_path / "manifest.csv")], "val_split": "val"},
        "preprocessing": {"crop": 32, "crops": 1},
        "student": {"backbone": "resnet18", "stage": 1, "inputs": "image"},
        "teacher": {"backbone": ""},
        "optim": {"steps": 6, "batch": 4, "lr": 0.01, "warmup": 1, "workers": 0},
        "validation": {"every": 3},
    }
    return build(TrainConfig, tree, "test")
