"""OpenVINO: a bundle's graph run by it, and written in its own form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import IR_FILES, Bundle, BundleError, Output
from distildire.io.cores import usable_cores
from distildire.io.hashing import sha256_of
from distildire.io.writing import whole_files, write_json

MEND = "pip install 'distildire[openvino]'"


class OpenvinoRunner:
    """A compiled graph behind the interface of an ONNX Runtime session, on the CPU."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        crops: int | None = None,
    ) -> None:
        """Read model.onnx, or model.xml where the folder holds OpenVINO's form.

        Args:
            bundle: whose graph.
            threads: of the network.
            crops: see `open_runner`.

        Raises:
            BundleError: openvino is missing, or can't run the graph.
        """
        try:
            import openvino
        except ImportError as error:
            raise BundleError(f"device openvino: openvino is missing: {MEND}") from error
        # On processors with bfloat16 it computes in it unless told otherwise; and it pins each
        # model's threads to the same first cores, where several models run side by side.
        how = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        side = bundle.preprocessing.crop
        try:
            core = openvino.Core()
            model = core.read_model(str(bundle.graph))
            if crops is not None:
                model.reshape([crops, side, side, 3])
            compiled = core.compile_model(model, "CPU", how)
        except Exception as error:  # openvino raises RuntimeError and its own types
            words = str(error).strip().split("\n")[-1]
            raise BundleError(
                f"{bundle.folder}: device openvino can't run {bundle.graph.name} ({words}): give "
                "the device cpu"
            ) from error
        self._request = compiled.create_infer_request()
        self._outputs = [Output(port.get_any_name()) for port in compiled.outputs]

    def run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """The outputs `names` for `rgb` uint8 [N, S, S, 3]."""
        found = self._request.infer({"rgb": np.ascontiguousarray(feeds["rgb"])})
        # The request writes its next answers into the same memory.
        return [np.array(found[name], np.float32) for name in names]

    def get_outputs(self) -> Sequence[Any]:
        """Names of what `run` can give."""
        return self._outputs


def to_openvino(bundle: Bundle, folder: Path) -> Path:
    """Write `model.xml` and `model.bin` into `folder`, and bundle.json beside them.

    The graph is the bundle's own: uint8 `rgb` [N, S, S, 3] -> `logit`, `cam` and `eps0`.
    `Detector(folder, device="openvino")` runs it.

    Args:
        bundle: an opened bundle.
        folder: made where it is not there.

    Raises:
        ImportError: openvino is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"openvino is missing: {MEND}", name="openvino") from error
    about = json.loads((bundle.folder / "bundle.json").read_text())
    model = openvino.convert_model(bundle.graph)
    with whole_files(folder) as filling:
        # The first-step noise divides by sqrt(1 - alpha_bar[0]) = 0.01: in half precision its
        # constants shift logits by 0.3.
        openvino.save_model(model, filling / "model.xml", compress_to_fp16=False)
        about["openvino"] = {name: sha256_of(filling / name) for name in IR_FILES}
        write_json(filling / "bundle.json", about)
    return folder / "model.xml"
