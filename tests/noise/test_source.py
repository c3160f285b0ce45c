"""First-step noise and DIRE against recorded values of the reference; see `small_adm.py`."""

from __future__ import annotations

import pytest
import torch
from small_adm import reference, seeded_pictures

from distildire.noise import NoiseSource, load_noise_source
from distildire.noise.schedule import quantise_dire

PICTURES = {"adm": (32, 111), "plain": (32, 112)}


@pytest.fixture(scope="module", params=sorted(PICTURES))
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(model: str, tmp_path_factory: pytest.TempPathFactory) -> NoiseSource:
    path = tmp_path_factory.mktemp("adm") / f"{model}.pt"
    torch.save(reference(model)[0], path)
    return load_noise_source(path)


def pictures(model: str) -> torch.Tensor:
    side, seed = PICTURES[model]
    return seeded_pictures(2, side, seed)


def difference(ours: torch.Tensor, recorded: object) -> float:
    return float((ours - torch.as_tensor(recorded)).abs().max())


def test_eps0(model: str, source: NoiseSource) -> None:
    _, recorded = reference(model)
    x0 = pictures(model)[: len(recorded["eps0"])]
    assert difference(source.eps0(x0), recorded["eps0"]) < 1e-4


# Forty passes are recorded for the published kind of ADM alone.
@pytest.mark.parametrize("model", ["adm"], indirect=True)
def test_chain_and_quantised_dire(model: str, source: NoiseSource) -> None:
    _, recorded = reference(model)
    x0 = pictures(model)[:1]
    latent, x0_reconstructed = source.reconstruct(x0)
    assert difference(latent, recorded["latent"]) < 1e-3
    assert difference(x0_reconstructed, recorded["reconstructed"]) < 1e-3
    levels = quantise_dire(x0, x0_reconstructed)
    assert levels.dtype == torch.uint8
    assert difference(levels.int(), recorded["dire"].astype("int32")) <= 1
