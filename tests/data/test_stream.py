from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from distildire.data.augment import CLEAN, AugmentConfig
from distildire.data.cache import CacheError, CacheOptions, DireReader, fill_cache, open_dire
from distildire.data.stream import Draws, TrainingStream, Views, sampling_weights
from distildire.distill.validation import score_table
from distildire.io.pictures import ImageError
from distildire.io.preprocessing import Preprocessing, resize_and_crop
from noise.standin_noise import StandInNoise


def table(sizes: dict[tuple[str, str], int]) -> pd.DataFrame:
    rows = [
        {"path": f"{source}-{label}-{i}", "label": label, "source": source, "repository": source}
        for (source, label), count in sizes.items()
        for i in range(count)
    ]
    return pd.DataFrame(rows)


def shares(frame: pd.DataFrame, weights: np.ndarray) -> dict[tuple[str, str], float]:
    return pd.Series(weights).groupby([frame["source"], frame["label"]]).sum().to_dict()


def test_classes_are_even_and_sources_go_by_the_root_of_their_size() -> None:
    frame = table({("a", "real"): 100, ("b", "real"): 400, ("c", "fake"): 9, ("d", "fake"): 1})
    got = shares(frame, sampling_weights(frame, power=0.5, max_share=1.0))
    assert got == pytest.approx(
        {("a", "real"): 1 / 6, ("b", "real"): 2 / 6, ("c", "fake"): 3 / 8, ("d", "fake"): 1 / 8}
    )


def test_no_source_is_above_the_cap() -> None:
    frame = table({("big", "real"): 900, **{(f"s{i}", "real"): 9 for i in range(5)}})
    got = shares(frame, sampling_weights(frame, power=0.5, max_share=0.2))
    assert got[("big", "real")] == pytest.approx(0.2)
    assert got[("s0", "real")] == pytest.approx(0.16)
    even = shares(frame, sampling_weights(frame, power=0.5, max_share=0.01))
    assert set(np.round(list(even.values()), 9)) == {round(1 / 6, 9)}


def test_pairs_count_more() -> None:
    frame = table({("p", "real"): 4, ("p", "fake"): 4, ("a", "real"): 4, ("b", "fake"): 4})
    got = shares(frame, sampling_weights(frame, power=1, max_share=1.0, pair_weight=3))
    assert got[("p", "real")] == pytest.approx(3 * got[("a", "real")])


@pytest.fixture
def files(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for label in ("real", "fake"):
        for i in range(3):
            path = tmp_path / f"{label}{i}.png"
            Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(path)
            rows.append({"path": str(path), "label": label, "source": label})
    return pd.DataFrame(rows)


def test_item_depends_on_seed_and_place_alone(files: pd.DataFrame) -> None:
    weights = np.full(6, 1 / 6)
    whole = TrainingStream(files, weights, Views(48, AugmentConfig()), Draws(length=10, seed=3))
    later = TrainingStream(
        files, weights, Views(48, AugmentConfig()), Draws(length=10, start=4, seed=3)
    )
    assert len(later) == 6
    for i in range(6):
        a, b = whole[4 + i], later[i]
        assert bool((a[0] == b[0]).all())
        assert a[1] == b[1]
    other = TrainingStream(files, weights, Views(48, AugmentConfig()), Draws(length=10, seed=4))
    assert any(not bool((whole[i][0] == other[i][0]).all()) for i in range(10))
    assert {float(whole[i][1]) for i in range(10)} == {0.0, 1.0}


def test_labels_follow_the_pictures(files: pd.DataFrame) -> None:
    weights = np.where(files["label"] == "fake", 1 / 3, 0.0)
    stream = TrainingStream(files, weights, Views(48, AugmentConfig()), Draws(length=8))
    assert {float(stream[i][1]) for i in range(8)} == {1.0}


def test_unreadable_pictures_are_replaced(files: pd.DataFrame) -> None:
    Path(files["path"][0]).write_bytes(b"")
    weights = np.array([0.5, 0.5, 0, 0, 0, 0])
    stream = TrainingStream(files, weights, Views(48, AugmentConfig()), Draws(length=8))
    assert all(stream[i][0].shape == (3, 48, 48) for i in range(8))
    Path(files["path"][1]).write_bytes(b"")
    with pytest.raises(ImageError, match="in a row"):
        stream[0]


def test_two_views_keep_their_tiles_in_place(files: pd.DataFrame) -> None:
    shuffled, weights = replace(CLEAN, shuffle=0.5), np.full(6, 1 / 6)
    for views in (Views(48, shuffled, CLEAN), Views(48, CLEAN, shuffled)):
        with pytest.raises(ValueError, match=r"set augment\.shuffle and clean\.shuffle to 0"):
            TrainingStream(files, weights, views, Draws(length=2))


@pytest.fixture
def with_a_narrow_one(files: pd.DataFrame, tmp_path: Path) -> tuple[pd.DataFrame, DireReader]:
    """Pictures with their DIRE maps, but for the first, which is too narrow to be enlarged."""
    Image.new("RGB", (20_000, 32)).save(files["path"][0])
    still = StandInNoise(torch.zeros_like)
    prepare = Preprocessing(crop=48, crops=1, short_side=512, enlarge=True)
    options = CacheOptions(dire=True)
    found = fill_cache(files["path"], still, tmp_path / "cache", options, prepare=prepare)  # type: ignore[arg-type]
    assert [path for path, _ in found.failed] == [files["path"][0]]
    return files, open_dire(tmp_path / "cache")


def test_a_picture_that_can_have_no_map_costs_nothing_else(
    with_a_narrow_one: tuple[pd.DataFrame, DireReader],
) -> None:
    files, maps = with_a_narrow_one
    weights = np.array([0.5, 0.5, 0, 0, 0, 0])
    stream = TrainingStream(files, weights, Views(32, AugmentConfig()), Draws(12), dire=maps)
    assert all(len(stream[i]) == 3 for i in range(12))
    cut = Preprocessing(crop=32, crops=1)

    def score(crops: torch.Tensor) -> torch.Tensor:
        return crops.float().mean((1, 2, 3))

    logits = score_table(score, files, cut, workers=0, dire=maps)
    assert np.isnan(logits).tolist() == [True, *[False] * 5]
    Image.new("RGB", (80, 80)).save(files["path"][1])  # one that could have one
    with pytest.raises(CacheError, match="has changed since"):
        score_table(score, files, cut, workers=0, dire=maps)


class Coded:
    """A map whose pixels say where they are: red is the column, green the row."""

    def __init__(self, side: int) -> None:
        rows, columns = np.mgrid[:side, :side]
        self.map = np.stack([columns, rows, (rows + columns) // 2], axis=-1).astype(np.uint8)

    def __call__(self, path: str) -> np.ndarray:
        return self.map

    def align(self, rgb: np.ndarray) -> np.ndarray:
        side = len(self.map)
        return rgb[:side, :side]


NOTHING = AugmentConfig(
    resize=0, jpeg=0, second_jpeg=0, webp=0, blur=0, noise=0, tone=0, grey=0, shuffle=0
)


@pytest.mark.parametrize("shuffle", [0.0, 1.0])
def test_dire_maps_follow_their_picture_and_nothing_else(tmp_path: Path, shuffle: float) -> None:
    """The picture is grey by luma, its map is not: each pixel still tells the same place."""
    maps = Coded(120)
    bigger = np.pad(maps.map, ((0, 40), (0, 40), (0, 0)), constant_values=255)
    Image.fromarray(bigger).save(tmp_path / "coded.png")
    rows = [{"path": str(tmp_path / "coded.png"), "label": "fake", "source": "s"}]
    config = replace(NOTHING, grey=1.0, shuffle=shuffle, tile=16)
    stream = TrainingStream(
        pd.DataFrame(rows), np.ones(1), Views(64, config), Draws(30, seed=1), dire=maps
    )
    flips, corners = set(), set()
    for i in range(30):
        picture, label, dire = (part.numpy() for part in stream[i])
        assert label == 1.0
        place = dire.transpose(1, 2, 0)
        luma = np.asarray(Image.fromarray(np.ascontiguousarray(place)).convert("L"))
        assert (picture == luma).all()
        column, row = place[..., 0].astype(int), place[..., 1].astype(int)
        assert (place[..., 2] == (row + column) // 2).all()
        if not shuffle:
            flips.add(int(column[0, 1] - column[0, 0]))
            corners.add((int(row[0, 0]), int(column.min())))
            assert (np.abs(np.diff(column, axis=1)) == 1).all()
            assert (np.diff(row, axis=0) == 1).all()
    if not shuffle:
        assert flips == {-1, 1}
        assert len(corners) > 20


def test_a_map_of_another_size_is_refused(files: pd.DataFrame) -> None:
    maps = Coded(70)
    maps.align = lambda rgb: rgb  # type: ignore[method-assign]
    stream = TrainingStream(
        files, np.full(6, 1 / 6), Views(48, NOTHING), Draws(length=2), dire=maps
    )
    with pytest.raises(ValueError, match="70 x 70 pixels, the picture 80 x 80"):
        stream[0]


@pytest.mark.parametrize("size", [(80, 80), (72, 110)])
def test_cached_maps_lie_on_the_pictures_they_came_from(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """A source whose DIRE is the picture itself: crop and map must then be the same pixels."""
    rng = np.random.default_rng(2)
    path = tmp_path / "p.png"
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)

    mirror = StandInNoise(lambda x0: (x0 + 1.0) / 2.0)
    cache = tmp_path / "cache"
    options = CacheOptions(dire=True)
    fill_cache([path], mirror, cache, options, prepare=resize_and_crop(64))  # type: ignore[arg-type]
    rows = pd.DataFrame([{"path": str(path), "label": "real", "source": "s"}])
    stream = TrainingStream(
        rows, np.ones(1), Views(48, NOTHING), Draws(length=8), dire=open_dire(cache)
    )
    for i in range(8):
        picture, _, dire = stream[i]
        assert bool((picture == dire).all())
