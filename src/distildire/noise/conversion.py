"""guided-diffusion checkpoints to diffusers: each key accounted for, one tensor at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distildire.io.hashing import sha256_of
from distildire.io.writing import whole_folder, write_json
from distildire.noise.adm import AdmConfig, build_unet, infer_config, with_image_size
from distildire.noise.schedule import BETA_END, BETA_START, STEPS
from distildire.noise.weights import (
    WeightsError,
    count_keys,
    read_checkpoint,
    write_safetensors,
)

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}

_KEPT_BYTES = 256 << 20
"""Pages of the mapped checkpoint that may gather in memory during a conversion."""


def convert_adm(
    file: str | Path, out: str | Path, *, head_channels: int | None = None
) -> AdmConfig:
    """Convert a guided-diffusion checkpoint to a diffusers folder in safetensors.

    `out` gets `config.json`, `diffusion_pytorch_model.safetensors`, `scheduler_config.json`
    (the linear schedule of 1000 steps) and `conversion.json` (where it came from). The folder
    appears whole or not at all. Little more than one tensor is in memory at a time.

    Args:
        file: a `.pt` in OpenAI's naming.
        out: folder to make; an earlier conversion there is replaced.
        head_channels: channels of an attention head, where they aren't the inferred ones.

    Raises:
        WeightsError: damaged file, class-conditional model, or keys that don't fit.
    """
    file, out = Path(file), Path(out)
    with whole_folder(out, "config.json", "converted model") as whole:
        checkpoint = AdmCheckpoint(file, head_channels=head_channels)
        layout = checkpoint.layout()
        weights = whole / "diffusion_pytorch_model.safetensors"
        write_safetensors(weights, layout, checkpoint.passing_tensor)
        checkpoint.unet.save_config(whole)
        write_json(whole / "scheduler_config.json", SCHEDULER, indent=2)
        about = {
            "source": file.name,
            "source_bytes": file.stat().st_size,
            "source_sha256": sha256_of(file),
            "parameters": sum(shape.numel() for _, shape in layout.values()),
        }
        write_json(whole / "conversion.json", about, indent=2)
    return checkpoint.config


SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": STEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}


class AdmCheckpoint:
    """A guided-diffusion checkpoint seen through diffusers' key names."""

    def __init__(self, file: str | Path, *, head_channels: int | None = None) -> None:
        """Open `file` and account for every key; see `convert_adm` for what is raised."""
        self._file = file
        self._open()
        shapes = {k: v.shape for k, v in self._tensors.items()}
        try:
            self.config = with_image_size(infer_config(shapes))
            if head_channels is not None:
                self.config = replace(self.config, head_channels=head_channels)
            with torch.device("meta"):
                self.unet: Any = build_unet(self.config)
        except ValueError as error:
            raise WeightsError(f"{file}: {error}") from error
        self._shapes = {k: v.shape for k, v in self.unet.state_dict().items()}
        self._places = _accounted(self.config, shapes, self._shapes, str(file))

    def _open(self) -> None:
        """Map the file anew: the pages read so far no longer count as this process's."""
        content = read_checkpoint(self._file)
        self._tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        self._read = 0

    def layout(self) -> dict[str, tuple[torch.dtype, torch.Size]]:
        """diffusers' keys with the type (as stored) and shape of each."""
        return {
            ours: (self._tensors[self._places[ours]].dtype, shape)
            for ours, shape in self._shapes.items()
        }

    def tensor(self, ours: str) -> Tensor:
        """One tensor under diffusers' key."""
        openai = self._places[ours]
        tensor = self._tensors[openai]
        if ".qkv." in openai:
            which = ("to_q", "to_k", "to_v").index(ours.split(".")[-2])
            tensor = _legacy_part(tensor, which, self.config.head_channels)
        return tensor.reshape(self._shapes[ours])

    def passing_tensor(self, ours: str) -> Tensor:
        """The same for a pass over all of them, in which what was read need not stay in memory."""
        tensor = self.tensor(ours)
        self._read += tensor.nbytes
        # PyTorch's format before 1.6 can't be mapped: it is in memory whole.
        if self._read > _KEPT_BYTES and zipfile.is_zipfile(self._file):
            self._open()
        return tensor


def _accounted(
    config: AdmConfig, found: Mapping[str, torch.Size], ours: Mapping[str, torch.Size], where: str
) -> dict[str, str]:
    """diffusers' keys -> OpenAI's, once every key of the checkpoint `where` has its place."""
    places = {k: v for k, v in places_of(config) if k in ours}
    if missing := set(ours) - set(places):
        raise AssertionError(f"keys of the UNet without a place: {sorted(missing)[:4]}")
    count_keys(found, {v: openai_shape(v, ours[k]) for k, v in places.items()}, where)
    return places


def _legacy_part(qkv: Tensor, which: int, head_channels: int) -> Tensor:
    """q, k or v (0, 1, 2) of guided-diffusion's qkv, whose rows go head by head.

    The order is [heads, 3, head_channels]; taking thirds of the rows instead loads every key
    and gives wrong numbers.
    """
    rows = qkv.reshape(-1, 3, head_channels, *qkv.shape[1:])
    return rows[:, which].reshape(-1, *qkv.shape[1:])


def openai_shape(openai: str, shape: torch.Size) -> torch.Size:
    """The shape that a tensor of ours has under OpenAI's key.

    q, k and v are rows of one qkv there, and 1x1 convolutions on tokens are linear layers here.
    """
    if ".qkv." in openai:
        shape = torch.Size([3 * shape[0], *shape[1:]])
    if openai.endswith((".qkv.weight", ".proj_out.weight")):
        shape = torch.Size([*shape, 1])
    return shape


def places_of(config: AdmConfig) -> Iterator[tuple[str, str]]:
    """(diffusers key, OpenAI key) of every tensor, and of shortcuts that may not exist."""
    for openai, ours in _modules(config):
        names = {ours: openai}
        if ".resnets." in ours or (config.resblock_updown and "samplers." in ours):
            names = {f"{ours}.{v}": f"{openai}.{k}" for k, v in _RESNET.items()}
        elif ".attentions." in ours:
            names = {f"{ours}.{v}": f"{openai}.{k}" for k, v in _ATTENTION.items()}
            names |= {f"{ours}.{part}": f"{openai}.qkv" for part in ("to_q", "to_k", "to_v")}
        for name, place in names.items():
            for kind in ("weight", "bias"):
                yield f"{name}.{kind}", f"{place}.{kind}"


def _modules(config: AdmConfig) -> Iterator[tuple[str, str]]:
    """(OpenAI prefix, diffusers prefix) of each block, in the order that OpenAI counts them."""
    yield from _ENDS.items()
    levels = len(config.block_channels)
    n = 1
    for level, attention in enumerate(config.attention):
        for layer in range(config.layers):
            yield f"input_blocks.{n}.0", f"down_blocks.{level}.resnets.{layer}"
            if attention:
                yield f"input_blocks.{n}.1", f"down_blocks.{level}.attentions.{layer}"
            n += 1
        if level < levels - 1:
            down = f"down_blocks.{level}.downsamplers.0"
            if config.resblock_updown:
                yield f"input_blocks.{n}.0", down
            else:
                yield f"input_blocks.{n}.0.op", f"{down}.conv"
            n += 1
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    n = 0
    for level, attention in enumerate(reversed(config.attention)):
        for layer in range(config.layers + 1):
            yield f"output_blocks.{n}.0", f"up_blocks.{level}.resnets.{layer}"
            if attention:
                yield f"output_blocks.{n}.1", f"up_blocks.{level}.attentions.{layer}"
            if level < levels - 1 and layer == config.layers:
                place = f"output_blocks.{n}.{2 if attention else 1}"
                up = f"up_blocks.{level}.upsamplers.0"
                if config.resblock_updown:
                    yield place, up
                else:
                    yield f"{place}.conv", f"{up}.conv"
            n += 1
