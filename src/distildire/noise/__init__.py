"""Noise sources: networks that give the first-step noise of an image. Extra `train`.

>>> from distildire.noise import load_noise_source
>>> eps0 = load_noise_source("nano").eps0(x0)  # x0 [B, 3, H, W] in [-1, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["NoiseSource", "load_noise_source"]

if TYPE_CHECKING:
    from distildire.noise.load import load_noise_source
    from distildire.noise.source import NoiseSource


def __getattr__(name: str) -> Any:
    """Import torch on first use, so that `import distildire.noise` stays cheap."""
    if name == "NoiseSource":
        from distildire.noise import source

        return source.NoiseSource
    if name == "load_noise_source":
        from distildire.noise import load

        return load.load_noise_source
    raise AttributeError(f"module 'distildire.noise' has no attribute {name!r}")
