"""Whole training runs: on files, shards and DIRE, cut short, and to a detector."""

from __future__ import annotations

import json
import math
import tarfile
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from distildire import Detector
from distildire.data.augment import CLEAN
from distildire.data.cache import CacheOptions, fill_cache
from distildire.data.manifest import read_manifest
from distildire.distill import load_student
from distildire.distill.checkpoint import build_student, load_checkpoint, save
from distildire.distill.config import TrainConfig
from distildire.distill.export import export
from distildire.distill.student import Student
from distildire.distill.teacher import DetectorTeacher
from distildire.distill.train import train
from distildire.explain.heatmap import heat_of
from distildire.io.config import to_dict
from distildire.io.preprocessing import resize_and_crop
from distildire.noise import load_noise_source
from noise.standin_noise import StandInNoise


def test_training_on_tar_shards_is_training_on_their_files(
    config: TrainConfig, manifest: Path, tmp_path: Path
) -> None:
    table = read_manifest(manifest)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for path in table["path"]:
            tar.add(path, Path(path).name)
    packed = table.assign(path=[f"all.tar::{Path(path).name}" for path in table["path"]])
    packed.to_csv(tmp_path / "packed.csv", index=False)
    config = replace(config, optim=replace(config.optim, steps=2, report_every=1))
    runs = []
    for name, source in (("files", str(manifest)), ("tar", str(tmp_path / "packed.csv"))):
        data = replace(config.data, manifests=(source,))
        train(replace(config, data=data), tmp_path / name)
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        runs.append([{**json.loads(row), "seconds_a_step": 0} for row in rows])
    assert runs[0] == runs[1]
    assert len(runs[0]) == 3


@pytest.mark.cuda
def test_training_on_cuda_in_bfloat16_gives_a_detector_for_the_cpu(
    config: TrainConfig, tmp_path: Path
) -> None:
    optim = replace(config.optim, precision="bf16", probe_crops=64)
    rows: list[dict[str, float]] = []
    best = train(replace(config, optim=optim), tmp_path / "run", report=rows.append)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses
    assert np.isfinite(losses).all()
    assert max(row.get("val_auc", 0.0) for row in rows) > 0.75
    student = load_student(best)
    x0 = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        here = student(x0, x0)
        there = student.cuda()(x0.cuda(), x0.cuda()).cpu()
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


def test_training_learns_and_exports(config: TrainConfig, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    best = train(config, tmp_path / "run", report=rows.append)
    last = [row for row in rows if "val_auc" in row][-1]
    assert last["val_auc"] > 0.75
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert logged == rows
    assert {"loss", "bce", "imitation", "seconds_a_step"} <= {name for row in rows for name in row}
    scores = pd.read_csv(tmp_path / "run/val_scores.csv")
    assert set(scores["source"]) == {"v1", "v2"}

    bundle = export(best, tmp_path / "bundle", weights="float32")
    assert bundle.provenance["config"] == to_dict(config)
    student, _, _ = load_checkpoint(best)
    rgb = np.random.default_rng(1).integers(0, 256, (72, 80, 3), dtype=np.uint8)
    crops = bundle.preprocessing(rgb)
    x0 = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = student(x0, load_noise_source("nano").eps0(x0)).mean()
        again = load_student(best)(x0, load_noise_source("nano").eps0(x0)).mean()
    detector = Detector(bundle.folder)
    assert detector.logit(rgb) == pytest.approx(float(expected), abs=1e-3)
    assert float(again) == float(expected)
    heat = heat_of(detector, rgb)
    assert heat.shape == rgb.shape[:2]
    assert float(heat.mean()) == pytest.approx(detector.logit(rgb), abs=0.5)


def rows_of(out: Path) -> list[dict[str, float]]:
    """What a run says of itself, but for its seconds."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return [{k: v for k, v in row.items() if k != "seconds_a_step"} for row in rows]


def steps_on_board(out: Path) -> list[int]:
    board = EventAccumulator(str(out / "tensorboard")).Reload()
    return [event.step for event in board.Scalars("loss")]


def test_a_resumed_run_ends_where_an_unbroken_one_does(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        config,
        optim=replace(config.optim, report_every=5),
        student=replace(config.student, dropout=0.3),
    )
    train(config, tmp_path / "whole")
    # Killed right after the first checkpoint: only what is on disk is left.
    state = {"stopped": False}

    def stop(row: dict[str, float]) -> None:
        if row["step"] > 12 and "loss" in row:
            state["stopped"] = True
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", report=stop)
    assert state["stopped"]
    assert not [thread for thread in threading.enumerate() if "Writer" in type(thread).__name__]
    with (tmp_path / "broken/metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # what a power cut leaves
    train(config, tmp_path / "broken", resume=True)
    one, two = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["learner"]
        for name in ("whole", "broken")
    )
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=1e-6) for k in one)
    rows, again = (rows_of(tmp_path / name) for name in ("whole", "broken"))
    assert [row["step"] for row in again] == [5, 10, 12, 12, 15, 20, 24, 24]
    assert again == [pytest.approx(row, rel=1e-5) for row in rows]
    assert steps_on_board(tmp_path / "broken") == [5, 10, 12, 15, 20, 24]
    last, *_ = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")
    average = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(v, average[f"module.{k}"]) for k, v in last.state_dict().items())
    changed = replace(config, optim=replace(config.optim, lr=1.0))
    with pytest.raises(ValueError, match="optim"):
        train(changed, tmp_path / "broken", resume=True)
    with pytest.raises(ValueError, match="nothing to resume"):
        train(config, tmp_path / "absent", resume=True)


def test_processes_that_would_train_over_each_other_are_refused(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun does; on its own it makes no group
    with pytest.raises(ValueError, match=r"2 processes were started .*ACCELERATE_USE_CPU=true"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_dire_reaches_the_student_and_the_teacher(
    config: TrainConfig, manifest: Path, tmp_path: Path, who: str
) -> None:
    paths = [manifest.parent / name for name in pd.read_csv(manifest)["path"]]
    detail = StandInNoise(lambda x0: (x0 - F.avg_pool2d(x0, 3, 1, 1)).abs() / 2)
    fill_cache(
        paths, detail, tmp_path / "cache", CacheOptions(dire=True),  # type: ignore[arg-type]
        prepare=resize_and_crop(64),
    )  # fmt: skip
    data = replace(config.data, dire_cache=str(tmp_path / "cache"))
    if who == "student":
        # No noise source is opened: there is none of this name.
        config = replace(
            config, noise="nowhere", student=replace(config.student, inputs="dire"),
            teacher=replace(config.teacher, backbone=""),
        )  # fmt: skip
    else:
        config = replace(config, teacher=replace(config.teacher, input="dire"))
    with pytest.raises(ValueError, match=f"{who}.inputs?.* is dire: give data.dire_cache"):
        train(config, tmp_path / "without")
    rows: list[dict[str, float]] = []
    train(replace(config, data=data), tmp_path / "run", report=rows.append)
    assert [row for row in rows if "val_auc" in row][-1]["val_auc"] > 0.75
    assert (next(row["imitation"] for row in rows if "imitation" in row) > 0) == (who == "teacher")


def test_a_resumed_run_shows_the_symptoms_of_the_whole(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []

    def keep(history: list[dict[str, float]]) -> list[str]:
        seen.append([row["step"] for row in history if "bce" in row])
        return []

    def stop(row: dict[str, float]) -> None:
        if row["step"] > 12:
            raise KeyboardInterrupt

    monkeypatch.setattr("distildire.distill.train.symptoms", keep)
    config = replace(config, optim=replace(config.optim, report_every=5))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, report=stop)
    train(config, tmp_path, resume=True)
    assert seen == [[5, 10, 12, 15, 20, 24]]


def test_a_run_that_lost_its_patience_is_not_trained_on(
    rough_fakes: TrainConfig, tmp_path: Path
) -> None:
    """At a rate of almost nothing no validation is better than the first."""
    optim = replace(rough_fakes.optim, lr=1e-30, steps=12, report_every=1, workers=0)
    impatient = replace(rough_fakes.validation, every=2, patience=1)
    config = replace(rough_fakes, optim=optim, validation=impatient)
    train(config, tmp_path)
    rows = rows_of(tmp_path)
    assert max(row["step"] for row in rows) == 4
    train(config, tmp_path, resume=True)
    assert rows_of(tmp_path) == rows


def test_a_run_that_diverges_leaves_its_best(
    rough_fakes: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(rough_fakes, optim=replace(rough_fakes.optim, ema=0.0, report_every=1))
    optimizers: list[torch.optim.Optimizer] = []

    def diverge(row: dict[str, float]) -> None:
        """Half way, by a learning rate that no float holds."""
        if row["step"] == 4:
            for group in optimizers[0].param_groups:
                group["lr"] = math.inf

    class Kept(torch.optim.AdamW):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            optimizers.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Kept)
    with pytest.raises(ValueError, match="has diverged"):
        train(config, tmp_path / "run", report=diverge)
    student, _, facts = load_checkpoint(tmp_path / "run" / "best.pt")
    assert facts["step"] == 3
    assert all(weight.isfinite().all() for weight in student.parameters())


def test_a_class_of_which_no_picture_can_be_read_chooses_nothing(
    rough_fakes: TrainConfig, tmp_path: Path
) -> None:
    for i in range(17, 24, 2):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="of one class no picture can be read"):
        train(rough_fakes, tmp_path / "run")


@pytest.mark.parametrize("seen", [{}, {"inputs": "both", "fusion": "separate"}], ids=str)
def test_a_frozen_body_stays(
    rough_fakes: TrainConfig, tmp_path: Path, seen: dict[str, Any]
) -> None:
    frozen = replace(
        rough_fakes, optim=replace(rough_fakes.optim, body_lr=0.0, ema=0.0),
        student=replace(rough_fakes.student, **seen),
    )  # fmt: skip
    torch.manual_seed(0)
    before = build_student(frozen).state_dict()
    save(tmp_path / "start.pt", {"student": before}, frozen, step=0)
    frozen = replace(frozen, student=replace(frozen.student, init=str(tmp_path / "start.pt")))
    after = torch.load(train(frozen, tmp_path / "run"), weights_only=True)["student"]
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {"head.weight", "head.bias"}


def test_two_views_and_a_detector_as_the_teacher(rough_fakes: TrainConfig, tmp_path: Path) -> None:
    first = train(rough_fakes, tmp_path / "teacher")
    teacher = DetectorTeacher(str(first)).eval()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    feature_map, logits = teacher.teach(x)
    assert torch.allclose(teacher.student.classify([feature_map]), logits)
    optim = replace(rough_fakes.optim, consistency=0.1)
    taught = replace(rough_fakes.teacher, checkpoint=str(first), logits=2.0, lambda_=0.5)
    rows: list[dict[str, float]] = []
    once = replace(rough_fakes.validation, every=optim.steps)
    config = replace(rough_fakes, optim=optim, teacher=taught, validation=once)
    train(config, tmp_path / "student", report=rows.append)
    (row,) = (r for r in rows if "bce" in r)
    parts = row["bce"] + 0.5 * row["imitation"] + 2 * row["logit_kl"] + 0.1 * row["consistency"]
    assert row["loss"] == pytest.approx(parts, rel=1e-4)
    assert min(row["imitation"], row["logit_kl"], row["consistency"]) > 0


def test_the_head_is_fitted_to_labels_and_the_teacher_s_view_of_the_clean_ones(
    rough_fakes: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is fake and smooth is real here, so that each view shows its own label."""
    teacher = DetectorTeacher(str(train(rough_fakes, tmp_path / "teacher"))).eval()
    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(student: Student, batches: Iterable[tuple[torch.Tensor, ...]], **_: object) -> float:
        given.extend((x0, label) for x0, _, label in batches)
        return 0.0

    monkeypatch.setattr("distildire.distill.train.fit_head", keep)
    blurred = replace(CLEAN, resize=0.0, blur=1.0, sigma=(2.0, 2.0))
    config = replace(
        rough_fakes, augment=blurred,
        optim=replace(rough_fakes.optim, steps=0, probe_crops=40, consistency=0.1),
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
