"""Experiments on small pictures: arms, seeds, resuming, failures, figures over seeds."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from distildire.data.cache import CacheOptions, fill_cache, open_dire
from distildire.data.manifest import read_manifest
from distildire.distill.checkpoint import build_student, load_checkpoint, save
from distildire.distill.config import TrainConfig
from distildire.distill.student import Inputs
from distildire.evaluate.plots import pareto_front
from distildire.experiments.config import EXPERIMENTS, ExperimentConfig, Families, load_experiment
from distildire.experiments.families import with_family_arms
from distildire.experiments.run import run_experiment
from distildire.experiments.runs import run_arm, run_folder, scores_of
from distildire.experiments.seeds import over_seeds, paired
from distildire.io.config import ConfigError, build, to_dict
from distildire.io.pictures import decode
from distildire.io.preprocessing import equalize, resize_and_crop
from noise.standin_noise import StandInNoise

CONFIGS = Path(__file__).parents[2] / "configs" / "experiments"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth fakes and noisy reals, in sources of twelve."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for source, label, generator in (
        ("r1", "real", ""), ("r2", "real", ""), ("r3", "real", ""), ("g1", "fake", "GAN v2"),
        ("g2", "fake", "GAN v2 (guess)"), ("l1", "fake", "LDM"), ("l2", "fake", "LDM"),
    ):  # fmt: skip
        for i in range(12):
            noise = rng.normal(0, 25 if label == "real" else 4, (72, 72, 3))
            path = folder / f"{source}-{i}.png"
            pixels = np.clip(rng.normal(128, 20, 3) + noise, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            rows.append({"path": path.name, "label": label, "split": "train", "source": source,
                         "generator": generator, "repository": source})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def base(manifest: Path, val: tuple[str, ...] = ("r3", "l2")) -> dict[str, object]:
    return {
        "data": {"manifests": [str(manifest)], "val_sources": list(val), "max_share": 1.0},
        "preprocessing": {"crop": 64, "crops": 1},
        "student": {"backbone": "resnet18", "stage": 1},
        "teacher": {"backbone": ""},
        "optim": {"steps": 4, "batch": 4, "warmup": 1, "workers": 0},
        "validation": {"every": 2},
    }


def test_arms_seeds_failures_and_resuming(manifest: Path, tmp_path: Path) -> None:
    arms = {
        "both": {},
        "noise": {"student.inputs": "noise"},
        "broken": {"noise": str(tmp_path / "absent")},
        "slow": {"optim.steps": 10_000},
    }
    config = ExperimentConfig(base(manifest), arms, seeds=(0, 1), on_request=("slow",))
    seen: list[str] = []
    results = run_experiment(
        "noise-branch", config, tmp_path, progress=lambda run, row: seen.append(run)
    )
    tree = json.loads((tmp_path / "results.json").read_text())
    assert tree == json.loads(json.dumps(results))
    assert list(tree["arms"]) == ["both", "noise", "broken"]
    assert "error" in tree["arms"]["broken"]["runs"][0]
    assert tree["arms"]["noise"]["summary"]["auc"]["n"] == 2
    aucs = [run["auc"] for run in tree["arms"]["noise"]["runs"]]
    assert tree["arms"]["noise"]["summary"]["auc"]["mean"] == pytest.approx(np.mean(aucs))
    text = (tmp_path / "table.md").read_text()
    assert "| both | 2 |" in text
    assert "failed: " in text
    assert len(pd.read_csv(tmp_path / "table.csv")) == 6
    assert (tmp_path / "plot.png").is_file()
    assert (tmp_path / "runs" / "noise-1" / "best.pt").is_file()

    # Finished runs are read; one that was cut short goes on from its checkpoint.
    (tmp_path / "runs" / "both-0" / "figures.json").unlink()
    seen.clear()
    again = run_experiment(
        "noise-branch", config, tmp_path, arms=["both", "noise"],
        progress=lambda run, row: seen.append(run),
    )  # fmt: skip
    assert set(seen) <= {"both, seed 0"}
    first, second = (r["arms"]["both"]["runs"][0]["auc"] for r in (results, again))
    assert first == second


def test_figures_of_another_config_are_gone_before_the_run_begins(
    manifest: Path, tmp_path: Path
) -> None:
    first = build(TrainConfig, base(manifest))
    run_arm(first, tmp_path)
    other = replace(first, optim=replace(first.optim, lr=0.01, report_every=1))

    def killed(row: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_arm(other, tmp_path, report=killed)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", "metrics.jsonl", "tensorboard"}
    rows: list[dict[str, object]] = []
    run_arm(other, tmp_path, report=rows.append)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert load_checkpoint(tmp_path / "best.pt")[1] == other


@pytest.mark.parametrize("inputs", ["image", "dire"])
def test_a_student_is_scored_on_what_it_sees(
    manifest: Path, tmp_path: Path, inputs: Inputs
) -> None:
    """The noise source of these has no such name: none is opened."""
    table = read_manifest(manifest)[::12]
    detail = StandInNoise(lambda x0: (x0 - F.avg_pool2d(x0, 3, 1, 1)).abs() / 2)
    fill_cache(
        table["path"].to_list(), detail, tmp_path / "cache",  # type: ignore[arg-type]
        CacheOptions(dire=True), prepare=resize_and_crop(64),
    )  # fmt: skip
    config = build(TrainConfig, {
        **base(manifest), "noise": "nowhere",
        "student": {"backbone": "resnet18", "stage": 1, "inputs": inputs},
    })  # fmt: skip
    torch.manual_seed(0)
    student = build_student(config).eval()
    torch.nn.init.normal_(student.head.weight, std=1.0)
    save(tmp_path / "best.pt", {"student": student.state_dict()}, config)
    if inputs == "dire":
        with pytest.raises(ValueError, match=r"student\.inputs is dire: give data\.dire_cache"):
            scores_of(tmp_path / "best.pt", table)
        config = replace(config, data=replace(config.data, dire_cache=str(tmp_path / "cache")))
        save(tmp_path / "best.pt", {"student": student.state_dict()}, config)
    read = open_dire(tmp_path / "cache")
    expected = []
    for path in table["path"]:
        rgb = read(path) if inputs == "dire" else equalize(decode(path))
        crop = torch.from_numpy(config.preprocessing(rgb)).permute(0, 3, 1, 2) / 127.5 - 1
        expected.append(float(student(crop, crop).detach()))
    assert np.std(expected) > 1e-3
    assert scores_of(tmp_path / "best.pt", table)["logit"].to_list() == pytest.approx(
        expected, abs=1e-4
    )


def test_backbones_are_timed(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which every second pass takes 4 ms, and the others longer and longer."""
    took = (0.004 if i % 2 == 0 else 0.005 + i for i in itertools.count())
    ticks = itertools.accumulate(itertools.chain.from_iterable((0.5, step) for step in took))
    clock = SimpleNamespace(perf_counter=lambda: next(ticks), monotonic=time.monotonic)
    monkeypatch.setattr("distildire.experiments.runs.time", clock)
    config = ExperimentConfig(base(manifest), {"resnet18": {}}, seeds=(0,))
    run = run_experiment("backbones", config, tmp_path)["arms"]["resnet18"]["runs"][0]
    assert run["latency_ms"] == 4.0  # the median of 21 passes, 11 of them short
    stem, block, head = 6 * 64 * 7 * 7 + 2 * 64, 2 * (64 * 64 * 3 * 3 + 2 * 64), 64 + 1
    assert run["params"] == stem + 2 * block + head
    graph = tmp_path / "runs" / "resnet18-0" / "bundle" / "model.onnx"
    assert run["graph_bytes"] == graph.stat().st_size
    assert "ms per picture" in (tmp_path / "table.md").read_text()


def test_families_train_on_one_or_on_all_but_one(manifest: Path, tmp_path: Path) -> None:
    families = Families({"gan": ("gan",), "ldm": ("LDM",)}, min_images=10, test_limit=0)
    config = ExperimentConfig(base(manifest), seeds=(0,), families=families)
    grown, tests = with_family_arms(config, tmp_path)
    assert list(grown.arms) == ["only gan", "only ldm", "without gan", "without ldm"]

    def trained(arm: str) -> set[str]:
        table = pd.read_csv(grown.arms[arm]["data.manifests"][0])
        return set(table["source"]) - {"r3", "l2"}

    # gan has two free sources: one stays for its own figure. ldm's is held out already.
    assert trained("only gan") in ({"r1", "r2", "g1"}, {"r1", "r2", "g2"})
    assert trained("only ldm") == {"r1", "r2", "l1"}
    assert trained("without gan") == {"r1", "r2", "l1"}
    assert trained("without ldm") == {"r1", "r2", "g1", "g2"}
    for arm, rows in tests.items():
        assert not set(rows["source"]) & trained(arm)
        assert set(rows["source"][rows["label"] == "real"]) == {"r3"}
    assert set(tests["without ldm"]["source"]) == {"r3", "l1", "l2"}

    results = run_experiment("cross-generator", config, tmp_path, arms=["without gan"])
    matrix = results["matrix"]
    assert (matrix["trained_on"], matrix["tested_on"]) == (["without gan"], ["gan", "ldm"])
    scores = pd.read_csv(run_folder(tmp_path, "without gan", 0) / "test_scores.csv")
    assert set(scores["path"]) == set(tests["without gan"]["path"])
    for family, value in zip(matrix["tested_on"], matrix["auc"][0], strict=True):
        rows = scores[(scores["label"] == "real") | (scores["generator"] == family)]
        assert set(rows["label"]) == {"real", "fake"}
        assert value == pytest.approx(roc_auc_score(rows["label"] == "fake", rows["logit"]))
    with pytest.raises(ConfigError, match="min_images"):
        with_family_arms(
            ExperimentConfig(config.base, families=Families({"gan": ("gan",)})), tmp_path
        )


def test_the_configs_in_the_repository_load() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(EXPERIMENTS)
    bases = []
    for name in EXPERIMENTS:
        config = load_experiment(
            name, CONFIGS / f"{name}.yaml", ["base.optim.steps=7"], seeds=[3, 4]
        )
        assert config.seeds == (3, 4)
        assert set(config.on_request) <= set(config.arms)
        if name not in {"bodies", "eps0"}:  # on the broad data
            bases.append(config.base)
    assert all(b == bases[0] for b in bases)


def test_wrong_experiments_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump({"base": {}, "arms": {"a": {"optim.stepz": 3}}}))
    with pytest.raises(ConfigError, match="stepz"):
        load_experiment("lambda", path)
    with pytest.raises(ConfigError, match="no experiment"):
        load_experiment("mu", path)
    path.write_text("base: {}\n")
    with pytest.raises(ConfigError, match="no arms"):
        load_experiment("lambda", path)
    config = ExperimentConfig({}, {"a": {}, "b": {"teacher": {"lambda_": 2}}}, on_request=("b",))
    assert (config.chosen(), config.chosen(["b"])) == (["a"], ["b"])
    with pytest.raises(ConfigError, match="no arm 'c'"):
        config.chosen(["c"])
    # A nested change leaves the rest of its section alone, and the seed is the run's.
    made = to_dict(config.arm("b", 5))
    assert made["teacher"]["lambda_"] == 2.0
    assert made["teacher"]["backbone"] == "resnet50"
    assert made["optim"]["seed"] == 5


def test_intervals_over_seeds() -> None:
    """By hand: mean 0.7, sd 0.1, t(0.975, 2) = 4.3027 -> 0.7 +- 4.3027 x 0.1 / sqrt 3."""
    found = over_seeds([0.6, 0.7, 0.8])
    assert found.mean == pytest.approx(0.7)
    assert found.sd == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.7 - 0.24841, 0.7 + 0.24841), abs=1e-4)
    assert over_seeds([0.6, float("nan")]).interval is None
    assert over_seeds([]).mean is None
    assert over_seeds([]).text() == "–"
    assert paired({0: 0.9, 1: 0.8, 2: 0.1}, {0: 0.7, 1: 0.6}).mean == pytest.approx(0.2)


def test_pareto_front() -> None:
    points = {"a": (1.0, 0.7), "b": (2.0, 0.6), "c": (3.0, 0.9), "d": (3.0, 0.8), "e": (0.5, 0.6)}
    assert pareto_front(points) == ["e", "a", "c"]
