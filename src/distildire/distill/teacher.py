"""The frozen network whose feature map the student imitates: any backbone, or CLIP's image side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.distill.backbones import Backbone
from distildire.distill.config import network_of
from distildire.distill.start import begin, read_trained
from distildire.distill.student import Student
from distildire.distill.vit import CLIP, MEAN, SHAPES, STD, find_weights

Teacher: TypeAlias = "Backbone | ClipTeacher | DetectorTeacher"


def build_teacher(
    name: str, *, stage: int = 4, pretrained: bool = True, checkpoint: str = "",
    turned: bool = False,
) -> Teacher:  # fmt: skip
    """A teacher by name: `CLIP`, or any timm network; or the detector of a `checkpoint`.

    Raises:
        ValueError: unknown name, or weights that can't be found.
    """
    if checkpoint:
        return DetectorTeacher(checkpoint, turned=turned)
    if name == CLIP:
        return ClipTeacher(find_weights(CLIP))
    return Backbone(name, stage=stage, pretrained=pretrained)


class DetectorTeacher(nn.Module):
    """A trained detector of images: its last map [B, C, h, w], and its logits [B].

    Args:
        start: a checkpoint, a bundle's folder or a model's name (see `read_trained`).
        turned: look at each batch from a random one of its eight sides and turn the map back, so
            that what is taught is the mean over the sides.
    """

    def __init__(self, start: str, *, turned: bool = False) -> None:
        super().__init__()
        self.student = Student(**network_of(read_trained(start).options))
        begin(self.student, start)
        if self.student.inputs != "image":
            raise ValueError(f"{start}: its inputs are {self.student.inputs}: give one of images")
        self.channels, self.turned = self.student.channels, turned

    def teach(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] in [-1, 1] -> the map that the student imitates, and the logits."""
        side = int(torch.randint(8, ())) if self.turned else 0
        x = turn(x, side)
        maps = self.student.forward_maps(x, x)
        return turn_back(maps[-1], side), self.student.classify(maps)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> the map."""
        return self.teach(x)[0]


def turn(planes: Tensor, side: int) -> Tensor:
    """[..., H, W] seen from one of eight sides: mirrored from the fifth on, then turned."""
    return (planes.flip(-1) if side >= 4 else planes).rot90(side % 4, (-2, -1))


def turn_back(planes: Tensor, side: int) -> Tensor:
    """What `turn` made, as it was."""
    upright = planes.rot90(-(side % 4), (-2, -1))
    return upright.flip(-1) if side >= 4 else upright


class ClipTeacher(nn.Module):
    """The patch tokens of a frozen CLIP ViT-B/16, as a map: [B, 3, H, W] -> [B, 768, 14, 14].

    The second output of the ONNX graph, [B, 197, 768], is the last hidden state before
    pooling. Each token is normalised over its channels, so that the MSE is of the order of
    one, as it is for the other teachers.
    """

    channels = SHAPES[CLIP].channels
    side = 14

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        self.session: Any = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        outputs = [o.name for o in self.session.get_outputs() if len(o.shape) == 3]
        if not outputs:
            raise ValueError(f"{path}: no output [B, tokens, channels]")
        self.output = outputs[0]
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1], of any size -> [B, 768, 14, 14]."""
        big = F.interpolate(x.float(), (224, 224), mode="bicubic", align_corners=False)
        pixels = ((big.clamp(-1, 1) + 1) / 2 - self.mean) / self.std
        feed = {self.session.get_inputs()[0].name: pixels.contiguous().cpu().numpy()}
        tokens = torch.from_numpy(self.session.run([self.output], feed)[0]).to(x.device)
        patches = F.layer_norm(tokens[:, 1:], (self.channels,))  # the first is the class token
        return patches.transpose(1, 2).reshape(-1, self.channels, self.side, self.side)
