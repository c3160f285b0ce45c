"""Which frames of a video are looked at, in bounded memory and time.

A short clip is decoded whole and looked at in even steps. Of a long one only keyframes are
decoded, at even steps reached by seeking: an hour then costs no more than a minute, and
encoders put a keyframe where a scene begins. Candidates are grouped into scenes, and every
scene gets its share of the frames that are kept. They are grouped here and not by PySceneDetect,
which goes through a video frame by frame and brings OpenCV: the few candidates are decoded
already, and a difference of thumbnails is enough to group them.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.gate import nothing_to_judge
from distildire.io.pictures import MAX_PIXELS, MIN_SIDE, RGB
from distildire.video.display import VideoError, refuse_hdr, upright_frame
from distildire.video.reader import Reader

DENSE_PIXELS = 2e9
"""Pixels of a whole clip up to which every frame is decoded: 33 s of 1080p at 30 a second."""

SCENE_CHANGE = 20.0
"""Mean difference of 16 x 16 grey thumbnails, in grey levels, that starts a new scene."""

SCAN_SECONDS = 40.0
"""Time after which the search for frames ends with what it has."""

_ONLY = {
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,asf,flv,ogg,mxf,ivf,dv,rm,gif,"
    "mjpeg,h264,hevc",
    "protocol_whitelist": "file",
}
"""Containers that hold their pictures: playlists and scripts name other files, to be read."""

_DAMAGED = "nothing to judge: every frame that can be decoded is damaged"

_SPOILT = 3
"""Damaged frames that are kept."""


@dataclass(frozen=True)
class Candidate:
    """One frame, already cut for the network."""

    time: float
    """Seconds from the start of the video."""
    crops: NDArray[np.uint8]
    thumbnail: NDArray[np.float32]
    """Grey [16, 16], to tell scenes apart."""
    nothing: str | None = None
    """Why there is nothing to judge in it."""


@dataclass(frozen=True)
class Frames:
    """The frames to score, in order of time."""

    width: int
    """Pixels, as shown: after rotation."""
    height: int
    duration: float | None
    """Seconds, where the container says or the end was reached."""
    chosen: tuple[Candidate, ...]
    scenes: tuple[int, ...]
    """Number of the scene of each chosen frame, from 0."""
    damaged: int
    """Packets that could not be decoded, and damaged frames, that were passed over."""
    complete: bool
    """Whether the time was enough to search the whole length."""
    ends: float | None = None
    """Seconds at which the file ends where it should go on."""
    seen: float = 0.0
    """Seconds of the last frame that was looked at."""
    nothing: str | None = None
    """Why there is nothing to judge, where that is so of every frame."""
    blank: float = 0.0
    """Share of the frames looked at in which there is nothing to judge."""


def sample_frames(
    source: Any,
    cut: Callable[[RGB], NDArray[np.uint8]],
    most: int,
    clock: Callable[[], float] = time.monotonic,
) -> Frames:
    """Choose at most `most` frames of a file name or a binary file.

    Args:
        source: what PyAV opens.
        cut: from RGB [H, W, 3] to crops, for instance a detector's preprocessing.
        most: frames to keep.
        clock: seconds, for the limit on time.

    Raises:
        VideoError: no video, no frame that can be decoded, HDR, or over a limit.
    """
    import av

    if isinstance(source, str):
        source = f"file:{source}"  # else what stands before a colon is taken for a protocol
    try:
        container = av.open(source, options=_ONLY, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video that can be opened: {_reason(error)}") from None
    with container:
        reader = Reader(container)
        scan = _Scan(reader, cut, clock)
        scan.run(2 * most)
        scan.found = scan.found or scan.spoilt
        if not scan.found and not scan.complete:
            raise VideoError(f"too slow to decode: no frame of it within {SCAN_SECONDS:.0f} s")
        if not scan.found:
            raise VideoError("damaged video: no frame of it can be decoded")
        found = sorted(scan.found.values(), key=lambda candidate: candidate.time)
        telling = [candidate for candidate in found if candidate.nothing is None]
        kept, scenes = choose(telling or found, most)
        return Frames(
            *scan.size,
            duration=reader.duration if reader.duration is not None else found[-1].time,
            chosen=tuple(kept),
            scenes=tuple(scenes),
            damaged=reader.damaged,
            complete=scan.complete,
            ends=reader.ends_early(),
            seen=found[-1].time,
            nothing=None if telling else found[0].nothing,
            blank=1 - len(telling) / len(found),
        )


def choose(found: Sequence[Candidate], most: int) -> tuple[list[Candidate], list[int]]:
    """At most `most` of the candidates, and the scene of each.

    Every scene has one as long as they last, the longest first; the rest go to the scenes
    by length (D'Hondt). Inside a scene they are evenly spaced.
    """
    scenes: list[list[Candidate]] = []
    for candidate in found:
        if scenes and _difference(scenes[-1][-1], candidate) < SCENE_CHANGE:
            scenes[-1].append(candidate)
        else:
            scenes.append([candidate])
    shares = [0] * len(scenes)
    for _ in range(min(most, len(found))):
        open_scenes = [i for i, scene in enumerate(scenes) if shares[i] < len(scene)]
        best = max(open_scenes, key=lambda i: (not shares[i], len(scenes[i]) / (shares[i] + 1)))
        shares[best] += 1
    kept, numbers = [], []
    for number, (scene, share) in enumerate(zip(scenes, shares, strict=True)):
        for k in range(share):
            kept.append(scene[(2 * k + 1) * len(scene) // (2 * share)])
            numbers.append(number)
    return kept, numbers


def _difference(a: Candidate, b: Candidate) -> float:
    return float(np.abs(a.thumbnail - b.thumbnail).mean())


class _Scan:
    """The search of one stream for candidates."""

    def __init__(
        self,
        reader: Reader,
        cut: Callable[[RGB], NDArray[np.uint8]],
        clock: Callable[[], float],
    ) -> None:
        self.found: dict[int, Candidate] = {}
        self.spoilt: dict[int, Candidate] = {}
        """Some damaged frames, for a video that has no others."""
        self.size = (0, 0)
        self.complete = True
        self._reader, self._cut, self._clock = reader, cut, clock
        self._deadline = clock() + SCAN_SECONDS
        self._codec = reader.stream.codec_context
        refuse_hdr(self._codec)
        width, height = self._codec.width, self._codec.height
        _check_size(width, height)
        rate = float(reader.stream.average_rate or 30)
        length = reader.duration
        self._dense = length is not None and length * rate * width * height <= DENSE_PIXELS

    def run(self, wanted: int) -> None:
        """Fill `found` with about `wanted` candidates."""
        length = self._reader.duration
        if not self._dense:
            self._codec.skip_frame = "NONKEY"
            if length is not None and self._by_seeking(wanted, length):
                return
            self._reader.seek(0.0)
        self._in_order(wanted)
        if len(self.found) < 2 and not self._dense and not self._late():
            # One keyframe in all: the frames between must do.
            self._codec.skip_frame = "DEFAULT"
            self._reader.seek(0.0)
            self._in_order(wanted)

    def _by_seeking(self, wanted: int, length: float) -> bool:
        """One keyframe at each of `wanted` even steps; False where seeking does not work."""
        for k in range(wanted):
            if self._late():
                return True
            if not self._reader.seek(length * (k + 0.5) / wanted):
                return False
            frame = self._reader.next_keyframe()
            if frame is not None:
                self._take(frame)
        self._reader.read_tail()
        return len(self.found) >= min(4, wanted)

    def _in_order(self, wanted: int) -> None:
        """Frames in even steps from here to the end.

        Where the length is unknown or wrong, every other one is dropped whenever there are
        four times as many as wanted.
        """
        length = self._reader.duration
        step = length / wanted if length else 0.0
        due = -math.inf
        for frame in self._reader.frames():
            moment = self._reader.time_of(frame)
            whole = self._reader.is_whole(frame)
            if not whole and not self.found and len(self.spoilt) < _SPOILT:
                self._take(frame, self.spoilt)
            if moment >= due and whole:
                self._take(frame)
                due = moment + step if due == -math.inf else max(due + step, moment)
            if len(self.found) >= 4 * wanted:
                for key in sorted(self.found)[1::2]:
                    del self.found[key]
                step = max(2 * step, moment / (2 * wanted))
            if self._late():
                return

    def _take(self, frame: Any, into: dict[int, Candidate] | None = None) -> None:
        import av

        taken = self.found if into is None else into
        key = frame.pts if frame.pts is not None else len(taken)
        if key in taken:
            return
        refuse_hdr(frame)
        try:
            rgb = upright_frame(frame)
            grey = frame.reformat(width=16, height=16, format="gray").to_ndarray()
        except (av.error.FFmpegError, ValueError, MemoryError):
            self._reader.damaged += 1
            return
        self.size = (rgb.shape[1], rgb.shape[0])
        moment = max(0.0, self._reader.time_of(frame))
        crops = self._cut(rgb)
        nothing = _DAMAGED if taken is self.spoilt else nothing_to_judge(rgb, crops)
        taken[key] = Candidate(moment, crops, grey.astype(np.float32), nothing)

    def _late(self) -> bool:
        if self._clock() < self._deadline:
            return False
        self.complete = False
        return True


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(f"too many pixels: {width} x {height} per frame")
    if width and height and min(width, height) < MIN_SIDE:
        raise VideoError(
            f"too small to judge: {width} x {height} pixels, at least {MIN_SIDE} on each "
            "side are needed"
        )


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:  # that of the whitelist
        return "of a kind that is not read here"
    return str(getattr(error, "strerror", None) or error).rstrip(".").lower()
