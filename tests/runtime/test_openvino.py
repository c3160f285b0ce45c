from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distildire import Detector
from distildire.bundle import load_bundle
from distildire.runtime.openvino import to_openvino


def test_openvino_gives_the_same_logits(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    detector = Detector("nano", threads=1)
    # On processors with bfloat16 OpenVINO computes in it unless told otherwise.
    path = to_openvino(load_bundle("nano"), tmp_path)
    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    side = detector.bundle.preprocessing.crop
    crops = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    found = model({"rgb": crops})["logit"]
    assert np.allclose(found, detector.score_crops(crops), atol=0.002)
