"""Noise sources: networks that give the first-step noise of an image."""

from __future__ import annotations

from typing import Any


def load_noise_source(name: str, *, device: Any = "cpu", **options: Any) -> Any:
    """Temporary seam."""
    from distildire.noise.nano import load_nano

    return load_nano_source(*load_nano(), device)


def load_nano_source(network: Any, alpha_bar: Any, device: Any) -> Any:
    import torch

    from distildire.noise.schedule import first_step_noise

    class Source(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def eps0(self, x0: Any) -> Any:
            t = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
            return first_step_noise(self.network(x0, t), x0, float(alpha_bar[0]))

    return Source().to(device).requires_grad_(False)
