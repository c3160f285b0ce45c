"""The methods of a GPU's table: many pictures at a time, in float32 and in bfloat16.

Networks are made once and shared by the rows; `sweep` opens each row when its turn comes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from distildire.bench.flops import count_torch
from distildire.bench.methods import DIRE_STEPS, SIDE, BundleMethod, adm_source
from distildire.bench.worker import median_seconds
from distildire.io.cores import usable_cores
from distildire.io.pictures import decode_bytes
from distildire.io.preprocessing import Preprocessing, resize_and_crop
from distildire.noise.schedule import ddim, path_up, to_unit
from distildire.noise.source import DTYPES, NoiseSource

Precision: TypeAlias = Literal["fp32", "bf16"]

SPENT_SECONDS = 0.5
"""A figure is the median of as many runs as fit into this; of what takes longer, the only one."""

WHOLE_SECONDS = 3.0
"""DIRE at a batch that would take longer is extrapolated from two of its forty passes."""

median = partial(median_seconds, spent=SPENT_SECONDS, least=1)


class Swept(Protocol):
    """One detector from files' bytes to logits, as many at a time as it is given."""

    passes: int
    """Of the noise network for one picture."""
    note: str

    def figures(self, files: Sequence[bytes]) -> dict[str, Any]:
        """Seconds of one call: `seconds_total`, `seconds_unet` (or None), `extrapolated`."""
        ...

    def params(self) -> int:
        """Of everything that is run for a verdict."""
        ...

    def flops(self, data: bytes) -> int:
        """Of everything that is run for this picture; a multiply-add is two."""
        ...


Factory: TypeAlias = Callable[[str], Swept]
"""Opens a method on a device, as torch calls it."""


class TorchBatched:
    """A noise source and a student in torch; the cores decode, the device does the rest."""

    def __init__(
        self,
        source: NoiseSource | None,
        student: nn.Module,
        cut: Preprocessing,
        *,
        precision: Precision,
        note: str,
        counted: nn.Module | None = None,
    ) -> None:
        """Put all on the student's device; a student of images has no source.

        `counted`: the noise network in float32, whose FLOPs several rows share.
        """
        from distildire.distill.export import DetectorGraph

        self.source, self.cut, self.note = source, cut, note
        self.counted = counted or (None if source is None else source.network)
        self.device = next(student.parameters()).device
        self.graph = DetectorGraph(source, student).eval().to(self.device)
        self.passes = 2 * DIRE_STEPS if self.graph.dire else 1
        self.half = precision == "bf16"
        self.pool = ThreadPoolExecutor(usable_cores())

    def read(self, files: Sequence[bytes]) -> Tensor:
        """Decode and cut, one picture per core: uint8 [pictures x crops, S, S, 3] on the device."""
        crops = list(self.pool.map(lambda data: self.cut(decode_bytes(data)), files))
        return torch.from_numpy(np.concatenate(crops)).to(self.device)

    def noise(self, rgb: Tensor, passes: int | None = None) -> None:
        """All passes of the noise network, or the first ones of DIRE's inversion."""
        if self.source is None:
            return
        x0 = to_unit(rgb.permute(0, 3, 1, 2))
        with torch.inference_mode():
            if passes is not None:
                ddim(self.source.predict, x0, path_up(self.source.alpha_bar, DIRE_STEPS)[:passes])
            elif self.graph.dire:
                self.source.dire(x0, DIRE_STEPS)
            else:
                self.source.eps0(x0)
        self._finish()

    def classify(self, rgb: Tensor) -> None:
        """The student alone; the picture stands in for its noise."""
        x0 = to_unit(rgb.permute(0, 3, 1, 2))
        with torch.inference_mode(), self._autocast():
            self.graph.student(x0, x0)
        self._finish()

    def verdicts(self, files: Sequence[bytes]) -> list[float]:
        """Bytes to logits, the whole way."""
        with torch.inference_mode(), self._autocast():
            logits = self.graph(self.read(files))[0]
        means: list[float] = logits.float().view(len(files), -1).mean(1).tolist()
        return means

    def figures(self, files: Sequence[bytes]) -> dict[str, Any]:
        """See `Swept`; what is timed ran once before."""
        rgb = self.read(files)
        some = 2 if self.passes > 2 else None
        self.noise(rgb, some)
        self.classify(rgb)
        if some is not None:
            whole = self.passes / some * median(lambda: self.noise(rgb, some))
            if whole > WHOLE_SECONDS:
                rest = median(lambda: self.read(files)) + median(lambda: self.classify(rgb))
                return {"seconds_unet": whole, "seconds_total": whole + rest, "extrapolated": True}
        return {
            "seconds_unet": None if self.source is None else median(lambda: self.noise(rgb)),
            "seconds_total": median(lambda: self.verdicts(files)),
            "extrapolated": False,
        }

    def params(self) -> int:
        """Noise network and student."""
        return sum(p.numel() for p in self.graph.parameters())

    def flops(self, data: bytes) -> int:
        """Of all crops."""
        crops = len(self.cut(decode_bytes(data)))
        shape = (1, 3, self.cut.crop, self.cut.crop)
        unet = 0 if self.counted is None else unet_flops(self.counted, shape)
        return crops * (self.passes * unet + count_torch(self.graph.student, shape, shape))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class BundleBatched(BundleMethod):
    """A bundle as `detect --device` runs it."""

    def __init__(self, model: str, device: str) -> None:
        super().__init__(model, device)
        cut = self.detector.bundle.preprocessing
        self.note = f"{cut.views} crops of {cut.crop} px in ONNX Runtime, as detect runs them"

    def figures(self, files: Sequence[bytes]) -> dict[str, Any]:
        """See `Swept`; the noise network is a part of the graph and not timed alone."""
        self.verdicts(files)
        total = median(lambda: self.verdicts(files))
        return {"seconds_unet": None, "seconds_total": total, "extrapolated": False}


@cache
def unet_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """FLOPs of one pass, counted once."""
    return count_torch(network, shape, (1,))


@cache
def adm(device: str, precision: Precision) -> tuple[NoiseSource, str]:
    """(ADM 256 in `precision`, which weights): random ones of its shape where there are none."""
    if precision == "fp32":
        return adm_source(device)
    full, weights = adm(device, "fp32")
    network = copy.deepcopy(full.network).to(DTYPES[precision])
    source = NoiseSource(
        network, full.alpha_bar, name="adm", dtype=DTYPES[precision], multiple=full.multiple
    )
    return source.to(device), weights


def _paper(device: str, precision: Precision, *, dire: bool) -> TorchBatched:
    from distildire.distill.student import Student

    source, weights = adm(device, precision)
    with torch.device(device):
        student = Student("resnet50", inputs="dire" if dire else "both")
    return TorchBatched(
        source, student, resize_and_crop(SIDE), precision=precision,
        counted=adm(device, "fp32")[0].network,
        note=f"{weights}; random classifier weights; {precision}",
    )  # fmt: skip


def _nano_torch(device: str, precision: Precision) -> TorchBatched:
    """nano's networks, built from what its bundle says of them."""
    from distildire.bundle import load_bundle
    from distildire.distill.config import network_of
    from distildire.distill.student import Student
    from distildire.noise import load_noise_source

    bundle = load_bundle("nano")
    config: dict[str, Any] = bundle.provenance["config"]
    with torch.device(device):
        student = Student(**network_of(config["student"]))
    sees_noise = student.inputs != "image"
    return TorchBatched(
        load_noise_source("nano", device=device) if sees_noise else None,
        student, bundle.preprocessing,
        precision=precision,
        note=f"the networks of nano in torch, with random weights in the student; {precision}",
    )  # fmt: skip


dire: Factory = partial(_paper, precision="fp32", dire=True)
dire_bf16: Factory = partial(_paper, precision="bf16", dire=True)
distildire: Factory = partial(_paper, precision="fp32", dire=False)
distildire_bf16: Factory = partial(_paper, precision="bf16", dire=False)
nano_torch: Factory = partial(_nano_torch, precision="fp32")
nano_torch_bf16: Factory = partial(_nano_torch, precision="bf16")
nano: Factory = partial(BundleBatched, "nano")
base: Factory = partial(BundleBatched, "base")


def nano_cpu(device: str) -> Swept:
    """The same machine's cores, to compare with."""
    return BundleBatched("nano", "cpu")
