"""Which frames of a video are looked at, in bounded memory and time.

A short clip is decoded whole and looked at in even steps. Of a long one only keyframes are
decoded, at even steps reached by seeking: an hour then costs no more than a minute, and
encoders put a keyframe where a scene begins. Candidates are grouped into scenes, and every
scene gets its share of the frames that are kept.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.gate import nothing_to_judge
from distildire.io.pictures import MAX_PIXELS, MIN_SIDE, RGB
from distildire.video.display import VideoError, refuse_hdr, upright

DENSE_PIXELS = 2e9
"""Pixels of a whole clip up to which every frame is decoded: 33 s of 1080p at 30 a second."""

SCENE_CHANGE = 20.0
"""Mean difference of 16 x 16 grey thumbnails, in grey levels, that starts a new scene."""

SCAN_SECONDS = 40.0
"""Time after which the search for frames ends with what it has."""

_TAIL_PACKETS = 3_000
"""Packets after the last keyframe that are counted, not decoded, to tell where a file ends."""

_DAMAGED = "nothing to judge: every frame that can be decoded is damaged"

_SPOILT = 3
"""Damaged frames that are kept."""

_HELD_BACK = 3
"""Packets among which is the one that the decoder complains of: its threads run ahead."""


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
    """Seconds at which the file ends where it should go on to `duration`."""
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

    try:
        container = av.open(source, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video that can be opened: {_reason(error)}") from None
    with container:
        scan = _Scan(container, _video_stream(container), cut, clock() + SCAN_SECONDS, clock)
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
            duration=scan.duration if scan.duration is not None else found[-1].time,
            chosen=tuple(kept),
            scenes=tuple(scenes),
            damaged=scan.damaged,
            complete=scan.complete,
            ends=scan.ends_early(),
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
        self.spoilt: dict[int, Candidate] = {}
        """Some damaged frames, for a video that has no others."""
        self.size = (0, 0)
        self.damaged = 0
        self.complete = True
        self._container, self._stream, self._cut = container, stream, cut
        self._deadline, self._clock = deadline, clock
        self._start = float((stream.start_time or 0) * stream.time_base)
        self.duration, self._slack = _duration(container, stream)
        self._seen = 0.0
        self._read_to_end = False
        self._broken_from: float | None = None
        self._recent: deque[int] = deque(maxlen=_HELD_BACK)
        width, height = stream.codec_context.width, stream.codec_context.height
        refuse_hdr(stream.codec_context)
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
        self._read_tail()
        return len(self.found) >= min(4, wanted)

    def _read_tail(self) -> None:
        """Read from the last keyframe to the end without decoding, to learn where it lies."""
        import av

        assert self.duration is not None
        if not self._seek(self._start + self.duration):
            return
        try:
            for packet in itertools.islice(self._container.demux(self._stream), _TAIL_PACKETS):
                self._saw(packet)
        except (av.error.FFmpegError, OSError, ValueError):
            self._read_to_end = True

    def ends_early(self) -> float | None:
        """Seconds at which the file ends where it should go on to `duration`."""
        if self.duration is None or not self._read_to_end:
            return None
        return self._seen if self._seen < self.duration - self._slack else None

    def _saw(self, packet: Any) -> None:
        if packet.pts is None:
            self._read_to_end = self._read_to_end or not packet.size
            return
        end = float((packet.pts + (packet.duration or 0)) * self._stream.time_base)
        self._seen = max(self._seen, end - self._start)

    def _in_order(self, wanted: int) -> None:
        """Frames in even steps from here to the end.

        Where the length is unknown or wrong, every other one is dropped whenever there are
        four times as many as wanted.
        """
        self._broken_from = None
        step = self.duration / wanted if self.duration else 0.0
        due = -math.inf
        for frame in self._decoded():
            moment = self._time_of(frame)
            whole = self._whole(frame)
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

    def _next_keyframe(self) -> Any | None:
        """The first keyframe from here on that can be decoded, without reading further."""
        context = self._stream.codec_context
        for packet in itertools.islice(self._packets(), 400):
            if packet.is_keyframe:
                # The decoder's threads hold a frame back until others come, or the end.
                frames = self._decode(packet) or self._decode(None)
                context.flush_buffers()
                self._broken_from = None
                if frames and self._whole(frames[0]):
                    return frames[0]
        return None

    def _decoded(self) -> Iterator[Any]:
        """Frames from here on."""
        for packet in self._packets():
            yield from self._decode(packet)

    def _whole(self, frame: Any) -> bool:
        """Whether nothing that the frame was made from is damaged.

        What follows damage is predicted from it, up to the next keyframe.
        """
        if frame.is_corrupt:
            return False
        if self._broken_from is None or (frame.pts is not None and frame.pts < self._broken_from):
            return True
        if frame.key_frame:
            self._broken_from = None
        return self._broken_from is None

    def _damage(self) -> None:
        """Count damage that lies in one of the packets that the decoder may still hold."""
        self.damaged += 1
        if self._broken_from is None:
            self._broken_from = min(self._recent, default=-math.inf)

    def _packets(self) -> Iterator[Any]:
        """Packets from here on; the last one, at the end, is empty and flushes the decoder."""
        import av

        demuxed = self._container.demux(self._stream)
        while True:
            try:
                packet = next(demuxed, None)
            except (av.error.FFmpegError, OSError, ValueError):
                self.damaged += 1
                self._read_to_end = True
                return
            if packet is None:
                return
            self._saw(packet)
            if packet.pts is not None:
                self._recent.append(packet.pts)
            if packet.is_corrupt:
                self._damage()
            yield packet

    def _decode(self, packet: Any) -> list[Any]:
        """The frames that come out; a packet that can't be decoded is counted and passed over."""
        import av

        try:
            frames = list(self._stream.decode(packet))
        except (av.error.FFmpegError, ValueError):
            self._damage()
            return []
        for frame in frames:
            if frame.is_corrupt:
                self._damage()
        return frames

    def _take(self, frame: Any, into: dict[int, Candidate] | None = None) -> None:
        import av

        taken = self.found if into is None else into
        key = frame.pts if frame.pts is not None else len(taken)
        if key in taken:
            return
        refuse_hdr(frame)
        try:
            rgb = upright(frame)
            grey = frame.reformat(width=16, height=16, format="gray").to_ndarray()
        except (av.error.FFmpegError, ValueError, MemoryError):
            self.damaged += 1
            return
        self.size = (rgb.shape[1], rgb.shape[0])
        moment = max(0.0, self._time_of(frame))
        nothing = _DAMAGED if taken is self.spoilt else nothing_to_judge(rgb)
        taken[key] = Candidate(moment, self._cut(rgb), grey.astype(np.float32), nothing)

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
        if stream.codec_context is None:
            raise VideoError("its pictures are in a code that can't be read here")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 2
        return stream
    raise VideoError("no video in it, only sound or subtitles")


def _duration(container: Any, stream: Any) -> tuple[float | None, float]:
    """Length in seconds, and by how much less the pictures may last."""
    seconds = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif stated := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        hours, minutes, rest = stated.groups()
        seconds = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    if seconds is not None:
        return seconds, max(0.25, 0.02 * seconds)
    if not container.duration:
        return None, 0.0
    seconds = container.duration / 1e6
    # That of the whole file: its sound may well last longer than its pictures.
    alone = len(container.streams) == 1
    return seconds, max(0.25, 0.02 * seconds) if alone else max(1.0, 0.1 * seconds)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".").lower()
