from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import standin_methods as stand_in
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distildire.bench import MethodSpec, bench, worker
from distildire.bench.flops import count_onnx, count_onnx_weights, count_torch
from distildire.bench.methods import made_cheaply
from distildire.bench.report import claims
from distildire.bench.run import BenchError, jpeg_500
from distildire.bench.worker import measure
from distildire.cli import main
from distildire.noise.adm import PRESETS, AdmNoise, build_unet
from distildire.noise.schedule import ddim_step, invert

METHODS = (
    MethodSpec("dire", "DIRE", "standin_methods:dire"),
    MethodSpec("distildire", "DistilDIRE", "standin_methods:distildire", (2,)),
    MethodSpec("nano", "nano", "distildire.bench.methods:nano", (2,)),
)


def test_one_run_gives_a_row_a_method_and_checks_the_claims(tmp_path: Path) -> None:
    seen: list[str] = []
    bench(tmp_path, quick=True, methods=METHODS, progress=lambda name, i, n: seen.append(name))
    assert seen == ["dire", "distildire", "nano", "done"]
    result = json.loads((tmp_path / "bench.json").read_text())
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["dire", "distildire", "nano"]
    for row in rows.values():
        assert 0 < row["seconds_total"] <= row["seconds_cold"]
        if row["method"] == "nano":
            assert row["seconds_unet"] is None  # it computes no eps0, and the note says so
            assert "no eps0" in row["note"]
        else:
            assert row["seconds_unet"] > 0
            # Else both are medians of the clock, and a busy machine may turn them around.
            assert row["seconds_unet"] <= row["seconds_total"] or not row["extrapolated"]
        assert row["params"] > 0
        assert row["peak_rss_bytes"] > 50 * 2**20
    assert "2 of its 40 passes" in rows["dire"]["note"]
    assert not rows["distildire"]["extrapolated"]
    assert rows["dire"]["flops"] > 30 * rows["distildire"]["flops"]
    assert result["machine"]["matmul_flops_per_second"] > 1e8
    text = (tmp_path / "bench.md").read_text()
    assert text.count("times faster") == text.count("FLOPs saved") == 2
    assert (tmp_path / "bench.png").stat().st_size > 1000


def test_nano_in_numbers(tmp_path: Path) -> None:
    """FLOPs of nano scale with its crops: five crops of the graph, counted one by one."""
    from distildire.bench.methods import nano

    method = nano()
    crops = method.read(jpeg_500())
    graph = method.detector.bundle.graph  # type: ignore[attr-defined]
    assert method.flops(jpeg_500()) == len(crops) * count_onnx(graph, {"rgb": crops[:1]})


def test_a_failing_method_says_why(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such weights here"):
        bench(tmp_path, methods=[MethodSpec("x", "x", "standin_methods:broken")])


def test_a_method_without_its_packages_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "path" / "torch.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    monkeypatch.syspath_prepend(missing.parent)
    monkeypatch.setattr("sys.argv", ["distildire", "bench", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["distildire: this needs the extra 'train': pip install 'distildire[train]'"]


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.calls.append(int(t[0]))
        return x_t * self.scale


@pytest.mark.parametrize(("kind", "passes"), [("dire", 40), ("distildire", 1)])
def test_passes_are_those_of_the_method(kind: str, passes: int) -> None:
    method = getattr(stand_in, kind)()
    network = Counted()
    method.source.network = network
    method.verdicts([jpeg_500()])
    assert len(network.calls) == method.passes == passes
    network.calls.clear()
    picture = method.read(jpeg_500())
    after_two = method.first_passes(picture, 2)
    assert network.calls == [0, 50]
    # Two steps of DIRE's own inversion: its third step starts from there.
    states: list[torch.Tensor] = []

    def watch(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        states.append(x_t)
        return x_t * 0.1

    invert(watch, picture, method.source.alpha_bar)
    torch.testing.assert_close(after_two, states[2])
    assert ddim_step(picture, picture, 0.9, 0.8).shape == picture.shape


class Slow:
    """By a clock of its own reading takes 2 ms, each of forty passes 10 ms, the classifier 5 ms."""

    passes, note, sees_noise = 40, "", True
    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def read(self, data: bytes) -> bytes:
        self.now += 0.002
        return data

    def first_passes(self, picture: bytes, count: int) -> None:
        self.now += 0.01 * count

    def noise(self, picture: bytes) -> None:
        self.first_passes(picture, 40)

    def classify(self, picture: bytes, noise: object) -> float:
        self.now += 0.005
        return 0.0

    def verdicts(self, files: Sequence[bytes]) -> list[float]:
        picture = self.read(files[0])
        self.noise(picture)
        return [self.classify(picture, None)]

    def params(self) -> int:
        return 1

    def flops(self, data: bytes) -> int:
        return 1


def test_extrapolation_counts_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes multiplied give what all forty take."""
    for quick in (True, False):
        method = Slow()
        monkeypatch.setattr(worker, "time", method)
        row = measure(method, b"", startup=5.0, quick=quick, batches=())
        assert row["extrapolated"] is quick
        assert row["seconds_unet"] == pytest.approx(0.4)
        assert row["seconds_total"] == pytest.approx(0.407)
        assert row["seconds_cold"] == pytest.approx(5.407)


def test_flops_of_adm_are_the_papers() -> None:
    with torch.device("meta"):
        unet = AdmNoise(build_unet(PRESETS["imagenet256"]))
    assert sum(p.numel() for p in unet.parameters()) == 552_814_086
    assert count_torch(unet, (1, 3, 256, 256), (1,)) == pytest.approx(2.240e12, rel=1e-3)


def test_onnx_counts_equal_torchs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, stride=2, groups=2)
    linear = nn.Linear(8, 5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], group=2, strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(conv.weight.detach().numpy(), "w"),
         numpy_helper.from_array(linear.weight.detach().numpy(), "v")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "g.onnx")
    x = torch.randn(3, 6, 17, 20)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        linear(conv(x).mean((2, 3)))
    assert count_onnx(tmp_path / "g.onnx", {"x": x.numpy()}) == counter.get_total_flops()
    assert count_onnx_weights(tmp_path / "g.onnx") == conv.weight.numel() + linear.weight.numel()


def test_cheap_weights_are_numbers_and_small() -> None:
    network = made_cheaply(lambda: nn.Sequential(nn.Linear(1000, 1200), nn.BatchNorm1d(1200)))
    values = np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])
    assert np.isfinite(values).all()
    assert 0.01 < values.std() < 0.03


def test_claims_against_dire() -> None:
    rows = [
        {"method": "dire", "flops": 1000, "seconds_total": 80.0},
        {"method": "distildire", "flops": 25, "seconds_total": 2.0},
    ]
    found = {claim["claim"]: claim for claim in claims(rows)}
    assert found["flops_saved"]["value"] == pytest.approx(0.975)
    assert found["faster"]["value"] == 40.0
    assert all(claim["holds"] for claim in found.values())
    assert claims(rows[1:]) == []
