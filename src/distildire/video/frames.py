"""Which frames of a video are looked at, in bounded memory and time.

A short clip is decoded whole and looked at in even steps. Of a long one only keyframes are
decoded, at even steps reached by seeking: an hour then costs no more than a minute, and
encoders put a keyframe where a scene begins. Candidates are grouped into scenes, and every
scene gets its share of the frames that are kept.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.io.pictures import MAX_PIXELS, MIN_SIDE, RGB

DENSE_PIXELS = 2e9
"""Pixels of a whole clip up to which every frame is decoded: 33 s of 1080p at 30 a second."""

SCENE_CHANGE = 20.0
"""Mean difference of 16 x 16 grey thumbnails, in grey levels, that starts a new scene."""

SCAN_SECONDS = 40.0
"""Time after which the search for frames ends with what it has."""


class VideoError(ValueError):
    """A video that can't be scored; the message is one sentence for its owner."""


@dataclass(frozen=True)
class Candidate:
    """One frame, already cut for the network."""

    time: float
    """Seconds from the start of the video."""
    crops: NDArray[np.uint8]
    thumbnail: NDArray[np.float32]
    """Grey [16, 16], to tell scenes apart."""


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
    """Packets that could not be decoded, and were passed over."""
    complete: bool
    """Whether the whole length was searched."""


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
        VideoError: no video, no frame that can be decoded, or over a limit.
    """
    import av

    try:
        container = av.open(source, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video that can be opened: {_reason(error)}") from None
    with container:
        scan = _Scan(container, _video_stream(container), cut, clock() + SCAN_SECONDS, clock)
        scan.run(2 * most)
        if not scan.found:
            raise VideoError("damaged video: no frame of it can be decoded")
        found = sorted(scan.found.values(), key=lambda candidate: candidate.time)
        kept, scenes = choose(found, most)
        return Frames(
            *scan.size,
            duration=scan.duration if scan.duration is not None else found[-1].time,
            chosen=tuple(kept),
            scenes=tuple(scenes),
            damaged=scan.damaged,
            complete=scan.complete,
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
    """The search of one open container."""

    def __init__(
        self,
        container: Any,
        stream: Any,
        cut: Callable[[RGB], NDArray[np.uint8]],
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self.found: dict[int, Candidate] = {}
        self.size = (0, 0)
        self.damaged = 0
        self.complete = True
        self._container, self._stream, self._cut = container, stream, cut
        self._deadline, self._clock = deadline, clock
        self._start = float((stream.start_time or 0) * stream.time_base)
        self.duration = _duration(container, stream)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise VideoError(f"too many pixels: {width} x {height} a frame")
        if width and height and min(width, height) < MIN_SIDE:
            raise VideoError(
                f"too small to judge: {width} x {height} pixels, at least {MIN_SIDE} on each "
                "side are needed"
            )
        rate = float(stream.average_rate or 30)
        self._dense = (
            self.duration is not None and self.duration * rate * width * height <= DENSE_PIXELS
        )

    def run(self, wanted: int) -> None:
        """Fill `found` with about `wanted` candidates."""
        if not self._dense:
            self._stream.codec_context.skip_frame = "NONKEY"
            if self.duration is not None and self._by_seeking(wanted):
                return
            self._rewind()
        self._in_order(wanted)
        if len(self.found) < 2 and not self._dense and not self._late():
            # One keyframe in all: the frames between must do.
            self._stream.codec_context.skip_frame = "DEFAULT"
            self._rewind()
            self._in_order(wanted)

    def _by_seeking(self, wanted: int) -> bool:
        """One keyframe at each of `wanted` even steps; False where seeking does not work."""
        assert self.duration is not None
        for k in range(wanted):
            if self._late():
                return True
            moment = self._start + self.duration * (k + 0.5) / wanted
            if not self._seek(moment):
                return False
            frame = self._next_keyframe()
            if frame is not None:
                self._take(frame)
        return len(self.found) >= min(4, wanted)

    def _in_order(self, wanted: int) -> None:
        """Frames in even steps from here to the end.

        Where the length is unknown or wrong, every other one is dropped whenever there are
        four times as many as wanted.
        """
        step = self.duration / wanted if self.duration else 0.0
        due = -math.inf
        for frame in self._decoded():
            moment = self._time_of(frame)
            if moment >= due:
                self._take(frame)
                due = moment + step if due == -math.inf else max(due + step, moment)
            if len(self.found) >= 4 * wanted:
                for key in sorted(self.found)[1::2]:
                    del self.found[key]
                step = max(2 * step, moment / (2 * wanted))
            if self._late():
                return

    def _next_keyframe(self) -> Any | None:
        """The first keyframe from here on that can be decoded, without reading further."""
        context = self._stream.codec_context
        for packet in itertools.islice(self._packets(), 400):
            if packet.is_keyframe:
                # The decoder's threads hold a frame back until others come, or the end.
                frames = self._decode(packet) or self._decode(None)
                context.flush_buffers()
                if frames:
                    return frames[0]
        return None

    def _decoded(self) -> Iterator[Any]:
        """Frames from here on."""
        for packet in self._packets():
            yield from self._decode(packet)

    def _packets(self) -> Iterator[Any]:
        """Packets from here on; the last one, at the end, is empty and flushes the decoder."""
        import av

        demuxed = self._container.demux(self._stream)
        while True:
            try:
                packet = next(demuxed, None)
            except (av.error.FFmpegError, OSError, ValueError):
                self.damaged += 1
                return
            if packet is None:
                return
            yield packet

    def _decode(self, packet: Any) -> list[Any]:
        """The frames that come out; a packet that can't be decoded is counted and passed over."""
        import av

        try:
            return list(self._stream.decode(packet))
        except (av.error.FFmpegError, ValueError):
            self.damaged += 1
            return []

    def _take(self, frame: Any) -> None:
        import av

        key = frame.pts if frame.pts is not None else len(self.found)
        if key in self.found:
            return
        try:
            rgb = _upright(frame)
            grey = frame.reformat(width=16, height=16, format="gray").to_ndarray()
        except (av.error.FFmpegError, ValueError, MemoryError):
            self.damaged += 1
            return
        self.size = (rgb.shape[1], rgb.shape[0])
        moment = max(0.0, self._time_of(frame))
        self.found[key] = Candidate(moment, self._cut(rgb), grey.astype(np.float32))

    def _time_of(self, frame: Any) -> float:
        # `frame.time` is not a number where the frame came out at the end of the stream.
        return float(frame.pts * self._stream.time_base) - self._start if frame.pts else 0.0

    def _seek(self, moment: float) -> bool:
        import av

        try:
            self._container.seek(int(moment / self._stream.time_base), stream=self._stream)
        except (av.error.FFmpegError, OSError, ValueError, OverflowError):
            return False
        return True

    def _rewind(self) -> None:
        self._seek(self._start)

    def _late(self) -> bool:
        if self._clock() < self._deadline:
            return False
        self.complete = False
        return True


def _video_stream(container: Any) -> Any:
    import av

    for stream in container.streams.video:
        attached = getattr(av.stream.Disposition, "attached_pic", None)
        if attached is not None and stream.disposition & attached:
            continue
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 2
        return stream
    raise VideoError("no video in it, only sound or subtitles")


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _upright(frame: Any) -> RGB:
    """RGB [H, W, 3] as a player shows it."""
    rgb: RGB = frame.to_ndarray(format="rgb24")
    quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".").lower()
