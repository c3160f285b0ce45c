"""How the rows of an earlier `detect` were made, where this run is to go on with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distildire.calibration import Label, label_of

if TYPE_CHECKING:
    from distildire.detector import Detector

Row = dict[str, Any]

ROUNDED = 1e-6
"""By how much a row's logit and probability may differ from what was computed."""


class Making:
    """How this run makes a row."""

    def __init__(self, detector: Detector, fpr: float, *, stability: bool, heatmap: bool) -> None:
        assert detector.bundle.calibration is not None  # detect refuses a model without one
        self._detector, self._fpr = detector, fpr
        self._calibration = detector.bundle.calibration
        self._thresholds = self._calibration.thresholds(fpr)
        self._extras = {"stability": stability, "heatmap": heatmap}

    def differs(self, row: Row) -> str | None:
        """What tells an earlier row from one of this run, as in "holds rows ..."."""
        kind = self._detector.thresholds_of
        if row.get("kind") != kind:
            of = "of no kind" if row.get("kind") is None else f"of the kind {row['kind']}"
            return f"{of}, not of {kind or 'none'}"
        if row.get("error") is not None:
            return None
        is_picture = "timeline" not in row
        has_evidence = row.get("note") is None if is_picture else row["suspicious"] is not None
        for name, here in (("stability", is_picture), ("heatmap", is_picture and has_evidence)):
            if here and (name in row) != self._extras[name]:
                return f"made {'with' if name in row else 'without'} --{name}"
        # Of what holds nothing to judge, nothing was read from the logit.
        if has_evidence and not (self._is_probability(row) and self._is_verdict(row)):
            return "of another calibration of this model"
        return None

    def _is_probability(self, row: Row) -> bool:
        near = [row["logit"] - ROUNDED, row["logit"] + ROUNDED]
        low, high = self._calibration.probability(near).tolist()
        return bool(low - ROUNDED <= row["probability"] <= high + ROUNDED)

    def _is_verdict(self, row: Row) -> bool:
        if "timeline" in row:
            return self._is_verdict_of_video(row)
        checked = row.get("stability")
        logits = checked["logits"] if checked else {"": row["logit"]}
        verdicts = checked["verdicts"] if checked else {"": row["verdict"]}
        return all(verdicts[name] in self._labels_near(logit) for name, logit in logits.items())

    def _labels_near(self, logit: float) -> set[Label]:
        return {label_of(near, *self._thresholds) for near in (logit - ROUNDED, logit + ROUNDED)}

    def _is_verdict_of_video(self, row: Row) -> bool:
        from distildire.video.judge import judge_pooled

        near = (row["logit"] - ROUNDED, row["logit"] + ROUNDED)
        found = {judge_pooled(self._detector, logit, self._fpr, row["scenes"]) for logit in near}
        if "real" in found and row.get("note") is not None:  # it wasn't seen whole
            found.add("unsure")
        return row["verdict"] in found
