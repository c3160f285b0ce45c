"""distildire: tell camera images from generated ones, with a calibrated score.

>>> from distildire import Detector
>>> verdict = Detector().predict(["photo.jpg"])[0]
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.32 reports its use to its maker, from threads that a forked process waits for in
# vain at its end. Nothing is sent from here; who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["Detector", "Verdict", "__version__"]

if TYPE_CHECKING:
    from distildire.detector import Detector
    from distildire.verdict import Verdict


def __getattr__(name: str) -> Any:
    """Import the detector on first use, so that `import distildire` stays cheap."""
    if name in {"Detector", "Verdict"}:
        from distildire import detector

        return getattr(detector, name)
    raise AttributeError(f"module 'distildire' has no attribute {name!r}")
