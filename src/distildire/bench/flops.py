"""FLOPs counted on the network that is run; a multiply-add is two, as in torch's counter."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distildire.io.onnx_weights import INTEGER, scale_of

if TYPE_CHECKING:
    from torch import nn

FOUR_BITS = "MatMulNBits"
COUNTED = ("Conv", "Gemm", "MatMul", FOUR_BITS, INTEGER)
"""ONNX operators with multiply-adds worth counting: those that torch's counter knows too, and
the products with weights in few bits."""


def count_torch(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """FLOPs of one pass of `network` on inputs of these shapes (a 1-tuple is timesteps).

    The pass is made on torch's meta device: every operator is counted, none is computed.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    floats = next(network.parameters()).dtype
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    meta = {name: tensor.to("meta") for name, tensor in state.items()}
    inputs = tuple(
        torch.empty(shape, device="meta", dtype=torch.int64 if len(shape) == 1 else floats)
        for shape in shapes
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(network, meta, inputs)
    return int(counter.get_total_flops())


def count_onnx(path: Path, feeds: Mapping[str, NDArray[Any]]) -> int:
    """FLOPs of one run of an ONNX graph on `feeds`, from the shapes that occur in that run.

    Every tensor that a counted operator reads or writes is fetched, so that no shape is
    inferred: FLOPs are 2 x (elements written) x (elements read for each).
    """
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    nodes = [node for node in model.graph.node if node.op_type in COUNTED]
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    produced = {name for node in model.graph.node for name in node.output}
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])} & produced
    known = {output.name for output in model.graph.output}
    for name in sorted(wanted - known):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = sorted(wanted)
    if names:
        fetched = session.run(names, dict(feeds))
        shapes |= {name: np.shape(value) for name, value in zip(names, fetched, strict=True)}
    shapes |= {name: value.shape for name, value in feeds.items()}
    return sum(2 * prod(shapes[node.output[0]]) * _reads(node, shapes) for node in nodes)


def _reads(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds for each element that the operator writes."""
    if node.op_type == "Conv":
        return prod(shapes[node.input[1]][1:])  # input channels of a group x kernel
    left = shapes[node.input[0]]
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return left[0] if transposed else left[-1]


def count_onnx_weights(path: Path) -> int:
    """Elements of the graph's weights, in floating point or in few bits (batch norms are
    folded in)."""
    import onnx

    graph = onnx.load(str(path)).graph
    packed = [node for node in graph.node if node.op_type == FOUR_BITS]
    scales = {name for node in packed for name in node.input[2:]}
    scales |= {node.input[0] for node in graph.node if scales & set(node.output)}
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    whole = {node.input[1] for node in graph.node if node.op_type == INTEGER}
    scales |= {scale_of(name) for name in whole}
    weights = [
        w for w in graph.initializer
        if w.name in whole or (w.data_type in kinds and w.name not in scales)
    ]  # fmt: skip
    sides = [{a.name: int(a.i) for a in node.attribute} for node in packed]
    count = sum(prod(weight.dims) for weight in weights) + sum(s["K"] * s["N"] for s in sides)
    return int(count)
