"""Exported graphs: their map averages to the student's own logit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distildire import Detector
from distildire.bundle import load_bundle
from distildire.distill.checkpoint import build_student, save
from distildire.distill.config import TrainConfig
from distildire.distill.export import TOLERANCE, DetectorGraph, export
from distildire.distill.student import Fusion, Student
from distildire.io.config import build
from distildire.noise import load_noise_source


@pytest.mark.parametrize("fusion", ["concat", "separate"])
def test_cam_averages_to_the_logit(fusion: Fusion) -> None:
    torch.manual_seed(1)
    student = Student("resnet18", stage=2, fusion=fusion).eval()
    nn.init.normal_(student.head.weight, std=0.1)
    nn.init.normal_(student.head.bias)
    graph = DetectorGraph(load_noise_source("nano"), student)
    rgb = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        logit, cam, eps0 = graph(rgb)
        x0 = rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = student(x0, eps0)
    assert cam.shape == (2, 8, 8)
    assert torch.allclose(cam.mean((1, 2)), logit, atol=1e-5)
    assert torch.allclose(logit, expected, atol=1e-5)


def test_a_wide_student_exports_with_an_exact_map(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    torch.manual_seed(0)
    options = {
        "student": {"backbone": "tf_efficientnet_lite0", "wide": True},
        "preprocessing": {"crop": 96, "crops": 2, "halves": 1},
    }
    config = build(TrainConfig, options)
    student = build_student(config).eval()
    nn.init.normal_(student.head.weight, std=0.02)
    save(tmp_path / "best.pt", {"student": student.state_dict()}, config)
    detector = Detector(export(tmp_path / "best.pt", tmp_path / "bundle", weights="float32").folder)
    assert not [w for w in recwarn if w.category.__name__ == "TracerWarning"]
    rgb = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    crops = detector.bundle.preprocessing(rgb)
    assert crops.shape == (3, 96, 96, 3)
    logit, cam = detector.run_graph("logit", crops), detector.run_graph("cam", crops)
    assert cam.mean((1, 2)) == pytest.approx(logit, abs=1e-4)
    with pytest.raises(ValueError, match="multiple of the backbone"):
        export(
            tmp_path / "best.pt", tmp_path / "uneven", weights="float32", preprocessing={"crop": 72}
        )


def test_a_failed_export_leaves_the_old_bundle_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    options = {
        "student": {"backbone": "resnet18", "stage": 2, "inputs": "image"},
        "preprocessing": {"crop": 64},
    }
    config = build(TrainConfig, options)
    save(tmp_path / "best.pt", {"student": build_student(config).state_dict()}, config)
    out = tmp_path / "bundle"
    export(tmp_path / "best.pt", out)
    (out / "notes.txt").write_text("mine")

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.iterdir()}

    before = content()
    monkeypatch.setitem(TOLERANCE, "int8", -1.0)
    with pytest.raises(ValueError, match="logits are off"):
        export(tmp_path / "best.pt", out, weights="int8", name="other")
    assert content() == before
    export(tmp_path / "best.pt", out, weights="float32", name="other")
    after = content()
    assert after.keys() == before.keys() == {"model.onnx", "bundle.json", "notes.txt"}
    assert len(after["model.onnx"]) > len(before["model.onnx"])
    assert load_bundle(out).name == "other"


def test_a_student_of_nan_is_not_exported(tmp_path: Path) -> None:
    config = build(TrainConfig, {"student": {"backbone": "resnet18", "stage": 1}})
    student = build_student(config)
    nn.init.constant_(student.head.bias, torch.nan)
    save(tmp_path / "best.pt", {"student": student.state_dict()}, config)
    with pytest.raises(ValueError, match="off by nan"):
        export(tmp_path / "best.pt", tmp_path / "bundle", weights="float32")
    assert not list((tmp_path / "bundle").iterdir())


def test_a_convolutional_bundle_is_no_beginning(tmp_path: Path) -> None:
    student = {"backbone": "resnet18", "stage": 1, "inputs": "image"}
    config = build(TrainConfig, {"student": student, "preprocessing": {"crop": 32, "crops": 1}})
    save(tmp_path / "best.pt", {"student": build_student(config).state_dict()}, config)
    bundle = export(tmp_path / "best.pt", tmp_path / "bundle", weights="float32")
    begun = build(TrainConfig, {"student": student | {"init": str(bundle.folder)}})
    with pytest.raises(
        ValueError, match=r"bundle: not the weights of this network .*give best\.pt"
    ):
        build_student(begun)
