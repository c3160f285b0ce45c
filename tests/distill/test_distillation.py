"""A detector as the teacher, two views of one piece, rates that fall with depth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from distildire.data.augment import CLEAN, AugmentConfig, augment_twice
from distildire.distill.checkpoint import save
from distildire.distill.config import OptimConfig, TeacherConfig, TrainConfig
from distildire.distill.learner import Learner, parameter_groups
from distildire.distill.loss import consistency_loss, logit_kl
from distildire.distill.split import read_split
from distildire.distill.student import Student
from distildire.distill.teacher import DetectorTeacher
from distildire.distill.train import train
from distildire.distill.vit import DINO
from distildire.io.config import build


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
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


def test_the_clean_view_is_the_piece_and_the_other_is_degraded() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    off = replace(CLEAN, jpeg=0.0, tone=0.0)
    heavy = replace(AugmentConfig(), resize=0.0, flip=0.0, blur=1.0, sigma=(3.0, 3.0))
    clean, degraded = augment_twice(rgb, 64, heavy, off, np.random.default_rng(1))
    windows = np.lib.stride_tricks.sliding_window_view(rgb, (64, 64, 3)).reshape(-1, 64, 64, 3)
    assert (windows == clean).all(axis=(1, 2, 3)).any()
    assert degraded.std() < 0.5 * clean.std()


def test_eight_orientations() -> None:
    rgb = np.arange(72 * 72 * 3, dtype=np.uint32).reshape(72, 72, 3).astype(np.uint8)
    turned = replace(CLEAN, resize=0.0, jpeg=0.0, tone=0.0, orient=1.0)
    views = {augment_twice(rgb, 64, turned, turned, np.random.default_rng(s))[0][:8, :8].tobytes()
             for s in range(60)}  # fmt: skip
    assert len(views) > 8  # eight ways, each at some of its places


def test_the_losses_of_logits() -> None:
    logits = torch.tensor([1.0, -2.0, 3.0, 0.0])
    assert float(consistency_loss(logits)) == pytest.approx((4.0 + 4.0) / 2)
    student, teacher = torch.tensor([0.3, -1.0]), torch.tensor([2.0, -0.5])
    p, q = torch.sigmoid(teacher), torch.sigmoid(student)
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(logit_kl(student, teacher)) == pytest.approx(float(kl), abs=1e-6)
    assert float(logit_kl(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)


def test_rates_fall_towards_the_input() -> None:
    optim = OptimConfig(lr=1.0, body_lr=0.1, layer_decay=0.5, weight_decay=0.2)
    student = Student(DINO, stage=2, inputs="image", wide=True)
    learner = Learner(student, None, TeacherConfig(backbone=""), optim)
    rate = {id(p): g["lr"] for g in parameter_groups(learner, optim) for p in g["params"]}
    network = student.backbone.network
    assert rate[id(student.head.weight)] == 1.0
    assert rate[id(network.blocks[1].mlp.fc1.weight)] == pytest.approx(0.1)
    assert rate[id(network.blocks[0].mlp.fc1.weight)] == pytest.approx(0.05)
    assert rate[id(network.patch_embed.proj.weight)] == pytest.approx(0.025)
    decay = {
        id(p): g["weight_decay"] for g in parameter_groups(learner, optim) for p in g["params"]
    }
    assert decay[id(student.head.bias)] == 0.0
    assert decay[id(student.head.weight)] == 0.2


def test_the_first_blocks_can_stay_as_they_are() -> None:
    student = Student(DINO, stage=2, inputs="image", wide=True)
    optim = OptimConfig(frozen=1)
    groups = parameter_groups(Learner(student, None, TeacherConfig(backbone=""), optim), optim)
    learns = {id(p) for group in groups for p in group["params"]}
    network = student.backbone.network
    for part, expected in ((network.patch_embed, False), (network.blocks[0], False),
                           (network.blocks[1], True), (student.head, True)):  # fmt: skip
        for p in part.parameters():
            assert (id(p) in learns) == p.requires_grad == expected


def test_a_frozen_body_stays(config: TrainConfig, tmp_path: Path) -> None:
    frozen = replace(config, optim=replace(config.optim, body_lr=0.0, ema=0.0))
    torch.manual_seed(0)
    before = Student("resnet18", stage=1, inputs="image").backbone.network.conv1.weight.clone()
    save(tmp_path / "start.pt", {"student": _student_with(before).state_dict()}, frozen, step=0)
    frozen = replace(frozen, student=replace(frozen.student, init=str(tmp_path / "start.pt")))
    best = torch.load(train(frozen, tmp_path / "run"), weights_only=True)["student"]
    assert torch.equal(best["backbone.network.conv1.weight"], before)
    assert float(best["head.weight"].abs().sum()) > 0


def _student_with(weight: torch.Tensor) -> Student:
    student = Student("resnet18", stage=1, inputs="image")
    student.backbone.network.conv1.weight.data = weight
    return student


def test_two_views_and_a_detector_as_the_teacher(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, tmp_path / "teacher")
    teacher = DetectorTeacher(str(first)).eval()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    feature_map, logits = teacher.teach(x)
    assert torch.allclose(teacher.student.classify([feature_map]), logits)
    optim = replace(config.optim, consistency=0.1)
    taught = replace(config.teacher, checkpoint=str(first), logits=2.0, lambda_=0.5)
    rows: list[dict[str, float]] = []
    once = replace(config.validation, every=config.optim.steps)
    config = replace(config, optim=optim, teacher=taught, validation=once)
    train(config, tmp_path / "student", report=rows.append)
    (row,) = (r for r in rows if "bce" in r)
    parts = row["bce"] + 0.5 * row["imitation"] + 2 * row["logit_kl"] + 0.1 * row["consistency"]
    assert row["loss"] == pytest.approx(parts, rel=1e-4)
    assert min(row["imitation"], row["logit_kl"], row["consistency"]) > 0


def test_the_head_is_fitted_to_labels_and_the_teacher_s_view_of_the_clean_ones(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is fake and smooth is real here, so that each view shows its own label."""
    teacher = DetectorTeacher(str(train(config, tmp_path / "teacher"))).eval()
    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(student: Student, batches: Iterable[tuple[torch.Tensor, ...]], **_: object) -> float:
        given.extend((x0, label) for x0, _, label in batches)
        return 0.0

    monkeypatch.setattr("distildire.distill.train.fit_head", keep)
    blurred = replace(CLEAN, resize=0.0, blur=1.0, sigma=(2.0, 2.0))
    config = replace(
        config, augment=blurred,
        optim=replace(config.optim, steps=0, probe_crops=40, consistency=0.1),
    )  # fmt: skip
    for logits in (0.0, 3.0):
        given.clear()
        checkpoint = str(tmp_path / "teacher" / "best.pt") if logits else ""
        spec = replace(config.teacher, checkpoint=checkpoint, logits=logits)
        train(replace(config, teacher=spec), tmp_path / f"run{logits}")
        x0 = torch.cat([x for x, _ in given])
        assert len(x0) == 80  # two views of each crop
        for views, targets in given:
            clean, degraded = views.chunk(2)
            rough, blurry = (v.diff(dim=3).abs().mean(dim=(1, 2, 3)) for v in (clean, degraded))
            fake = (rough > 0.3).float()
            assert (blurry[fake == 1] < 0.5 * rough[fake == 1]).all()
            with torch.no_grad():
                taught = teacher.teach(clean)[1].sigmoid()
            expected = (fake + logits * taught) / (1 + logits)
            assert torch.allclose(targets, expected.repeat(2), atol=1e-4)


def test_splits_share_no_repository(config: TrainConfig, tmp_path: Path) -> None:
    training, validation = read_split(config)
    assert (len(training), len(validation)) == (16, 8)
    path = Path(config.data.manifests[0])
    table = pd.read_csv(path)
    table.loc[20, "repository"] = "train0"
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="both sides: train0"):
        read_split(config)
