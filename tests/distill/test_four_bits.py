"""Four bits: the levels against a search, the graph's unpacking against numpy's."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from distildire.distill.four_bits import BLOCK, fit_levels, four_bits
from distildire.io.onnx_weights import float_matrices, integer_matrices, unpacked


def matrix_of(outputs: int = 5, blocks: int = 3, seed: int = 0) -> np.ndarray:
    normal = np.random.default_rng(seed).normal(0, 20, (blocks * BLOCK, outputs))
    return np.clip(np.rint(normal), -63, 63).astype(np.int8)


def product(matrix: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    """x -> x @ matrix, as `quantize_dynamic` writes it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w_quantized", "xz"], ["y32"]),
        helper.make_node("Cast", ["y32"], ["yf"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["yf", "xs"], ["ys"]),
        helper.make_node("Mul", ["ys", "w_scale"], ["y"]),
    ]
    stored = [
        numpy_helper.from_array(matrix, "w_quantized"),
        numpy_helper.from_array(scale, "w_scale"),
    ]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", side])
        for name, side in zip("xy", matrix.shape, strict=True)
    ]
    graph = helper.make_graph(nodes, "product", shapes[:1], shapes[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def outputs_of(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": x})[0]


def test_a_matrix_of_sixteen_levels_comes_back_as_it_was() -> None:
    levels = np.random.default_rng(1).integers(0, 16, (2, BLOCK, 4))
    levels[:, :2] = [[[0], [15]]]  # both ends occur
    matrix = (levels * 3 - 20).astype(np.int8).reshape(-1, 4)
    assert np.array_equal(unpacked(*fit_levels(matrix)), matrix)


def test_equal_weights_come_back_as_they_were() -> None:
    matrix = np.full((BLOCK, 3), [-7, 0, 63], np.int8)
    assert np.array_equal(unpacked(*fit_levels(matrix)), matrix)


def test_the_error_is_under_that_of_even_levels_from_end_to_end() -> None:
    matrix = matrix_of()
    blocks = matrix.reshape(-1, BLOCK, 5).astype(float)
    least, most = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    step = (most - least) / 15
    even = (np.rint((blocks - least) / step) * step + least).reshape(matrix.shape)
    error = [np.square(found - matrix).mean() for found in (unpacked(*fit_levels(matrix)), even)]
    assert error[0] < 0.95 * error[1]


def test_the_graph_unpacks_what_numpy_does_and_multiplies_by_it() -> None:
    matrix, scale = matrix_of(seed=2), np.linspace(0.01, 0.05, 5, dtype=np.float32)
    whole, packed = product(matrix, scale), product(matrix, scale)
    four_bits(packed.graph)
    (levels,) = integer_matrices(packed.graph).values()
    assert np.array_equal(levels, unpacked(*fit_levels(matrix)))
    assert np.array_equal(float_matrices(packed.graph)["y32"], levels * scale)
    x = np.random.default_rng(3).normal(size=(7, len(matrix))).astype(np.float32)
    assert np.array_equal(outputs_of(packed, x), outputs_of(product(levels, scale), x))
    assert outputs_of(packed, x) == pytest.approx(outputs_of(whole, x), abs=2.0)
    sizes = [len(model.SerializeToString()) for model in (packed, whole)]
    assert sizes[0] - sizes[1] < 1500 - 0.4 * matrix.size  # names and nodes aside


def test_a_matrix_that_fills_no_block_stays_in_eight_bits() -> None:
    model = product(matrix_of()[:-1], np.ones(5, np.float32))
    four_bits(model.graph)
    (levels,) = integer_matrices(model.graph).values()
    assert np.array_equal(levels, matrix_of()[:-1])
