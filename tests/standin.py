"""A tiny detector to test with: an ONNX graph of a few operators instead of a trained one.

It calls flat pictures fake and busy ones real, so that a test can make a picture of any
verdict: the score is linear in local contrast.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from distildire.bundle import Bundle
from distildire.calibration import Calibration, Kind
from distildire.io.hashing import sha256_of
from distildire.io.preprocessing import Preprocessing

CELL = 32
"""Pixels on the side of one cell of the activation map."""

NEUTRAL_CONTRAST = 2.4
"""Mean absolute difference to the 3x3 mean, in grey levels, at which the logit is 0."""

SLOPE = -2.0
"""Logit per grey level of local contrast."""


def make_bundle(
    folder: Path, *, crop: int = 160, crops: int = 2, calibrated: bool = True, name: str = "standin"
) -> Path:
    """Write a stand-in bundle into `folder` and return it.

    The graph maps `rgb` uint8 [N, S, S, 3] to `logit` float32 [N], `cam` float32
    [N, S/32, S/32] whose mean is the logit, and `eps0` float32 [N, 3, S, S].
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / "model.onnx"
    onnx.save(_graph(), graph)
    sha256 = sha256_of(graph)
    Bundle(
        name=name,
        folder=folder,
        sha256=sha256,
        preprocessing=Preprocessing(crop=crop, crops=crops),
        calibration=_calibration(sha256) if calibrated else None,
        provenance={"note": "made by the tests, trained on nothing"},
    ).save()
    (folder / "MODEL_CARD.md").write_text("# standin\n\nA detector for tests only.\n")
    return folder


def expected_logit(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the graph computes, written slowly in numpy: crops [N, S, S, 3] -> logits [N]."""
    grey = crops.astype(np.float64).mean(axis=-1)
    height, width = grey.shape[1:]
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    counts = np.pad(np.ones_like(grey), ((0, 0), (1, 1), (1, 1)))
    offsets = [(y, x) for y in range(3) for x in range(3)]
    total = sum(padded[:, y : y + height, x : x + width] for y, x in offsets)
    number = sum(counts[:, y : y + height, x : x + width] for y, x in offsets)
    contrast = np.abs(grey - total / number).mean(axis=(1, 2))
    return np.asarray(SLOPE * (contrast - NEUTRAL_CONTRAST))


def _calibration(sha256: str) -> Calibration:
    quantiles = [
        NormalDist(sigma=1.0).inv_cdf(min(max(q / 200, 1e-3), 1 - 1e-3)) for q in range(201)
    ]
    real = tuple(round(q - 2.0, 4) for q in quantiles)
    return Calibration(
        weights_sha256=sha256,
        temperature=1.0,
        bias=0.0,
        n_real=500,
        n_fake=500,
        real_quantiles=real,
        fake_quantiles=tuple(round(q + 2.0, 4) for q in quantiles),
        data="drawn from two normal distributions",
        kinds={
            "art": Kind(n_real=20, n_fake=20),
            "phone": Kind(n_real=120, n_fake=20, real_quantiles=real),
        },
    )


def _graph() -> onnx.ModelProto:
    def constant(name: str, value: float) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, np.float32), name)

    node = helper.make_node
    nodes = [
        node("Cast", ["rgb"], ["pixels"], to=TensorProto.FLOAT),
        node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        node("ReduceMean", ["planes"], ["grey"], axes=[1], keepdims=1),
        node("AveragePool", ["grey"], ["blurred"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Sub", ["grey", "blurred"], ["detail"]),
        node("Abs", ["detail"], ["contrast"]),
        node("AveragePool", ["contrast"], ["cells"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        node("Sub", ["cells", "neutral"], ["centred"]),
        node("Mul", ["centred", "slope"], ["scored"]),
        node("Squeeze", ["scored", "channel_axis"], ["cam"]),
        node("ReduceMean", ["cam"], ["logit"], axes=[1, 2], keepdims=0),
        node("AveragePool", ["planes"], ["smooth"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Sub", ["planes", "smooth"], ["residual"]),
        node("Mul", ["residual", "noise_scale"], ["eps0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "standin",
        [helper.make_tensor_value_info("rgb", TensorProto.UINT8, ["N", "S", "S", 3])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["N", "h", "w"]),
            helper.make_tensor_value_info("eps0", TensorProto.FLOAT, ["N", 3, "S", "S"]),
        ],
        [
            constant("neutral", NEUTRAL_CONTRAST),
            constant("slope", SLOPE),
            constant("noise_scale", 0.1),
            numpy_helper.from_array(np.array([1], np.int64), "channel_axis"),
        ],
    )
    # The oldest pair that holds these operators, so that any supported onnxruntime runs it.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
