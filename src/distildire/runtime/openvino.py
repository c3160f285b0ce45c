"""A bundle's graph for other runtimes: OpenVINO."""

from __future__ import annotations

from pathlib import Path

from distildire.bundle import Bundle


def to_openvino(bundle: Bundle, folder: Path) -> Path:
    """Write `model.xml` and `model.bin` into `folder`, and bundle.json beside them.

    The graph is the bundle's own: uint8 `rgb` [N, S, S, 3] -> `logit`, `cam` and `eps0`.

    Args:
        bundle: an opened bundle.
        folder: made where it is not there.

    Raises:
        ImportError: openvino is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError("openvino is missing: pip install openvino") from error
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "model.xml"
    # The first-step noise divides by sqrt(1 - alpha_bar[0]) = 0.01: in half precision its
    # constants shift logits by 0.3.
    openvino.save_model(openvino.convert_model(bundle.graph), target, compress_to_fp16=False)
    (folder / "bundle.json").write_bytes((bundle.folder / "bundle.json").read_bytes())
    return target
