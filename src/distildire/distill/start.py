"""Where a student begins: at the weights of others, from checkpoints or from bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distildire.bundle import load_bundle
from distildire.distill.lora import merged
from distildire.distill.student import HiddenHead, Student
from distildire.distill.vit import VitBackbone, last_two
from distildire.io.onnx_weights import all_matrices


@dataclass(frozen=True)
class Trained:
    """A student that was trained elsewhere."""

    options: Mapping[str, Any]
    """Those of its `StudentConfig`."""
    weights: Mapping[str, Tensor]
    """By name, as in `Student.state_dict`."""


def read_trained(start: str) -> Trained:
    """A checkpoint (best.pt or checkpoint.pt of a run), a bundle's folder, or a model's name.

    Raises:
        ValueError: it is none of these (BundleError), or a bundle of torch or OpenVINO.
    """
    if start.endswith(".pt"):
        saved = read_saved(Path(start))
        return Trained(saved["config"]["student"], saved["student"])
    bundle = load_bundle(start)
    if bundle.graph.suffix != ".onnx":
        raise ValueError(f"{start}: training starts from an ONNX bundle or a checkpoint")
    return Trained(bundle.provenance["config"]["student"], bundle_weights(bundle.graph))


def read_saved(path: Path) -> dict[str, Any]:
    """What best.pt of a run holds; of its checkpoint.pt, the averaged weights of its last step.

    Raises:
        ValueError: no such file, or not such a checkpoint.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch raises many types, with advice for those who program
        saved = error
    if isinstance(saved, dict) and "average" in saved:
        average = {k.removeprefix("module."): v for k, v in saved["average"].items()}
        saved["student"] = merged({k: v for k, v in average.items() if k != "n_averaged"})
    if not isinstance(saved, dict) or not {"student", "config"} <= set(saved):
        raise ValueError(f"{path}: damaged, or no best.pt or checkpoint.pt of a training run")
    return saved


def bundle_weights(graph: Path) -> dict[str, Tensor]:
    """The student's weights in an ONNX file, float32, under the names of `Student.state_dict`.

    Matrices in eight bits come back as they are multiplied; not read are those in four bits, nor
    the head's where it has a hidden layer.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(graph)).graph
    found: dict[str, Any] = {}
    for tensor in model.initializer:
        name = tensor.name.removesuffix("_half")
        if name.startswith("student."):
            found[name.removeprefix("student.")] = numpy_helper.to_array(tensor)
        elif list(tensor.dims) == [1, 1, 1]:  # as `activation_map` adds it
            found["head.bias"] = numpy_helper.to_array(tensor).reshape(1)
    for node in model.node:
        if node.op_type == "Identity":  # equal weights are stored once
            one, other = (n.removeprefix("student.") for n in (node.input[0], node.output[0]))
            if one in found:
                found[other] = found[one]
    for product, matrix in all_matrices(model).items():
        # Of the module at /blocks.0/attn/qkv, exported from within the backbone's network.
        place = product.removeprefix("/backbone").strip("/").split("/MatMul")[0].replace("/", ".")
        found[f"backbone.network.{place}.weight"] = matrix.T
    return {k: torch.from_numpy(np.array(v, np.float32)) for k, v in found.items()}


def begin(student: Student, starts: str) -> None:
    """Give `student` what it has in common with the one at `starts`, as `begin_at` does.

    Of several, separated by commas, the mean: runs that began at the same weights are better
    together, for the price of one (Wortsman et al. 2022, "Model soups").
    """
    fresh = {name: weight.clone() for name, weight in student.state_dict().items()}
    begun: list[dict[str, Tensor]] = []
    for start in starts.split(","):
        student.load_state_dict(fresh)
        begin_at(student, start.strip())
        begun.append({name: weight.clone() for name, weight in student.state_dict().items()})
    means = {name: torch.stack([b[name].double() for b in begun]).mean(0) for name in fresh}
    student.load_state_dict(means)


def begin_at(student: Student, start: str) -> None:
    """Give `student` what it has in common with the one at `start`.

    All weights, for the same network. Of another vision transformer: the blocks that both
    have (the position embedding is resampled), and at the blocks that both tap the norms and
    the columns of a linear head. A block that the other lacks stays as it is; a tap that the
    other lacks adds nothing to the logit at first.

    Raises:
        ValueError: another backbone; or a bundle whose weights can't be told apart or read back:
            of a convolutional student, in four bits, or of a head with a hidden layer.
    """
    trained = read_trained(start)
    theirs = trained.options
    own = student.backbone
    if not isinstance(own, VitBackbone):
        try:
            student.load_state_dict(trained.weights)
        except RuntimeError as error:  # a wall of names
            raise ValueError(
                f"{start}: not the weights of this network (a bundle of a convolutional student "
                "holds them joined with its norms: give best.pt)"
            ) from error
        return
    if theirs["backbone"] != own.name:
        raise ValueError(f"{start}: another backbone ({theirs['backbone']})")
    own.begin(trained.weights)
    taps = tuple(theirs["taps"]) or last_two(theirs["stage"])
    for n, tap in enumerate(own.taps):
        if tap in taps:
            stem = f"backbone.norms.{taps.index(tap)}."
            norm = {k.removeprefix(stem): v for k, v in trained.weights.items() if stem in k}
            if norm:  # a bundle has none that its head doesn't use
                own.norms[n].load_state_dict(norm)
    head = {k[len("head.") :]: v for k, v in trained.weights.items() if k.startswith("head.")}
    hidden = isinstance(student.head, HiddenHead)
    if hidden and theirs["hidden"] and "inner.bias" not in head:
        raise ValueError(f"{start}: of a bundle with a hidden layer no head is read: give best.pt")
    fits = _shapes(head) == _shapes(student.head.state_dict())
    if fits and (theirs["wide"], taps) == (student.wide, own.taps):
        student.head.load_state_dict(head)
    elif student.wide and theirs["wide"] and "weight" in head and not hidden:
        _begin_head(student, head, taps)


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def _begin_head(student: Student, theirs: Mapping[str, Tensor], taps: tuple[int, ...]) -> None:
    """Columns of a linear head [1, C], by block: those of its class token and of its patches."""
    own, head, weight = student.backbone, student.head, theirs["weight"]
    assert isinstance(own, VitBackbone)
    assert isinstance(head, nn.Linear)
    each = 2 * own.channels
    ours = head.weight.shape[1] - each * len(own.taps)  # eps0's energies stand first
    others = weight.shape[1] - each * len(taps)
    with torch.no_grad():
        head.bias.copy_(theirs["bias"])
        head.weight.zero_()
        if ours == others:
            head.weight[:, :ours] = weight[:, :others]
        for n, tap in enumerate(own.taps):
            if tap in taps:
                m = taps.index(tap)
                columns = weight[:, others + m * each : others + (m + 1) * each]
                head.weight[:, ours + n * each : ours + (n + 1) * each] = columns
