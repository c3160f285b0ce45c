"""Verdicts for videos: frames, the pooled verdict, the timeline. Extra `video`."""

from distildire.video.judge import VideoVerdict, judge_video

__all__ = ["VideoVerdict", "judge_video"]
