"""LoRA: begins at the network as it is, moves no more than its rank, and leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from distildire.distill.checkpoint import build_student, load_checkpoint, save
from distildire.distill.config import TrainConfig
from distildire.distill.lora import LowRankLinear, add_low_rank, merged
from distildire.distill.start import read_saved
from distildire.distill.train import train
from distildire.distill.vit import CLIP, DINO, VitBackbone
from distildire.io.config import build

RANK = 2


def test_a_change_of_low_rank_begins_at_nothing_and_merges_to_plain_weights() -> None:
    torch.manual_seed(0)
    plain, network = (VitBackbone(CLIP, 2).eval() for _ in range(2))
    network.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    add_low_rank(network.network, RANK)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))
        for module in network.modules():
            if isinstance(module, LowRankLinear):
                torch.nn.init.normal_(module.b, std=0.2)
        changed = network(x)
        assert not torch.allclose(changed, plain(x), atol=0.1)
        plain.load_state_dict(merged(network.state_dict()))
        assert torch.allclose(plain(x), changed, atol=1e-4)


def test_training_changes_matrices_by_its_rank_and_nothing_else_of_the_body(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for source in ("t", "v"):
        for label in ("real", "fake"):
            for i in range(6):
                rgb = rng.integers(0, 255 if label == "real" else 40, (64, 64, 3), dtype=np.uint8)
                path = tmp_path / f"{source}-{label}-{i}.png"
                Image.fromarray(rgb).save(path)
                rows.append([path.name, label, "train", source, source])
    table = pd.DataFrame(rows, columns=["path", "label", "split", "source", "repository"])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    tree = {
        "data": {"manifests": [str(tmp_path / "manifest.csv")], "val_sources": ["v"]},
        "preprocessing": {"crop": 32, "crops": 1},
        "student": {"backbone": DINO, "stage": 1, "inputs": "image", "wide": True},
        "teacher": {"backbone": ""},
        "optim": {"steps": 6, "batch": 4, "lr": 0.01, "warmup": 1, "workers": 0, "lora": RANK},
        "validation": {"every": 6},
    }
    start = build(TrainConfig, {**tree, "optim": {}}, "start")
    torch.manual_seed(1)
    before = build_student(start)
    save(tmp_path / "start.pt", {"student": before.state_dict()}, start)
    tree["student"] = {**tree["student"], "init": str(tmp_path / "start.pt")}  # type: ignore[dict-item]
    best = train(build(TrainConfig, tree, "lora"), tmp_path / "run")

    after, _, _ = load_checkpoint(best)  # a plain student's names
    old, new = before.state_dict(), after.state_dict()
    for name, weight in old.items():
        if name.startswith("backbone.network."):
            layer = name.endswith("weight") and (".attn." in name or ".mlp." in name)
            rank = torch.linalg.matrix_rank(new[name] - weight, atol=1e-5) if layer else 0
            assert layer or torch.equal(new[name], weight), name
            assert (0 < rank <= RANK) == layer, name
    end = read_saved(tmp_path / "run" / "checkpoint.pt")["student"]
    assert end.keys() == old.keys()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optim"]["lora"] == RANK


def test_low_rank_is_for_transformers(tmp_path: Path) -> None:
    config = build(
        TrainConfig,
        {"student": {"backbone": "resnet18"}, "teacher": {"backbone": ""}, "optim": {"lora": 4}},
        "test",
    )
    from distildire.distill.networks import build_networks

    with pytest.raises(ValueError, match="no transformer"):
        build_networks(config, torch.device("cpu"))
