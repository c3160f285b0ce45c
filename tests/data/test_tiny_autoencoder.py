"""Tiny autoencoders: the networks against diffusers', reconstructions of any size, the loader."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distildire.data.tiny_autoencoder import (
    AUTOENCODERS,
    ReconstructionError,
    Shape,
    TinyAutoencoders,
    make_decoder,
    make_encoder,
    reconstruct,
)


def shifted(state: dict[str, Tensor], prefix: str, by: int = 0) -> dict[str, Tensor]:
    """Keys of a numbered sequence as diffusers names them."""
    split = {key: key.split(".", 1) for key in state}
    return {f"{prefix}.layers.{int(n) - by}.{rest}": state[k] for k, (n, rest) in split.items()}


@pytest.mark.parametrize("name", ["taesd", "taef1"])
def test_the_networks_are_those_of_diffusers(name: str) -> None:
    torch.manual_seed(0)
    shape = AUTOENCODERS[name]
    encoder, decoder = make_encoder(shape), make_decoder(shape)
    theirs = AutoencoderTiny(latent_channels=shape.latent)
    # Their sequence has no layer for the bound of the latents.
    theirs.load_state_dict(
        shifted(encoder.state_dict(), "encoder") | shifted(decoder.state_dict(), "decoder", by=1)
    )
    rgb = torch.rand(1, 3, 40, 24)
    with torch.no_grad():
        latent = encoder(rgb)
        assert latent.shape == (1, shape.latent, 5, 3)
        torch.testing.assert_close(latent, theirs.encoder(rgb * 2 - 1))
        latent = 4 * torch.randn_like(latent)
        torch.testing.assert_close(decoder(latent), theirs.decoder(latent) / 2 + 0.5)


def test_pooled_blocks_add_a_normalised_mix_of_their_channels_first() -> None:
    torch.manual_seed(0)
    encoder = make_encoder(Shape(32, pooled=True))
    # As in the published file of TAEF2.
    assert len(encoder.state_dict()) == len(make_decoder(Shape(32, pooled=True)).state_dict()) == 79
    block, x = encoder[12], torch.randn(2, 64, 3, 5)
    state = block.state_dict()
    with torch.no_grad():
        wide = torch.einsum("oi,bihw->bohw", state["pool.0.weight"][:, :, 0, 0], x)
        groups = wide.reshape(2, 4, -1)
        spread = groups.var(-1, unbiased=False, keepdim=True)
        groups = (groups - groups.mean(-1, keepdim=True)) / (spread + 1e-5).sqrt()
        mixed = torch.einsum(
            "oi,bihw->bohw", state["pool.3.weight"][:, :, 0, 0], groups.reshape(wide.shape).relu()
        )
        y = x + mixed
        inner = y
        for i in (0, 2, 4):
            inner = F.conv2d(inner, state[f"conv.{i}.weight"], state[f"conv.{i}.bias"], padding=1)
            inner = inner if i == 4 else inner.relu()
        torch.testing.assert_close(block(x), (y + inner).relu())


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_reconstruction_has_the_pictures_size_and_no_memory_of_threads() -> None:
    torch.manual_seed(0)
    encoder, decoder = make_encoder(Shape(4)), make_decoder(Shape(4))
    threads = torch.get_num_threads()
    made = []
    for count in (1, 2):
        torch.set_num_threads(count)
        made.append(reconstruct(encoder, decoder, picture(43, 29)))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert made[0].shape == (43, 29, 3)
    assert np.array_equal(*made)
    filled = np.pad(picture(43, 29), ((0, 5), (0, 3), (0, 0)), mode="edge")
    with torch.no_grad():
        x = torch.from_numpy(filled / np.float32(255)).permute(2, 0, 1)[None]
        exact = decoder(encoder(x))[0].clamp(0, 1).permute(1, 2, 0).numpy()[:43, :29] * 255
    assert np.abs(made[0] - exact).mean() < 1.0


def test_weights_come_out_of_a_clone_at_a_commit(tmp_path: Path) -> None:
    work = tmp_path / "madebyollin+taesd"
    work.mkdir()
    torch.manual_seed(0)
    shape = AUTOENCODERS["taef2"]
    networks = {"encoder": make_encoder(shape), "decoder": make_decoder(shape)}
    for part, network in networks.items():
        torch.save(network.half().state_dict(), work / f"taef2_{part}.pth")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(work)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    for file in work.glob("*.pth"):
        file.unlink()
    autoencoders = TinyAutoencoders(tmp_path, commit="HEAD")
    expected = reconstruct(networks["encoder"].float(), networks["decoder"].float(), picture(16, 8))
    assert expected.max() > 3
    found = autoencoders("taef2", picture(16, 8)).astype(int)
    assert np.abs(found - expected).max() <= 1  # sums in bfloat16 depend on where weights lie
    with pytest.raises(ReconstructionError, match=r"no taesd_encoder\.pth"):
        autoencoders("taesd", picture(16, 8))
    with pytest.raises(ReconstructionError, match="no autoencoder vae: give taesd, taesdxl"):
        autoencoders("vae", picture(16, 8))
    with pytest.raises(ReconstructionError, match="no clone of madebyollin/taesd"):
        TinyAutoencoders(tmp_path / "elsewhere")("taef2", picture(16, 8))
