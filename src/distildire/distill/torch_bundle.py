"""Bundles that run in torch: for students whose noise network no bundle can carry.

One graph with ADM inside would weigh 2.2 GB a detector, and ONNX files end at 2 GB. So the
bundle holds the student, and names the noise source that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distildire.bundle import Bundle, BundleError, Output, TorchPart, load_bundle
from distildire.distill.checkpoint import load_checkpoint
from distildire.distill.config import network_of
from distildire.distill.export import DetectorGraph
from distildire.distill.official import OfficialStudent, read_official
from distildire.distill.student import Student
from distildire.io.hashing import sha256_of
from distildire.io.preprocessing import Preprocessing, resize_and_crop
from distildire.io.writing import whole_folder
from distildire.noise import load_noise_source
from distildire.noise.threads import torch_threads
from distildire.noise.weights import WeightsError

OFFICIAL = {"form": "official"}


class TorchSession:
    """The detector's network behind the interface of an ONNX Runtime session."""

    def __init__(self, bundle: Bundle, threads: int | None = None, device: str = "cpu") -> None:
        """Open the student and the noise source that the bundle names on cpu or cuda.

        Raises:
            BundleError: the noise source is not on this machine, or the device can't run; the
                message says what to do.
        """
        assert bundle.torch is not None
        if device == "cuda" and not torch.cuda.is_available():
            raise BundleError(
                "device cuda: torch finds no GPU that works: see nvidia-smi, install torch for "
                "CUDA, or give the device cpu"
            )
        if device == "cuda":
            # torch lets convolutions round to ten bits, and logits would differ from the CPU's.
            torch.backends.cudnn.allow_tf32 = False
        student = read_student(bundle)
        try:
            source = load_noise_source(bundle.torch.noise, device=device)
        except WeightsError as error:
            raise BundleError(
                f"{bundle.name} needs the noise source {bundle.torch.noise}: {error}"
            ) from error
        self.network = DetectorGraph(source, student).eval().to(device)
        self._device, self._threads = device, threads

    def run(
        self, names: Sequence[str] | None, feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """The outputs `names` (all by default) for `rgb` uint8 [N, S, S, 3].

        One crop after the other: a pass of ADM takes 1.6 GB beside its weights.
        """
        wanted = list(names or self.network.outputs)
        parts: list[tuple[NDArray[np.float32], ...]] = []
        with torch.inference_mode(), torch_threads(self._threads):
            for crop in torch.from_numpy(np.ascontiguousarray(feeds["rgb"])):
                values = self.network(crop[None].to(self._device))
                parts.append(tuple(value.cpu().numpy() for value in values))
        columns = dict(zip(self.network.outputs, zip(*parts, strict=True), strict=True))
        return [np.concatenate(columns[name]) for name in wanted]

    def get_outputs(self) -> list[Output]:
        """Names of what `run` can give."""
        return [Output(name) for name in self.network.outputs]


def read_student(bundle: Bundle) -> nn.Module:
    """The student of a torch bundle, in eval mode.

    Raises:
        WeightsError: weights that are damaged or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert bundle.torch is not None
    spec = bundle.torch.student
    student: nn.Module = OfficialStudent() if spec == OFFICIAL else Student(**spec)
    try:
        student.load_state_dict(load_file(str(bundle.graph)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{bundle.graph}: damaged or of another network: {error}") from error
    return student.eval()


def write_torch_bundle(
    student: nn.Module,
    part: TorchPart,
    out: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    name: str,
    provenance: dict[str, Any],
) -> Bundle:
    """Write a bundle that is not calibrated yet; the folder appears whole or not at all.

    `preprocessing`: by default the paper's, as in the authors' code.

    Raises:
        ValueError: `out` holds something else.
    """
    from safetensors.torch import save

    out = Path(out)
    with whole_folder(out, "bundle.json", "bundle") as folder:
        weights = folder / "student.safetensors"
        # `save_file` would leave a file that its owner alone may read.
        weights.write_bytes(save(student.state_dict(), metadata={"format": "pt"}))
        Bundle(
            name,
            folder,
            sha256_of(weights),
            preprocessing or resize_and_crop(),
            None,
            provenance,
            part,
        ).save()
    return load_bundle(out)


def convert_student(file: str | Path, out: str | Path, *, noise: str = "adm") -> Path:
    """Turn the authors' `.pth` into a torch bundle in the folder `out`.

    Args:
        file: their checkpoint; the optimiser's state is dropped.
        out: folder to make.
        noise: the noise source that it is to run on: adm, which it was trained on, or a path.

    Raises:
        WeightsError: as `read_official`.
        ValueError: `out` holds something else.
    """
    file = Path(file)
    provenance = {
        "source": file.name,
        "source_bytes": file.stat().st_size if file.is_file() else 0,
        "licence": "CC BY-NC 4.0 (the authors')",
    }
    student = read_official(file)
    bundle = write_torch_bundle(
        student, TorchPart(OFFICIAL, _absolute(noise)), out, name=file.stem,
        provenance={**provenance, "source_sha256": sha256_of(file)},
    )  # fmt: skip
    return bundle.folder


def export_torch(checkpoint: Path, out: Path, *, name: str | None = None) -> Bundle:
    """Turn best.pt of a training run into a torch bundle, also of a student that sees DIRE."""
    from distildire.io.config import to_dict

    student, config, facts = load_checkpoint(checkpoint)
    keywords = network_of(asdict(config.student))
    return write_torch_bundle(
        student, TorchPart(keywords, _absolute(config.noise)), out,
        preprocessing=config.preprocessing, name=name or config.name,
        provenance={"config": to_dict(config), "step": facts.get("step")},
    )  # fmt: skip


def _absolute(noise: str) -> str:
    return noise if noise in {"adm", "nano"} else str(Path(noise).resolve())
