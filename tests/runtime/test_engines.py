from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from distildire import Detector
from distildire.bundle import BundleError, load_bundle
from distildire.io.pictures import decode
from distildire.runtime import engines
from distildire.runtime.engines import CUDA, onnx_session, open_runner
from distildire.runtime.float_products import float_products
from distildire.runtime.openvino import OpenvinoRunner, to_openvino
from standin import expected_logit

TOLERANCE = 0.002
"""Logits of two devices differ by so much at most, on the same weights in float32."""

TOLERANCE_FEW_BITS = 0.6
"""The same where weights have few bits, on the examples: ONNX Runtime on the CPU and OpenVINO
round the activations to eight bits, each in its own way, and CUDA doesn't round them. Other
pictures may differ by more: docs/scale.md has how much."""

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.*g"))

NO_CUDA = CUDA not in onnxruntime.get_available_providers()


def crops_of(detector: Detector, count: int) -> np.ndarray:
    side = detector.bundle.preprocessing.crop
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def test_openvino_scores_as_the_closed_form(bundle: Path) -> None:
    pytest.importorskip("openvino")
    found = Detector(bundle, device="openvino", threads=2)
    crops = crops_of(found, 7)
    assert found.device == "openvino"
    for alone in (False, True):
        scores = found.score_crops(crops, alone=alone)
        np.testing.assert_allclose(scores, expected_logit(crops), atol=TOLERANCE)


@pytest.mark.parametrize("form", ["onnx", "ir"])
def test_openvino_scores_the_bundled_model_as_onnx_runtime(form: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model: str | Path = "nano"
    if form == "ir":
        model = to_openvino(load_bundle("nano"), tmp_path / "ir").parent
    here, there = Detector("nano", threads=1), Detector(model, device="openvino", threads=1)
    assert there.graph_outputs == here.graph_outputs
    assert there.bundle.sha256 == here.bundle.sha256
    logits = [[d.logit(decode(path)) for path in EXAMPLES] for d in (here, there)]
    np.testing.assert_allclose(*logits, atol=TOLERANCE_FEW_BITS, rtol=0)


def test_openvino_computes_what_the_graph_says(tmp_path: Path) -> None:
    """The bundled network with products in float32, where nothing is rounded on the way."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    nano = load_bundle("nano")
    graph = float_products(nano.graph)
    assert isinstance(graph, bytes)
    (tmp_path / "model.onnx").write_bytes(graph)
    about = (nano.folder / "bundle.json").read_text()
    about = about.replace(nano.sha256, hashlib.sha256(graph).hexdigest())
    (tmp_path / "bundle.json").write_text(about)
    there, here = OpenvinoRunner(load_bundle(tmp_path), 1), onnx_session(graph, 1)
    crops = np.concatenate([nano.preprocessing(decode(path)) for path in EXAMPLES[:4]])
    for output in ("logit", "cam"):
        expected = here.run([output], {"rgb": crops})[0]
        found = there.run([output], {"rgb": crops})[0]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_an_exported_folder_says_what_runs_it(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = to_openvino(load_bundle(bundle), tmp_path / "ir").parent
    with pytest.raises(BundleError, match="give the device openvino"):
        Detector(folder)
    assert Detector(folder, device="auto").device == "openvino"
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.bin is damaged"):
        Detector(folder, device="openvino")


def test_verdicts_are_those_of_the_cpu(bundle: Path, detector: Detector, folder: Path) -> None:
    pytest.importorskip("openvino")
    paths = [folder / "a.png", folder / "sub folder/Ärger über Öl.png", folder / "none.png"]
    found = Detector(bundle, device="openvino", threads=2).predict(paths)
    for verdict, expected in zip(found, detector.predict(paths), strict=True):
        assert (verdict.verdict, verdict.error) == (expected.verdict, expected.error)
        if expected.logit is not None:
            assert verdict.logit == pytest.approx(expected.logit, abs=TOLERANCE)


def test_a_copy_keeps_its_device(bundle: Path) -> None:
    pytest.importorskip("openvino")
    there = Detector(bundle, device="openvino", threads=1)
    assert pickle.loads(pickle.dumps(there)).device == "openvino"


def test_auto_takes_what_works_and_says_so(bundle: Path) -> None:
    assert Detector(bundle, device="auto").device == ("cpu" if NO_CUDA else "cuda")


def test_what_can_not_run_is_one_sentence_with_the_mend(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"device is 'tpu': give one of cpu, cuda"):
        Detector(bundle, device="tpu")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BundleError, match=r"pip install 'distildire\[openvino\]'"):
        Detector(bundle, device="openvino")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BundleError, match=r"pip install 'distildire\[gpu\]'"):
        Detector(bundle, device="cuda")


def test_cuda_without_a_gpu_is_not_the_cpu_in_silence(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime built for CUDA takes the CPU where there is no GPU."""
    on_the_cpu_for_cuda(monkeypatch)
    with pytest.raises(BundleError, match="no GPU that works"):
        Detector(bundle, device="cuda")


def on_the_cpu_for_cuda(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """ONNX Runtime says that it has CUDA, and opens sessions on the CPU; how each was asked for."""
    session, asked = onnxruntime.InferenceSession, []

    def opened(graph: object, options: object, **how: object) -> object:
        asked.append(how)
        return session(graph, options, **{**how, "providers": ["CPUExecutionProvider"]})

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    return asked


def test_a_session_on_cuda_stays_there(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else ONNX Runtime prints what failed among the rows, and goes on with the CPU."""
    asked = on_the_cpu_for_cuda(monkeypatch)
    assert Detector(bundle, device="auto").device == "cpu"
    assert [how["enable_fallback"] for how in asked] == [0, 0]
    assert asked[0]["providers"][0][0] == CUDA  # type: ignore[index]


def test_what_onnx_runtime_prints_of_libraries_is_not_among_the_rows(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def preload() -> None:
        print("Failed to load libcublasLt.so.13: no such file")
        print("Please follow https://onnxruntime.ai/docs/install to install CUDA.")

    on_the_cpu_for_cuda(monkeypatch)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    words = r"are missing \(Failed to load libcublasLt\.so\.13: no such file\): see nvidia-smi"
    with pytest.raises(BundleError, match=words):
        Detector(bundle, device="cuda")
    assert Detector(bundle, device="auto").device == "cpu"
    assert capsys.readouterr().out == ""


def test_a_gpu_is_given_many_pictures_at_a_time(
    bundle: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the CPU in the GPU's place: what is gathered, its order and its scores."""
    sizes = []

    class Standin:
        def __init__(self, runner: engines.Runner) -> None:
            self.get_outputs, self.runner = runner.get_outputs, runner

        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            sizes.append(len(feeds["rgb"]))
            return self.runner.run(names, feeds)

    monkeypatch.setattr(
        engines, "cuda_runner", lambda bundle: Standin(open_runner(bundle, "cpu", 1))
    )
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (170, 180, 3)).astype(np.uint8) for _ in range(70)]
    items = [*pictures[:40], "none.png", *pictures[40:]]
    found = Detector(bundle, device="cuda", threads=2).predict(items)
    assert found[40].error
    logits = [v.logit for v in found if v.error is None]
    np.testing.assert_allclose(logits, [detector.logit(p) for p in pictures], atol=1e-4)
    assert sizes == [64, 62, 14]


@pytest.mark.cuda
def test_cuda_scores_as_the_cpu() -> None:
    there = Detector("nano", device="cuda")
    here = Detector("nano")
    logits = [[d.logit(decode(path)) for path in EXAMPLES] for d in (here, there)]
    np.testing.assert_allclose(*logits, atol=TOLERANCE_FEW_BITS, rtol=0)
