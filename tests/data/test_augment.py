import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from distildire.data.augment import (
    CLEAN,
    AugmentConfig,
    _degrade,
    augment,
    augment_twice,
    shuffle_tiles,
)

OFF = replace(
    AugmentConfig(),
    **{f.name: 0.0 for f in fields(AugmentConfig) if f.type == "float"},  # type: ignore[arg-type]
)


def picture(height: int = 200, width: int = 240) -> np.ndarray:
    """Every pixel tells where it came from."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, (y * 7 + x * 3) % 256], axis=2).astype(np.uint8)


def test_nothing_on_is_a_plain_crop() -> None:
    rgb = picture()
    (crop,) = augment([rgb], 64, OFF, np.random.default_rng(1))
    top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
    assert np.array_equal(crop, rgb[top : top + 64, left : left + 64])


def test_one_seed_one_view() -> None:
    config = replace(AugmentConfig(), shuffle=0.5)
    for seed in range(20):
        one, two = (
            augment([picture()], 64, config, np.random.default_rng(seed))[0] for _ in range(2)
        )
        assert one.shape == (64, 64, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, two)


def test_aligned_maps_move_with_the_image_and_are_not_degraded() -> None:
    geometry = replace(OFF, resize=0.5, flip=0.5, shuffle=0.5)
    for seed in range(20):
        image, dire = augment([picture()] * 2, 64, geometry, np.random.default_rng(seed))
        assert np.array_equal(image, dire)
    degraded = replace(OFF, jpeg=1.0, quality=(40, 40))
    image, dire = augment([picture()] * 2, 64, degraded, np.random.default_rng(3))
    clean, _ = augment([picture()] * 2, 64, OFF, np.random.default_rng(3))
    assert not np.array_equal(image, dire)
    assert {tuple(p) for p in dire.reshape(-1, 3)} <= {tuple(p) for p in picture().reshape(-1, 3)}
    assert clean.shape == dire.shape


@pytest.mark.parametrize("side", [40, 64, 71])
def test_pictures_smaller_than_the_crop(side: int) -> None:
    for seed in range(10):
        (crop,) = augment([picture(side, 300)], 64, AugmentConfig(), np.random.default_rng(seed))
        assert crop.shape == (64, 64, 3)


@pytest.mark.parametrize(
    "name",
    ["jpeg", "second_jpeg", "webp", "blur", "noise", "tone", "grey", "resample", "sharpen"],
)
def test_each_degradation_changes_pixels(name: str) -> None:
    piece = picture(72, 72)
    assert np.array_equal(_degrade(piece, OFF, np.random.default_rng(5)), piece)
    once = replace(OFF, jpeg=1.0) if name == "second_jpeg" else OFF
    plain, changed = (
        _degrade(piece, config, np.random.default_rng(5))
        for config in (once, replace(once, **{name: 1.0}))
    )
    assert changed.shape == piece.shape
    assert not np.array_equal(changed, plain)


def test_shuffled_tiles_are_the_same_tiles() -> None:
    rgb = picture(70, 70)
    order = np.random.default_rng(0).permutation(4)
    mixed = shuffle_tiles(rgb, 32, order)
    for place, origin in enumerate(order):
        y, x = divmod(place, 2)
        v, u = divmod(int(origin), 2)
        tile = mixed[32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        assert np.array_equal(tile, rgb[32 * v : 32 * v + 32, 32 * u : 32 * u + 32])
    assert np.array_equal(mixed[64:], rgb[64:])
    assert np.array_equal(mixed[:, 64:], rgb[:, 64:])


def test_a_halved_view_shows_twice_the_side_and_keeps_maps_aligned() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3))
    config = AugmentConfig(
        resize=0, jpeg=0, webp=0, blur=0, noise=0, tone=0, grey=0, flip=0, half=1.0
    )
    view, aligned = augment([ramp, ramp], 64, config, np.random.default_rng(0))
    assert view.shape == (64, 64, 3)
    assert (view == aligned).all()
    assert set(np.diff(view[0, :, 0].astype(int))) == {2}


def test_a_small_picture_is_enlarged_instead_of_reflected() -> None:
    ramp = np.ascontiguousarray(
        np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (60, 60, 3))
    )
    plain = AugmentConfig(
        resize=0, jpeg=0, webp=0, blur=0, noise=0, tone=0, grey=0, flip=0, enlarge=True
    )
    for seed in range(5):
        (view,) = augment([ramp], 100, plain, np.random.default_rng(seed))
        assert (np.diff(view[50, :, 0].astype(int)) >= -2).all()


def test_the_clean_view_is_the_piece_and_the_other_is_degraded() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    off = replace(CLEAN, jpeg=0.0, tone=0.0)
    heavy = replace(AugmentConfig(), resize=0.0, flip=0.0, blur=1.0, sigma=(3.0, 3.0))
    clean, degraded = augment_twice(rgb, 64, heavy, off, np.random.default_rng(1))
    windows = np.lib.stride_tricks.sliding_window_view(rgb, (64, 64, 3)).reshape(-1, 64, 64, 3)
    assert (windows == clean).all(axis=(1, 2, 3)).any()
    assert degraded.std() < 0.5 * clean.std()


def test_eight_orientations() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (72, 72, 3), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(rgb, (64, 64, 3)).reshape(-1, 64, 64, 3)
    turned = replace(CLEAN, resize=0.0, jpeg=0.0, tone=0.0, orient=1.0)
    seen = set()
    for seed in range(60):
        view = augment_twice(rgb, 64, turned, turned, np.random.default_rng(seed))[0]
        for side in itertools.product(range(4), (1, -1)):
            upright = np.rot90(view, side[0])[:, :: side[1]]
            if (windows == upright).all(axis=(1, 2, 3)).any():
                seen.add(side)
                break
        else:
            pytest.fail("a view that is no piece of the picture in any orientation")
    assert len(seen) == 8
