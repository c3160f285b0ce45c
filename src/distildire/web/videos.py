"""Videos among the uploads."""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec
from typing import Any

from distildire.detector import Detector
from distildire.io.containers import HEIC_BRANDS
from distildire.io.hashing import sha256_of
from distildire.isolation.pool import Workers
from distildire.web.uploads import Upload

_PICTURE_BRANDS = HEIC_BRANDS | {b"avif", b"avis", b"miaf", b"crx "}
"""Of boxes that hold pictures: HEIC, AVIF, Canon's raw files."""


@cache
def can_read_videos() -> bool:
    """Whether the extra `video` is installed."""
    return find_spec("av") is not None


def holds_video(data: bytes) -> bool:
    """Tell the containers MP4, MOV, Matroska, WebM, AVI and MPEG-TS by their first bytes."""
    if data[4:8] == b"ftyp":
        return data[8:12] not in _PICTURE_BRANDS
    if data[:4] == b"\x1aE\xdf\xa3" or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return True
    return len(data) > 376 and data[0] == data[188] == data[376] == 0x47


def judge_upload(
    detector: Detector, upload: Upload, fpr: float, workers: Workers | None = None
) -> dict[str, Any]:
    """The fields of a result, with the timeline where it could be scored."""
    if not can_read_videos():
        error = "a video: this service was installed without the extra distildire[video]"
        sha256 = sha256_of(upload.data)
        return detector.not_scored(upload.name, error, sha256, fpr=fpr).to_dict()
    from distildire.video.judge import judge_prepared, judge_video

    if workers is not None:
        prepared = workers.video(upload.data)
        return judge_prepared(detector, prepared, fpr=fpr, name=upload.name).to_dict()
    verdict = judge_video(detector, io.BytesIO(upload.data), fpr=fpr, name=upload.name)
    return verdict.to_dict()
