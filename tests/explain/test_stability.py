"""Stability: re-encodings by hand, and a stand-in detector that JPEG confuses."""

from __future__ import annotations

import numpy as np
import pytest

from distildire.explain.reencode import ROBUSTNESS, STABILITY, by_crop, by_noise, by_resize
from distildire.explain.stability import judge_scores, stability
from distildire.io.pictures import RGB


class Sharpness:
    """Calls pictures with strong fine grain fake, with a band of doubt."""

    def __init__(self, middle: float) -> None:
        self.middle = middle

    def logit(self, rgb: RGB) -> float:
        return float(np.abs(np.diff(rgb.astype(float), axis=1)).mean()) - self.middle

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, str]:
        verdict = "fake" if logit > 1 else "real" if logit < -1 else "unsure"
        return 1 / (1 + np.exp(-logit)), verdict


@pytest.fixture
def grainy() -> RGB:
    return np.random.default_rng(0).integers(64, 192, (96, 96, 3), dtype=np.uint8)


def test_a_verdict_that_jpeg_turns_is_unsure(grainy: RGB) -> None:
    result = stability(Sharpness(35.0), grainy)
    assert result.verdicts["as it is"] == "fake"
    assert not result.stable
    assert result.verdict == "unsure"
    assert list(result.logits) == ["as it is", *STABILITY]
    # All of them smooth the grain, but for the crop, which moves no pixel.
    assert result.flips == ["jpeg 85", "jpeg 70", "webp 80", "resize 0.75"]
    assert result.to_dict()["flips"] == result.flips


def test_a_picture_wider_than_webp_can_be() -> None:
    wide = np.zeros((40, 17_000, 3), np.uint8)
    assert STABILITY["webp 80"](wide).shape == (38, 16_383, 3)


def test_a_picture_longer_than_a_jpeg_can_be() -> None:
    long = np.zeros((32, 66_000, 3), np.uint8)
    for name in ("jpeg 85", "jpeg 70"):
        assert STABILITY[name](long).shape == (31, 65_500, 3)
        assert STABILITY[name](long.transpose(1, 0, 2)).shape == (65_500, 31, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_copies_of_a_long_picture_are_of_its_middle(grainy: RGB, turned: bool) -> None:
    long = np.zeros((96, 12_000, 3), np.uint8)
    long[:, 6_000 - 48 : 6_000 + 48] = grainy
    seen: list[RGB] = []
    rgb = long.transpose(1, 0, 2) if turned else long
    stability(Sharpness(2.0), rgb, reencodings={"seen": lambda copy: seen.append(copy) or copy})
    (copy,) = (one.transpose(1, 0, 2) if turned else one for one in seen)
    assert np.array_equal(copy, long[:, 3_600:8_400])


def test_a_clear_verdict_stays(grainy: RGB) -> None:
    result = stability(Sharpness(2.0), grainy)
    assert result.stable
    assert result.verdict == "fake"
    assert result.flips == []
    assert result.probability == result.probabilities["as it is"]


@pytest.mark.parametrize("name", ROBUSTNESS)
@pytest.mark.parametrize("size", [(33, 40), (96, 96)])
def test_every_reencoding_gives_a_picture_and_the_same_one_again(
    name: str, size: tuple[int, int]
) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    first = ROBUSTNESS[name](rgb)
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert min(first.shape[:2]) >= 32
    np.testing.assert_array_equal(first, ROBUSTNESS[name](rgb))


def test_reencodings_by_hand(grainy: RGB) -> None:
    assert by_resize(0.5)(grainy).shape == (48, 48, 3)
    np.testing.assert_array_equal(by_crop(0.5)(grainy), grainy[25:73, 25:73])
    noise = by_noise(5)(np.full((96, 96, 3), 128, np.uint8)).astype(float) - 128
    assert noise.std() == pytest.approx(5, rel=0.03)


def test_a_flip_makes_unsure() -> None:
    assert judge_scores(Sharpness(0.0), {"as it is": 3.0, "a": 0.0}).verdict == "unsure"
