"""How a frame is shown."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("av")

from clips import clip_of
from distildire import Detector
from distildire.video.frames import sample_frames
from distildire.video.judge import judge_video

RGB = NDArray[np.uint8]


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda rgb: rgb[::-1, ::-1]),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda rgb: rgb.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda rgb: np.rot90(rgb, 2).transpose(1, 0, 2)),
    ],
    ids=["quarter", "three quarters", "half", "mirrored", "upside down", "diagonal", "other"],
)
def test_display_matrices(
    tmp_path: Path, matrix: tuple[int, ...], turn: Callable[[RGB], RGB]
) -> None:
    """The track header's matrix (ISO 14496-12, 8.3.2) on a picture without any symmetry."""
    corners = np.full((120, 160, 3), 200, np.uint8)
    corners[:40, :60], corners[:40, 100:] = 30, 110
    path = clip_of(tmp_path / "a.mp4", (corners, 5))
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    frames = sample_frames(io.BytesIO(bytes(data)), lambda rgb: rgb[None], 1)
    shown, expected = frames.chosen[0].crops[0], turn(corners)
    assert (frames.height, frames.width) == shown.shape[:2] == expected.shape[:2]
    assert np.abs(shown.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(
    detector: Detector, tmp_path: Path, real_frame: RGB, transfer: int, name: str
) -> None:
    path = clip_of(tmp_path / "a.mp4", (real_frame, 5), transfer=transfer)
    assert f"HDR video ({name})" in str(judge_video(detector, path).error)
