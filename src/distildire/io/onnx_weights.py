"""Weights in few bits of an ONNX graph, as the float matrices that they stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INTEGER = "MatMulInteger"
"""The product of matrices in eight bits."""


class Packed(NamedTuple):
    """Names of what a matrix in eight bits is unpacked from, where it is stored in four."""

    pairs: str
    """uint8 [blocks, B / 2, outputs]: two levels of 0 to 15 each, that of the first half of a
    block of B inputs in the low bits, that of the second in the high ones."""
    step: str
    """float16 [blocks, 1, outputs]: steps of the eight bits from one level to the next."""
    least: str
    """float16 [blocks, 1, outputs]: what level 0 stands for."""


def packed_of(weights: str) -> Packed:
    """Where the matrix in eight bits that is named so is packed."""
    return Packed(*(f"{weights}_{part}" for part in Packed._fields))


def scale_of(weights: str) -> str:
    """The name of the scales of the weights in eight bits that are named so.

    ONNX Runtime's `quantize_dynamic` makes `w_quantized` and `w_scale` of `w`.
    """
    return f"{weights.removesuffix('_quantized')}_scale"


def integer_matrices(graph: Any) -> dict[str, NDArray[np.int8]]:
    """By output of each product in eight bits: the matrix [inputs, outputs], -127 to 127."""
    stored = {weight.name: weight for weight in graph.initializer}
    return {
        node.output[0]: _integers(stored, node.input[1])
        for node in graph.node
        if node.op_type == INTEGER
    }


def float_matrices(graph: Any) -> dict[str, NDArray[np.float32]]:
    """By output of each product in eight bits: the matrix [inputs, outputs] it multiplies by."""
    from onnx import numpy_helper

    stored = {weight.name: weight for weight in graph.initializer}
    scales = {
        node.output[0]: numpy_helper.to_array(stored[scale_of(node.input[1])])
        for node in graph.node
        if node.op_type == INTEGER
    }
    return {
        name: np.asarray(matrix.astype(np.float32) * scales[name], np.float32)
        for name, matrix in integer_matrices(graph).items()
    }


def _integers(stored: dict[str, Any], name: str) -> NDArray[np.int8]:
    from onnx import numpy_helper

    if name in stored:
        return np.asarray(numpy_helper.to_array(stored[name]))
    pairs, step, least = (numpy_helper.to_array(stored[part]) for part in packed_of(name))
    return unpacked(pairs, step, least)


def unpacked(
    pairs: NDArray[np.uint8], step: NDArray[np.float16], least: NDArray[np.float16]
) -> NDArray[np.int8]:
    """The matrix [inputs, outputs] of what `Packed` describes, as the graph computes it."""
    levels = np.concatenate([pairs % 16, pairs >> 4], axis=1).astype(np.float32)
    values = np.rint(levels * step.astype(np.float32) + least.astype(np.float32))
    return values.astype(np.int8).reshape(-1, pairs.shape[-1])
