"""Verdicts for videos. Extra `video`."""

from distildire.video.judge import VideoVerdict, judge_video

__all__ = ["VideoVerdict", "judge_video"]
