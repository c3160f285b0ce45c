"""One video stream, read packet by packet: its frames, its damage, and where it ends."""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from distildire.video.display import VideoError

_TAIL_PACKETS = 3_000
"""Packets after the last keyframe that are counted, not decoded, to tell where a file ends."""

_LARGER = 4096 * 4096
"""Pixels that a frame may have in a video that states smaller ones."""

_TS_PACKETS = (188, 192, 204)
"""Bytes of a packet of a transport stream: bare, with a time, with a checksum."""

_HELD_BACK = 3
"""Packets among which is the one that the decoder complains of: its threads run ahead."""


_BETWEEN = 256
"""Bytes between two packets of a Matroska or WebM file that are no overhead: some 25 are."""


class Reader:
    """The first video stream of an open container; times are seconds from its start.

    Raises:
        VideoError: there is none.
    """

    def __init__(self, container: Any) -> None:
        self.stream = _video_stream(container)
        self.damaged = 0
        """Packets that could not be decoded, and damaged frames."""
        self.duration, self._slack = _duration(container, self.stream)
        self._container = container
        self._start = float((self.stream.start_time or 0) * self.stream.time_base)
        self._seen = 0.0
        self._read_to_end = False
        self._broken_from: float | None = None
        self._recent: deque[int] = deque(maxlen=_HELD_BACK)
        self._gaps = _Gaps(self.stream) if "matroska" in container.format.name else None

    def seek(self, moment: float) -> bool:
        """Go to the last keyframe before `moment`; whether that works."""
        import av

        try:
            place = int((self._start + moment) / self.stream.time_base)
            self._container.seek(place, stream=self.stream)
        except (av.error.FFmpegError, OSError, ValueError, OverflowError):
            return False
        return True

    def frames(self) -> Iterator[Any]:
        """Decoded frames from here on."""
        self._broken_from = None
        for packet in self.packets():
            yield from self._decode(packet)

    def next_keyframe(self) -> Any | None:
        """The first keyframe from here on that can be decoded, without reading further."""
        context = self.stream.codec_context
        for packet in itertools.islice(self.packets(), 400):
            if packet.is_keyframe:
                # The decoder's threads hold a frame back until others come, or the end.
                frames = self._decode(packet) or self._decode(None)
                context.flush_buffers()
                self._broken_from = None
                if frames and self.is_whole(frames[0]):
                    return frames[0]
        return None

    def is_whole(self, frame: Any) -> bool:
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

    def time_of(self, frame: Any) -> float:
        """When a frame is shown."""
        # `frame.time` is not a number where the frame came out at the end of the stream.
        return float(frame.pts * self.stream.time_base) - self._start if frame.pts else 0.0

    def read_tail(self) -> None:
        """Read from the last keyframe to the end without decoding, to learn where it lies."""
        import av

        assert self.duration is not None
        if not self.seek(self.duration):
            return
        try:
            for packet in itertools.islice(self._container.demux(self.stream), _TAIL_PACKETS):
                self._saw(packet)
        except (av.error.FFmpegError, OSError, ValueError):
            self._read_to_end = True

    def ends_early(self) -> float | None:
        """Seconds at which the file ends where it should go on.

        That is to `duration`; a transport stream, which states none, to the end of a packet.
        """
        if not self._read_to_end:
            return None
        short = self.duration is not None and self._seen < self.duration - self._slack
        return self._seen if short or _cut_in_a_packet(self._container) else None

    def _saw(self, packet: Any) -> None:
        if packet.pts is None:
            self._read_to_end = self._read_to_end or not packet.size
            return
        end = float((packet.pts + (packet.duration or 0)) * self.stream.time_base)
        self._seen = max(self._seen, end - self._start)

    def packets(self) -> Iterator[Any]:
        """Packets from here on; the last one, at the end, is empty and flushes the decoder."""
        import av

        # Bytes that no packet has are told by the packets of all streams.
        demuxed = self._container.demux(*([self.stream] if self._gaps is None else []))
        if self._gaps is not None:
            self._gaps.begin()
        while True:
            try:
                packet = next(demuxed, None)
            except (av.error.FFmpegError, OSError, ValueError):
                self.damaged += 1
                self._read_to_end = True
                return
            if packet is None:
                return
            is_after_gap = self._gaps is not None and self._gaps.ends_with(packet)
            if packet.stream.index != self.stream.index:
                continue
            self._saw(packet)
            if packet.pts is not None:
                self._recent.append(packet.pts)
            if packet.is_corrupt or is_after_gap:
                self._damage()
            yield packet

    def _decode(self, packet: Any) -> list[Any]:
        """The frames that come out; a packet that can't be decoded is counted and passed over."""
        import av

        try:
            frames = list(self.stream.decode(packet))
        except (av.error.FFmpegError, ValueError):
            self._damage()
            return []
        for frame in frames:
            if frame.is_corrupt:
                self._damage()
        return frames

    def _damage(self) -> None:
        """Count damage that lies in one of the packets that the decoder may still hold."""
        self.damaged += 1
        if self._broken_from is None:
            self._broken_from = min(self._recent, default=-math.inf)


class _Gaps:
    """Tells where a reader of Matroska and WebM has passed over damage, of which it says nothing.

    It goes on at the next cluster: bytes that no packet has, and a time that no frame has, lie
    between. A pause of a variable frame rate has no bytes.
    """

    def __init__(self, stream: Any) -> None:
        self._index, self._tick = stream.index, float(stream.time_base)
        self._step = 1 / float(stream.average_rate) if stream.average_rate else 0.0
        self._is_sure = True
        self._block: tuple[int, int] | None = None
        """Where the last packet lies: start and end."""
        self._shown: int | None = None
        self._has_unread = False
        """Bytes of no packet lie before the next of the pictures."""

    def begin(self) -> None:
        """Forget what came before: it is read from another place."""
        self._block, self._shown, self._has_unread = None, None, False

    def ends_with(self, packet: Any) -> bool:
        """Whether frames are lost before a packet of the pictures; takes those of every stream."""
        if packet.pos is None or packet.pos < 0 or not packet.size:
            return False
        start, end = self._block or (packet.pos, packet.pos)
        if packet.pos != start:  # else they share a block
            self._has_unread |= packet.pos - end >= _BETWEEN
            start = end = packet.pos
        self._block = (start, end + packet.size)
        if packet.stream.index != self._index or packet.pts is None:
            return False
        has_unread, self._has_unread = self._has_unread, False
        before, self._shown = self._shown, packet.pts
        if before is None:
            return False
        self._shown = max(before, packet.pts)
        if not has_unread:
            return False
        step = max(self._step, (packet.duration or 0) * self._tick)
        if (packet.pts - before) * self._tick > 1.5 * step:
            return self._is_sure
        # Blocks hold more than packets, such as an alpha channel.
        self._is_sure = False
        return False


def _cut_in_a_packet(container: Any) -> bool:
    """Whether a transport stream ends where none of its packets can end."""
    size = container.size
    return container.format.name == "mpegts" and size > 0 and all(size % n for n in _TS_PACKETS)


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
        # A frame that says it is larger is damage: its decoder would take gigabytes.
        most = max(stream.codec_context.width * stream.codec_context.height, _LARGER)
        stream.codec_context.options = {"max_pixels": str(most)}
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
