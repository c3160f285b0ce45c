from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from distildire.data.augment import AugmentConfig
from distildire.data.stream import TrainingStream, sampling_weights
from distildire.images import ImageError


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
    whole = TrainingStream(files, weights, 48, AugmentConfig(), length=10, seed=3)
    later = TrainingStream(files, weights, 48, AugmentConfig(), length=10, start=4, seed=3)
    assert len(later) == 6
    for i in range(6):
        a, b = whole[4 + i], later[i]
        assert bool((a[0] == b[0]).all())
        assert a[1] == b[1]
    other = TrainingStream(files, weights, 48, AugmentConfig(), length=10, seed=4)
    assert any(not bool((whole[i][0] == other[i][0]).all()) for i in range(10))
    assert {float(whole[i][1]) for i in range(10)} == {0.0, 1.0}


def test_labels_follow_the_pictures(files: pd.DataFrame) -> None:
    weights = np.where(files["label"] == "fake", 1 / 3, 0.0)
    stream = TrainingStream(files, weights, 48, AugmentConfig(), length=8)
    assert {float(stream[i][1]) for i in range(8)} == {1.0}


def test_unreadable_pictures_are_replaced(files: pd.DataFrame) -> None:
    Path(files["path"][0]).write_bytes(b"")
    weights = np.array([0.5, 0.5, 0, 0, 0, 0])
    stream = TrainingStream(files, weights, 48, AugmentConfig(), length=8)
    assert all(stream[i][0].shape == (3, 48, 48) for i in range(8))
    Path(files["path"][1]).write_bytes(b"")
    with pytest.raises(ImageError, match="in a row"):
        stream[0]
