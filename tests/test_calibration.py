import json
from dataclasses import replace

import numpy as np
import pytest

from distildire.bundle import load_bundle, models_folder
from distildire.calibration import Calibration
from distildire.evaluate.fit_calibration import calibrate


def two_normals(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose log-odds are known: N(-1, 1) against N(1, 1) gives log-odds 2x."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(-1, 1, n), rng.normal(1, 1, n)])
    return logits, np.repeat([False, True], n)


def test_probability_is_the_true_posterior() -> None:
    logits, fake = two_normals()
    found = calibrate(logits + 1, fake, "abc")  # log-odds 2x - 2: T is 0.5, b is -2
    x = np.linspace(-2, 4, 13)
    assert np.abs(found.probability(x) - 1 / (1 + np.exp(2 - 2 * x))).max() < 0.03


def test_probability_in_numbers() -> None:
    stated = replace(calibrate(*two_normals(200), "abc"), temperature=2.0, bias=0.7)
    assert stated.probability(1.0) == pytest.approx(0.76852478)  # 1 / (1 + exp(-(1 / 2 + 0.7)))


def test_shares_of_the_classes_do_not_matter() -> None:
    logits, fake = two_normals()
    keep = ~fake | (np.arange(len(fake)) % 10 == 0)
    few = calibrate(logits[keep], fake[keep], "abc")
    assert few.probability(0.0) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("budget", [0.01, 0.05, 0.1])
def test_budget_holds_on_both_sides(budget: float) -> None:
    logits, fake = two_normals()
    found = calibrate(logits, fake, "abc")
    called = np.array([found.verdict(v, budget) for v in logits])
    assert np.mean(called[~fake] == "fake") <= budget + 5e-4
    assert np.mean(called[fake] == "real") <= budget + 5e-4
    assert np.mean(called[~fake] == "fake") > budget / 2
    below, above = found.thresholds(budget)
    assert below < above
    assert found.verdict((below + above) / 2, budget) == "unsure"


def test_thresholds_step_back_as_far_as_sources_differ() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0, 1, 40)  # of sources, inside which pictures deviate by 0.5
    real = np.repeat(means, 20) + rng.normal(0, 0.5, 800)
    logits, fake = np.concatenate([real, real + 1]), np.repeat([False, True], 800)
    sources = np.tile(np.repeat(np.arange(40), 20), 2)
    plain = calibrate(logits, fake, "abc").thresholds(0.1)
    lone = calibrate(logits, fake, "abc", confidence=0.8).thresholds(0.1)
    drawn = calibrate(logits, fake, "abc", sources=sources, confidence=0.8).thresholds(0.1)
    assert drawn[0] < lone[0] < plain[0] < plain[1] < lone[1] < drawn[1]
    # Over draws of sources it deviates by some 0.2, and 80% of a normal lie under 0.84 of that.
    assert 0.08 < drawn[1] - plain[1] < 0.4
    assert calibrate(logits, fake, "abc", sources=sources).thresholds(0.1) == plain


def test_draws_of_few_sources_are_of_single_pictures() -> None:
    """Every draw of whole sources would be the one source again, and nothing would step back."""
    logits, fake = two_normals(800)
    lone = calibrate(logits, fake, "abc", confidence=0.8)
    one = calibrate(logits, fake, "abc", sources=np.full(len(fake), ""), confidence=0.8)
    assert one.thresholds(0.05) == lone.thresholds(0.05)
    assert one.thresholds(0.05)[1] > calibrate(logits, fake, "abc").thresholds(0.05)[1]


@pytest.mark.parametrize("budget", [0.002, 0.0005])
def test_no_picture_is_above_a_budget_of_less_than_one(budget: float) -> None:
    logits, fake = two_normals(400)
    found = calibrate(np.round(logits, 4), fake, "abc")
    called = np.array([found.verdict(v, budget) for v in np.round(logits, 4)])
    assert not (called[~fake] == "fake").any()
    assert not (called[fake] == "real").any()
    assert found.thresholds(budget) == (
        pytest.approx(logits[fake].min(), abs=1e-4),
        pytest.approx(logits[~fake].max(), abs=1e-4),
    )
    told = found.remark(budget)
    assert told is not None
    assert f"{100 * budget:g}% is less than one of the 400 real and 400 fake" in told
    assert found.remark(1 / 400) is None
    assert found.thresholds(1 / 400)[1] < logits[~fake].max()


def test_a_remark_names_the_class_that_is_small() -> None:
    logits, fake = two_normals(400)
    found = calibrate(logits[:480], fake[:480], "abc")
    assert found.remark(0.01) is not None
    assert "one of the 80 fake pictures" in str(found.remark(0.01))


@pytest.mark.parametrize("small", ["real", "fake"])
def test_only_the_class_that_is_small_takes_its_extreme(small: str) -> None:
    logits, fake = two_normals(400)
    kept = np.flatnonzero(fake == (small == "fake"))[:80]
    rows = np.concatenate([np.flatnonzero(fake != (small == "fake")), kept])
    logits, fake = np.round(logits[rows], 4), fake[rows]  # as the quantiles are
    below, above = calibrate(logits, fake, "abc").thresholds(0.01)
    assert bool((logits[~fake] > above).any()) == (small == "fake")
    assert bool((logits[fake] < below).any()) == (small == "real")


def test_the_shipped_model_has_the_thresholds_that_its_bundle_states() -> None:
    tree = json.loads((models_folder() / "nano/bundle.json").read_text())["calibration"]
    calibration = load_bundle("nano").calibration
    assert calibration is not None
    for budget, stated in tree["thresholds"].items():
        assert calibration.thresholds(float(budget)) == tuple(stated.values())
        assert calibration.remark(float(budget)) is None


def test_thresholds_of_separated_classes_do_not_cross() -> None:
    logits, fake = two_normals(200)
    found = calibrate(logits + np.where(fake, 50.0, -50.0), fake, "abc")
    below, above = found.thresholds(0.01)
    assert below == above
    assert found.verdict(60.0, 0.01) == "fake"
    assert found.verdict(-60.0, 0.01) == "real"


def test_survives_json() -> None:
    found = replace(calibrate(*two_normals(100), "abc"), data="two normals")
    assert Calibration.from_dict(found.to_dict()) == found


def test_refusals() -> None:
    logits, fake = two_normals(100)
    with pytest.raises(ValueError, match="at least 50"):
        calibrate(logits[:120], fake[:120], "abc")
    with pytest.raises(ValueError, match="not finite"):
        calibrate(np.where(np.arange(200) == 3, np.nan, logits), fake, "abc")
    with pytest.raises(ValueError, match="swapped"):
        calibrate(-logits, fake, "abc")
    for budget in (0.0, -0.1, 0.6):
        with pytest.raises(ValueError, match="fpr"):
            calibrate(logits, fake, "abc").thresholds(budget)


def of_kinds() -> tuple[Calibration, np.ndarray, np.ndarray]:
    """Phones score two higher than all other reals; scans are few; a third of all has no kind."""
    logits, fake = two_normals(1200)
    kind = np.resize(["phone", "", "scan"], len(fake))
    kind[(kind == "scan") & (np.arange(len(fake)) > 150)] = ""
    kind[fake & (kind == "phone")] = "studio"
    logits = logits + 2.0 * (kind == "phone")
    return calibrate(logits, fake, "abc", kinds=kind), logits, kind


def test_a_kind_has_the_thresholds_of_its_own_reals() -> None:
    found, logits, kind = of_kinds()
    assert list(found.kinds) == ["phone", "scan"], "a kind without reals has no budget"
    phone, rows = found.for_kind("phone"), kind == "phone"
    assert (phone.n_real, phone.n_fake) == (400, 1200)
    below, above = phone.thresholds(0.05)
    assert above == pytest.approx(np.quantile(logits[rows], 0.95), abs=0.01)
    assert np.mean(logits[rows] > found.thresholds(0.05)[1]) > 0.1, "the overall one fails here"
    assert below == found.thresholds(0.05)[0], "no fakes of its own"
    assert phone.probability(0.7) == found.probability(0.7)
    told = found.to_dict()["kinds"]["phone"]
    assert told["thresholds"]["0.05"] == {"real_below": below, "fake_above": above}
    assert told["n_real"] == 400
    with pytest.raises(ValueError, match=r"'studio'.*known are phone, scan"):
        found.for_kind("studio")
    with pytest.raises(ValueError, match="none: run distildire calibrate --by"):
        phone.for_kind("phone")


def test_the_thresholds_of_a_kind_are_as_cautious_as_those_of_all() -> None:
    logits, fake = two_normals(1200)
    kind = np.full(len(fake), "phone")
    sources = np.arange(len(fake)) % 40
    logits = logits + np.random.default_rng(1).normal(0, 0.5, 40)[sources]
    found = calibrate(logits, fake, "abc", kinds=kind, sources=sources, confidence=0.8)
    assert found.for_kind("phone").thresholds(0.05) == found.thresholds(0.05)
    assert found.thresholds(0.05) != calibrate(logits, fake, "abc").thresholds(0.05)


def test_a_kind_of_few_reals_has_the_thresholds_of_all() -> None:
    found = of_kinds()[0]
    scan = found.for_kind("scan")
    assert found.kinds["scan"].n_real < 100
    assert scan.thresholds(0.05) == found.thresholds(0.05)
    assert (scan.n_real, scan.n_fake) == (found.n_real, found.n_fake)
    assert "scan: too few real pictures (50)" in scan.data


def test_a_kind_with_fakes_enough_has_both_thresholds() -> None:
    logits, fake = two_normals(400)
    kind = np.resize(["a", "b"], 800)
    logits = logits - (kind == "b")
    found = calibrate(logits, fake, "abc", kinds=kind)
    assert found.for_kind("b").n_fake == 200
    below = found.for_kind("b").thresholds(0.1)[0]
    assert below == pytest.approx(np.quantile(logits[fake & (kind == "b")], 0.1), abs=0.01)
    assert Calibration.from_dict(found.to_dict()) == found
