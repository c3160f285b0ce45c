"""From a name or a path to a `NoiseSource`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distildire.io.download import cache_home
from distildire.noise.schedule import (
    BETA_END,
    BETA_START,
    STEPS,
    eps_from_v,
    linear_alpha_bar,
    rederive_eps,
)
from distildire.noise.source import DTYPES, NoiseSource
from distildire.noise.weights import WeightsError

log = logging.getLogger(__name__)

ADM_FOLDER = "adm-imagenet256"
"""Where `convert_adm` puts ImageNet's ADM, under the cache folder."""

ADM_FILE = "256x256_diffusion_uncond.pt"


def load_noise_source(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    compile: bool = False,
) -> NoiseSource:
    """Load a noise source.

    Args:
        source: "nano" (bundled), "adm" (ImageNet 256 in the cache folder), or a path: a folder
            made by `convert_adm`, a diffusers UNet2DModel or pipeline folder, whose own
            scheduler gives alpha_bar, or an unconditional guided-diffusion `.pt`.
        device: where to run it.
        dtype: of weights and activations: a torch type or "fp32", "bf16", "fp16".
        compile: run the network through `torch.compile`.

    Raises:
        ValueError: nothing there, or not weights that can serve; the message says the mend.
    """
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}: give one of {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype is {dtype}: give float32, bfloat16 or float16")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {device}: not to be had here ({str(error).splitlines()[0]:.80}): give cpu, "
            "or cuda where there is a GPU"
        ) from None
    network, alpha_bar, options = _open(source)
    network = network.to(dtype=dtype, device=device)
    if compile:
        network = torch.compile(network)  # type: ignore[assignment]
    return NoiseSource(network, alpha_bar, dtype=dtype, **options).to(device)


def _open(source: str | Path) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """(network, alpha_bar, the other keywords of `NoiseSource`)."""
    network: nn.Module
    if str(source) == "nano":
        from distildire.noise.nano import load_nano

        network, alpha_bar = load_nano()
        return network, alpha_bar, {"name": "nano", "first_step_only": True}
    if str(source) == "adm":
        network, alpha_bar, options = _open_path(_find_adm())
        return network, alpha_bar, {**options, "name": "adm"}
    path = Path(source)
    if not path.exists():
        raise WeightsError(
            f"{source}: no such noise source; give nano, adm, a folder of diffusers or of "
            "`distildire models convert`, or a guided-diffusion .pt"
        )
    return _open_path(path)


def _find_adm() -> Path:
    home = cache_home()
    for path in (home / ADM_FOLDER, home / ADM_FILE):
        if path.exists():
            return path
    raise WeightsError(
        f"ADM's weights are not in {home}: run `distildire models fetch adm-imagenet256` "
        f"(2.2 GB), or put {ADM_FILE} there"
    )


def _open_path(path: Path) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    return _open_diffusers(path) if path.is_dir() else _open_openai(path)


def _open_openai(path: Path) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    from distildire.noise.adm import AdmNoise
    from distildire.noise.conversion import AdmCheckpoint

    checkpoint = AdmCheckpoint(path)
    state = {name: checkpoint.tensor(name).float() for name in checkpoint.layout()}
    # `assign` keeps the tensors mapped from the file: no second copy of the model.
    checkpoint.unet.load_state_dict(state, assign=True)
    return (
        AdmNoise(checkpoint.unet),
        linear_alpha_bar(),
        {
            "name": path.stem,
            "multiple": checkpoint.config.multiple,
            "image_size": checkpoint.config.image_size,
        },
    )


def _open_diffusers(folder: Path) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    from diffusers import UNet2DModel

    from distildire.noise.adm import AdmNoise

    home = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    config = _read_json(home / "config.json")
    _check_diffusers(config, folder)
    try:
        unet, report = UNet2DModel.from_pretrained(
            home, torch_dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    # diffusers raises OSError, ValueError, RuntimeError and safetensors' own type on files
    # that are missing, cut short or of another shape.
    except Exception as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{home}: weights missing, damaged or half copied: {detail}") from error
    wrong = {
        kind.removesuffix("_keys"): report[kind]
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report.get(kind)
    }
    if wrong:
        listed = "; ".join(
            f"{kind}: {', '.join(map(str, list(keys)[:4]))}" for kind, keys in wrong.items()
        )
        raise WeightsError(f"{home}: the weights don't fit config.json ({listed})")
    alpha_bar, prediction = _schedule(folder, home)
    size = config.get("sample_size")
    network: nn.Module = AdmNoise(unet)
    if prediction != "epsilon":
        network = _ToEps(network, alpha_bar, prediction)
    return (
        network,
        alpha_bar,
        {
            "name": folder.name,
            "multiple": 2 ** (len(config["block_out_channels"]) - 1),
            "image_size": size if isinstance(size, int) else None,
        },
    )


def _check_diffusers(config: dict[str, Any], folder: Path) -> None:
    """Refuse what has no noise for a bare picture."""
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise WeightsError(
            f"{folder}: a {kind}; a noise source is an unconditional UNet2DModel on pixels "
            "(text-conditional and latent models have no noise for a bare picture)"
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise WeightsError(f"{folder}: a class-conditional UNet; give an unconditional one")
    if config.get("in_channels", 3) != 3 or config.get("out_channels", 3) not in {3, 6}:
        raise WeightsError(
            f"{folder}: {config.get('in_channels')} input and {config.get('out_channels')} output "
            "channels; a noise source takes RGB pixels and gives 3 (or 6, with the variance)"
        )


def _schedule(folder: Path, home: Path) -> tuple[Tensor, str]:
    """(alpha_bar float64, prediction type) of the folder's own scheduler."""
    places = [folder / "scheduler", home, home.parent / "scheduler", folder]
    for place in places:
        file = place / "scheduler_config.json"
        if not file.is_file():
            continue
        config = _read_json(file)
        try:
            alpha_bar = _alpha_bar(config)
        # torch and diffusers raise TypeError, NotImplementedError and others on such settings.
        except Exception as error:
            detail = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsError(f"{file}: not a noise schedule of diffusers: {detail}") from error
        return alpha_bar, config.get("prediction_type", "epsilon")
    log.warning("%s has no scheduler_config.json: taking the linear schedule of DDPM", folder)
    return linear_alpha_bar(), "epsilon"


def _alpha_bar(config: dict[str, Any]) -> Tensor:
    """alpha_bar [steps] float64 of a scheduler's configuration."""
    from diffusers import DDPMScheduler

    linear = config.get("beta_schedule", "linear") == "linear"
    if linear and config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr"):
        alpha_bar = linear_alpha_bar(
            config.get("num_train_timesteps", STEPS),
            config.get("beta_start", BETA_START),
            config.get("beta_end", BETA_END),
        )
    else:
        # DDPM's configuration is the part that all of diffusers' schedulers share.
        alpha_bar = DDPMScheduler.from_config(config).alphas_cumprod.double()
    # NaN is caught too: it compares false to everything.
    if not (len(alpha_bar) and 0.0 < alpha_bar[0] < 1.0 and bool((alpha_bar >= 0.0).all())):
        raise ValueError("alpha_bar doesn't fall from below 1 to 0 or above")
    return alpha_bar


_LEAST_LEVEL = 1e-12
"""alpha_bar under which x_t is all noise in float32."""


class _ToEps(nn.Module):
    """eps from a network that predicts v or x0."""

    def __init__(self, network: nn.Module, alpha_bar: Tensor, prediction: str) -> None:
        super().__init__()
        if prediction not in ("v_prediction", "sample"):
            raise WeightsError(f"unknown prediction_type {prediction!r} in the scheduler's config")
        self.network = network
        self.prediction = prediction
        # No buffer: it must stay float32 where the network is in half precision.
        self.levels = alpha_bar.float()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.network(x_t, t)
        level = self.levels.to(t.device)[t][:, None, None, None]
        if self.prediction == "v_prediction":
            return eps_from_v(x_t, out, level)
        return rederive_eps(x_t, out, level.clamp_min(_LEAST_LEVEL))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise WeightsError(
            f"{path.parent}: no {path.name}; not a folder of diffusers or of `models convert`"
        ) from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not settings")
    return content
