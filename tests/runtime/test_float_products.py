from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from distildire.runtime.float_products import float_products


def two_products(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A graph x -> relu(x A) B in a file, and its matrices."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((16, 12), (12, 3)))
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("Relu", ["xa"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])]
    weights = [numpy_helper.from_array(a, "a"), numpy_helper.from_array(b, "b")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return a, b


def test_products_of_integers_become_those_of_the_weights_they_stand_for(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    a, b = two_products(tmp_path / "float.onnx")
    quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", per_channel=True, reduce_range=True,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    content = float_products(tmp_path / "int8.onnx")
    graph = onnx.load_from_string(content).graph
    assert [node.op_type for node in graph.node] == ["MatMul", "Relu", "MatMul"]
    assert {w.data_type for w in graph.initializer} == {TensorProto.FLOAT}
    x = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": x})
    kept = onnx.load(tmp_path / "int8.onnx").graph.initializer
    stored = {weight.name: numpy_helper.to_array(weight) for weight in kept}
    near = []
    for name, exact in (("a", a), ("b", b)):
        step = stored[f"{name}_scale"]
        near.append((stored[f"{name}_quantized"] * step).astype(np.float32))
        assert (np.abs(near[-1] - exact) <= 0.51 * step).all()
    np.testing.assert_allclose(found, np.maximum(x @ near[0], 0) @ near[1], atol=1e-4)


def test_a_graph_without_them_stays_a_file(tmp_path: Path) -> None:
    two_products(tmp_path / "float.onnx")
    assert float_products(tmp_path / "float.onnx") == str(tmp_path / "float.onnx")
