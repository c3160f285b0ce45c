"""Bootstrap: the fast kernel against a slow version, and coverage of a known truth."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from distildire.evaluate.bootstrap import MetricKernel, approximate_intervals, bootstrap_intervals
from distildire.evaluate.metrics import METRICS, all_metrics
from distildire.evaluate.operating_point import tpr_draws


@pytest.mark.parametrize("decimals", [12, 1])
def test_kernel_against_repeating_the_images(decimals: int) -> None:
    rng = np.random.default_rng(0)
    fake = rng.random(300) < 0.4
    scores = np.round(rng.normal(size=300) + fake, decimals)
    probability = 1 / (1 + np.exp(-scores))
    order = np.argsort(-scores, kind="stable")
    fake, scores, probability = fake[order], scores[order], probability[order]
    weights = rng.integers(0, 4, (8, 300)).astype(np.int32)
    got = MetricKernel(fake, scores, probability)(weights)
    for row, weight in zip(got, weights, strict=True):
        rows = np.repeat(np.arange(300), weight)
        slow = all_metrics(fake[rows], scores[rows], probability[rows])
        np.testing.assert_allclose(row, [slow[name] for name in METRICS], atol=1e-12)


def truth(shift: float, n_real: int, n_fake: int) -> dict[str, float]:
    """The figures of N(shift/2, 1) against N(-shift/2, 1), read as logits.

    AUC is Phi(shift / sqrt 2), TPR at a rate f is Phi(shift - z(1 - f)); AP is the integral of
    precision over recall, ECE the sum over its bins of |probability - share of fakes|, both
    at the given shares of the classes and summed on a fine grid.
    """
    normal = NormalDist()
    grid = np.linspace(-9, 9, 20_001)
    fpr = np.array([1 - normal.cdf(x + shift / 2) for x in grid])
    tpr = np.array([1 - normal.cdf(x - shift / 2) for x in grid])
    found = n_fake * tpr + n_real * fpr
    precision = np.divide(n_fake * tpr, found, out=np.ones_like(tpr), where=found > 0)
    probability = 1 / (1 + np.exp(-grid[:-1]))
    fakes, images = -np.diff(n_fake * tpr), -np.diff(found)
    off = np.bincount((probability * 15).astype(int), probability * images - fakes)
    return {
        "acc": normal.cdf(shift / 2),
        "real_acc": normal.cdf(shift / 2),
        "fake_acc": normal.cdf(shift / 2),
        "ap": float(-np.trapezoid(precision, tpr)),
        "auc": normal.cdf(shift / np.sqrt(2)),
        "tpr_at_1fpr": normal.cdf(shift - normal.inv_cdf(0.99)),
        "tpr_at_5fpr": normal.cdf(shift - normal.inv_cdf(0.95)),
        "ece": float(np.abs(off).sum() / (n_real + n_fake)),
    }


def coverage(
    shift: float, n_real: int, n_fake: int, *, runs: int, repeats: int = 200
) -> dict[str, float]:
    """Share of simulated test sets whose 95% interval holds the truth."""
    known = truth(shift, n_real, n_fake)
    hits = dict.fromkeys(known, 0)
    fake = np.arange(n_real + n_fake) >= n_real
    rng = np.random.default_rng(0)
    for run in range(runs):
        logit = rng.normal(size=len(fake)) + shift * fake - shift / 2
        found = bootstrap_intervals(fake, logit, 1 / (1 + np.exp(-logit)), repeats=repeats,
                                    seed=run)  # fmt: skip
        for name, value in known.items():
            hits[name] += found[name][0] <= value <= found[name][1]
    return {name: count / runs for name, count in hits.items()}


def check(found: dict[str, float], approximate: list[str], least: float) -> None:
    """Firm intervals hold the truth 93-97% of the time, those called approximate at least `least`.

    The standard error of a coverage of 0.95 is 0.007 over 1,000 runs.
    """
    for name, share in found.items():
        low, high = (least, 1.0) if name in approximate else (0.93, 0.97)
        assert low <= share <= high, (name, share)


def test_intervals_cover_the_truth() -> None:
    assert approximate_intervals(300, 400) == ["ece"]
    check(coverage(2.0, 300, 400, runs=1000), ["ece"], 0.93)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "n_real", "n_fake"),
    [(1.2, 300, 400), (1.2, 100, 100), (2.0, 60, 300), (1.2, 300, 60), (3.0, 500, 500)],
)
def test_intervals_cover_the_truth_at_many_sizes(shift: float, n_real: int, n_fake: int) -> None:
    found = coverage(shift, n_real, n_fake, runs=2000)
    check(found, approximate_intervals(n_real, n_fake), 0.9)


def test_which_intervals_are_approximate() -> None:
    """Three reals over the threshold are 300 at 1% and 60 at 5%."""
    assert approximate_intervals(299, 400) == ["tpr_at_1fpr", "ece"]
    assert approximate_intervals(300, 400, clustered=True) == ["tpr_at_1fpr", "tpr_at_5fpr", "ece"]
    assert approximate_intervals(60, 400) == [
        "acc", "real_acc", "ap", "auc", "tpr_at_1fpr", "ece"
    ]  # fmt: skip
    assert "tpr_at_5fpr" in approximate_intervals(59, 400)
    assert approximate_intervals(400, 99) == [
        "acc", "fake_acc", "ap", "auc", "tpr_at_1fpr", "tpr_at_5fpr", "ece"
    ]  # fmt: skip


def slow_draws(real: np.ndarray, fake: np.ndarray, fpr: float, draws: int) -> np.ndarray:
    """`tpr_draws` with the place of every picture drawn."""
    rng = np.random.default_rng(1)
    above = [0, *(int((fake > score).sum()) for score in np.sort(real)[::-1]), len(fake)]
    values = []
    for _ in range(draws):
        places, shares = (
            np.concatenate([[0.0], np.sort(rng.random(n)), [1.0]]) for n in (len(real), len(fake))
        )
        k = int((places[1:-1] <= fpr).sum())
        before, after = ((shares[a] + shares[a + 1]) / 2 for a in above[k : k + 2])
        share = (fpr - places[k]) / (places[k + 1] - places[k])
        if k == 0:
            before, share = 0.0, np.sqrt(share)
        values.append(before + (after - before) * share)
    return np.array(values)


def test_draws_of_the_operating_point() -> None:
    """Far-apart classes: with one real, the place of its score on the axis is uniform."""
    draws = tpr_draws(np.array([0.0]), np.full(50, 9.0), 0.25, draws=40_000)
    # All fakes lie above the real at U: TPR is about sqrt(0.25 / U) where U > 0.25, else 1;
    # the integral of the root over 0.25..1 is 2 x 0.5 x (1 - 0.5).
    expected = 0.5 + 0.25
    assert draws.mean() == pytest.approx(expected, abs=0.02)
    # As resampling does it, slowly: every place drawn, the ROC straight between two reals.
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=30), rng.normal(size=20) + 1
    got = tpr_draws(real, fake, 0.1, draws=20_000)
    slow = slow_draws(real, fake, 0.1, 4000)
    for q in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert np.quantile(got, q) == pytest.approx(np.quantile(slow, q), abs=0.02)
    # A tie is no detection, as in `tpr_at_fpr`.
    ties = tpr_draws(np.zeros(200), np.zeros(200), 0.01, draws=200)
    assert ties.max() < 0.05


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
