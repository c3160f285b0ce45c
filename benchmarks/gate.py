"""How many pictures without content the gate tells, and how many photographs it stops.

    python benchmarks/gate.py                       made-up pictures of fifteen kinds, 30 each
    python benchmarks/gate.py MANIFEST [--split val] [--count 2000]    and a manifest's pictures

Photographs to enlarge, to crush or to put on a canvas are those in examples/.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from distildire.bundle import load_bundle
from distildire.gate import nothing_to_judge
from distildire.io.pictures import RGB, decode

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = ((512, 512), (640, 480), (1024, 768), (256, 256), (800, 1200))
EACH = 30
PREPROCESSING = load_bundle("nano").preprocessing
Random = np.random.Generator


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    told = 0
    for name, make in KINDS.items():
        rng = np.random.default_rng(0)
        caught = sum(told_of(saved(make(rng), rng)) is not None for _ in range(EACH))
        told += caught
        print(f"{name:18} {caught:3} of {EACH} told")
    print(f"{'all':18} {told:3} of {EACH * len(KINDS)} told")
    if options.manifest is not None:
        stop(options.manifest, options.split, options.count)


def stop(manifest: Path, split: str, count: int) -> None:
    """Count the pictures of a manifest that the gate stops, by class, style and reason."""
    from distildire.data.manifest import read_manifest

    table = read_manifest(manifest)
    table = table[table["split"] == split] if split else table
    table = table.sample(min(count, len(table)), random_state=0)
    kinds = table["label"] + (" " + table["style"].fillna("") if "style" in table else "")
    reasons: Counter[tuple[str, str]] = Counter()
    seconds = 0.0
    for path, kind in zip(table["path"], kinds, strict=True):
        rgb = decode(path)
        crops, start = PREPROCESSING(rgb), time.thread_time()
        if (reason := nothing_to_judge(rgb, crops)) is not None:
            reasons[kind, reason] += 1
        seconds += time.thread_time() - start
    print(f"\n{seconds / len(table) * 1000:.1f} ms each; stopped:")
    for kind, count in [("all", len(table)), *Counter(kinds).most_common()]:
        stopped = sum(n for (of, _), n in reasons.items() if kind in {"all", of})
        print(f"  {stopped:3} of {count} {kind} ({stopped / count:.2%})")
    print("by reason:")
    for (kind, reason), n in reasons.most_common():
        print(f"  {n:3} {kind}: {reason}")


def told_of(rgb: RGB) -> str | None:
    """What the gate says of a picture and of the crops that the bundled model sees of it."""
    return nothing_to_judge(rgb, PREPROCESSING(rgb))


def saved(rgb: RGB, rng: Random) -> RGB:
    """As it is, or after one JPEG pass: even odds."""
    if rng.random() < 0.5:
        return rgb
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
    return np.asarray(Image.open(buffer))


def size(rng: Random) -> tuple[int, int]:
    """Width and height."""
    width, height = SIZES[rng.integers(len(SIZES))]
    return width, height


def filled(rng: Random) -> Image.Image:
    """One colour, white and black among them."""
    colours = [(255, 255, 255), (0, 0, 0), tuple(int(c) for c in rng.integers(0, 256, 3))]
    return Image.new("RGB", size(rng), colours[rng.integers(3)])


def clipped(values: np.ndarray) -> RGB:
    """To uint8."""
    return np.clip(values, 0, 255).astype(np.uint8)


def nearly_uniform(rng: Random) -> RGB:
    """One colour with faint noise."""
    plain = np.asarray(filled(rng), float)
    return clipped(plain + rng.normal(0, rng.uniform(0.3, 3), plain.shape))


def gradient(rng: Random) -> RGB:
    """From one colour to another, across, down or from the middle."""
    width, height = size(rng)
    y, x = np.mgrid[0:height, 0:width]
    ways = (x / width, y / height, np.hypot(x / width - 0.5, y / height - 0.5) * 1.4)
    ramp = ways[rng.integers(3)][..., None]
    first, second = rng.integers(0, 256, (2, 3))
    return clipped(first * (1 - ramp) + second * ramp + rng.normal(0, rng.random(), (*x.shape, 3)))


def noise(rng: Random) -> RGB:
    """White noise in colour or grey, sharp or softened."""
    width, height = size(rng)
    grey = rng.random() < 0.3
    values = rng.normal(128, rng.uniform(15, 60), (height, width, 1 if grey else 3))
    picture = Image.fromarray(clipped(np.broadcast_to(values, (height, width, 3))))
    soft = rng.uniform(0.4, 1.5) if rng.random() < 0.3 else 0.0
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(soft)) if soft else picture)


def text(rng: Random) -> RGB:
    """A page of words, dark on light or light on dark."""
    width, height = size(rng)
    dark = rng.random() < 0.25
    page = Image.new("RGB", (width, height), (30, 30, 34) if dark else (255, 255, 255))
    font = ImageFont.load_default(size=int(rng.integers(11, 28)))
    words = (EXAMPLES / "README.md").read_text(encoding="utf-8").split()
    for top in range(20, height - 30, int(font.size * 1.5)):
        line = " ".join(rng.choice(words, 20))
        ImageDraw.Draw(page).text((30, top), line, (220,) * 3 if dark else (20,) * 3, font)
    return np.asarray(page)


def drawing(rng: Random) -> RGB:
    """Black strokes on white."""
    width, height = size(rng)
    page = Image.new("RGB", (width, height), "white")
    for _ in range(int(rng.integers(5, 50))):
        points = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(3)]
        ImageDraw.Draw(page).line(points, "black", int(rng.integers(1, 6)))
    return np.asarray(page)


def photograph(rng: Random) -> Image.Image:
    """One of the examples."""
    paths = sorted(EXAMPLES.glob("photo_*"))
    return Image.open(paths[rng.integers(len(paths))]).convert("RGB")


def thumbnail(rng: Random) -> RGB:
    """A photograph of 12 to 40 pixels, enlarged."""
    kernels = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    side, large = int(rng.integers(12, 40)), int(rng.choice([256, 384, 512]))
    small = photograph(rng).resize((side, side))
    return np.asarray(small.resize((large, large), kernels[rng.integers(3)]))


def crushed(rng: Random) -> RGB:
    """A photograph after JPEG of quality 1 to 3."""
    picture, buffer = photograph(rng), io.BytesIO()
    large = picture.resize((picture.width * 2, picture.height * 2))
    large.save(buffer, "JPEG", quality=int(rng.integers(1, 4)))
    return np.asarray(Image.open(buffer))


def waves(rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """Places along and across a direction [H, W], in periods of 2 to 200 pixels."""
    width, height = size(rng)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.6 else rng.integers(2) * np.pi / 2
    y, x, period = y - height / 2, x - width / 2, 2 * 100 ** rng.random()
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return along / period, across / period


def inked(shares: np.ndarray, rng: Random) -> RGB:
    """Shares 0..1 of two colours, black and white among them, sharp or softened."""
    pairs = rng.integers(0, 256, (50, 2, 3))
    pair = pairs[np.abs(pairs[:, 0] - pairs[:, 1]).max(axis=1) > 60][0]
    if rng.random() < 0.4:
        pair = np.array([[0] * 3, [255] * 3])
    picture = Image.fromarray(clipped(pair[0] + (pair[1] - pair[0]) * shares[..., None]))
    soft = rng.uniform(0.4, 1.5) if rng.random() < 0.3 else 0.0
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(soft)) if soft else picture)


def checks(rng: Random) -> RGB:
    """A checkerboard at any angle."""
    along, across = waves(rng)
    return inked((np.floor(2 * along) + np.floor(2 * across)) % 2, rng)


def stripes(rng: Random) -> RGB:
    """Two colours in turn."""
    return inked(np.floor(2 * waves(rng)[0]) % 2, rng)


def grating(rng: Random) -> RGB:
    """One sine, or two that cross."""
    along, across = (np.sin(2 * np.pi * place) for place in waves(rng))
    return inked(0.5 + (0.5 * along if rng.random() < 0.6 else 0.25 * (along + across)), rng)


def circles(rng: Random) -> RGB:
    """Around the middle, as a sine or in two colours."""
    rings = np.hypot(*waves(rng))
    sine = rng.random() < 0.5
    return inked(0.5 + 0.5 * np.sin(2 * np.pi * rings) if sine else np.floor(2 * rings) % 2, rng)


def dots(rng: Random) -> RGB:
    """Rows of discs."""
    along, across = waves(rng)
    distance = np.hypot(along % 1 - 0.5, across % 1 - 0.5)
    return inked((distance > rng.uniform(0.15, 0.45)).astype(float), rng)


def two_tones(rng: Random) -> RGB:
    """Blots."""
    width, height = size(rng)
    grain = Image.fromarray(clipped(rng.normal(128, 40, (height, width))))
    blots = np.asarray(grain.filter(ImageFilter.GaussianBlur(rng.uniform(3, 20))), float)
    return inked((blots > np.median(blots)).astype(float), rng)


def on_canvas(rng: Random) -> RGB:
    """A photograph of a tenth to half of the sides, in a corner or at an edge of a canvas."""
    page, picture = filled(rng), photograph(rng)
    scale = rng.uniform(0.1, 0.5) * min(np.divide(page.size, picture.size))
    small = picture.resize([int(scale * side) for side in picture.size])
    canvas = np.asarray(page, float)
    page = Image.fromarray(clipped(canvas + rng.normal(0, rng.uniform(0, 1), canvas.shape)))
    free = np.subtract(page.size, small.size) * (rng.integers(2), rng.choice([0, 0.5, 1]))
    page.paste(small, tuple(free.astype(int).tolist()))
    return np.asarray(page)


KINDS: dict[str, Callable[[Random], RGB]] = {
    "uniform": lambda rng: np.asarray(filled(rng)),
    "nearly uniform": nearly_uniform,
    "gradient": gradient,
    "noise": noise,
    "text": text,
    "drawing": drawing,
    "thumbnail": thumbnail,
    "crushed": crushed,
    "checks": checks,
    "stripes": stripes,
    "gratings": grating,
    "circles": circles,
    "dots": dots,
    "two tones": two_tones,
    "on a canvas": on_canvas,
}

if __name__ == "__main__":
    main()
