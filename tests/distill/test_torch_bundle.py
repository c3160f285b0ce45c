"""Students that run in torch behind `Detector`, against networks built without our code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image
from test_official import Oracle
from torch import nn

from distildire import Detector
from distildire.bundle import BundleError, TorchPart, load_bundle
from distildire.calibration import Calibration
from distildire.distill import load_student
from distildire.distill.convert import convert
from distildire.distill.student import Student
from distildire.distill.torch_bundle import write_torch_bundle
from distildire.explain.heatmap import heat_of
from distildire.io.preprocessing import Preprocessing
from distildire.noise import load_noise_source
from noise.small_adm import reference


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions alone: a pass at 256 pixels takes a fraction of a second."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("noise")
    UNet2DModel(
        sample_size=64, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        add_attention=False,
    ).save_pretrained(path)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def adm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adm") / "small.pt"
    torch.save(reference("adm")[0], path)
    return path


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(seed=8)


@pytest.fixture(scope="module")
def converted(noise: Path, oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    torch.save(oracle.checkpoint("module."), folder / "paper.pth")
    assert convert(folder / "paper.pth", folder / "bundle", noise=str(noise)) == "student"
    return folder / "bundle"


def resized_and_cropped(rgb: np.ndarray) -> torch.Tensor:
    """The authors' preprocessing, written anew: short side 256, centre 256, [-1, 1]."""
    height, width = rgb.shape[:2]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    image = Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - 256) / 2, (size[1] - 256) / 2
    crop = np.asarray(image.crop((round(left), round(top), round(left) + 256, round(top) + 256)))
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0


@pytest.mark.parametrize("size", [(180, 300), (401, 322)])
def test_a_converted_student_is_the_authors_network(
    converted: Path, noise: Path, oracle: Oracle, size: tuple[int, int]
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    x0 = resized_and_cropped(rgb)
    eps0 = load_noise_source(noise).eps0(x0)
    with torch.no_grad():
        expected = float(oracle(x0, eps0))
        assert float(load_student(converted)(x0, eps0)) == pytest.approx(expected, rel=1e-4)
    detector = Detector(converted)
    assert detector.logit(rgb) == pytest.approx(expected, rel=1e-4)
    noise = detector.run_graph("eps0", detector.bundle.preprocessing(rgb)[:1])
    np.testing.assert_allclose(noise, eps0.numpy(), rtol=1e-4, atol=1e-4)
    heat = heat_of(detector, rgb)
    assert heat.shape == size
    assert detector.logit(rgb) == pytest.approx(expected, rel=1e-4)


@pytest.mark.cuda
def test_on_cuda_it_scores_as_on_the_cpu(converted: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (200, 260, 3), dtype=np.uint8) for _ in range(3)]
    here, there = Detector(converted), Detector(converted, device="cuda")
    logits = [[detector.logit(rgb) for rgb in pictures] for detector in (here, there)]
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-3, atol=1e-3)


def test_no_verdict_without_calibration_then_one_with(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not calibrated yet: run distildire calibrate"):
        Detector(converted).predict([np.zeros((64, 64, 3), np.uint8)])
    bundle = load_bundle(converted)
    low, high = (tuple(np.linspace(a, a + 1, 11).tolist()) for a in (-9.0, 8.0))
    made = Calibration(bundle.sha256, 1.0, 0.0, 50, 50, low, high)
    bundle.with_calibration(made).save()
    Image.fromarray(np.full((64, 80, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    done = subprocess.run(
        [sys.executable, "-m", "distildire", "detect", str(tmp_path / "grey.png"), "--model",
         str(converted), "--format", "jsonl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"model": "paper"' in done.stdout


def test_a_missing_noise_source_is_one_sentence(
    oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILDIRE_HOME", str(tmp_path / "home"))
    torch.save(oracle.checkpoint(), tmp_path / "paper.pth")
    convert(tmp_path / "paper.pth", tmp_path / "bundle")
    with pytest.raises(BundleError, match="models fetch adm-imagenet256") as caught:
        Detector(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", ["dire", "both"])
def test_own_students_too(adm: Path, tmp_path: Path, inputs: str) -> None:
    torch.manual_seed(3)
    student = Student("resnet18", stage=2, inputs=inputs).eval()  # type: ignore[arg-type]
    nn.init.normal_(student.head.weight)
    spec = {"backbone": "resnet18", "stage": 2, "inputs": inputs}
    cut = Preprocessing(crop=32, crops=2)
    write_torch_bundle(
        student, TorchPart(spec, str(adm)), tmp_path / "b", preprocessing=cut, name="own",
        provenance={},
    )  # fmt: skip
    rgb = np.random.default_rng(1).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    x0 = torch.from_numpy(cut(rgb)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    source = load_noise_source(adm)
    noise = source.dire(x0) * 2 - 1 if inputs == "dire" else source.eps0(x0)
    with torch.no_grad():
        expected = float(student(x0, noise).mean())
    before = torch.get_num_threads()
    detector = Detector(tmp_path / "b", threads=before + 1)
    assert detector.logit(rgb) == pytest.approx(expected, abs=1e-3)
    assert torch.get_num_threads() == before


def test_damage_is_noticed(converted: Path, tmp_path: Path) -> None:
    weights = converted / "student.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4])
    with pytest.raises(BundleError, match=r"student\.safetensors is damaged"):
        load_bundle(converted)
    weights.write_bytes(kept)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and no bundle"):
        convert(converted.parent / "paper.pth", tmp_path)
