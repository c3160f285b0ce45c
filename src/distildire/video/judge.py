"""One verdict for a video, with a timeline of its frames (extra `video`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distildire.calibration import Label
from distildire.detector import NO_EVIDENCE, NO_NUMBER, Detector
from distildire.io.hashing import sha256_of
from distildire.io.pictures import ImageError, refuse_unreadable
from distildire.io.preprocessing import Preprocessing
from distildire.io.progress import Done
from distildire.provenance import declares
from distildire.verdict import Verdict
from distildire.video.display import VideoError
from distildire.video.frames import Frames, sample_frames

FRAMES = 48
"""Frames scored at most, by default."""

BATCH = 4
"""Frames scored in one run of the graph."""

WHOLE = 64 * 2**20
"""Bytes up to which a file is read whole for what it says of itself."""

START = 16 * 2**20
"""Bytes that are read of a longer one."""

RUN = 3
"""Neighbouring frames that must agree before a moment counts as suspicious."""


@dataclass(frozen=True)
class FrameScore:
    """One scored frame."""

    time: float
    """Seconds from the start."""
    probability: float
    """Calibrated, of fake, 0..1."""
    logit: float
    scene: int
    """Number of the scene that it lies in, from 0."""


@dataclass(frozen=True)
class VideoVerdict(Verdict):
    """What is known of one video; the score fields are None where `error` is not.

    `probability` and `logit` are of the most suspicious moment (see `pool`), `typical_logit`
    is that of the median frame.
    """

    duration: float | None = None
    """Seconds."""
    scenes: int | None = None
    typical_logit: float | None = None
    suspicious: tuple[float, float] | None = None
    """Start and end, in seconds, of the moment that decided."""
    timeline: tuple[FrameScore, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields of a picture's JSON line, then those of a video."""
        tree = asdict(self)
        tree["timeline"] = list(tree["timeline"])
        tree["suspicious"] = list(self.suspicious) if self.suspicious else None
        return tree


@dataclass(frozen=True)
class Prepared:
    """A video made ready to be judged, or what is wrong with it."""

    sha256: str | None = None
    declares: str | None = None
    """What the file says of its own origin."""
    frames: Frames | None = None
    """None where `error` is set."""
    error: str | None = None


def judge_video(
    detector: Detector,
    source: str | Path | BinaryIO,
    *,
    fpr: float | None = None,
    frames: int = FRAMES,
    name: str | None = None,
    progress: Done | None = None,
) -> VideoVerdict:
    """Judge a video file, or an open binary file that can seek.

    "fake" means that some moment of it is; the error budget holds for the whole video, and
    is therefore split among its scenes. Frames in which there is nothing to judge don't count.
    A video that has no others, is found damaged, ends early or could not be searched to its end in
    the time given is never "real", and its `note` says why. What can't be scored has `error` set;
    so has an address: nothing is fetched.

    Args:
        detector: the model.
        source: path, or file opened for reading bytes.
        fpr: error budget, 0..0.5; the detector's by default.
        frames: scored at most.
        name: to appear as `path`; the path by default.
        progress: called with the number of frames done.

    Raises:
        ValueError: `fpr` or `frames` out of range.
    """
    budget = detector.fpr if fpr is None else fpr
    detector.verdict_of(0.0, budget)
    if frames < 1:
        raise ValueError(f"frames is {frames}: give at least 1")
    shown = name if name is not None else str(source) if isinstance(source, str | Path) else ""
    prepared = prepare_video(source, detector.bundle.preprocessing, frames)
    return judge_prepared(detector, prepared, fpr=budget, name=shown, progress=progress)


def prepare_video(
    source: str | Path | BinaryIO, preprocessing: Preprocessing, frames: int = FRAMES
) -> Prepared:
    """Read a video and cut at most `frames` of its frames; all that needs a decoder."""
    sha256 = None
    try:
        if isinstance(source, str | Path):
            # Before anything opens it: a decoder of videos fetches addresses, and waits for pipes.
            refuse_unreadable(Path(source))
        sha256 = sha256_of(source)
        opened = str(source) if isinstance(source, str | Path) else source
        said = _declared(source)
        return Prepared(sha256, said, sample_frames(opened, preprocessing, frames))
    except (VideoError, ImageError, OSError) as error:
        words = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        return Prepared(sha256, error=words)


def judge_prepared(
    detector: Detector,
    prepared: Prepared,
    *,
    fpr: float,
    name: str,
    progress: Done | None = None,
) -> VideoVerdict:
    """Score what `prepare_video` gave; the arguments are those of `judge_video`."""
    sampled = prepared.frames
    logits = np.empty(0) if sampled is None else _score(detector, sampled, progress)
    if sampled is None or not np.isfinite(logits).all():
        error = prepared.error or NO_NUMBER
        refused = detector.not_scored(name, error, prepared.sha256, fpr=fpr)
        return VideoVerdict(**refused.to_dict())
    judged = _verdict(detector, sampled, logits, fpr, name, prepared.sha256)
    return replace(judged, declares=prepared.declares)


def pool(logits: Sequence[float]) -> tuple[float, int, int]:
    """(score, first, last) of the most suspicious run of frames.

    The highest median of three neighbours: one bad frame raises nothing, two out of three
    do, however long the rest is. Of fewer than three frames the median of all.
    """
    values = np.asarray(logits, float)
    if len(values) < RUN:
        return float(np.median(values)), 0, len(values) - 1
    runs = np.median(np.lib.stride_tricks.sliding_window_view(values, RUN), axis=1)
    first = int(runs.argmax())
    return float(runs[first]), first, first + RUN - 1


def judge_pooled(detector: Detector, logit: float, fpr: float, scenes: int) -> Label:
    """The verdict of a pooled score over `scenes` independent looks.

    Frames of one scene are near copies; each scene is one more chance of a false alarm, so
    that each gets its part of the budget (Bonferroni).
    """
    if detector.verdict_of(logit, fpr / max(1, scenes))[1] == "fake":
        return "fake"
    return "real" if detector.verdict_of(logit, fpr)[1] == "real" else "unsure"


def _score(detector: Detector, sampled: Frames, progress: Done | None) -> NDArray[np.float64]:
    logits: list[float] = []
    for start in range(0, len(sampled.chosen), BATCH):
        batch = sampled.chosen[start : start + BATCH]
        scores = detector.score_crops(np.concatenate([candidate.crops for candidate in batch]))
        logits += scores.reshape(len(batch), -1).mean(axis=1, dtype=np.float64).tolist()
        if progress is not None:
            progress(len(logits))
    return np.array(logits)


def _verdict(
    detector: Detector,
    sampled: Frames,
    logits: NDArray[np.float64],
    budget: float,
    path: str,
    sha256: str | None,
) -> VideoVerdict:
    logit, first, last = pool(logits.tolist())
    scenes = len(set(sampled.scenes))
    verdict = judge_pooled(detector, logit, budget, scenes)
    if sampled.nothing is not None or (verdict == "real" and not _is_whole(sampled)):
        verdict = "unsure"

    def probability(value: float) -> float:
        if sampled.nothing is not None:
            return NO_EVIDENCE
        return round(detector.verdict_of(value, budget)[0], 6)

    timeline = tuple(
        FrameScore(round(candidate.time, 3), probability(value), round(value, 6), scene)
        for candidate, value, scene in zip(
            sampled.chosen, logits.tolist(), sampled.scenes, strict=True
        )
    )
    moment = (timeline[first].time, timeline[last].time)
    return VideoVerdict(
        path=path,
        sha256=sha256,
        probability=probability(logit),
        logit=round(logit, 6),
        verdict=verdict,
        model=detector.name,
        width=sampled.width,
        height=sampled.height,
        duration=round(sampled.duration, 3) if sampled.duration is not None else None,
        scenes=scenes,
        typical_logit=round(float(np.median(logits)), 6),
        suspicious=moment if sampled.nothing is None else None,
        note=_note(sampled),
        model_sha256=detector.bundle.sha256,
        fpr=budget,
        timeline=timeline,
    )


def _is_whole(sampled: Frames) -> bool:
    """Whether all of it could be looked at."""
    return sampled.complete and not sampled.damaged and sampled.ends is None


def _note(sampled: Frames) -> str | None:
    parts = []
    if sampled.nothing is not None:
        parts.append(sampled.nothing.replace("the picture", "every frame looked at"))
    elif sampled.blank > 0.5:
        parts.append(f"{100 * sampled.blank:.0f}% of its frames show nothing to judge")
    if sampled.damaged:
        damaged = "damaged packet or frame was" if sampled.damaged == 1 else (
            "damaged packets or frames were"
        )  # fmt: skip
        parts.append(f"{sampled.damaged} {damaged} passed over")
    if sampled.ends is not None:
        parts.append(f"the file ends early: {_seen_to(sampled.ends, sampled.duration)}")
    elif sampled.damaged:
        parts.append(_seen_to(sampled.seen, sampled.duration))
    if not sampled.complete:
        parts.append(f"the time was enough to search it to {sampled.chosen[-1].time:.0f} s only")
    return "; ".join(parts) or None


def _seen_to(moment: float, duration: float | None) -> str:
    """How much was seen, of a length where that is more."""
    longer = duration is not None and duration > moment
    return f"seen to {moment:.1f} of {duration:.1f} s" if longer else f"seen to {moment:.1f} s"


def _declared(source: str | Path | BinaryIO) -> str | None:
    """What the file says of its own origin; an open file is rewound."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return _declared(file)
    source.seek(0)
    data = source.read(WHOLE + 1)
    source.seek(0)
    # The hashes of a manifest cover the whole file: of a part they would look broken.
    return declares(data) if len(data) <= WHOLE else declares(data[:START], whole=False)
