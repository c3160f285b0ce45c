"""Deterministic weights in guided-diffusion's naming, and pictures to go with them.

`reference_small_adm.npz` was recorded by running OpenAI's guided-diffusion and DIRE's
`compute_dire` (respacing ddim20, clip_denoised) in float32 on exactly these weights and
pictures. Each model's entry `<model>/shapes` lists its keys and shapes as JSON, `<model>/seed`
its seed, so that nothing of those repositories is needed to test against them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

REFERENCE = Path(__file__).parent / "reference_small_adm.npz"


def seeded_weights(shapes: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """Float32 tensors drawn in order of key name from numpy's PCG64.

    Weights are normal with deviation 0.8 / sqrt(fan-in) (norms: around 1), biases normal / 10:
    every tensor matters, and the chain of forty passes is well conditioned.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for key in sorted(shapes):
        shape = shapes[key]
        values = rng.standard_normal(shape)
        if key.endswith("bias"):
            values = values * 0.1
        elif len(shape) == 1:
            values = 1.0 + 0.1 * values
        else:
            values = 0.8 * values / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def seeded_pictures(count: int, side: int, seed: int) -> torch.Tensor:
    """x0 float32 [count, 3, side, side] in [-1, 1]: soft blobs, grain, and saturated areas."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, side // 8, side // 8))
    blobs = coarse.repeat(8, axis=2).repeat(8, axis=3)
    grey = 127.5 + 90.0 * blobs + 10.0 * rng.standard_normal(blobs.shape)
    pixels = np.clip(np.rint(grey), 0, 255).astype(np.float32)
    return torch.from_numpy(pixels / np.float32(127.5) - np.float32(1.0))


def reference(model: str) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """(weights, recorded values) of a model in the reference file."""
    with np.load(REFERENCE) as file:
        values = {
            key.split("/", 1)[1]: file[key] for key in file.files if key.startswith(f"{model}/")
        }
    shapes = json.loads(str(values.pop("shapes")))
    return seeded_weights(shapes, int(values.pop("seed"))), values
