"""A checkpoint becomes a bundle: noise and student in one ONNX graph, from RGB to logit."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from distildire.bundle import Bundle
from distildire.distill.checkpoint import load_checkpoint
from distildire.distill.networks import noise_of, noise_source_of
from distildire.distill.student import activation_map
from distildire.distill.vit import VitBackbone
from distildire.io.config import to_dict
from distildire.io.hashing import sha256_of
from distildire.io.writing import whole_files
from distildire.noise.schedule import to_unit, unit_dire

BLOCK = 128
"""Weights of a row that share a scale where they are stored in four bits."""

LARGE = 4096
"""Weights of a tensor from which on float16 saves something; scales and norms stay float32."""

Weights = Literal["float32", "float16", "int8", "int4"]
"""How a bundle stores its weights. float16: computed in float32 all the same. int8, int4: the
matrices of transformer blocks in eight or four bits, the rest in float16. Products of int8 are
computed in eight bits too, which is fast; int4 is half as large."""

TOLERANCE: dict[Weights, float] = {"float32": 1e-3, "float16": 0.05, "int8": 0.5, "int4": 0.75}
"""Largest difference between the graph's logits and the student's, of the logit where that is
over 1. Sums in eight bits move all logits alike, which calibration takes away."""

PACKAGES = ("torch", "timm", "numpy", "Pillow", "onnx", "onnxruntime")


class DetectorGraph(nn.Module):
    """RGB to logit as one module: eps0, student and class activation map."""

    def __init__(self, source: nn.Module | None, student: nn.Module) -> None:
        super().__init__()
        self.source, self.student = source, student
        self.dire = getattr(student, "inputs", "") == "dire"
        self.outputs = ("logit", "cam", "eps0") if source is not None else ("logit", "cam")

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """uint8 [N, S, S, 3] -> logit [N], cam [N, h, w], eps0 [N, 3, S, S].

        A student of DIRE gets the map, at forty passes, and `eps0` is that map in [-1, 1].
        A student of images alone has no source, and the graph no `eps0`.

        `cam` is the linear unit applied at each place of the map. Its mean is the logit
        (the pool and the unit are both linear), so that it shows exactly where the logit
        comes from (Zhou et al. 2016); see `activation_map` for a hidden layer.
        """
        x0 = to_unit(rgb.permute(0, 3, 1, 2))
        source: Any = self.source
        student: Any = self.student
        noise = unit_dire(source.dire(x0)) if self.dire else noise_of(source, x0)
        cam = activation_map(student.head, student.forward_maps(x0, noise))
        return (cam.mean(dim=(1, 2)), cam, noise)[: len(self.outputs)]


def export(
    checkpoint: Path,
    out: Path,
    *,
    name: str | None = None,
    weights: Weights = "float16",
    preprocessing: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint into the folder `out` (not calibrated yet).

    Args:
        checkpoint: best.pt of a training run.
        out: folder; an existing bundle in it is replaced when this one is whole and checked.
        name: of the model; the config's by default.
        weights: how they are stored; see `Weights`.
        preprocessing: changes to the crops of the training run, for instance more of them.
        provenance: more for the record: `command`, which trained it, and `data`, what
            `describe_data` tells of the training data.

    Raises:
        ValueError: not a checkpoint; or the graph's logits differ from the student's.
    """
    student, config, facts = load_checkpoint(checkpoint)
    if student.inputs == "dire":
        raise ValueError(
            "a student of DIRE needs a whole diffusion model: export with --format torch"
        )
    cut = replace(config.preprocessing, **(preprocessing or {}))
    if isinstance(student.backbone, VitBackbone):
        student.backbone.fix_side(cut.crop)
    graph = DetectorGraph(noise_source_of(config), student).eval()
    example = torch.randint(0, 256, (2, cut.crop, cut.crop, 3), dtype=torch.uint8)
    card = checkpoint.parent / "MODEL_CARD.md"
    with whole_files(out) as folder:
        path = folder / "model.onnx"
        _write_onnx(graph, example, path, weights)
        _check(graph, example, path, tolerance=TOLERANCE[weights])
        bundle = Bundle(
            name=name or config.name,
            folder=folder,
            sha256=sha256_of(path),
            preprocessing=cut,
            provenance={
                "config": to_dict(config),
                "facts": json.loads(json.dumps(facts, default=str)),
                "command": "",
                "data": {},
                "packages": {p: importlib.metadata.version(p) for p in PACKAGES},
                **(provenance or {}),
            },
        )
        bundle.save()
        if card.is_file():
            shutil.copy(card, folder)
    return replace(bundle, folder=out)


def _write_onnx(graph: DetectorGraph, example: Tensor, path: Path, weights: Weights) -> None:
    import onnx

    with warnings.catch_warnings():
        # Shapes are fixed but for N, and `_check` compares the graph at another N.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            input_names=["rgb"],
            output_names=list(graph.outputs),
            dynamic_axes={name: {0: "N"} for name in ("rgb", *graph.outputs)},
            opset_version=17,
            dynamo=False,
        )
    if weights == "int8":
        _eight_bits(path)
    model = onnx.load(str(path))
    if weights == "int4":
        model = _four_bits(model)
    if weights != "float32":
        _halve_weights(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _eight_bits(path: Path) -> None:
    """Matrices in eight bits, a scale for each output; what they meet is scaled by its own range.

    Weights take 127 of the 255 steps: processors without VNNI add pairs of products in sixteen
    bits, where more would overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )  # fmt: skip


def _four_bits(model: Any) -> Any:
    """Matrices in four bits, with a scale and a zero for each `BLOCK` inputs; sums in int8."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        model, bits=4, block_size=BLOCK, is_symmetric=False, accuracy_level=4
    )
    quantizer.process()
    return quantizer.model.model


def _halve_weights(graph: Any) -> None:
    """Store large float32 weights as float16, each cast back when the graph is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < LARGE:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)


@torch.no_grad()
def _check(graph: DetectorGraph, example: Tensor, path: Path, *, tolerance: float) -> None:
    """The file must give the student's own logits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch = torch.cat([example, example.flip(1), example[:1]])  # of another size than traced
    (logits,) = session.run(["logit"], {"rgb": batch.numpy()})
    source: Any = graph.source
    x0 = to_unit(batch.permute(0, 3, 1, 2))
    own = graph.student(x0, noise_of(source, x0)).numpy()
    worst = float((np.abs(logits - own) / np.maximum(1.0, np.abs(own))).max())
    if not worst <= tolerance:
        raise ValueError(f"{path.name}: the exported logits are off by {worst:.4f}")
