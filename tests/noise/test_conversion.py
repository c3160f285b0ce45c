"""OpenAI's layout of weights brought to ours; see `small_adm.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from small_adm import reference, seeded_pictures

from distildire.noise import load_noise_source


def test_thirds_of_qkv_would_be_wrong(tmp_path: Path) -> None:
    # The model has two heads per layer, so that the order of the rows matters: the recorded
    # values can tell the two orders apart.
    weights, recorded = reference("adm")
    for key, tensor in weights.items():
        if ".qkv." in key:
            by_head = tensor.reshape(-1, 3, 64, *tensor.shape[1:])
            weights[key] = by_head.transpose(0, 1).reshape(tensor.shape).contiguous()
    torch.save(weights, tmp_path / "wrong.pt")
    wrong = load_noise_source(tmp_path / "wrong.pt").eps0(seeded_pictures(2, 32, 111))
    assert float((wrong - torch.as_tensor(recorded["eps0"])).abs().max()) > 1e-2
