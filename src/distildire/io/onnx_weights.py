"""Matrices of an ONNX graph in float32, those in eight bits as what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

INTEGER = "MatMulInteger"
"""The product of matrices in eight bits."""


def scale_of(weights: str) -> str:
    """The name of the scales of the weights in eight bits that are named so.

    ONNX Runtime's `quantize_dynamic` makes `w_quantized` and `w_scale` of `w`.
    """
    return f"{weights.removesuffix('_quantized')}_scale"


def float_matrices(graph: Any) -> dict[str, NDArray[np.float32]]:
    """By output of each product in eight bits: the matrix [inputs, outputs] it multiplies by."""
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    matrices = {}
    for node in graph.node:
        if node.op_type == INTEGER:
            values = numpy_helper.to_array(weights[node.input[1]]).astype(np.float32)
            scales = numpy_helper.to_array(weights[scale_of(node.input[1])])
            matrices[node.output[0]] = np.asarray(values * scales, np.float32)
    return matrices


def all_matrices(graph: Any) -> dict[str, NDArray[np.float32]]:
    """By output of each product with a stored matrix [inputs, outputs]: that matrix.

    In float32, float16 (as `export` casts it back) or eight bits; those in four are left out.
    """
    from onnx import numpy_helper

    stored = {weight.name.removesuffix("_half"): weight for weight in graph.initializer}
    plain = {
        node.output[0]: numpy_helper.to_array(stored[node.input[1]]).astype(np.float32)
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in stored
    }
    return plain | float_matrices(graph)
