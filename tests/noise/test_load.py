"""Noise sources from checkpoints and folders, and every way in which they can be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from small_adm import reference, seeded_pictures, seeded_weights

from distildire.distill.convert import convert
from distildire.noise import load_noise_source
from distildire.noise.adm import PRESETS, AdmConfig, build_unet, infer_config
from distildire.noise.conversion import AdmCheckpoint, convert_adm, openai_shape, places_of


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return reference("adm")[0]


def save(weights: dict[str, Any], path: Path, **changes: torch.Tensor | None) -> Path:
    """Save with some keys replaced (None: removed); `__` stands for a dot."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    changed = {**weights, **named}
    torch.save({k: v for k, v in changed.items() if v is not None}, path)
    return path


def openai_shapes(config: AdmConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in build_unet(config).state_dict().items()}
    return {
        place: openai_shape(place, shapes[ours])
        for ours, place in places_of(config)
        if ours in shapes
    }


def test_imagenet256_has_the_papers_size() -> None:
    with torch.device("meta"):
        unet = build_unet(PRESETS["imagenet256"])
    assert sum(p.numel() for p in unet.parameters()) == 552_814_086


@pytest.mark.parametrize(
    "config",
    [
        AdmConfig((64, 128), (True, True), layers=1),
        AdmConfig((64,), (False,), layers=2, learn_sigma=False),
        AdmConfig((32, 32, 96), (False, True, False), layers=3, head_channels=32),
        AdmConfig((64, 64), (False, False), scale_shift=False, resblock_updown=False),
    ],
)
def test_shape_is_read_off_the_keys(config: AdmConfig) -> None:
    assert infer_config(openai_shapes(config)) == config


def test_folder_gives_the_same_numbers(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = save(weights, tmp_path / "small.pt")
    assert convert(path, tmp_path / "out") == "adm"
    direct, folder = load_noise_source(path), load_noise_source(tmp_path / "out")
    x0 = seeded_pictures(1, 32, seed=1)
    # Not to the bit: kernels differ with the alignment of the weights in memory.
    torch.testing.assert_close(direct.eps0(x0), folder.eps0(x0), atol=2e-5, rtol=0)
    assert direct.weights_hash == folder.weights_hash
    assert folder.multiple == 2
    # The file that we write ourselves reads back in safetensors' own reader.
    tensors = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(tensors["conv_in.weight"], weights["input_blocks.0.0.weight"])
    about = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert about["parameters"] == sum(t.numel() for t in weights.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "small.pt"]
    convert_adm(path, tmp_path / "out")  # replaces an earlier conversion


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_wrong_checkpoints_are_named(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "wrong.pt"
    cases: list[tuple[dict[str, torch.Tensor | None], str]] = [
        ({"label_emb__weight": torch.zeros(1000, 256)}, "class-conditional ADM"),
        ({"middle_block__1__norm__bias": None}, r"1 missing \(middle_block\.1\.norm\.bias\)"),
        ({"extra__weight": torch.zeros(2)}, r"1 unexpected \(extra\.weight\)"),
        ({"time_embed__2__bias": torch.zeros(3)}, r"misshapen \(time_embed\.2\.bias \[3\]"),
        ({"input_blocks__0__0__weight": torch.zeros(64, 6, 3, 3)}, "6 input channels"),
        ({"out__2__weight": None}, r"out\.2\.weight is missing"),
    ]
    for changes, message in cases:
        save(weights, path, **changes)
        with pytest.raises(ValueError, match=message):
            load_noise_source(path)
        with pytest.raises(ValueError, match=message):
            convert_adm(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    torch.save({"model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match="neither a guided-diffusion"):
        convert(path, tmp_path / "out")
    torch.save({**weights, "x": _Code()}, path)
    with pytest.raises(ValueError, match="wants to run code"):
        load_noise_source(path)
    assert not (tmp_path / "ran").exists()
    save(weights, path)
    whole = path.read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="half downloaded"):
            load_noise_source(path)
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert AdmCheckpoint(path).config.block_channels == (64, 128)


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()


def test_diffusers_folder_brings_its_own_schedule(unet: UNet2DModel, tmp_path: Path) -> None:
    scheduler = DDIMScheduler(500, beta_start=1e-3, beta_end=0.012, beta_schedule="scaled_linear")
    unet.save_pretrained(tmp_path / "pipe" / "unet")
    scheduler.save_pretrained(tmp_path / "pipe" / "scheduler")
    source = load_noise_source(tmp_path / "pipe")
    torch.testing.assert_close(source.alpha_bar.float(), scheduler.alphas_cumprod)
    assert (source.name, source.image_size, source.multiple) == ("pipe", 16, 2)
    x_t = torch.randn(2, 3, 16, 16)
    t = torch.tensor([3, 3])
    with torch.no_grad():
        assert torch.equal(source.predict(x_t, t), unet(x_t, t).sample)
    # The part alone, beside its scheduler; and without any.
    assert len(load_noise_source(tmp_path / "pipe" / "unet").alpha_bar) == 500
    unet.save_pretrained(tmp_path / "bare")
    assert len(load_noise_source(tmp_path / "bare").alpha_bar) == 1000


def test_other_predictions_become_eps(unet: UNet2DModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path / "unet")
    x_t = torch.randn(1, 3, 16, 16)
    t = torch.tensor([400])
    for prediction in ("v_prediction", "sample"):
        scheduler = DDPMScheduler(prediction_type=prediction)
        scheduler.save_pretrained(tmp_path / "scheduler")
        source = load_noise_source(tmp_path)
        with torch.no_grad():
            out = unet(x_t, t).sample
            eps = source.predict(x_t, t)
        # The eps must give the x0 that diffusers' scheduler reads from the network's output.
        level = scheduler.alphas_cumprod[400]
        x0 = (x_t - (1 - level).sqrt() * eps) / level.sqrt()
        wanted = level.sqrt() * x_t - (1 - level).sqrt() * out
        torch.testing.assert_close(
            x0, out if prediction == "sample" else wanted, atol=1e-3, rtol=1e-3
        )


def test_a_schedule_rescaled_to_zero_snr(unet: UNet2DModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path / "unet")
    x_t, t = torch.randn(1, 3, 16, 16), torch.tensor([999])
    for prediction in ("v_prediction", "sample"):
        scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type=prediction)
        scheduler.save_pretrained(tmp_path / "scheduler")
        source = load_noise_source(tmp_path)
        torch.testing.assert_close(source.alpha_bar.float(), scheduler.alphas_cumprod)
        assert source.alpha_bar[-1] == 0
        # Where nothing is left of the picture, x_t is the noise.
        with torch.no_grad():
            torch.testing.assert_close(source.predict(x_t, t), x_t)
    assert source.dire(torch.zeros(1, 3, 16, 16), steps=4).isfinite().all()
    with pytest.raises(ValueError, match="timestep 999, where alpha_bar is 0"):
        source.dire(torch.zeros(1, 3, 16, 16), steps=1000)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "nonsense"},
        {"num_train_timesteps": "x"},
        {"num_train_timesteps": 0},
        {"beta_start": "x", "beta_schedule": "scaled_linear"},
        {"beta_start": 0.0},
        {"beta_end": 3.0},
        {"trained_betas": [0.1, "x"]},
        {"trained_betas": 3},
        {"prediction_type": ["epsilon"]},
    ],
)
def test_wrong_schedules_are_named(
    unet: UNet2DModel, tmp_path: Path, settings: dict[str, object]
) -> None:
    unet.save_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text(json.dumps(settings))
    words = "scheduler_config.json: not a noise schedule|unknown prediction_type"
    with pytest.raises(ValueError, match=words):
        load_noise_source(tmp_path)


def test_wrong_folders_are_named(unet: UNet2DModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    config_file = tmp_path / "config.json"
    config = json.loads(config_file.read_text())
    for change, message in (
        ({"_class_name": "UNet2DConditionModel"}, "a UNet2DConditionModel"),
        ({"num_class_embeds": 10}, "class-conditional"),
        ({"in_channels": 4}, "4 input"),
        ({"block_out_channels": [32, 64]}, "missing, damaged|don't fit"),
    ):
        config_file.write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            load_noise_source(tmp_path)
    config_file.write_text(json.dumps(config))
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged"):
        load_noise_source(tmp_path)
    config_file.unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_noise_source(tmp_path)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILDIRE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="distildire models fetch adm-imagenet256"):
        load_noise_source("adm")
    with pytest.raises(ValueError, match="no such noise source"):
        load_noise_source(tmp_path / "absent")
    shapes = {k: list(v) for k, v in openai_shapes(AdmConfig((64,), (False,), layers=1)).items()}
    torch.save(seeded_weights(shapes, 1), tmp_path / "256x256_diffusion_uncond.pt")
    assert load_noise_source("adm").name == "adm"


def test_nano() -> None:
    source = load_noise_source("nano")
    x0 = seeded_pictures(2, 64, seed=2)
    assert source.eps0(x0).shape == x0.shape
    with pytest.raises(ValueError, match="first diffusion step alone"):
        source.dire(x0)


def test_wrong_pictures_are_named(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    source = load_noise_source(save(weights, tmp_path / "small.pt"))
    for x0, message in (
        (torch.zeros(3, 32, 32), r"\[3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
        (torch.zeros(1, 3, 33, 32), "multiples of 2"),
        (torch.full((1, 3, 32, 32), 255.0), r"\[255, 255\]"),
        (torch.full((1, 3, 32, 32), torch.nan), "nan"),
    ):
        with pytest.raises(ValueError, match=message):
            source.eps0(x0)
