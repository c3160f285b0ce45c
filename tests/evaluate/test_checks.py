"""What the stability check is worth, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from distildire.evaluate.checks import stability_gain


class Sign:
    """Calls positive logits fake, negative ones real, and zero unsure."""

    def logit(self, rgb: object, *, alone: bool = True) -> float:
        raise NotImplementedError

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, str]:
        return 0.5, "fake" if logit > 0 else "real" if logit < 0 else "unsure"


def test_gain_by_hand() -> None:
    logits = {"as it is": [3.0, 3.0, -3.0, -3.0, 0.0], "a": [3.0, 0.0, -3.0, 2.0, 5.0]}
    gain = stability_gain(Sign(), logits, [True, True, True, False, True])
    assert (gain["n_right"], gain["n_wrong"]) == (3, 1)
    assert gain["right_lost"] == pytest.approx(2 / 3)
    assert gain["wrong_caught"] == 0.0
    # Wilson's bound for none of one: z2 / (1 + z2) with z2 = 3.8415.
    assert gain["wrong_caught_ci"] == pytest.approx([0.0, 0.7935], abs=1e-4)
