"""Matrices stored in four bits and multiplied in eight: half the file, the speed of eight bits.

A graph of products in eight bits gets, in the place of each matrix, what it is packed in and the
nodes that unpack it. Runtimes compute those once, when they load the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.io.onnx_weights import INTEGER, packed_of

BLOCK = 64
"""Inputs of an output that share a step and a least value."""

LEVELS = 15
ROUNDS = 20


def fit_levels(
    matrix: NDArray[np.int8],
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    """A matrix [inputs, outputs] as `distildire.io.onnx_weights.Packed`: pairs, step, least.

    Levels and line (step, least) of a block are fitted in turns, each by least squares given the
    other (Lloyd 1982).
    """
    blocks = matrix.reshape(-1, BLOCK, matrix.shape[1]).astype(np.float32)
    least = blocks.min(1, keepdims=True)
    step = (blocks.max(1, keepdims=True) - least) / LEVELS
    mean = blocks.mean(1, keepdims=True)
    for _ in range(ROUNDS):
        levels = _levels(blocks, step, least)
        centred = levels - levels.mean(1, keepdims=True)
        spread = (centred**2).sum(1, keepdims=True)
        slope = (centred * (blocks - mean)).sum(1, keepdims=True) / np.maximum(spread, 1.0)
        step = np.where(spread > 0, slope, 0.0)
        least = mean - step * levels.mean(1, keepdims=True)
    step, least = step.astype(np.float16), least.astype(np.float16)
    levels = _levels(blocks, step.astype(np.float32), least.astype(np.float32)).astype(np.uint8)
    half = BLOCK // 2
    return np.bitwise_or(levels[:, :half], levels[:, half:] * 16), step, least


def _levels(
    blocks: NDArray[np.float32], step: NDArray[np.float32], least: NDArray[np.float32]
) -> NDArray[np.float32]:
    some = np.where(step == 0, np.float32(1), step)
    return np.asarray(np.clip(np.rint((blocks - least) / some), 0, LEVELS), np.float32)


def four_bits(graph: Any) -> None:
    """Pack every matrix of a product in eight bits whose inputs fill whole blocks."""
    from onnx import numpy_helper

    stored = {weight.name: weight for weight in graph.initializer}
    constants: dict[str, NDArray[Any]] = {
        "four": np.array(4, np.uint8),
        "sixteen": np.array(16, np.uint8),
    }
    nodes = []
    for name in [node.input[1] for node in graph.node if node.op_type == INTEGER]:
        matrix = numpy_helper.to_array(stored[name])
        if len(matrix) % BLOCK:
            continue
        graph.initializer.remove(stored[name])
        constants |= dict(zip(packed_of(name), fit_levels(matrix), strict=True))
        constants[f"{name}_shape"] = np.array(matrix.shape, np.int64)
        nodes += _unpacking(name)
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _unpacking(name: str) -> list[Any]:
    """The nodes that compute the matrix `name`: `io.onnx_weights.unpacked` in ONNX."""
    from onnx import TensorProto, helper

    pairs, step, least = packed_of(name)
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Mod", [pairs, "sixteen"], "low", {}),
        ("BitShift", [pairs, "four"], "high", {"direction": "RIGHT"}),
        ("Concat", [f"{name}_low", f"{name}_high"], "levels", {"axis": 1}),
        ("Cast", [f"{name}_levels"], "level", {"to": TensorProto.FLOAT}),
        ("Cast", [step], "slope", {"to": TensorProto.FLOAT}),
        ("Cast", [least], "start", {"to": TensorProto.FLOAT}),
        ("Mul", [f"{name}_level", f"{name}_slope"], "above", {}),
        ("Add", [f"{name}_above", f"{name}_start"], "value", {}),
        ("Round", [f"{name}_value"], "whole", {}),
        ("Cast", [f"{name}_whole"], "blocks", {"to": TensorProto.INT8}),
    ]
    nodes = [
        helper.make_node(kind, inputs, [f"{name}_{output}"], **how)
        for kind, inputs, output, how in steps
    ]
    return [*nodes, helper.make_node("Reshape", [f"{name}_blocks", f"{name}_shape"], [name])]
