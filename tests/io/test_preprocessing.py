import numpy as np
import pytest

from distildire.io.pictures import ImageError
from distildire.io.preprocessing import (
    Preprocessing,
    equalize,
    jpeg,
    limit_short_side,
    reflect_to,
    resize_and_crop,
    turned,
    turned_back,
)
from made_pictures import picture


def test_short_side_only_shrinks() -> None:
    assert limit_short_side(picture(300, 600), 150).shape == (150, 300, 3)
    small = picture(100, 140)
    assert limit_short_side(small, 150) is small


def test_equalize_is_one_jpeg_pass_after_the_limit() -> None:
    rgb = picture(700, 900)
    expected = jpeg(limit_short_side(rgb, 512), 90)
    assert np.array_equal(equalize(rgb), expected)
    assert min(equalize(rgb).shape[:2]) == 512
    assert not np.array_equal(jpeg(rgb, 90), jpeg(rgb, 60))


def test_what_no_jpeg_can_hold_is_refused_in_words() -> None:
    assert jpeg(np.zeros((32, 65_500, 3), np.uint8), 90).shape == (32, 65_500, 3)
    for shape in ((32, 65_501, 3), (65_501, 32, 3)):
        with pytest.raises(ImageError, match="too long to re-encode"):
            equalize(np.zeros(shape, np.uint8))


def test_crops_are_native_pixels() -> None:
    rgb = picture(375, 500)
    cut = Preprocessing(crop=100, crops=3)(rgb)
    assert cut.shape == (3, 100, 100, 3)
    assert np.array_equal(cut[0], rgb[138:238, 200:300])  # round(0.5 * 275) is even: 138
    assert np.array_equal(cut[1], rgb[55:155, 80:180])
    assert np.array_equal(cut[2], rgb[220:320, 320:420])


def test_small_pictures_are_continued_by_reflection() -> None:
    rgb = picture(40, 300)
    cut = Preprocessing(crop=64, crops=1)(rgb)
    assert cut.shape == (1, 64, 64, 3)
    assert np.array_equal(cut[0, 40], cut[0, 39])
    assert np.array_equal(cut[0, 63], cut[0, 16])
    assert reflect_to(picture(33, 33), 160).shape == (160, 160, 3)


@pytest.mark.parametrize(
    "options", [{"crops": 0}, {"crops": -1}, {"crops": 6}, {"crop": 8}, {"turns": 3}]
)
def test_impossible_preprocessing(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"crop|turns"):
        Preprocessing(**options)


TURNS = {
    1: [lambda p: p],
    2: [lambda p: p[:, ::-1]],
    4: [lambda p: p[::-1], lambda p: p[::-1, ::-1]],
    8: [np.rot90, lambda p: np.rot90(p, 3), lambda p: np.rot90(p)[:, ::-1]],
}


@pytest.mark.parametrize("turns", [1, 2, 4, 8])
def test_maps_of_turned_crops_come_back_as_the_crops_lie(turns: int) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)
    maps = turned(crops, turns)[..., 0].astype(np.float32)
    np.testing.assert_array_equal(turned_back(maps, turns), crops[..., 0])


@pytest.mark.parametrize("turns", TURNS)
def test_turned_as_often_as_it_is_seen_a_picture_gives_the_same_crops(turns: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)
    cut = Preprocessing(crop=64, crops=1, halves=1, turns=turns)
    assert cut(rgb).shape == (cut.views, 64, 64, 3) == (2 * turns, 64, 64, 3)
    assert np.array_equal(cut(rgb)[:2], Preprocessing(crop=64, crops=1, halves=1)(rgb))
    assert len({view.tobytes() for view in cut(rgb)}) == cut.views

    def seen(picture: np.ndarray) -> list[bytes]:
        return sorted(view.tobytes() for view in cut(np.ascontiguousarray(picture)))

    for number, of_number in TURNS.items():
        same = [seen(turn(rgb)) == seen(rgb) for turn in of_number]
        assert same == [number <= turns] * len(of_number)


def test_a_picture_can_be_seen_at_half_its_size_alone() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)
    both = Preprocessing(crop=64, crops=1, halves=2)(rgb)
    assert np.array_equal(Preprocessing(crop=64, crops=0, halves=2)(rgb), both[1:])


def test_a_small_picture_seen_at_half_its_size_alone_is_enlarged() -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None], (80, 100, 3))
    (view,) = Preprocessing(crop=64, crops=0, halves=1)(np.ascontiguousarray(ramp))
    steps = np.diff(view[32, :, 0].astype(int))
    assert (steps >= 0).all()  # reflected, it would fall again
    assert view[32, -1, 0] - view[32, 0, 0] == pytest.approx(80, abs=3)


def test_crops_at_half_size_are_means_of_four_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (201, 300, 3), dtype=np.uint8)
    native, half = Preprocessing(crop=64, crops=1, halves=1)(rgb)
    means = rgb[:200].reshape(100, 2, 150, 2, 3).mean(axis=(1, 3))
    assert (native == rgb[68:132, 118:182]).all()
    assert np.abs(half - means[18:82, 43:107]).max() <= 0.5


def test_both_scales_of_a_small_picture_are_continued() -> None:
    cut = Preprocessing(crop=64, crops=2, halves=3)
    assert cut(np.zeros((40, 70, 3), np.uint8)).shape == (5, 64, 64, 3)
    assert cut.views == 5
    with pytest.raises(ValueError, match="halves"):
        Preprocessing(halves=6)


def test_narrow_pictures_are_not_enlarged_to_gigabytes() -> None:
    cut = Preprocessing(crop=144, crops=0, halves=2)
    assert cut(np.zeros((32, 9000, 3), np.uint8)).shape == (2, 144, 144, 3)
    with pytest.raises(ImageError, match="too narrow"):
        cut(np.zeros((32, 20_000, 3), np.uint8))
    wide = Preprocessing(crop=144, crops=1)
    assert wide(np.zeros((32, 20_000, 3), np.uint8)).shape == (1, 144, 144, 3)


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (
            Preprocessing(crop=224, crops=0, short_side=448, halves=1),
            "one piece of 448 px from the middle, at half size; "
            "the picture's shorter side is brought to 448 px first",
        ),
        (
            Preprocessing(crop=160, crops=2, halves=1, turns=2),
            "2 pieces of 160 px (the first from the middle) and one piece of 320 px from the "
            "middle, at half size, mirrored too; a shorter side over 512 px is reduced to it first",
        ),
        (
            resize_and_crop(256),
            "one piece of 256 px from the middle; "
            "the picture's shorter side is brought to 256 px first",
        ),
    ],
)
def test_a_preprocessing_in_words(cut: Preprocessing, words: str) -> None:
    assert cut.in_words() == words
