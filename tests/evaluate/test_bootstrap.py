"""Bootstrap: the fast kernel against a slow version, and coverage of a known truth."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from distildire.evaluate.bootstrap import _Kernel, bootstrap_intervals
from distildire.evaluate.metrics import METRICS, all_metrics


@pytest.mark.parametrize("decimals", [12, 1])
def test_kernel_against_repeating_the_images(decimals: int) -> None:
    rng = np.random.default_rng(0)
    fake = rng.random(300) < 0.4
    scores = np.round(rng.normal(size=300) + fake, decimals)
    probability = 1 / (1 + np.exp(-scores))
    order = np.argsort(-scores, kind="stable")
    fake, scores, probability = fake[order], scores[order], probability[order]
    weights = rng.integers(0, 4, (8, 300)).astype(np.int32)
    got = _Kernel(fake, scores, probability)(weights)
    for row, weight in zip(got, weights, strict=True):
        rows = np.repeat(np.arange(300), weight)
        slow = all_metrics(fake[rows], scores[rows], probability[rows])
        np.testing.assert_allclose(row, [slow[name] for name in METRICS], atol=1e-12)


def test_intervals_cover_the_truth() -> None:
    """AUC of N(1.2, 1) against N(0, 1) is known: Phi(1.2 / sqrt 2); the accuracies Phi(0.6)."""
    truth = {
        "auc": NormalDist().cdf(1.2 / np.sqrt(2)),
        "real_acc": NormalDist().cdf(0.6),
        "fake_acc": NormalDist().cdf(0.6),
    }
    hits = dict.fromkeys(truth, 0)
    runs = 500
    fake = np.arange(400) < 200
    rng = np.random.default_rng(0)
    for run in range(runs):
        logit = rng.normal(size=400) + 1.2 * fake - 0.6
        found = bootstrap_intervals(fake, logit, 1 / (1 + np.exp(-logit)), repeats=150, seed=run)
        for name, value in truth.items():
            hits[name] += found[name][0] <= value <= found[name][1]
    assert 0.93 <= hits["auc"] / runs <= 0.97
    assert 0.93 <= (hits["real_acc"] + hits["fake_acc"]) / (2 * runs) <= 0.97


def test_intervals_by_source_are_wider_where_sources_differ() -> None:
    rng = np.random.default_rng(0)
    source = np.arange(600) // 30
    fake = source >= 10
    shift = rng.normal(size=20)[source]
    logit = rng.normal(size=600) * 0.3 + shift + fake
    probability = 1 / (1 + np.exp(-logit))
    single = bootstrap_intervals(fake, logit, probability)["auc"]
    whole = bootstrap_intervals(fake, logit, probability, clusters=source)["auc"]
    assert whole[1] - whole[0] > 2 * (single[1] - single[0])


def test_perfect_scores_are_not_called_certain() -> None:
    fake = np.arange(100) < 50
    found = bootstrap_intervals(fake, np.where(fake, 3.0, -3.0), np.where(fake, 0.95, 0.05))
    low, high = found["fake_acc"]
    assert high == 1.0
    assert low == pytest.approx(0.025 ** (1 / 50))


def test_ece_of_calibrated_scores_reaches_zero() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(2000)
    fake = rng.random(2000) < probability
    low, high = bootstrap_intervals(fake, probability, probability)["ece"]
    assert low == 0.0
    # Stated p^3 where p is true: the error is the integral of p - p^3 over 0..1.
    low, high = bootstrap_intervals(fake, probability**3, probability**3)["ece"]
    assert low < 0.25 < high


def test_too_few_images_or_sources_give_no_interval() -> None:
    rng = np.random.default_rng(0)
    fake = np.arange(103) < 3
    logit = rng.normal(size=103)
    probability = 1 / (1 + np.exp(-logit))
    assert set(bootstrap_intervals(fake, logit, probability)) == {"real_acc"}
    fake = np.arange(103) < 50
    assert len(bootstrap_intervals(fake, logit, probability)) == len(METRICS)
    clusters = np.where(fake, 0, np.arange(103))
    assert set(bootstrap_intervals(fake, logit, probability, clusters=clusters)) == {"real_acc"}


def test_one_seed_gives_one_interval() -> None:
    rng = np.random.default_rng(0)
    fake, logit = np.arange(100) < 50, rng.normal(size=100)
    probability = 1 / (1 + np.exp(-logit))
    one, two = (bootstrap_intervals(fake, logit, probability, seed=s) for s in (4, 4))
    assert one == two
    assert one != bootstrap_intervals(fake, logit, probability, seed=5)


def test_one_class_alone() -> None:
    logit = np.random.default_rng(0).normal(size=50)
    found = bootstrap_intervals(np.ones(50, bool), logit, 1 / (1 + np.exp(-logit)))
    assert set(found) == {"acc", "fake_acc", "ece"}
