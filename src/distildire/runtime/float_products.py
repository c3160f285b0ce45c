"""Products in eight bits as float ones, for a device that has no kernel for the former (CUDA)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distildire.io.onnx_weights import float_matrices


def float_products(path: Path) -> bytes | str:
    """The ONNX graph of a file with products in float32; its path where there is nothing to do.

    What `distildire export --weights int8` writes is, for each matrix, x -> DynamicQuantizeLinear
    -> MatMulInteger -> Cast -> Mul by both scales. It becomes x -> MatMul, by the same weights.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    matrices = float_matrices(graph)
    if not matrices:
        return str(path)
    made_by = {name: node for node in graph.node for name in node.output}
    read_by = {name: node for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.output[0] in matrices]:
        x, name = made_by[node.input[0]].input[0], node.input[1]
        graph.initializer.append(numpy_helper.from_array(matrices[node.output[0]], f"{name}_float"))
        product = read_by[read_by[node.output[0]].output[0]]
        product.CopyFrom(helper.make_node("MatMul", [x, f"{name}_float"], list(product.output)))
    _drop_unread(graph)
    content: bytes = model.SerializeToString()
    return content


def _drop_unread(graph: Any) -> None:
    """Take out nodes and weights that nothing reads any more."""
    outputs = {output.name for output in graph.output}
    while True:
        read = outputs.union(*(node.input for node in graph.node))
        unread = [node for node in graph.node if not read.intersection(node.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    for weight in [weight for weight in graph.initializer if weight.name not in read]:
        graph.initializer.remove(weight)
