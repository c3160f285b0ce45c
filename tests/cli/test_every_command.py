"""Every command runs once, as a command, on pictures of a few pixels."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from distildire.cli import app
from standin import make_bundle

SOURCES = ("t1", "t2", "v1", "v2")
TINY = {
    "name": "tiny",
    "preprocessing": {"crop": 32, "crops": 1},
    "student": {"backbone": "resnet18", "stage": 1},
    "teacher": {"backbone": ""},
    "optim": {"steps": 2, "batch": 4, "warmup": 1, "workers": 0},
    "validation": {"every": 2},
}


def run(*arguments: str | Path, code: int = 0) -> str:
    """What a command says on standard output; it must end with this exit code."""
    done: Result = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four sources with 13 real (grainy) and 13 generated (smoother) pictures each."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for source in SOURCES:
        for label, grain in (("real", 14), ("fake", 3)):
            (folder / label).mkdir(exist_ok=True)
            for i in range(13):
                soft = Image.fromarray(rng.integers(60, 200, (8, 8, 3), np.uint8))
                pixels = np.asarray(soft.resize((72, 72), Image.Resampling.BICUBIC), float)
                pixels = pixels + rng.normal(0, grain * rng.uniform(0.7, 1.3), (72, 72, 3))
                name = f"{label}/{source}-{i}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
                rows.append([name, label, "train", source, source, "GAN" * (label == "fake")])
    columns = ["path", "label", "split", "source", "repository", "generator"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "standin", crop=64, crops=1)


@pytest.fixture
def picture(manifest: Path) -> Path:
    return manifest.parent / "fake" / "t1-0.png"


def test_detect(picture: Path, model: Path) -> None:
    row = json.loads(run("detect", picture, "--model", model, "--format", "jsonl"))
    assert row["path"] == str(picture)
    assert row["error"] is None


def test_models(model: Path) -> None:
    assert "nano" in run("models", "list")
    shown = run("models", "show", model)
    about, _ = json.JSONDecoder().raw_decode(shown)
    assert about["name"] == "standin"
    assert "A detector for tests only." in shown


def test_record(picture: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    run("record", picture, "--model", model, "--out", out, "--no-stability")
    assert json.loads(out.read_text())["result"]["verdict"] in {"fake", "real", "unsure"}


def test_score(manifest: Path, model: Path, tmp_path: Path) -> None:
    said = run("score", manifest.parent / "fake", "--out", tmp_path / "parts", "--model", model)
    assert "52 scored" in said
    parts = (tmp_path / "parts").glob("part-*.parquet")
    assert sum(len(pd.read_parquet(part)) for part in parts) == 52


def test_serve() -> None:
    assert "127.0.0.1" in run("serve", "--help")


def test_prepare(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.parquet"
    pair = ("--real", manifest.parent / "real", "--fake", manifest.parent / "fake")
    assert "52 real and 52 fake" in run("prepare", *pair, "--out", out)
    assert pd.read_parquet(out)["label"].value_counts().to_dict() == {"real": 52, "fake": 52}


def test_rebuild(tmp_path: Path) -> None:
    work = tmp_path / "clones" / "owner+name"
    work.mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (240, 260, 3), np.uint8)).save(work / "a.png")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(work)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    asked = tmp_path / "asked.csv"
    asked.write_text(
        "repository,commit,original_path,label\n"
        f"owner/name,{head.stdout.strip()},a.png,real\n"
    )  # fmt: skip
    said = run("rebuild", asked, "--clones", tmp_path / "clones", "--out", tmp_path / "crops")
    assert "1 made, 0 missing" in said
    (row,) = pd.read_parquet(tmp_path / "crops/manifest.parquet").itertuples()
    assert (tmp_path / "crops" / row.path).is_file()


def test_audit(manifest: Path, tmp_path: Path) -> None:
    run("audit", manifest, "--out", tmp_path / "audit")
    assert json.loads((tmp_path / "audit/audit.json").read_text())["leak_auc"] is not None
    assert (tmp_path / "audit/audit.html").is_file()


def test_noise(manifest: Path, tmp_path: Path) -> None:
    rows = manifest.parent / "four.csv"
    pd.read_csv(manifest).iloc[:4].to_csv(rows, index=False)
    asked = ("noise", rows, "--source", "nano", "--out", tmp_path / "cache")
    assert "4 computed, 0 there already, 0 failed" in run(*asked)
    assert "0 computed, 4 there already" in run(*asked)


def test_calibrate(
    manifest: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "nano"  # as an installed model is named
    shutil.copytree(model, own)
    monkeypatch.chdir(tmp_path)
    said = run("calibrate", "nano", manifest, "--no-equalize", "--heatmap-check", "0")
    assert "from 52 real and 52 fake pictures" in said
    assert json.loads((own / "bundle.json").read_text())["calibration"]["n_fake"] == 52


def test_evaluate(manifest: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    run("evaluate", model, manifest, "--out", out, "--no-equalize", "--accept-leak")
    overall = json.loads((out / "metrics.json").read_text())["overall"]
    assert (overall["n_real"], overall["n_fake"]) == (52, 52)
    assert overall["auc"] > 0.9


def test_train_then_export(manifest: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    data = {"manifests": [str(manifest)], "val_sources": ["v1", "v2"]}
    config.write_text(yaml.safe_dump({**TINY, "data": data}))
    out = tmp_path / "run"
    asked = ("train", "--config", config, "--out", out, "--accept-leak")
    assert str(out / "best.pt") in run(*asked, "--set", "optim.steps=3")
    assert json.loads((out / "config.json").read_text())["optim"]["steps"] == 3
    said = run("export", out / "best.pt", "--out", tmp_path / "bundle", "--name", "mine")
    assert "not calibrated yet" in said
    assert json.loads(run("models", "show", tmp_path / "bundle"))["name"] == "mine"


def test_experiment(manifest: Path, tmp_path: Path) -> None:
    config = tmp_path / "no-distill.yaml"
    base = {**TINY, "data": {"manifests": [str(manifest)], "val_sources": ["v1", "v2"]}}
    base.pop("name")
    arms = {"with noise": {}, "image only": {"student.inputs": "image"}}
    config.write_text(yaml.safe_dump({"base": base, "arms": arms, "seeds": [0]}))
    out = tmp_path / "experiment"
    said = run("experiment", "no-distill", "--config", config, "--out", out, "--arm", "image only")
    assert "1 runs, 0 failed" in said
    assert list(json.loads((out / "results.json").read_text())["arms"]) == ["image only"]


def test_bench() -> None:
    """A run takes minutes; `tests/bench` measures stand-ins."""
    assert "--quick" in run("bench", "--help")


def test_no_command_is_left_out() -> None:
    """Of this file: each of the application's commands has a test of its name."""
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    commands: Callable[..., object] | object = get_command(app)
    names = set(commands.commands)  # type: ignore[attr-defined]
    assert len(names) >= 14
    assert not {name for name in names if name not in tests}
