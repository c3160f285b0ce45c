"""Tiny methods for the benchmark to measure, opened by name in its processes."""

from __future__ import annotations

from torch import nn

from distildire.bench.batched import Precision, TorchBatched
from distildire.bench.methods import Method, PaperMethod
from distildire.distill.student import Student
from distildire.io.preprocessing import resize_and_crop
from distildire.noise.adm import AdmConfig, AdmNoise, build_unet
from distildire.noise.schedule import linear_alpha_bar
from distildire.noise.source import NoiseSource

SIDE = 64


def source() -> NoiseSource:
    config = AdmConfig(block_channels=(32, 32), attention=(False, True), layers=1, head_channels=32)
    unet: nn.Module = AdmNoise(build_unet(config))
    return NoiseSource(unet, linear_alpha_bar(), name="stand-in", multiple=2)


def dire() -> Method:
    student = Student("resnet18", stage=2, inputs="dire")
    return PaperMethod(source(), student, dire=True, side=SIDE, note="stand-in")


def distildire() -> Method:
    return PaperMethod(source(), Student("resnet18", stage=2), dire=False, side=SIDE, note="tiny")


def broken() -> Method:
    raise RuntimeError("no such weights here")


def batched(device: str, *, dire: bool = False, precision: Precision = "fp32") -> TorchBatched:
    student = Student("resnet18", stage=2, inputs="dire" if dire else "both")
    cut = resize_and_crop(SIDE)
    return TorchBatched(source(), student, cut, precision=precision, note="stand-in")


def batched_dire(device: str) -> TorchBatched:
    return batched(device, dire=True)


def batched_bf16(device: str) -> TorchBatched:
    return batched(device, precision="bf16")
