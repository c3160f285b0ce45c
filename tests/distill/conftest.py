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
