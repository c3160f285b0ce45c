"""Clips made with PyAV, for the tests of video."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]


def write_clip(
    path: Path,
    frames: Iterable[RGB],
    *,
    fps: int = 10,
    times: Iterable[float] | None = None,
    codec: str = "libx264",
    crf: int = 20,
    keyframes: int = 10,
    preset: str = "ultrafast",
    scene_cuts: bool = True,
    container: dict[str, str] | None = None,
    transfer: int | None = None,
    sound: float = 0.0,
) -> Path:
    """Write RGB frames [H, W, 3]; `times` in seconds makes the frame rate variable.

    `container`: options of the muxer; `transfer`: characteristics after ITU-T H.273; `sound`:
    seconds of a tone beside the pictures.
    """
    frames = iter(frames)
    first = next(frames)
    options = {"crf": str(crf), "preset": preset, "g": str(keyframes)}
    if not scene_cuts:
        options["sc_threshold"] = "0"
    with av.open(str(path), "w", container_options=container or {}) as opened:
        stream = opened.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        tone = opened.add_stream("aac", rate=16_000, layout="mono") if sound else None
        moments = iter(times) if times is not None else (i / fps for i in range(10**9))
        for rgb, moment in zip(itertools.chain([first], frames), moments, strict=False):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = round(1000 * moment), Fraction(1, 1000)
            if transfer is not None:
                frame.color_trc = transfer
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode(None))
        if tone is not None:
            _write_tone(opened, tone, sound)
    return path


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with a tone and no picture."""
    rate = 16_000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        _write_tone(container, stream, seconds)
    return path


def _write_tone(container: Any, stream: Any, seconds: float) -> None:
    rate = stream.rate
    wave = np.sin(np.arange(int(seconds * rate)) / 10).astype(np.float32)[None]
    for i, start in enumerate(range(0, wave.shape[1] - 1024, 1024)):
        chunk = np.ascontiguousarray(wave[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, i * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def clip_of(path: Path, *parts: tuple[RGB, int], **options: object) -> Path:
    """Each picture for so many frames."""
    frames = itertools.chain.from_iterable(itertools.repeat(f, n) for f, n in parts)
    return write_clip(path, frames, **options)  # type: ignore[arg-type]
