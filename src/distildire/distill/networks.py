"""What takes part in a training step: the student, what it is shown, and who teaches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from distildire.distill.checkpoint import build_student
from distildire.distill.config import TrainConfig
from distildire.distill.lora import add_low_rank
from distildire.distill.loss import Projection
from distildire.distill.student import Student
from distildire.distill.teacher import DetectorTeacher, Teacher, build_teacher
from distildire.distill.vit import VitBackbone
from distildire.noise import load_noise_source
from distildire.noise.schedule import to_unit

if TYPE_CHECKING:
    from distildire.data.cache import DireReader
    from distildire.noise.source import NoiseSource


@dataclass(frozen=True)
class Networks:
    """The networks of one run, and its DIRE maps."""

    student: Student
    teacher: Teacher | None
    projection: Projection | None
    """From the student's map to the teacher's."""
    dire: DireReader | None
    """Cached maps, where the teacher or the student wants them."""
    source: NoiseSource | None
    """Gives eps0; a student of DIRE reads its maps from the cache, one of images needs none."""


def build_networks(config: TrainConfig, device: torch.device) -> Networks:
    """All that `config` names; teacher and noise source on `device`."""
    student = build_student(config)
    if config.optim.lora:
        if not isinstance(student.backbone, VitBackbone):
            raise ValueError(f"optim.lora: {config.student.backbone} is no transformer")
        add_low_rank(student.backbone.network, config.optim.lora)
    teacher, projection, spec = None, None, config.teacher
    if spec.backbone or spec.checkpoint:
        teacher = build_teacher(
            spec.backbone, stage=spec.stage, pretrained=spec.pretrained,
            checkpoint=spec.checkpoint, turned=spec.turned,
        )  # fmt: skip
        teacher = teacher.eval().requires_grad_(False).to(device)
        projection = Projection(student.channels, teacher.channels)
    source = noise_source_of(config, device)
    return Networks(student, teacher, projection, dire_reader(config), source)


def noise_source_of(config: TrainConfig, device: torch.device | str = "cpu") -> NoiseSource | None:
    """What gives the student its eps0; None for a student of DIRE or of pictures alone."""
    if config.student.inputs not in {"both", "noise"}:
        return None
    return load_noise_source(config.noise, device=device)


def dire_reader(config: TrainConfig) -> DireReader | None:
    """Reads the cached DIRE map of a picture, where the teacher or the student wants it."""
    teacher = bool(config.teacher.backbone) and config.teacher.input == "dire"
    if not teacher and config.student.inputs != "dire":
        return None
    if not config.data.dire_cache:
        who = "teacher.input" if teacher else "student.inputs"
        raise ValueError(f"{who} is dire: give data.dire_cache (distildire noise --dire)")
    from distildire.data.cache import open_dire

    return open_dire(Path(config.data.dire_cache))


class Seen(NamedTuple):
    """What student and teacher may see of a batch, [B, 3, S, S] each, in [-1, 1]."""

    x0: Tensor
    noise: Tensor
    """eps0, or DIRE for a student that sees it; a student of images doesn't look."""
    dire: Tensor | None


def noise_of(source: NoiseSource | None, x0: Tensor) -> Tensor:
    """What a student sees beside x0 [B, 3, S, S]: eps0, where there is a source of it.

    A student without one sees one input alone, pictures or DIRE maps, and is given `x0` twice.
    """
    return x0 if source is None else source.eps0(x0)


def seen_of(networks: Networks, crops: Tensor, dire: Sequence[Tensor]) -> Seen:
    """Of crops uint8 [B, 3, S, S] and, in `dire`, of their DIRE maps, bytes too, if any."""
    x0 = unit_planes(crops)
    dire_map = unit_planes(dire[0]) if dire else None
    if networks.source is None and dire_map is not None:
        return Seen(x0, dire_map, dire_map)
    return Seen(x0, noise_of(networks.source, x0), dire_map)


def clean_first(views: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs [B, 2, ...], labels [B] -> all clean views, then their degraded twins; [2B] of both."""
    return views.transpose(0, 1).flatten(0, 1), label.repeat(2)


def lesson(
    teacher: Teacher | None, seen: Seen, config: TrainConfig
) -> tuple[Tensor | None, Tensor | None]:
    """(map to imitate, logits [B] to follow); None for what the teacher doesn't give.

    With `optim.consistency`, what is seen is as `clean_first` gives it.
    """
    if teacher is None:
        return None, None
    shown = seen.x0 if seen.dire is None or config.teacher.input == "image" else seen.dire
    if config.optim.consistency:
        shown = seen.x0.chunk(2)[0]
    given = teacher.teach(shown) if isinstance(teacher, DetectorTeacher) else (teacher(shown), None)
    if not config.optim.consistency:
        return given
    # What the teacher makes of the clean view is the target of both.
    target, taught = given
    return target.repeat(2, 1, 1, 1), None if taught is None else taught.repeat(2)


def unit_planes(rgb: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in [-1, 1], channels last."""
    return to_unit(rgb).contiguous(memory_format=torch.channels_last)
