from __future__ import annotations

import pytest

from distildire.distill.symptoms import IMITATING, OVERFITTING, TOO_SPECIFIC, symptoms


def falling(start: float, end: float, count: int = 20) -> list[float]:
    return [start + (end - start) * i / (count - 1) for i in range(count)]


@pytest.mark.parametrize(
    ("bce", "mse", "expected"),
    [
        (falling(0.70, 0.68), falling(1.0, 0.2), [IMITATING]),
        (falling(0.70, 0.02), falling(1.0, 1.0), [OVERFITTING]),
        (falling(0.70, 0.10), falling(1.0, 0.3), []),
        (falling(0.70, 0.69), falling(1.0, 1.0), []),
        (falling(0.70, 0.02), falling(0.0, 0.0), []),
    ],
)
def test_losses_tell_imitation_from_overfitting(
    bce: list[float], mse: list[float], expected: list[str]
) -> None:
    rows = [{"step": 0, "val_auc": 0.5}]
    rows += [{"bce": b, "imitation": m} for b, m in zip(bce, mse, strict=True)]
    assert symptoms(rows) == expected


def test_families_tell_whether_the_noise_is_too_specific() -> None:
    assert symptoms([], {"diffusion": 0.9, "gan": 0.55}) == [TOO_SPECIFIC]
    assert symptoms([], {"diffusion": 0.9, "gan": 0.85}) == []
    assert symptoms([], {"diffusion": 0.9}) == []
