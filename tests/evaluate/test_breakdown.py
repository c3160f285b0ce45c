"""The parts of a result, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from distildire.evaluate.breakdown import count_verdicts, part_rows, parts_of, verdict_rows, wilson
from distildire.evaluate.checks import stability_rows
from distildire.evaluate.generators import begins_with
from distildire.evaluate.summary import figure_cell


def table() -> pd.DataFrame:
    """Four reals and six fakes whose order is easily read; repository `duo` holds both classes."""
    rows = [
        # label, generator, source, repository, logit
        ("real", "", "r1", "a", -3.0), ("real", "", "r1", "a", -1.0),
        ("real", "", "r2", "duo", 0.0), ("real", "", "r2", "duo", 2.0),
        ("fake", "StyleGAN2 (inferred)", "f1", "b", 3.0), ("fake", "sd1.4", "f1", "b", 1.0),
        ("fake", "Muse", "f2", "duo", 0.5), ("fake", "Muse", "f2", "duo", -2.0),
        ("fake", "", "f3", "c", 1.5), ("fake", "Not StyleGAN2", "f3", "c", 2.5),
    ]  # fmt: skip
    made = pd.DataFrame(rows, columns=["label", "generator", "source", "repository", "logit"])
    return made.assign(
        path=[f"{i}.png" for i in range(len(rows))],
        probability=1 / (1 + np.exp(-made["logit"])),
        error="",
    )


def by_hand(fakes: list[float], reals: list[float]) -> float:
    """AUC by counting the pairs in the right order."""
    wins = sum((f > r) + 0.5 * (f == r) for f in fakes for r in reals)
    return wins / (len(fakes) * len(reals))


def test_known_and_unseen_generators_by_prefix() -> None:
    scores = table()
    parts = parts_of(scores, known=["stylegan2", "SD1"], repeats=9)
    reals = [-3.0, -1.0, 0.0, 2.0]
    # 3 beats all four reals, 1 beats three: 7 of 8.
    assert parts["known"]["auc"] == pytest.approx(7 / 8)
    assert parts["known"]["auc"] == pytest.approx(by_hand([3.0, 1.0], reals))
    # 0.5 beats three, -2 one, 1.5 three, 2.5 four: 11 of 16.
    assert parts["unseen"]["auc"] == pytest.approx(11 / 16)
    assert parts["unseen"]["generators"] == ["Muse", "Not StyleGAN2"]
    assert (parts["known"]["n_fake"], parts["unseen"]["n_fake"]) == (2, 4)
    assert parts["known"]["auc_ci"] is None
    with pytest.raises(ValueError, match="no generator begins with 'SDXL'"):
        parts_of(scores, known=["SDXL"])
    assert "known" not in parts_of(scores)


def test_pairs_are_judged_inside_their_repository() -> None:
    scores = pd.concat([table()] * 5, ignore_index=True)  # five of a class are needed
    pairs = parts_of(scores, repeats=9)["pairs"]
    # Inside duo: reals 0 and 2, fakes 0.5 and -2: one of four pairs in the right order.
    assert pairs["inside"] == {"duo": {"n_real": 10, "n_fake": 10, "auc": pytest.approx(0.25)}}
    assert pairs["auc"] == pytest.approx(0.25)
    assert pairs["auc_ci"] is None
    assert "too few" in pairs["note"]


def test_the_worst_source_has_forty_images_and_meets_the_whole_other_class() -> None:
    scores = pd.concat([table()] * 20, ignore_index=True)
    worst = parts_of(scores, repeats=9)["worst_source"]
    assert worst is not None
    # f2 is 0.5 and -2 against all reals: three and one of four won.
    assert (worst["source"], worst["label"], worst["n"]) == ("f2", "fake", 40)
    assert worst["auc"] == pytest.approx(by_hand([0.5, -2.0], [-3.0, -1.0, 0.0, 2.0]))
    assert worst["auc"] == pytest.approx(4 / 8)
    assert worst["auc_ci"][0] < 0.5 < worst["auc_ci"][1]
    assert "auc" in worst["approximate"]
    assert parts_of(table(), repeats=9)["worst_source"] is None


def test_a_source_of_both_classes_is_judged_by_class() -> None:
    """Inside `mix` the order is right; its reals lie above the fakes of all other sources."""
    rows = [("mix", "real", 1.0)] * 40 + [("mix", "fake", 2.0)] * 40
    rows += [("r", "real", -2.0)] * 80 + [("f", "fake", 0.0)] * 40
    scores = pd.DataFrame(rows, columns=["source", "label", "logit"])
    scores = scores.assign(generator="", repository="", probability=0.5, error="")
    worst = parts_of(scores, repeats=9)["worst_source"]
    assert (worst["source"], worst["label"], worst["n"]) == ("mix", "real", 40)
    assert worst["auc"] == pytest.approx(by_hand([2.0, 0.0], [1.0]))
    # Of 39 reals nothing is said; the fakes of f beat the 80 reals of r alone.
    worst = parts_of(scores.iloc[1:], repeats=9)["worst_source"]
    assert (worst["source"], worst["auc"]) == ("f", pytest.approx(80 / 119))


def test_intervals_of_pairs_from_enough_images() -> None:
    rng = np.random.default_rng(0)
    n = 120
    fake = np.arange(n) % 2 == 1
    scores = pd.DataFrame(
        {"label": np.where(fake, "fake", "real"), "generator": "", "source": "s", "error": "",
         "repository": np.where(np.arange(n) < 60, "one", "two"), "path": np.arange(n).astype(str),
         "logit": rng.normal(size=n) + fake}
    )  # fmt: skip
    scores["probability"] = 1 / (1 + np.exp(-scores["logit"]))
    pairs = parts_of(scores, repeats=200)["pairs"]
    inside = [
        by_hand(list(part["logit"][part["label"] == "fake"]),
                list(part["logit"][part["label"] == "real"]))
        for _, part in scores.groupby("repository")
    ]  # fmt: skip
    assert pairs["auc"] == pytest.approx(np.mean(inside))
    assert pairs["auc_ci"][0] < pairs["auc"] < pairs["auc_ci"][1]


def test_verdicts_are_counted_by_class() -> None:
    fake = np.array([False, False, False, True, True])
    found = count_verdicts(fake, ["real", "unsure", "fake", "fake", "unsure"])
    assert found["real"] == {"real": 1, "fake": 1, "unsure": 1}
    assert found["fake"] == {"real": 0, "fake": 1, "unsure": 1}
    assert found["false_alarms"]["share"] == pytest.approx(1 / 3)
    assert (found["caught"]["share"], found["missed"]["share"]) == (0.5, 0.0)
    assert found["unsure"] == {"share": 0.4, "ci": None}


def test_wilsons_interval() -> None:
    """5 of 50: centre (0.1 + z2/100) / (1 + z2/50) with z2 = 3.8415 -> 0.0435 to 0.2136."""
    assert wilson(5, 50) == pytest.approx((0.04348, 0.21360), abs=1e-4)
    assert wilson(0, 50)[0] == 0.0


def test_rows_for_the_report() -> None:
    scores = table()
    parts = parts_of(
        scores, known=["SD1"], repeats=9,
        verdict=lambda logit, budget: "fake" if logit > 1 - budget else "real",
    )  # fmt: skip
    rows = part_rows(parts)
    assert [row["part"] for row in rows] == ["known generators", "unseen generators"]
    assert rows[0]["auc"] == "0.750"
    # Over 0.99: of the reals only 2; of the fakes 3, 1, 1.5 and 2.5.
    first = verdict_rows(parts)[0]
    assert first["budget"] == "1%"
    assert first["reals: real / unsure / fake"] == "3 / 0 / 1"
    assert first["fakes: real / unsure / fake"] == "2 / 0 / 4"


def test_an_approximate_interval_is_marked() -> None:
    part = {"auc": 0.7, "auc_ci": [0.6, 0.8], "ap": 0.5, "ap_ci": None, "approximate": ["auc"]}
    assert figure_cell(part, "auc") == "0.700 ~[0.600, 0.800]"
    assert figure_cell({**part, "approximate": []}, "auc") == "0.700 [0.600, 0.800]"
    assert figure_cell(part, "ap") == "0.500"


def test_prefixes_ignore_case() -> None:
    names = ["StyleGAN2 faces", "sd1.4", "SDXL", ""]
    assert begins_with(names, ["stylegan", "SD1"]).tolist() == [True, True, False, False]
    assert not begins_with(names, []).any()


def test_stability_without_wrong_verdicts_states_nothing() -> None:
    row = {"n_right": 3, "n_wrong": 0, "wrong_caught": None, "wrong_caught_ci": None,
           "right_lost": 1 / 3, "right_lost_ci": [0.06, 0.79]}  # fmt: skip
    (shown,) = stability_rows({"0.05": row})
    assert shown["turned unsure"] is None
    assert shown["turned unsure too"] == "0.333 [0.060, 0.790]"
