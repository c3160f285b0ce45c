"""Every command runs once, as a command, on pictures of a few pixels."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
import uvicorn
import yaml
from click.testing import Result
from PIL import Image
from small_world.config import WorldConfig
from small_world.generators import Report
from typer.main import get_command
from typer.testing import CliRunner

from bench.standin_bundle import FOLDER
from distildire.bench import MethodSpec, bench
from distildire.bundle import BundleError, load_bundle
from distildire.cli import app
from distildire.io.download import REMOTES
from distildire.io.hashing import sha256_of
from distildire.io.preprocessing import Preprocessing
from noise.small_adm import reference
from standin import expected_logit, make_bundle

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
    assert row["verdict"] == "fake"
    (crop,) = Preprocessing(crop=64, crops=1)(np.asarray(Image.open(picture)))
    assert row["logit"] == pytest.approx(expected_logit(crop[None])[0], abs=1e-3)


def test_models(model: Path) -> None:
    assert "nano" in run("models", "list")
    whole = json.loads(run("models", "show", model, "--json"))
    assert whole == json.loads((model / "bundle.json").read_text())
    shown = run("models", "show", model)
    assert f'"{len(whole["calibration"]["real_quantiles"])} entries"' in shown
    assert whole["name"] == "standin"
    card, about = shown.split("{\n", 1)
    assert "A detector for tests only." in card
    assert json.loads("{" + about)["name"] == "standin"


@pytest.fixture(scope="module")
def adm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ADM in guided-diffusion's naming, in a folder of its own."""
    path = tmp_path_factory.mktemp("published") / "adm.pt"
    torch.save(reference("adm")[0], path)
    return path


def test_models_fetch(adm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "adm-imagenet256"
    monkeypatch.setenv("DISTILDIRE_HOME", str(tmp_path))
    handler = partial(SimpleHTTPRequestHandler, directory=str(adm.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{adm.name}"
        facts = {"url": url, "size": adm.stat().st_size, "sha256": sha256_of(adm)}
        monkeypatch.setitem(REMOTES, name, replace(REMOTES[name], **facts))
        said = run("models", "fetch", name)
        server.shutdown()
    assert str(tmp_path / REMOTES[name].file) in said.splitlines()  # beside the server's log
    assert (tmp_path / REMOTES[name].file).read_bytes() == adm.read_bytes()


def test_models_convert(adm: Path, tmp_path: Path) -> None:
    out = tmp_path / "converted"
    assert run("models", "convert", adm, "--out", out) == f"adm: {out}\n"
    about = json.loads((out / "conversion.json").read_text())
    assert about["source_sha256"] == sha256_of(adm)
    assert about["parameters"] == sum(t.numel() for t in reference("adm")[0].values())


def test_record(picture: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    run("record", picture, "--model", model, "--out", out, "--no-stability")
    result = json.loads(out.read_text())["result"]
    row = json.loads(run("detect", picture, "--model", model, "--format", "jsonl"))
    assert (result["verdict"], result["logit"]) == (row["verdict"], row["logit"])
    assert result["verdict"] == "fake"


def test_score(manifest: Path, model: Path, tmp_path: Path) -> None:
    said = run("score", manifest.parent / "fake", "--out", tmp_path / "parts", "--model", model)
    assert "52 scored" in said
    parts = (tmp_path / "parts").glob("part-*.parquet")
    assert sum(len(pd.read_parquet(part)) for part in parts) == 52


def test_serve(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int] = []
    serve = uvicorn.Server.run

    def ask(server: uvicorn.Server, port: int) -> None:
        try:  # the socket listens already: the request waits for the server
            answers.append(httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code)
        finally:
            server.should_exit = True

    def serve_one(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        port = sockets[0].getsockname()[1]
        threading.Thread(target=ask, args=(server, port), daemon=True).start()
        serve(server, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", serve_one)
    assert "http://127.0.0.1:" in run("serve", "--port", "0", "--model", model, "--no-isolate")
    assert answers == [200]


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
    told = json.loads((tmp_path / "audit/audit.json").read_text())
    assert told["leak_auc"] > 0.99  # PNGs of grainy pictures are larger files
    assert {leak["kind"] for leak in told["leaks"]} == {"quality"}
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
    about = json.loads((own / "bundle.json").read_text())
    about["calibration"]["weights_sha256"] = "0" * 64
    (own / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match=r"belongs to other weights .*: calibrate again"):
        load_bundle(own)
    monkeypatch.chdir(tmp_path)
    said = run("calibrate", "nano", manifest, "--no-equalize", "--heatmap-check", "0")
    assert "from 52 real and 52 fake pictures" in said
    assert load_bundle(own).calibration.n_fake == 52  # type: ignore[union-attr]


def test_evaluate(manifest: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    run("evaluate", model, manifest, "--out", out, "--no-equalize", "--accept-leak")
    overall = json.loads((out / "metrics.json").read_text())["overall"]
    assert (overall["n_real"], overall["n_fake"]) == (52, 52)
    assert overall["auc"] > 0.9


def test_evaluate_says_how_many_have_no_score(manifest: Path, tmp_path: Path) -> None:
    paths = pd.read_csv(manifest)["path"]
    scores = tmp_path / "scores.csv"
    table = pd.DataFrame({"path": paths, "score": np.linspace(0, 1, len(paths))})
    for lost in (21, 0):
        table.iloc[lost:].to_csv(scores, index=False)
        said = run("evaluate", scores, manifest, "--out", tmp_path / "report", "--accept-leak")
        assert ("distildire: 21 of 104 pictures have no score\n" in said) == bool(lost)


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


def test_an_unknown_experiment_is_told_of_all(tmp_path: Path) -> None:
    said = run("experiment", "frob", "--config", "x.yaml", "--out", tmp_path, code=2)
    assert "no experiment 'frob' (there are no-distill, " in said
    assert said.rstrip().endswith("cross-generator, small-world)")


def test_small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole world takes long: what it is told, and what it says of an answer."""
    told: list[tuple[WorldConfig, Path]] = []

    def world(config: WorldConfig, out: Path, report: Report) -> dict[str, object]:
        told.append((config, out))
        report("vae", 1, 2, 0.5)
        answer = {"claim": "DIRE tells them", "family": "gan", "verdict": "holds"}
        return {"answers": [answer]}

    monkeypatch.setattr("small_world.run.small_world", world)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds to it
    config, out = tmp_path / "world.yaml", tmp_path / "world"
    config.write_text(yaml.safe_dump({"sampling_steps": 10, "student": {"seeds": [3]}}))
    asked = ("experiment", "small-world", "--config", config, "--out", out)
    said = run(*asked, "--set", "pictures.train=8")
    assert "DIRE tells them (gan): holds" in said.splitlines()
    assert str(out / "small-world.md") in said
    ((given, folder),) = told
    assert (given.sampling_steps, given.student.seeds, folder) == (10, (3,), out)
    assert given.pictures.train == 8
    assert "--config and --set" in run(*asked, "--seeds", "0", code=2)
    assert "--config and --set" in run(*asked, "--arm", "dire", code=2)


def test_the_small_world_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "lib" / "site-packages" / "distildire" / "__init__.py"
    monkeypatch.setattr("distildire.__file__", str(installed))
    asked = ("--config", tmp_path / "world.yaml", "--out", tmp_path / "world")
    said = run("experiment", "small-world", *asked, code=2)
    assert "it runs from a checkout of the repository" in said
    assert not (tmp_path / "world").exists()


def test_bench(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stand-in: a pass of ADM takes seconds, and the full table minutes."""
    specs = [MethodSpec(name, name, "bench.standin_bundle:bundle") for name in ("dire", "nano")]
    monkeypatch.setattr("distildire.bench.bench", partial(bench, methods=specs))
    monkeypatch.setenv(FOLDER, str(model))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said = run("bench", "--quick", "--out", tmp_path)
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [row["method"] for row in result["rows"]] == ["dire", "nano"]
    assert all(row["seconds_total"] > 0 for row in result["rows"])
    assert "nano: " in said
    assert str(tmp_path / "bench.md") in said


def commands_of(command: object, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that name each command, as in ("models", "list")."""
    group = getattr(command, "commands", None)
    if group is None:
        yield words
        return
    for name, inner in group.items():
        yield from commands_of(inner, (*words, name))


def leading_words(nodes: Sequence[ast.expr]) -> tuple[str, ...]:
    """The strings that a call or a tuple begins with."""
    words: list[str] = []
    for node in nodes:
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            break
        words.append(node.value)
    return tuple(words)


def commands_run() -> Iterator[tuple[str, ...]]:
    """What this file gives to `run`, there or as a tuple before, but for `--help`."""
    for node in ast.walk(ast.parse(Path(__file__).read_text())):
        words: tuple[str, ...] = ()
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run":
            words = leading_words(node.args)
        elif isinstance(node, ast.Tuple):
            words = leading_words(node.elts)
        if "--help" not in words:
            yield words


def test_no_command_is_left_out() -> None:
    """Of this file: each of the application's commands is run in it, those of groups too."""
    commands, ran = set(commands_of(get_command(app))), list(commands_run())
    assert len(commands) >= 18
    assert not {c for c in commands if not any(words[: len(c)] == c for words in ran)}


@pytest.mark.parametrize("name", ["detect", "record", "score", "serve"])
def test_help_tells_the_budgets_that_are_taken(name: str) -> None:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    (budget,) = (option for option in command.params if option.name == "fpr")
    assert "above 0, at most 0.5" in budget.help
