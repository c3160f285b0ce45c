"""A tiny noise predictor for the first diffusion steps, in place of a 552-million UNet.

DistilDIRE asks a diffusion model one question: what is the noise at t = 0? There the noise
is faint (sigma = sqrt(1 - alpha_bar[0]) = 0.01 in [-1, 1], 1.3 grey levels), and answering
takes no knowledge of what the picture shows, only of how neighbouring pixels go together.
So the network works on 4 x 4 blocks (pixel unshuffle) with a few plain convolutions.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.io.writing import whole_files, write_json
from distildire.noise.schedule import linear_alpha_bar


@dataclass(frozen=True)
class NanoConfig:
    """Shape of the network."""

    unshuffle: int = 4
    """Side of the pixel blocks that become channels."""
    width: int = 32
    """Channels between the convolutions."""
    depth: int = 4
    """Residual 3 x 3 convolutions between the first and the last."""
    embedding: int = 32
    """Size of the sinusoidal embedding of the noise level."""


class NanoNoise(  # type: ignore[call-arg]  # the mixin's own options
    nn.Module,
    PyTorchModelHubMixin,  # type: ignore[misc]
    library_name="distildire",
    tags=["ddpm-noise-predictor"],
):
    """eps = NanoNoise(x_t, t): the DDPM noise predictor's signature, for small t.

    Blocks are looked at in their principal components, each brought to unit variance (at
    t = 0 the noise is lost among the large ones), and the convolutions correct the Wiener
    filter, which is the best linear guess from one block. 0.28 GMAC at 256 x 256.
    """

    basis: Tensor
    variance: Tensor
    alpha_bar: Tensor

    def __init__(self, config: NanoConfig | dict[str, int] | None = None) -> None:
        super().__init__()
        # The hub's loader gives what it found in config.json.
        config = NanoConfig(**config) if isinstance(config, dict) else config or NanoConfig()
        self.config = config
        channels = 3 * config.unshuffle**2
        self.register_buffer("basis", torch.eye(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("alpha_bar", linear_alpha_bar().float(), persistent=False)
        self.first = nn.Conv2d(channels, config.width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Conv2d(config.width, config.width, 3, padding=1) for _ in range(config.depth)
        )
        self.last = nn.Conv2d(config.width, channels, 3, padding=1)
        self.level = nn.Linear(config.embedding, config.width * (config.depth + 1))
        for layer in (self.last, self.level):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def set_components(self, x0: Tensor) -> None:
        """Principal components of the pixel blocks of photographs x0 [B, 3, H, W] in [-1, 1]."""
        blocks = F.pixel_unshuffle(x0, self.config.unshuffle).transpose(0, 1).flatten(1)
        variance, basis = torch.linalg.eigh(torch.cov(blocks.double()))
        self.basis.copy_(basis.T)
        self.variance.copy_(variance.clamp_min(0.0))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t [B, 3, H, W] in about [-1, 1], t [B] int64 -> eps [B, 3, H, W].

        Sides that are no multiple of `unshuffle` are padded by repetition and cut again.
        """
        block = self.config.unshuffle
        height, width = x_t.shape[-2:]
        down, right = -height % block, -width % block
        if down or right:
            x_t = F.pad(x_t, (0, right, 0, down), mode="replicate")
        ab = self.alpha_bar[t][:, None]
        unit = (self.variance + 1.0 - self.alpha_bar[0]).sqrt()
        c = F.conv2d(F.pixel_unshuffle(x_t, block), (self.basis / unit[:, None])[:, :, None, None])
        wiener = (1.0 - ab).sqrt() * unit / (ab * self.variance + 1.0 - ab)
        bias = self.level(level_embedding(t, self.config.embedding))
        biases = bias[:, :, None, None].chunk(self.config.depth + 1, dim=1)
        h = F.relu(self.first(c) + biases[0])
        for conv, b in zip(self.body, biases[1:], strict=True):
            h = h + F.relu(conv(h) + b)
        components = wiener[:, :, None, None] * c + self.last(h)
        eps = F.pixel_shuffle(F.conv2d(components, self.basis.T[:, :, None, None]), block)
        return eps[..., :height, :width] if down or right else eps


def level_embedding(t: Tensor, size: int) -> Tensor:
    """Sinusoidal embedding of the step: t [B] -> [B, size] (Vaswani et al. 2017)."""
    half = size // 2
    rates = torch.exp(-math.log(1000.0) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * rates[None, :]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def save_nano(network: NanoNoise, folder: Path, **provenance: object) -> None:
    """Write `nano.safetensors` and `nano.json` (shape and provenance) into `folder`."""
    from safetensors.torch import save

    about = {"config": asdict(network.config), "provenance": provenance}
    with whole_files(folder) as filling:
        # `save_file` would leave a file that its owner alone may read.
        (filling / "nano.safetensors").write_bytes(save(network.state_dict()))
        write_json(filling / "nano.json", about, indent=2)


def load_nano(folder: Path | None = None) -> tuple[NanoNoise, Tensor]:
    """The bundled predictor, or the one in `folder`: (network in eval mode, alpha_bar [1000])."""
    from safetensors.torch import load_file

    root = folder or Path(str(resources.files("distildire") / "models" / "nano-noise"))
    if not (root / "nano.json").is_file():
        raise ValueError(f"{root}: no nano noise predictor (nano.json is missing)")
    about = json.loads((root / "nano.json").read_text())
    network = NanoNoise(NanoConfig(**about["config"]))
    network.load_state_dict(load_file(str(root / "nano.safetensors")))
    return network.eval(), linear_alpha_bar()
