"""Heat maps: tiling, blending, and the check by an inserted patch."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from distildire import web
from distildire.evaluate.patch_insertion import insert_patch, patch_insertion, points_inside
from distildire.explain.explanation import heat_colours, looked_at
from distildire.explain.heatmap import (
    COOL,
    VEIL,
    WARM,
    assemble,
    heat_of,
    judged_places,
    limit_of,
    noise_view,
    overlay,
    picture_heat,
    save_heatmap,
    tile_corners,
)
from distildire.io.pictures import RGB
from distildire.io.preprocessing import Preprocessing


def brightness(crops: np.ndarray) -> np.ndarray:
    """A map that says how bright each 8 x 8 cell is: 0..1."""
    n, side = crops.shape[:2]
    cells = crops.reshape(n, side // 8, 8, side // 8, 8, 3)
    return (cells.mean(axis=(2, 4, 5)) / 255).astype(np.float32)


def brightness_heat(rgb: RGB) -> np.ndarray:
    return picture_heat(brightness, rgb, Preprocessing(crop=64))


@pytest.mark.parametrize("size", [(64, 64), (65, 300), (200, 97)])
def test_crops_cover_the_picture(size: tuple[int, int]) -> None:
    covered = np.zeros(size, int)
    for top, left in tile_corners(*size, 64, 32):
        piece = covered[top : top + 64, left : left + 64]
        assert piece.shape == (64, 64)
        piece += 1
    assert covered.min() >= 1
    with pytest.raises(ValueError, match="smaller than a crop"):
        tile_corners(32, 64, 64, 32)


def test_a_constant_map_stays_constant() -> None:
    corners = tile_corners(150, 100, 64, 32)
    heat = assemble(np.full((len(corners), 5, 5), 2.5, np.float32), corners, 64, 150, 100)
    np.testing.assert_allclose(heat, 2.5, rtol=1e-5)


def test_heat_lies_where_the_brightness_is() -> None:
    rgb = np.full((240, 300, 3), 20, np.uint8)
    rgb[40:104, 160:224] = 230
    heat = picture_heat(brightness, rgb, Preprocessing(crop=64), bias=1.0)
    assert heat.shape == (240, 300)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert 40 <= y < 104
    assert 160 <= x < 224
    assert heat.mean() == pytest.approx(1 + rgb.mean() / 255, abs=0.02)


@pytest.mark.parametrize("size", [(40, 50), (90, 64), (700, 900)])
def test_any_size(size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 128, np.uint8)
    heat = picture_heat(brightness, rgb, Preprocessing(crop=64, short_side=256))
    assert heat.shape == size
    np.testing.assert_allclose(heat, 128 / 255, rtol=1e-4)


def test_a_detector_of_half_size_shows_its_own_scale() -> None:
    seen = []

    def cam_of(crops: np.ndarray) -> np.ndarray:
        seen.append(len(crops))
        return brightness(crops)

    rgb = np.zeros((256, 320, 3), np.uint8)
    rgb[:128, :160] = 255
    heat = picture_heat(cam_of, rgb, Preprocessing(crop=64, crops=0, halves=1))
    assert heat.shape == (256, 320)
    assert sum(seen) == 3 * 4  # of 128 x 160 pixels, half overlapping
    assert heat[:96, :128].mean() > 0.9 > 0.1 > heat[160:, 192:].mean()


class _Brightness:
    """A detector whose map is how bright each place is, and whose logit is the map's mean."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.bundle = SimpleNamespace(preprocessing=preprocessing, heatmap_note="")
        self.graph_outputs = {"cam"}

    def run_graph(self, output: str, crops: np.ndarray) -> np.ndarray:
        rows = np.linspace(0, 1, crops.shape[1] // 8, dtype=np.float32)[:, None]
        return brightness(crops) * rows  # so that a turned crop has another map


@pytest.mark.parametrize("turns", [1, 8])
@pytest.mark.parametrize("size", [(427, 640), (700, 500), (128, 128)])
def test_what_the_score_looks_at_has_its_mean_and_the_rest_no_colour(
    size: tuple[int, int], turns: int
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    cut = Preprocessing(crop=64, crops=0, short_side=128, halves=1, turns=turns)
    detector = _Brightness(cut)
    heat, judged = heat_of(detector, rgb), judged_places(cut, rgb)
    logit = detector.run_graph("cam", cut(rgb)).mean()
    assert heat[judged].mean() == pytest.approx(logit, abs=1e-3)
    # The middle square, within a pixel.
    short = min(size)
    ys, xs = np.nonzero(judged)
    top, left = ((n - short) / 2 for n in size)
    found = (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1)
    assert found == pytest.approx((top, top + short, left, left + short), abs=short / 64)
    seen = looked_at(cut, rgb)
    assert seen["share"] == pytest.approx(short / max(size), abs=0.02)
    ((place, share),) = [((b["left"], b["top"]), seen["words"]) for b in seen["boxes"]]
    assert place == (xs.min(), ys.min())
    assert ("middle" in share) == (size != (128, 128))
    outside = overlay(rgb, heat, judged=judged)[~judged].astype(int)
    assert (np.ptp(outside, axis=-1) < 0.3 * 256).all()
    assert (heat_colours(heat, 1.0, judged)[~judged] == (*VEIL, 190)).all()


def test_overlay_reddens_fake_and_blues_real(tmp_path: Path) -> None:
    rgb = np.full((64, 64, 3), 128, np.uint8)
    heat = np.zeros((64, 64), np.float32)
    heat[:, :20], heat[:, 44:] = 3.0, -3.0
    blend = overlay(rgb, heat).astype(int)
    assert (blend[:, :20, 0] > blend[:, :20, 2] + 50).all()
    assert (blend[:, 44:, 2] > blend[:, 44:, 0] + 50).all()
    np.testing.assert_array_equal(blend[:, 20:44], 128)
    save_heatmap(tmp_path / "a" / "heat.png", rgb, heat, "a weak guide")
    with Image.open(tmp_path / "a" / "heat.png") as image:
        assert "a weak guide" in image.text["Description"]
        assert image.width == 64
        assert image.height > 64
    with pytest.raises(ValueError, match="one size"):
        overlay(rgb, heat[:10])


def blended_slowly(rgb: RGB, heat: np.ndarray, limit: float, judged: np.ndarray) -> np.ndarray:
    """The overlay of the whole picture at once, in double precision."""
    strength = np.clip(heat.astype(float) / limit, -1, 1)[..., None]
    colour = np.where(judged[..., None], np.where(strength > 0, WARM, COOL), VEIL)
    alpha = np.where(judged[..., None], 0.7 * abs(strength), 0.75)
    grey = rgb.mean(axis=2, keepdims=True) / 2 + rgb / 2
    return np.rint(grey * (1 - alpha) + colour * alpha)


def test_overlay_of_a_large_picture_takes_little_memory() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    heat = rng.normal(0, 2, rgb.shape[:2]).astype(np.float32)
    judged = np.zeros(rgb.shape[:2], bool)
    judged[:, 250:1750] = True
    tracemalloc.start()
    blend = overlay(rgb, heat, judged=judged)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * heat.size, "bytes a pixel"
    expected = blended_slowly(rgb, heat, limit_of(heat[judged]), judged)
    assert np.abs(blend - expected).max() <= 1


def test_one_scale_and_one_palette() -> None:
    assert limit_of(np.array([[0.3, -0.2]], np.float32)) == 1.0
    heat = np.linspace(-4, 4, 201, dtype=np.float32)[None]
    assert limit_of(heat) == pytest.approx(np.percentile(abs(heat), 99))
    assert heat_colours(np.array([[9, -9]], np.float32), 1.0)[0, :, :3].tolist() == [
        list(WARM),
        list(COOL),
    ]
    style = (Path(web.__file__).parent / "static/style.css").read_text()
    legend = (bytes(colour).hex() for colour in (COOL, WARM))
    assert "linear-gradient(90deg, #{}, transparent, #{})".format(*legend) in style


def test_noise_view_is_grey_at_zero() -> None:
    eps0 = np.zeros((8, 8, 3), np.float32)
    assert set(np.unique(noise_view(eps0))) <= {127, 128}
    eps0[0, 0] = 5
    assert noise_view(eps0)[0, 0].tolist() == [255, 255, 255]


def test_patch_insertion_with_a_detector_that_sees_brightness() -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 60, (128, 160, 3), dtype=np.uint8) for _ in range(6)]
    bright = [rng.integers(190, 250, (128, 128, 3), dtype=np.uint8) for _ in range(3)]
    found = patch_insertion(brightness_heat, photos, bright)
    assert found.hit_rate == 1.0
    assert found.inside_heat > 0.3
    assert abs(found.control_inside_heat) < 0.1
    assert found.chance == pytest.approx(64 * 64 / (128 * 160))
    assert not found.poor
    assert "can point" in found.sentence()
    blind = patch_insertion(brightness_heat, photos, photos)
    assert blind.poor
    assert "no guide" in blind.sentence()
    beside = replace(found, control_hit_rate=0.95)
    assert beside.poor
    assert "weak guide" in beside.sentence()
    seams = replace(found, hit_rate=0.6, control_hit_rate=0.7)
    assert "no guide" in seams.sentence(), "a patch of a photograph is found more often"
    alike = replace(found, hit_rate=0.6, control_hit_rate=0.6)
    assert "no guide" in alike.sentence(), "and as often"


def test_patches_outside_are_refused() -> None:
    photo = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="outside"):
        insert_patch(photo, photo, 1, 0)
    heat = np.zeros((20, 20), np.float32)
    heat[3, 4] = 1
    assert points_inside(heat, (3, 4, 1, 1))
    assert not points_inside(heat, (4, 4, 5, 5))
