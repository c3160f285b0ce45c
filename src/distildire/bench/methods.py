"""The methods that are compared, each as the same few questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from distildire.io.pictures import decode_bytes
from distildire.io.preprocessing import resize_and_crop
from distildire.runtime.engines import onnx_session

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distildire.noise.source import NoiseSource

SIDE = 256
"""Side of the paper's pictures, in pixels."""

DIRE_STEPS = 20
"""DDIM steps each way in DIRE."""


class Method(Protocol):
    """One detector from a file's bytes to its logit, open to a stopwatch."""

    passes: int
    """Of the noise network for one picture."""
    sees_noise: bool
    """Whether a verdict takes a noise network."""
    note: str

    def read(self, data: bytes) -> Any:
        """Decode and preprocess a picture."""
        ...

    def first_passes(self, picture: Any, count: int) -> object:
        """The first `count` of the passes of the noise network."""
        ...

    def noise(self, picture: Any) -> Any:
        """All of the passes."""
        ...

    def classify(self, picture: Any, noise: Any) -> float:
        """The logit."""
        ...

    def verdicts(self, files: Sequence[bytes]) -> list[float]:
        """Bytes to logits, the whole way."""
        ...

    def params(self) -> int:
        """Of everything that is run for a verdict."""
        ...

    def flops(self, data: bytes) -> int:
        """Of everything that is run for this picture; a multiply-add is two."""
        ...


class PaperMethod:
    """DIRE or DistilDIRE: resize and centre crop, a diffusion UNet, a classifier."""

    sees_noise = True

    def __init__(
        self, source: NoiseSource, student: nn.Module, *, dire: bool, side: int, note: str
    ) -> None:
        self.source, self.student, self.dire, self.side = source, student.eval(), dire, side
        self.passes = 2 * DIRE_STEPS if dire else 1
        self.note = note

    def read(self, data: bytes) -> Tensor:
        """x0 [1, 3, side, side] in [-1, 1]."""
        import torch

        from distildire.noise.schedule import to_unit

        crops = resize_and_crop(self.side)(decode_bytes(data))
        rgb = torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))
        return to_unit(rgb)

    def first_passes(self, picture: Tensor, count: int) -> object:
        """The first steps of DIRE's inversion, exactly as `invert` makes them."""
        import torch

        from distildire.noise.schedule import ddim, path_up

        with torch.no_grad():
            steps = path_up(self.source.alpha_bar, DIRE_STEPS)[:count]
            return ddim(self.source.predict, picture, steps)

    def noise(self, picture: Tensor) -> Tensor:
        """DIRE scaled to [-1, 1], or eps0."""
        from distildire.noise.schedule import unit_dire

        if self.dire:
            return unit_dire(self.source.dire(picture, DIRE_STEPS))
        return self.source.eps0(picture)

    def classify(self, picture: Tensor, noise: Tensor) -> float:
        """The student's logit."""
        import torch

        with torch.no_grad():
            return float(self.student(picture, noise))

    def verdicts(self, files: Sequence[bytes]) -> list[float]:
        """One picture after the other: a pass takes every core for seconds."""
        pictures = [self.read(data) for data in files]
        return [self.classify(picture, self.noise(picture)) for picture in pictures]

    def params(self) -> int:
        """UNet and classifier."""
        return sum(
            p.numel() for net in (self.source.network, self.student) for p in net.parameters()
        )

    def flops(self, data: bytes) -> int:
        """UNet times its passes, and the classifier."""
        from distildire.bench.flops import count_torch

        shape = (1, 3, self.side, self.side)
        unet = count_torch(self.source.network, shape, (1,))
        return self.passes * unet + count_torch(self.student, shape, shape)


class BundleMethod:
    """A bundle as `detect` runs it: all of its crops through one ONNX graph."""

    passes = 1

    def __init__(self, model: str, device: str = "cpu") -> None:
        from distildire.detector import Detector

        self.detector = Detector(model, device=device)
        cut = self.detector.bundle.preprocessing
        self.sees_noise = "eps0" in self.detector.graph_outputs
        unet = "its eps0 part alone, in ONNX Runtime on the CPU"
        self.note = (
            f"{cut.views} crops of {cut.crop} px in one ONNX graph; FLOPs counted on that graph "
            "from the shapes of a run over all crops; seconds_unet is "
            + (unet if self.sees_noise else "empty, as it computes no eps0")
        )

    @cached_property
    def _noise_session(self) -> Any:
        """The part of the graph that eps0 needs, as a graph of its own."""
        import onnx

        model = onnx.load(str(self.detector.bundle.graph))
        part = onnx.utils.Extractor(model).extract_model(["rgb"], ["eps0"])
        return onnx_session(part.SerializeToString(), self.detector.cores)

    def read(self, data: bytes) -> Any:
        """The crops, uint8 [crops, S, S, 3]."""
        return self.detector.bundle.preprocessing(decode_bytes(data))

    def first_passes(self, picture: Any, count: int) -> object:
        """There is one pass only."""
        return self.noise(picture)

    def noise(self, picture: Any) -> Any:
        """The part of the graph that eps0 needs, over all crops; None if it computes none."""
        if not self.sees_noise:
            return None
        return self._noise_session.run(["eps0"], {"rgb": picture})[0]

    def classify(self, picture: Any, noise: Any) -> float:
        """The whole graph; its own eps0 is computed anew."""
        return float(self.detector.score_crops(picture).mean())

    def verdicts(self, files: Sequence[bytes]) -> list[float]:
        """`Detector.predict`, which decodes beside scoring."""
        return [float(v.logit or 0.0) for v in self.detector.predict(list(files))]

    def params(self) -> int:
        """Floating-point weights in the graph."""
        from distildire.bench.flops import count_onnx_weights

        return count_onnx_weights(self.detector.bundle.graph)

    def flops(self, data: bytes) -> int:
        """All crops."""
        from distildire.bench.flops import count_onnx

        return count_onnx(self.detector.bundle.graph, {"rgb": self.read(data)})


def dire(device: str = "cpu") -> Method:
    """DIRE: ADM 20 + 20, ResNet-50 on the map; in torch, on the CPU whatever the `device`."""
    from distildire.distill.student import Student

    source, note = adm()
    return PaperMethod(source, Student("resnet50", inputs="dire"), dire=True, side=SIDE, note=note)


def distildire(device: str = "cpu") -> Method:
    """DistilDIRE: one pass of ADM, ResNet-50 on image and eps0; on the CPU, as `dire`."""
    from distildire.distill.student import Student

    source, note = adm()
    return PaperMethod(source, Student("resnet50"), dire=False, side=SIDE, note=note)


def nano(device: str = "cpu") -> Method:
    """The bundled detector."""
    return BundleMethod("nano", device)


def adm() -> tuple[NoiseSource, str]:
    """(ADM 256 on the CPU, a row's note)."""
    source, weights = adm_source()
    alone = "batch 1 only: one pass keeps every core busy for seconds; random classifier weights"
    return source, f"{weights}; {alone}"


def adm_source(device: str = "cpu") -> tuple[NoiseSource, str]:
    """(ADM 256, which weights): random ones of the same shape where there are none."""
    from distildire.noise.adm import PRESETS, AdmNoise, build_unet
    from distildire.noise.load import load_noise_source
    from distildire.noise.schedule import linear_alpha_bar
    from distildire.noise.source import NoiseSource
    from distildire.noise.weights import WeightsError

    try:
        return load_noise_source("adm", device=device), "ADM's own weights"
    except WeightsError:
        config = PRESETS["imagenet256"]
        unet = made_cheaply(lambda: build_unet(config))
        source = NoiseSource(
            AdmNoise(unet), linear_alpha_bar(), name="adm", multiple=config.multiple
        )
        words = "random ADM weights (none on this machine; speed is the same)"
        return source.to(device), words


def made_cheaply(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with small random weights, in the time that it takes to write them.

    torch's own initialisation of 552 million weights takes a minute. One block of a million
    draws is repeated instead: values matter to no operator's speed, as long as none is
    denormal or overflows.
    """
    import torch

    with torch.device("meta"):
        network = build()
    network = network.to_empty(device="cpu")
    block = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            flat = tensor.view(-1)
            for start in range(0, len(flat), len(block)):
                part = flat[start : start + len(block)]
                part.copy_(block[: len(part)])
    return network
