"""distildire: tell camera images from generated ones, with a calibrated score.

>>> from distildire import Detector
>>> verdict = Detector().predict(["photo.jpg"])[0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
