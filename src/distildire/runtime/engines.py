"""What can run a graph: ONNX Runtime on the CPU or on CUDA, OpenVINO, torch for torch bundles.

All look alike (`Runner`) and take uint8 crops; decoding and cutting stay on the CPU.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import Bundle, BundleError
from distildire.io.cores import usable_cores
from distildire.io.text import brief, words_of
from distildire.runtime.float_products import float_products

log = logging.getLogger(__name__)

Device: TypeAlias = Literal["cpu", "cuda", "openvino", "auto"]

DEVICES: tuple[str, ...] = get_args(Device)

BATCH_AXIS = "N"
"""Name of the first axis in exported graphs."""

CUDA = "CUDAExecutionProvider"

CUDA_MEND = (
    "pip install 'distildire[gpu]', then pip install --force-reinstall --no-deps "
    "onnxruntime-gpu; or give the device cpu"
)
"""The CPU's package and CUDA's hold the same module: the one installed last is there."""


class Runner(Protocol):
    """One graph on one device, used by one caller at a time."""

    def run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """The outputs `names` for `rgb` uint8 [N, S, S, 3]."""

    def get_outputs(self) -> Sequence[Any]:
        """What the graph can give; each has a `name`."""


def checked_device(device: str) -> str:
    """The name of a device.

    Raises:
        ValueError: there is none of this name.
    """
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}: give one of {', '.join(DEVICES)}")
    return device


def open_runner(
    bundle: Bundle, device: str = "cpu", threads: int | None = None, crops: int | None = None
) -> Runner:
    """A runner of the bundle's graph on `device`: cpu, cuda or openvino.

    Args:
        bundle: whose graph.
        device: where it runs.
        threads: of the network, on a CPU; all cores by default.
        crops: every run will be of so many: all shapes are known then, and what computes them
            is left out of the graph (a sixth of its time).

    Raises:
        BundleError: the device or the graph can't be run; the message names the mend.
    """
    if bundle.torch is not None:
        return _torch_runner(bundle, device, threads)
    if bundle.is_ir and device != "openvino":
        raise BundleError(
            f"{bundle.folder} holds OpenVINO's form of the model, which {device} can't run: give "
            "the device openvino, or the bundle that it was exported from"
        )
    if device == "cuda":
        return cuda_runner(bundle)
    if device == "openvino":
        from distildire.runtime.openvino import OpenvinoRunner

        return OpenvinoRunner(bundle, threads, crops)
    try:
        session: Runner = onnx_session(str(bundle.graph), threads, crops)
    except Exception as error:  # onnxruntime raises its own, undocumented types
        raise BundleError(f"{bundle.folder}: model.onnx can't be run: {words_of(error)}") from error
    return session


def onnx_session(graph: str | bytes, threads: int | None = None, crops: int | None = None) -> Any:
    """ONNX Runtime on the CPU, for the graph in a file, or its bytes; as `open_runner`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_cores()
    # Idle threads that spin take the core from decoding and from whoever else needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if crops is not None:
        options.add_free_dimension_override_by_name(BATCH_AXIS, crops)
    # A pattern is kept for every number of crops ever seen, each a block of memory.
    options.enable_mem_pattern = False
    # What ONNX Runtime falls back to is the same again, after four lines on standard output.
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def cuda_runner(bundle: Bundle) -> Runner:
    """ONNX Runtime on CUDA, in float32; as `open_runner`."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        raise BundleError(f"device cuda: the ONNX Runtime installed here has no CUDA: {CUDA_MEND}")
    missing = _preload_cuda(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # In TF32 a product keeps ten bits: logits would differ from the CPU's in the third digit.
    # The search for the fastest convolution would be repeated for every size of batch.
    how = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    try:
        graph = float_products(bundle.graph)
    except ImportError as error:
        raise BundleError(f"device cuda: onnx is missing: {CUDA_MEND}") from error
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=[(CUDA, how), "CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        words = words_of(error)
        raise BundleError(f"device cuda can't run this model ({words}): {CUDA_MEND}") from error
    # Without a GPU or a library, ONNX Runtime takes the CPU and says nothing.
    if CUDA not in session.get_providers():
        raise BundleError(
            "device cuda: no GPU that works, or CUDA's and cuDNN's libraries are missing"
            f"{missing}: see nvidia-smi, then {CUDA_MEND}"
        )
    runner: Runner = session
    return runner


def _preload_cuda(onnxruntime: Any) -> str:
    """Load CUDA's libraries, torch's or those of NVIDIA's packages; the first missing, in brackets.

    ONNX Runtime prints on standard output what it can't find, where the rows of a command are.
    """
    if not hasattr(onnxruntime, "preload_dlls"):
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    lines = printed.getvalue().strip().splitlines()
    for line in lines:
        log.info("onnxruntime: %s", line)
    return f" ({brief(lines[0])})" if lines else ""


def _torch_runner(bundle: Bundle, device: str, threads: int | None) -> Runner:
    if device == "openvino":
        raise BundleError(
            f"{bundle.name} runs in torch, which device openvino can't: give cpu or cuda"
        )
    from distildire.distill.torch_bundle import TorchSession

    return TorchSession(bundle, threads, device)
