"""Videos among the uploads."""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec
from typing import Any

from distildire.detector import Detector
from distildire.io.containers import HEIC_BRANDS, readable_kind
from distildire.io.hashing import sha256_of
from distildire.isolation.pool import Workers
from distildire.web.uploads import Upload

_PICTURE_BRANDS = HEIC_BRANDS | {b"avif", b"avis", b"miaf", b"crx "}
"""Of boxes that hold pictures: HEIC, AVIF, Canon's raw files."""


_SIGNATURES = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel",  # ASF: WMV
    b"FLV\x01",
    b"\0\0\x01\xba",  # MPEG program stream
    b"\0\0\x01\xb3",  # MPEG video alone
)

_BOXES = frozenset({b"moov", b"mdat", b"free", b"skip", b"wide"})


@cache
def can_read_videos() -> bool:
    """Whether the extra `video` is installed."""
    return find_spec("av") is not None


def holds_video(data: bytes) -> bool:
    """Tell a video's container by its first bytes.

    MP4, MOV, Matroska, WebM, AVI, WMV, FLV, and MPEG's streams: elementary, program, transport.
    """
    if data[4:8] == b"ftyp":
        return data[8:12] not in _PICTURE_BRANDS
    if data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return True
    if readable_kind(data) is not None:
        return False
    # A MOV need not begin with its type.
    return data[4:8] in _BOXES or _has_packets(data, 0, 188) or _has_packets(data, 4, 192)


def _has_packets(data: bytes, first: int, size: int) -> bool:
    """Whether the first three packets of a transport stream begin where they should."""
    return data[first : first + 2 * size + 1 : size] == b"GGG"


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
