"""What holds no photographic content is told, by kind; photographs pass."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from distildire.gate import is_pattern, measure, nothing_to_judge
from distildire.io.pictures import RGB, decode
from distildire.io.preprocessing import Preprocessing

EXAMPLES = Path(__file__).parent.parent / "examples"


def plain(*colour: int) -> RGB:
    return np.full((300, 400, 3), colour, np.uint8)


def gradient() -> RGB:
    ramp = np.linspace(20, 230, 400)[None, :, None] * np.ones((300, 1, 3))
    return (ramp + np.random.default_rng(0).normal(0, 0.7, ramp.shape)).astype(np.uint8)


def noise(deviation: float) -> RGB:
    values = np.random.default_rng(1).normal(128, deviation, (300, 400, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def grainy(rgb: RGB, deviation: float = 5.0) -> RGB:
    grain = np.random.default_rng(2).normal(0, deviation, rgb.shape)
    return np.clip(rgb + grain, 0, 255).round().astype(np.uint8)


def text() -> RGB:
    page = Image.new("RGB", (800, 600), "white")
    font = ImageFont.load_default(size=18)
    for line in range(24):
        ImageDraw.Draw(page).text(
            (40, 20 + 24 * line), "It was the best of times " * 3, "black", font
        )
    return np.array(page)


def drawing() -> RGB:
    page = Image.new("RGB", (600, 600), "white")
    for radius in range(40, 280, 30):
        box = (300 - radius, 300 - radius, 300 + radius, 300 + radius)
        ImageDraw.Draw(page).ellipse(box, outline="black", width=3)
    return np.array(page)


def photograph() -> Image.Image:
    return Image.open(EXAMPLES / "photo_astronaut.png").convert("RGB")


def thumbnail(kernel: Image.Resampling) -> RGB:
    return np.array(photograph().resize((24, 20)).resize((480, 400), kernel))


def crushed() -> RGB:
    buffer = io.BytesIO()
    photograph().resize((1280, 854)).save(buffer, "JPEG", quality=1)
    return np.array(Image.open(buffer))


def waves(period: float, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:400, 0:500] - 200.3
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (x * cos + y * sin) / period, (y * cos - x * sin) / period


def inked(shares: np.ndarray) -> RGB:
    buffer = io.BytesIO()
    colours = np.array([30, 60, 140]) + shares[..., None] * np.array([200, 120, -60])
    Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize("degrees", [0, 27])
@pytest.mark.parametrize("period", [3, 8, 20, 60, 200])
def test_patterns_are_told(period: float, degrees: float) -> None:
    along, across = waves(period, degrees)
    for shares in (
        (np.floor(2 * along) + np.floor(2 * across)) % 2,  # checks
        np.floor(2 * along) % 2,  # stripes
        0.5 + 0.5 * np.sin(2 * np.pi * along),
        0.5 + 0.5 * np.sin(2 * np.pi * np.hypot(along, across)),  # circles
        (np.hypot(along % 1 - 0.5, across % 1 - 0.5) > 0.3).astype(float),  # dots
    ):
        assert nothing_to_judge(inked(shares)) is not None


def test_two_tones_are_told() -> None:
    coarse = np.random.default_rng(3).integers(0, 256, (40, 50), dtype=np.uint8)
    blots = Image.fromarray(coarse).resize((500, 400), Image.Resampling.BICUBIC)
    reason = nothing_to_judge(inked((np.asarray(blots) > 128).astype(float)))
    assert reason == "nothing to judge: the picture has two tones, and is no photograph"


def test_what_the_model_looks_at_must_not_be_empty() -> None:
    canvas = np.random.default_rng(0).normal(200, 0.7, (1000, 1200, 3)).clip(0, 255)
    canvas = canvas.astype(np.uint8)
    canvas[-420:, -500:] = photograph().resize((500, 420))
    crops = Preprocessing(crop=192, crops=0, short_side=448, halves=2)(canvas)
    assert nothing_to_judge(canvas) is None
    assert "looks at is empty" in str(nothing_to_judge(canvas, crops))


def test_a_pale_object_on_a_plain_ground_is_a_photograph() -> None:
    scene = np.full((448, 448, 3), 236, np.uint8)
    grey = photograph().convert("L").resize((200, 200))
    grain = np.random.default_rng(0).normal(212, 2, (200, 200, 3))
    scene[124:324, 124:324] = grain + np.asarray(grey)[..., None] / 20
    crops = Preprocessing(crop=224, crops=0, short_side=448, halves=1)(scene)
    assert measure(scene).background > 0.5
    assert nothing_to_judge(scene, crops) is None


def test_a_plain_wall_is_not_crushed() -> None:
    light = np.linspace(225, 245, 600).round()[None, :, None]
    scene = np.broadcast_to(light, (600, 600, 3)).astype(np.uint8)
    scene[420:, 100:420] = photograph().resize((320, 180))
    content = io.BytesIO()
    Image.fromarray(scene).save(content, "JPEG", quality=90)
    wall = decode(content.getvalue())
    assert measure(wall).dead_blocks > 0.68
    assert measure(wall).equal > 0.78
    assert measure(wall).background < 0.5
    assert nothing_to_judge(wall) is None
    assert measure(crushed()).terraces > 0.02


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        (plain(255, 255, 255), "uniform"),
        (plain(0, 0, 255), "uniform"),
        (gradient(), "gradient"),
        (noise(12), "noise"),
        (noise(60), "noise"),
        (grainy(np.full((480, 640, 3), 128, np.uint8), 4), "area with noise"),
        (grainy(np.full((480, 640, 3), 128, np.uint8), 5), "area with noise"),
        (text(), "text"),
        (grainy(text()), "text"),
        (grainy(255 - (255 - text()) // 8), "text"),
        (drawing(), "drawing"),
        (grainy(drawing()), "drawing"),
        (thumbnail(Image.Resampling.BICUBIC), "thumbnail"),
        (thumbnail(Image.Resampling.NEAREST), "thumbnail"),
        (crushed(), "compression"),
    ],
)
def test_what_holds_nothing_is_told(rgb: RGB, words: str) -> None:
    reason = nothing_to_judge(rgb)
    assert reason is not None
    assert words in reason


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*g")), ids=lambda p: p.name)
def test_photographs_and_generated_pictures_pass(path: Path) -> None:
    assert nothing_to_judge(decode(path)) is None
    small = Image.open(path).convert("RGB")
    small.thumbnail((160, 160))
    assert nothing_to_judge(np.array(small)) is None


def test_the_smallest_pictures_are_measured() -> None:
    assert nothing_to_judge(np.zeros((32, 32, 3), np.uint8)) is not None
    assert nothing_to_judge(np.zeros((32, 4000, 3), np.uint8)) is not None


@pytest.mark.parametrize(("plain", "pattern"), [(0, True), (2, True), (3, False)])
def test_a_pattern_fills_all_but_two_of_nine_windows(plain: int, pattern: bool) -> None:
    """A chessboard of single pixels, which is grey at half its size."""
    grey = np.indices((512, 512)).sum(axis=0) % 2 * 100 + 80
    for place in range(plain):
        top, left = 224 * (place // 3), 224 * (place % 3)
        grey[top : top + 64, left : left + 64] = 130
    assert is_pattern(grey.astype(np.uint8)) == pattern


@pytest.mark.parametrize(("faintest", "pattern"), [(50, True), (10, False)])
def test_a_pattern_is_as_strong_everywhere(faintest: int, pattern: bool) -> None:
    """Bars that fade from left to right are the folds of a curtain."""
    across = np.arange(512)
    bars = np.sin(2 * np.pi * across / 8) * np.linspace(50, faintest, 512)
    assert is_pattern(np.tile(128 + bars, (512, 1)).astype(np.uint8)) == pattern
