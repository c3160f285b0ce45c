"""What an hour of 1080p H.264 costs `detect`: seconds, and the process's largest memory.

    python benchmarks/video_hour.py FOLDER --keyframes 2 --out hour.mp4

Scenes of 4 to 20 s, in which a window pans over a wall of the folder's pictures at their own
size or zooms into it, are encoded by x264 at 30 frames a second with a keyframe at every cut
and at least every so many seconds. Minutes enough for all scenes are encoded, and their
packets are repeated to the hour. An `--out` that is there is used as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT, FPS = 1920, 1080, 30
TILE = 256
WALL = (11, 7)
"""Tiles across and down: 2816 x 1792 pixels, so that there is room to pan and to zoom."""


def wall(paths: list[Path], chance: random.Random) -> Image.Image:
    """Pictures side by side; larger ones are cut, smaller ones enlarged."""
    canvas = Image.new("RGB", (WALL[0] * TILE, WALL[1] * TILE))
    for place in range(WALL[0] * WALL[1]):
        with Image.open(chance.choice(paths)) as picture:
            tile = ImageOps.fit(picture.convert("RGB"), (TILE, TILE))
        canvas.paste(tile, (place % WALL[0] * TILE, place // WALL[0] * TILE))
    return canvas


def frames(paths: list[Path], seconds: float) -> Iterator[av.VideoFrame]:
    """Scenes one after the other."""
    chance = random.Random(0)
    left = round(seconds * FPS)
    while left > 0:
        canvas, count = wall(paths, chance), min(left, round(chance.uniform(4, 20) * FPS))
        spare = (canvas.width - WIDTH, canvas.height - HEIGHT)
        start, end = ([chance.uniform(0, s) for s in spare] for _ in range(2))
        zoom = chance.uniform(0.6, 1.0) if chance.random() < 0.5 else 1.0
        for k in range(count):
            part = k / count
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            scale = 1 + part * (zoom - 1)
            box = (x, y, x + WIDTH * scale, y + HEIGHT * scale)
            if zoom == 1.0:
                cut = canvas.crop((round(x), round(y), round(x) + WIDTH, round(y) + HEIGHT))
            else:
                cut = canvas.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)
            yield av.VideoFrame.from_ndarray(np.asarray(cut), format="rgb24")
        left -= count


def encode(path: Path, paths: list[Path], seconds: float, keyframes: float, crf: int) -> None:
    """The scenes as H.264."""
    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "veryfast", "g": str(round(keyframes * FPS))}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k, frame in enumerate(frames(paths, seconds)):
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def repeat(path: Path, part: Path, seconds: float, times: int) -> None:
    """The packets of `part` one time after the other."""
    with av.open(str(path), "w") as whole:
        target: Any = None
        for k in range(times):
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                target = target or whole.add_stream_from_template(source)
                shift = round(k * seconds / source.time_base)
                for packet in container.demux(source):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = target
                    whole.mux(packet)


def measure(path: Path) -> dict[str, Any]:
    """`detect` on the video, in a process of its own."""
    command = [sys.executable, "-m", "distildire", "detect", "--format", "jsonl", str(path)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdict = json.loads(answer)
    assert verdict["error"] is None, verdict
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2
        ),
        # The first measurement alone is safe: the kernel keeps the largest of all children.
        "peak_mib": round(after.ru_maxrss / 1024, 1),
        "duration": verdict["duration"],
        "scenes": verdict["scenes"],
        "frames": len(verdict["timeline"]),
        "note": verdict["note"],
    }


def main() -> None:
    """Make the file where it is missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keyframes", type=float, default=2.0, help="seconds")
    parser.add_argument("--crf", type=int, default=23)
    parser.add_argument("--encoded", type=float, default=240.0, help="seconds that are encoded")
    parser.add_argument("--out", type=Path, default=Path("hour.mp4"))
    given = parser.parse_args()
    if not given.out.exists():
        paths = sorted(p for p in given.folder.rglob("*") if p.suffix in {".jpg", ".png"})
        part = given.out.with_suffix(".part.mp4")
        encode(part, paths, given.encoded, given.keyframes, given.crf)
        repeat(given.out, part, given.encoded, round(3600 / given.encoded))
        part.unlink()
    size = given.out.stat().st_size
    about = {"megabytes": round(size / 1e6), "megabits_per_second": round(size * 8 / 3600e6, 2)}
    print(json.dumps({**about, **measure(given.out), "load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
