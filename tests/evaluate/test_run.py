"""Evaluations of a stand-in detector and of another tool's scores."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from distildire import Detector
from distildire.data.audit import LeakError
from distildire.data.manifest import ManifestError, read_manifest
from distildire.evaluate.kept_logits import keeping_logits
from distildire.evaluate.metrics import METRICS
from distildire.evaluate.robustness import robustness, subsample
from distildire.evaluate.run import EvaluationOptions, evaluate
from distildire.evaluate.scores import logits_of, score_manifest
from distildire.explain.reencode import STABILITY
from distildire.io.cores import usable_cores
from distildire.io.pictures import RGB, decode
from distildire.io.preprocessing import Preprocessing, equalize


class Brightness:
    """Calls bright pictures fake."""

    name = "brightness"

    def logit(self, rgb: RGB, *, alone: bool = True) -> float:
        return float(rgb.mean()) / 16 - 8

    bundle = SimpleNamespace(preprocessing=Preprocessing(crop=64, crops=1))
    graph_outputs = frozenset({"logit", "cam"})

    def run_graph(self, output: str, crops: np.ndarray) -> np.ndarray:
        assert output == "cam"
        return crops.mean(axis=3).astype(np.float32)

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, str]:
        return 1 / (1 + np.exp(-logit)), "fake" if logit > 0 else "real"


def pictures(folder: Path, count: int = 6, suffixes: tuple[str, str] = ("png", "png")) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for label, level, suffix in (("nature", 90, suffixes[0]), ("ai", 160, suffixes[1])):
        for i in range(count):
            pixels = rng.normal(level, 8, (64, 64, 3)) + rng.normal(0, 20)
            path = folder / f"{label}{i}.{suffix}"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
            rows.append({"path": path.name, "label": label, "source": f"{label}{i % 3}",
                         "generator": "gan" if label == "ai" else ""})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def simulated(folder: Path, n: int = 600, seed: int = 0) -> tuple[Path, Path]:
    """A manifest of pictures that need not exist, and the scores of some tool."""
    rng = np.random.default_rng(seed)
    fake = rng.random(n) < 0.5
    source = np.where(fake, "f", "r") + (np.arange(n) % 8).astype(str).astype(object)
    source[:3], fake[:3] = "tiny", True
    table = pd.DataFrame({"path": [f"img/{i}.png" for i in range(n)], "source": source})
    table["label"] = np.where(fake, "fake", "real")
    table["generator"] = np.where(fake, np.where(np.arange(n) % 2, "gan", "ldm"), "")
    table.to_csv(folder / "manifest.csv", index=False)
    scores = pd.DataFrame({"path": table["path"], "score": rng.normal(size=n) + 1.5 * fake})
    scores.to_csv(folder / "scores.csv", index=False)
    return folder / "scores.csv", folder / "manifest.csv"


def test_detector_raw_and_equalised_side_by_side(tmp_path: Path) -> None:
    manifest = pictures(tmp_path)
    options = EvaluationOptions(equalize="both", known=["GAN"], robustness_count=4,
                                stability_count=4, heatmap_count=2, repeats=50)  # fmt: skip
    result = evaluate(Brightness(), manifest, tmp_path / "out", options)
    tree = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"raw", "equalized"} <= set(tree)
    for variant in ("raw", "equalized"):
        overall = tree[variant]["overall"]
        assert {"n_real", "n_fake", *METRICS, *(f"{m}_ci" for m in METRICS)} <= set(overall)
        assert overall["auc"] == 1.0
        assert overall["auc_ci"] is None
        assert "too few" in overall["note"]
        assert tree[variant]["parts"]["known"]["auc"] == 1.0
        assert tree[variant]["parts"]["unseen"]["n_fake"] == 0
        said = tree[variant]["parts"]["verdicts"]["0.01"]["fake"]
        assert sum(said.values()) == 6
    assert tree["robustness"]["rows"]["resize 0.5"]["auc_lost"] == 0.0
    assert tree["robustness"]["rows"]["jpeg 70"]["auc_lost_ci"] is None
    checked = tree["stability"]["0.05"]
    assert checked["n_right"] + checked["n_wrong"] == 4
    assert (checked["wrong_caught"] is None) == (checked["n_wrong"] == 0)
    assert tree["heatmap"]["n"] == 2
    assert tree["heatmap"]["sentence"] in (tmp_path / "out" / "report.md").read_text()
    scores = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert len(scores) == 24
    assert list(scores.columns[:7]) == [
        "path", "label", "logit", "probability", "source", "generator", "sha256",
    ]  # fmt: skip
    assert (scores["sha256"].str.len() == 64).all()
    assert (tree["robustness"]["n_real"], tree["robustness"]["n_fake"]) == (2, 2)
    assert set(tree["robustness"]["rows"]) == set(result.robustness["rows"])
    assert result.robustness["rows"]["as it is"]["auc"] == 1.0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    assert 'src="http' not in page
    told = (tmp_path / "out" / "report.md").read_text()
    assert "## Robustness" in told
    assert "## Curves" not in told  # its plots are in report.html alone
    for name in ("scores.csv", "audit.json", "audit.html", "robustness.json"):
        assert (tmp_path / "out" / name).is_file()


class WithoutMap(Brightness):
    graph_outputs = frozenset({"logit"})


def test_a_model_without_a_map_is_refused_before_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[RGB] = []
    monkeypatch.setattr(WithoutMap, "logit", scored.append)
    options = EvaluationOptions(heatmap_count=2)
    with pytest.raises(ValueError, match="no activation map"):
        evaluate(WithoutMap(), pictures(tmp_path), tmp_path / "out", options)
    assert not scored


def test_a_leak_is_refused_unless_accepted_or_equalised(tmp_path: Path) -> None:
    manifest = pictures(tmp_path, suffixes=("bmp", "png"))
    with pytest.raises(LeakError, match="format"):
        evaluate(Brightness(), manifest, tmp_path / "a", EvaluationOptions(equalize=False))
    evaluate(
        Brightness(),
        manifest,
        tmp_path / "b",
        EvaluationOptions(equalize=False, accept_leak=True, repeats=9),
    )
    result = evaluate(Brightness(), manifest, tmp_path / "c", EvaluationOptions(repeats=9))
    assert set(result.metrics) >= {"overall", "by_generator", "by_source"}


def test_scores_of_files_that_leak_are_named_as_such(tmp_path: Path) -> None:
    manifest = pictures(tmp_path, suffixes=("bmp", "png"))
    table = pd.read_csv(manifest)
    scores = tmp_path / "scores.csv"
    table.assign(score=np.linspace(0, 1, len(table)))[["path", "score"]].to_csv(scores, index=False)
    result = evaluate(scores, manifest, tmp_path / "out", EvaluationOptions(repeats=9))
    assert result.audit is not None
    assert result.audit.leaky
    assert result.audit.verdict in result.metrics["about"]["note"]
    with pytest.raises(LeakError, match="format"):
        evaluate(scores, manifest, tmp_path / "b", EvaluationOptions(equalize=False))


def test_missing_and_damaged_files_are_counted_not_scored(tmp_path: Path) -> None:
    manifest = pictures(tmp_path)
    (tmp_path / "nature0.png").unlink()
    (tmp_path / "ai0.png").write_bytes(b"no picture")
    result = evaluate(Brightness(), manifest, tmp_path / "out", EvaluationOptions(repeats=9))
    assert result.metrics["unscored"]["count"] == 2
    assert result.metrics["overall"]["n_real"] == 5
    assert "2 pictures have no score" in (tmp_path / "out" / "report.md").read_text()


def test_scores_of_another_tool(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    scores, manifest = simulated(tmp_path)
    result = evaluate(scores, manifest, tmp_path / "out", EvaluationOptions(repeats=100))
    figures = result.metrics
    given, table = pd.read_csv(scores), pd.read_csv(manifest)
    fake = table["label"] == "fake"
    assert figures["overall"]["auc"] == pytest.approx(
        roc_auc_score(fake, given["score"]), abs=1e-12
    )
    gan = (table["generator"] == "gan") | ~fake
    assert figures["by_generator"]["gan"]["auc"] == pytest.approx(
        roc_auc_score(fake[gan], given["score"][gan]), abs=1e-12
    )
    assert figures["by_source"]["r1"]["n_fake"] == fake.sum()
    tiny = figures["by_source"]["tiny"]
    assert tiny["n_fake"] == 3
    assert tiny["auc_ci"] is None
    assert "too few images" in tiny["note"]
    low, high = figures["overall"]["auc_ci"]
    assert low < figures["overall"]["auc"] < high


def test_probabilities_are_told_from_logits(tmp_path: Path) -> None:
    scores, manifest = simulated(tmp_path)
    table = pd.read_csv(scores)
    logit = table["score"].copy()
    table["score"] = 1 / (1 + np.exp(-logit))
    table.to_csv(scores, index=False)
    result = evaluate(scores, manifest, tmp_path / "out", EvaluationOptions(repeats=9))
    np.testing.assert_allclose(result.scores["logit"], logit, atol=1e-9)


def test_bad_scores(tmp_path: Path) -> None:
    scores, manifest = simulated(tmp_path, 100)
    table = pd.read_csv(scores)
    table.loc[0, "score"] = np.nan
    table.loc[1, "score"] = np.inf
    table = pd.concat([table.drop(index=2), table.loc[[5]]])
    table.to_csv(scores, index=False)
    result = evaluate(scores, manifest, tmp_path / "out", EvaluationOptions(repeats=9))
    assert result.metrics["unscored"]["count"] == 3
    reasons = set(result.scores["error"]) - {""}
    assert reasons == {"the score is no finite number", "no score"}
    pd.concat([table, table.loc[[5]].assign(score=7.0)]).to_csv(scores, index=False)
    with pytest.raises(ManifestError, match="two scores"):
        evaluate(scores, manifest, tmp_path / "out")
    table.assign(path="elsewhere.png").head(1).to_csv(scores, index=False)
    with pytest.raises(ManifestError, match="none of its 1 paths"):
        evaluate(scores, manifest, tmp_path / "out")
    table.rename(columns={"score": "p"}).to_csv(scores, index=False)
    with pytest.raises(ManifestError, match="no column score"):
        evaluate(scores, manifest, tmp_path / "out")
    table.assign(score="high").to_csv(scores, index=False)
    with pytest.raises(ValueError, match="no picture has a score"):
        evaluate(scores, manifest, tmp_path / "out")


def test_one_class_only(tmp_path: Path) -> None:
    scores, manifest = simulated(tmp_path)
    table = pd.read_csv(manifest)
    table[table["label"] == "real"].to_csv(manifest, index=False)
    figures = evaluate(scores, manifest, tmp_path / "out", EvaluationOptions(repeats=20)).metrics[
        "overall"
    ]
    assert figures["auc"] is None
    assert figures["real_acc"] is not None
    assert figures["real_acc_ci"] is not None
    assert "one class only" in figures["note"]


def test_unknown_split(tmp_path: Path) -> None:
    scores, manifest = simulated(tmp_path, 50)
    with pytest.raises(ManifestError, match="split 'val'"):
        evaluate(scores, manifest, tmp_path / "out", EvaluationOptions(split="val"))


def test_intervals_by_source(tmp_path: Path) -> None:
    """Where whole sources score high or low, their draws deviate far more than those of images."""
    scores, manifest = simulated(tmp_path)
    table, source = pd.read_csv(scores), pd.read_csv(manifest)["source"]
    shifts = {name: 2 * np.sin(7 * i) for i, name in enumerate(sorted(set(source)))}
    table.assign(score=table["score"] + source.map(shifts)).to_csv(scores, index=False)
    width: dict[str, list[float]] = {}
    for by in ("image", "source"):
        options = EvaluationOptions(intervals=by, known=["gan"], repeats=200)
        figures = evaluate(scores, manifest, tmp_path / by, options).metrics
        assert f"drawn by {by}" in figures["intervals"]
        parts = figures["parts"]
        told = [figures["overall"], figures["by_generator"]["gan"], parts["known"], parts["unseen"]]
        width[by] = [np.ptp(part["auc_ci"]) for part in told]
        drawn = [parts[name]["drawn_by"] for name in ("known", "pairs", "worst_source")]
        assert drawn == [by, "image", "image"]
        page = (tmp_path / by / "report.md").read_text()
        (row,) = [line for line in page.splitlines() if "unseen generators" in line]
        assert f"by {by}" in row
    assert (np.array(width["source"]) > 1.5 * np.array(width["image"])).all()


def test_subsample_is_even_over_sources() -> None:
    table = pd.DataFrame({"source": ["a"] * 50 + ["b"] * 3 + ["c"] * 50})
    table["label"] = np.where(table["source"] == "c", "fake", "real")
    counts = subsample(table, 20)["source"].value_counts().to_dict()
    assert counts == {"a": 7, "b": 3, "c": 10}


def test_robustness_skips_unreadable_pictures(tmp_path: Path) -> None:
    from distildire.data.manifest import read_manifest

    manifest = pictures(tmp_path)
    (tmp_path / "ai0.png").unlink()
    changes = {"as it is": lambda rgb: rgb, **STABILITY}
    found = robustness(Brightness(), read_manifest(manifest), count=100, reencodings=changes)
    assert (found["n_real"], found["n_fake"]) == (6, 5)
    assert set(found["rows"]) == set(changes)


class Narrow(Brightness):
    """Sees pictures enlarged: those that would be too large then, it refuses."""

    bundle = SimpleNamespace(
        preprocessing=Preprocessing(crop=64, crops=1, short_side=512, enlarge=True)
    )

    def logit(self, rgb: RGB, *, alone: bool = True) -> float:
        return super().logit(self.bundle.preprocessing(rgb))


def test_a_picture_that_cannot_be_scored_costs_its_row_alone(tmp_path: Path) -> None:
    manifest = pictures(tmp_path)
    for name, width in (("ai0.png", 66_000), ("nature0.png", 12_000)):
        Image.new("RGB", (width, 32)).save(tmp_path / name)
    options = EvaluationOptions(accept_leak=True, robustness_count=12, heatmap_count=6, repeats=20)
    scores = evaluate(Narrow(), manifest, tmp_path / "out", options).scores
    errors = scores.set_index(scores["path"].map(lambda path: Path(path).name))["error"]
    assert "too long to re-encode" in errors.pop("ai0.png")
    assert "too narrow to judge" in errors.pop("nature0.png")
    assert set(errors) == {""}
    tree = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (tree["robustness"]["n_real"], tree["robustness"]["n_fake"]) == (5, 5)
    assert tree["heatmap"]["n"] == 5
    table = read_manifest(manifest)
    assert np.isnan(logits_of(Narrow(), table["path"].to_list())).sum() == 2


def test_scores_that_are_no_numbers_are_named_and_left_out(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model of half precision that overflows on bright pictures."""
    score_crops = Detector.score_crops

    def overflowing(self: Detector, crops: np.ndarray, *, alone: bool = True) -> np.ndarray:
        scores = score_crops(self, crops, alone=alone)
        return np.where(crops.mean(axis=(1, 2, 3)) > 160, np.inf, scores)

    monkeypatch.setattr(Detector, "score_crops", overflowing)
    manifest = pictures(tmp_path)
    options = EvaluationOptions(robustness_count=12, repeats=20)
    result = evaluate(Detector(bundle), manifest, tmp_path / "out", options)
    unscored = result.metrics["unscored"]
    assert 0 < unscored["count"] < 6
    assert {row["error"] for row in unscored["examples"]} == {"the model gives no number for it"}
    assert result.robustness is not None
    assert result.robustness["n_real"] == 6
    assert result.robustness["n_fake"] <= 6 - unscored["count"]
    logits = logits_of(Detector(bundle), read_manifest(manifest)["path"].to_list())
    assert np.isnan(logits).sum() == unscored["count"]


class Counting(Brightness):
    """Waits for another picture to be scored beside it."""

    def __init__(self) -> None:
        self.together = threading.Barrier(2, timeout=20)

    def logit(self, rgb: RGB, *, alone: bool = True) -> float:
        assert not alone
        self.together.wait()
        return super().logit(rgb)


@pytest.mark.skipif(usable_cores() < 2, reason="one core")
def test_each_core_scores_a_picture_and_the_order_stays(tmp_path: Path) -> None:
    table = read_manifest(pictures(tmp_path, count=4))
    one_by_one = [Brightness().logit(equalize(decode(path))) for path in table["path"]]
    assert logits_of(Counting(), table["path"].to_list()).tolist() == one_by_one
    scores = score_manifest(Counting(), table)
    assert scores.set_index("path").loc[table["path"], "logit"].tolist() == one_by_one


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = pictures(tmp_path), tmp_path / "out"
    options = EvaluationOptions(equalize="both", robustness_count=6, repeats=20)
    whole = evaluate(Detector(bundle), manifest, tmp_path / "whole", options)
    for module in ("scores", "robustness"):
        monkeypatch.setattr(f"distildire.evaluate.{module}.usable_cores", lambda: 1)
    left, asked = 20, 0
    logit = Detector.logit

    def counted(self: Detector, rgb: RGB, *, alone: bool = True) -> float:
        nonlocal asked
        if asked == left:
            raise KeyboardInterrupt
        asked += 1
        return logit(self, rgb, alone=alone)

    monkeypatch.setattr(Detector, "logit", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Detector(bundle), manifest, out, options)
    kept = out / "logits.jsonl"
    assert len(kept.read_text().splitlines()) == 1 + left
    with kept.open("a") as file:
        file.write('["half a li')
    asked, left = 0, -1
    again = evaluate(Detector(bundle), manifest, out, options)
    first = asked
    assert again.scores.equals(whole.scores)
    assert again.robustness == whole.robustness
    assert not kept.exists()
    asked = 0
    evaluate(Detector(bundle), manifest, out, options)
    assert asked == first + 20


def test_a_failure_after_scoring_costs_no_score(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = pictures(tmp_path), tmp_path / "out"

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distildire.evaluate.run.heatmap_check", fails)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Detector(bundle), manifest, out, EvaluationOptions(heatmap_count=2, repeats=20))

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(Detector, "logit", asked)
    with pytest.raises(ValueError, match="no generator begins with 'GANN'"):
        evaluate(Detector(bundle), manifest, out, EvaluationOptions(known=["GANN"], repeats=20))
    evaluate(Detector(bundle), manifest, out, EvaluationOptions(repeats=20))


def test_scores_of_a_file_answer_no_check_of_a_model(tmp_path: Path) -> None:
    manifest = pictures(tmp_path)
    table = read_manifest(manifest)
    given = tmp_path / "scores.CSV"
    table.assign(score=range(len(table)))[["path", "score"]].to_csv(given, index=False)
    with pytest.raises(ValueError, match="measured by a model"):
        evaluate(given, manifest, tmp_path / "out", EvaluationOptions(robustness_count=4))
    found = evaluate(given, manifest, tmp_path / "out", EvaluationOptions(repeats=20))
    assert len(found.scores) == len(table)


def test_logits_of_another_model_are_not_taken(tmp_path: Path, bundle: Path) -> None:
    detector, path = Detector(bundle), tmp_path / "logits.jsonl"
    rgb = np.full((64, 64, 3), 90, np.uint8)
    with keeping_logits(detector, path) as kept:
        first = kept.logit(rgb)
        lines = path.read_text().splitlines()
    about, (key, logit) = json.loads(lines[0]), json.loads(lines[1])
    assert logit == first
    assert about["model"] == detector.bundle.sha256
    for model, expected in ((about["model"], 7.5), ("another", first)):
        path.write_text(
            "".join(json.dumps(x) + "\n" for x in ({**about, "model": model}, [key, 7.5]))
        )
        with keeping_logits(detector, path) as kept:
            assert kept.logit(rgb) == expected
