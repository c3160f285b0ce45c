"""ADM, the UNet of guided-diffusion, as a diffusers `UNet2DModel` (Dhariwal & Nichol 2021).

The shape of a checkpoint in OpenAI's naming is read off its keys; `AdmConfig` holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from distildire.noise.weights import WeightsError

HEAD_CHANNELS = 64
"""Channels of an attention head in all of OpenAI's published ADM models."""


@dataclass(frozen=True)
class AdmConfig:
    """Shape of an unconditional ADM for RGB pictures."""

    block_channels: tuple[int, ...]
    """Channels at each resolution, from the full one down; multiples of 32."""
    attention: tuple[bool, ...]
    """Whether each resolution has attention."""
    layers: int = 2
    """Residual blocks at each resolution on the way down; one more on the way up."""
    head_channels: int = HEAD_CHANNELS
    learn_sigma: bool = True
    """Six output channels, of which the last three (the variance) are dropped."""
    scale_shift: bool = True
    """The time embedding scales and shifts after the norm, rather than being added."""
    resblock_updown: bool = True
    """Residual blocks change the resolution, rather than single convolutions."""
    image_size: int | None = None
    """Side in pixels it was trained on; not in a checkpoint's keys."""

    def __post_init__(self) -> None:
        if not self.block_channels or len(self.block_channels) != len(self.attention):
            raise ValueError(
                f"block_channels {self.block_channels} and attention {self.attention} must have "
                "one entry for each resolution"
            )
        if any(channels % 32 for channels in self.block_channels):
            raise ValueError(
                f"block_channels are {self.block_channels}: ADM's group norms need multiples of 32"
            )

    @property
    def multiple(self) -> int:
        """Both sides of a picture must be divisible by this."""
        return 1 << (len(self.block_channels) - 1)


PRESETS = {
    # 552,814,086 parameters: 256x256_diffusion_uncond.pt.
    "imagenet256": AdmConfig(
        block_channels=(256, 256, 512, 512, 1024, 1024),
        attention=(False, False, False, True, True, True),
        image_size=256,
    ),
    # 8.9 million parameters, to train on a CPU.
    "small64": AdmConfig(
        block_channels=(64, 64, 128, 128), attention=(False, False, True, True), image_size=64
    ),
    # 2.0 million parameters, for tests and smoke runs.
    "tiny64": AdmConfig(
        block_channels=(64, 64, 64), attention=(False, False, True), layers=1, image_size=64
    ),
}


class AdmNoise(nn.Module):
    """The eps half of a diffusers UNet: (x_t [B, 3, H, W], t [B]) -> eps [B, 3, H, W]."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The predicted noise; a learned variance is dropped."""
        out: Tensor = self.unet(x_t, t, return_dict=False)[0]
        return out[:, :3]


def build_unet(config: AdmConfig) -> Any:
    """A diffusers `UNet2DModel` of this shape, randomly initialised.

    Under `torch.device("meta")` it takes no memory.
    """
    from diffusers import UNet2DModel

    resample = "resnet" if config.resblock_updown else "conv"
    plain_down = "ResnetDownsampleBlock2D" if config.resblock_updown else "DownBlock2D"
    plain_up = "ResnetUpsampleBlock2D" if config.resblock_updown else "UpBlock2D"
    return UNet2DModel(
        sample_size=config.image_size,
        out_channels=6 if config.learn_sigma else 3,
        block_out_channels=config.block_channels,
        layers_per_block=config.layers,
        down_block_types=tuple(
            "AttnDownBlock2D" if here else plain_down for here in config.attention
        ),
        up_block_types=tuple(
            "AttnUpBlock2D" if here else plain_up for here in reversed(config.attention)
        ),
        attention_head_dim=config.head_channels,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
        downsample_type=resample,
        upsample_type=resample,
        attn_norm_num_groups=32,
        flip_sin_to_cos=True,
        freq_shift=0,
    )


def infer_config(shapes: Mapping[str, torch.Size]) -> AdmConfig:
    """Read the shape of an ADM off a checkpoint in guided-diffusion's naming.

    The channels of an attention head are not in the keys: 64, as in every published model,
    unless an attention layer's channels aren't a multiple of 64; then the largest divisor
    of them all that divides 64.

    Raises:
        WeightsError: not such a checkpoint, class-conditional, a super-resolution model, or
            keys too incomplete to tell the shape.
    """
    if "label_emb.weight" in shapes:
        classes = shapes["label_emb.weight"][0]
        raise WeightsError(
            f"a class-conditional ADM ({classes} classes, label_emb.weight): the noise of a "
            "picture needs an unconditional one, such as 256x256_diffusion_uncond.pt"
        )
    in_channels = _shape(shapes, "input_blocks.0.0.weight")[1]
    if in_channels != 3:
        raise WeightsError(f"takes {in_channels} input channels, not 3 (a super-resolution ADM?)")
    layers, levels = _depth(shapes)
    # The level's first block follows the stem and, a level, its layers and one downsampler.
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    channels = tuple(_shape(shapes, f"input_blocks.{n}.0.out_layers.3.weight")[0] for n in firsts)
    attention = tuple(f"input_blocks.{n}.1.qkv.weight" in shapes for n in firsts)
    width = _shape(shapes, "time_embed.0.weight")[1]
    if width != channels[0]:
        raise WeightsError(
            f"time embedding of {width} channels beside {channels[0]} at full resolution: "
            "diffusers' UNet2DModel has no such shape (channel_mult must start with 1)"
        )
    out_channels = _shape(shapes, "out.2.weight")[0]
    if out_channels not in {3, 6}:
        raise WeightsError(f"gives {out_channels} output channels, not 3 or 6")
    attended = [c for c, here in zip(channels, attention, strict=True) if here]
    time_channels = _shape(shapes, "input_blocks.1.0.emb_layers.1.weight")[0]
    try:
        return AdmConfig(
            block_channels=channels,
            attention=attention,
            layers=layers,
            # The middle block always has attention, at the last level's channels.
            head_channels=gcd(HEAD_CHANNELS, channels[-1], *attended),
            learn_sigma=out_channels == 6,
            scale_shift=time_channels == 2 * channels[0],
            resblock_updown=levels == 1 or f"input_blocks.{layers + 1}.0.op.weight" not in shapes,
        )
    except ValueError as error:
        raise WeightsError(str(error)) from error


def with_image_size(config: AdmConfig) -> AdmConfig:
    """Add the image size where the shape is that of a published preset."""
    from dataclasses import replace

    for preset in PRESETS.values():
        if replace(preset, image_size=None) == config:
            return preset
    return config


def _depth(shapes: Mapping[str, torch.Size]) -> tuple[int, int]:
    """(layers, levels): the first upsampler sits behind the last block of its level."""
    found = [re.match(r"output_blocks\.(\d+)\.(\d+)\.(in_layers|conv)\b", key) for key in shapes]
    places = {(int(m[1]), int(m[2])) for m in found if m}
    if not places:
        raise WeightsError("no output_blocks: not a guided-diffusion (ADM) checkpoint")
    blocks = 1 + max(n for n, _ in places)
    upsamplers = sorted(n for n, place in places if place > 0)
    layers = upsamplers[0] if upsamplers else blocks - 1
    if layers < 1 or blocks % (layers + 1):
        raise WeightsError(
            f"{blocks} output blocks with upsamplers in {upsamplers}: the checkpoint is "
            "incomplete or of another network"
        )
    return layers, blocks // (layers + 1)


def _shape(shapes: Mapping[str, torch.Size], key: str) -> torch.Size:
    try:
        return shapes[key]
    except KeyError:
        raise WeightsError(f"the key {key} is missing: not a whole ADM checkpoint") from None
