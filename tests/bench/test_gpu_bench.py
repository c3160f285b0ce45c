"""The table of a GPU, with the CPU in its place; on CUDA itself where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import standin_methods as stand_in

from distildire.bench import MethodSpec, bench_gpu, gpu, gpu_works
from distildire.bench.flops import count_onnx_weights
from distildire.bench.gpu import METHODS
from distildire.bench.report import markdown
from distildire.bench.run import jpeg_500
from distildire.bench.sweep import sweep
from distildire.bundle import load_bundle


def quick(name: str, factory: str = "quick", batches: tuple[int, ...] = (1, 2)) -> MethodSpec:
    return MethodSpec(name, name.upper(), f"standin_swept:{factory}", batches)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads((out / "bench.json").read_text())["rows"]}


STOPPED = {
    how: [quick("distildire"), quick("nano", how), quick("base")] for how in ("hanging", "crashing")
}


def check_stopped(out: Path, words: str) -> None:
    rows = rows_of(out)
    assert rows["distildire"]["seconds_total"] > 0
    for name in ("nano", "base"):
        assert rows[name]["seconds_total"] is None
        assert words in rows[name]["note"]


def test_all_rows_in_one_run_and_a_broken_one_in_words(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    methods = [quick("dire"), quick("distildire", batches=(1, 2, 4, 8)), quick("base", "broken")]
    result = bench_gpu(
        tmp_path, limit=300, methods=methods, device="cpu", progress=lambda *at: seen.append(at)
    )
    rows = rows_of(tmp_path)
    assert list(rows) == ["dire", "distildire", "base"]
    assert rows["dire"]["seconds_by_batch"] == {"1": 0.02, "2": 0.01}
    assert (rows["dire"]["best_batch"], rows["dire"]["seconds_best_batch"]) == (2, 0.01)
    assert (rows["dire"]["params"], rows["dire"]["flops"]) == (7, 100)
    assert "batch 4 not measured: CUDA out of memory. Tried" in rows["distildire"]["note"]
    assert list(rows["distildire"]["seconds_by_batch"]) == ["1", "2"]
    assert rows["base"]["note"] == "not measured: No module named 'diffusers'"
    assert rows["base"]["seconds_total"] is None
    # The first batch of every method comes before the second of any.
    assert seen[:2] == [("dire", 1, 8), ("distildire", 2, 8)]
    assert seen[-1][1] == 4
    assert "| BASE | not measured |" in markdown(result)
    assert {claim["method"] for claim in result["claims"]} == {"distildire"}


def test_what_was_measured_before_a_crash_stays(tmp_path: Path) -> None:
    bench_gpu(tmp_path, limit=900, methods=STOPPED["crashing"], device="cpu")
    check_stopped(tmp_path, "the measuring process ended with -")


def test_what_was_measured_before_the_limit_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = []

    class Timer:
        """Goes off when the test says so: who knows how long a process takes to start."""

        def __init__(self, seconds: float, function: Callable[[], None]) -> None:
            timers.append(function)
            assert 800 < seconds < 900

        def start(self) -> None: ...
        def cancel(self) -> None: ...

    monkeypatch.setattr(gpu.threading, "Timer", Timer)
    bench_gpu(
        tmp_path, limit=900, methods=STOPPED["hanging"], device="cpu",
        progress=lambda *_: timers[0](),
    )  # fmt: skip
    check_stopped(tmp_path, "the limit of 900 seconds")


def test_nothing_is_begun_that_would_pass_the_limit() -> None:
    methods = [{"name": "a", "factory": "standin_swept:quick", "batches": [1, 10**6]}]
    rows = [dict(row) for row in sweep(methods, b"", "cpu", time.time() + 100.0)]
    assert rows[-1]["note"].endswith(f"batch {10**6} not measured: the time was up")
    rows = [dict(row) for row in sweep(methods, b"", "cpu", time.time() - 1.0)]
    assert rows[0]["note"] == "not measured: the time was up"


@pytest.mark.skipif(gpu_works(), reason="a GPU is here")
def test_without_a_gpu_every_row_says_so(tmp_path: Path) -> None:
    bench_gpu(tmp_path, limit=300, methods=METHODS[:5])
    rows = rows_of(tmp_path)
    assert len(rows) == 5
    for row in rows.values():
        assert row["note"] == "not measured: torch finds no GPU that works: see nvidia-smi"


def test_networks_in_torch_have_figures_and_the_verdicts_of_each_picture() -> None:
    for name, flops in (("batched", 1), ("batched_dire", 40)):
        method = getattr(stand_in, name)("cpu")
        row = list(sweep(
            [{"name": name, "factory": f"standin_methods:{name}", "batches": [1, 2]}],
            jpeg_500(), "cpu", time.time() + 3000,
        ))[-1]  # fmt: skip
        assert list(row["seconds_by_batch"]) == ["1", "2"], row["note"]
        assert row["seconds_unet"] > 0
        assert row["passes"] == flops
        one, two = method.verdicts([jpeg_500()]), method.verdicts([jpeg_500()] * 2)
        assert two == pytest.approx(one * 2, abs=1e-4)


def test_the_tables_own_networks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch, with a small UNet in ADM's place."""
    from distildire.bench import batched
    from distildire.noise.adm import PRESETS

    monkeypatch.setitem(PRESETS, "imagenet256", PRESETS["tiny64"])
    monkeypatch.setattr(batched, "SIDE", 64)
    for name in ("distildire", "dire_bf16"):
        method = getattr(batched, name)("cpu")
        assert method.passes == (40 if name.startswith("dire") else 1)
        assert method.half == ("bf16" in name)
        assert "random ADM weights" in method.note
        assert len(method.verdicts([jpeg_500()])) == 1
        assert method.flops(jpeg_500()) > method.passes * 1e8
    nano = batched.nano_torch("cpu")
    assert "random weights in the student" in nano.note
    assert len(nano.verdicts([jpeg_500()] * 2)) == 2
    bundled = count_onnx_weights(load_bundle("nano").graph)
    assert nano.params() == pytest.approx(bundled, rel=0.02)
    batched.adm.cache_clear()


def test_bfloat16_moves_a_verdict_a_little() -> None:
    import torch

    torch.manual_seed(0)
    full = stand_in.batched("cpu")
    torch.manual_seed(0)
    half = stand_in.batched("cpu", precision="bf16")
    torch.nn.init.normal_(full.graph.student.head.weight, std=0.1)
    half.graph.student.load_state_dict(full.graph.student.state_dict())
    (a,), (b,) = full.verdicts([jpeg_500()]), half.verdicts([jpeg_500()])
    assert a != b
    assert a == pytest.approx(b, rel=0.1, abs=0.1)


@pytest.mark.parametrize("broken", [False, True])
def test_the_script_writes_where_its_caller_is(broken: bool, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {int(broken)}\necho "$PWD" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [Path(__file__).parents[2] / "deploy/gpu-bench.sh", "60", "out"],
        cwd=tmp_path, env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if broken:
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert "pip install 'distildire[train,gpu]'" in done.stderr
    else:
        options = "-m distildire bench --device cuda --limit 60 --out out"
        assert done.stdout.split() == [str(tmp_path), *options.split()]


@pytest.mark.cuda
def test_a_row_on_cuda(tmp_path: Path) -> None:
    found = next(method for method in METHODS if method.name == "distildire-bf16")
    bench_gpu(tmp_path, limit=120, methods=[MethodSpec(found.name, "", found.factory, (1, 2))])
    row = rows_of(tmp_path)["distildire-bf16"]
    assert list(row["seconds_by_batch"]) == ["1", "2"], row["note"]
    assert row["peak_gpu_bytes_by_batch"]["2"] > 2**20
    assert 0 < row["seconds_unet"] < 1.0
