from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from small_world.config import METHODS, PicturesConfig, WorldConfig, chosen
from small_world.generators import (
    Budget,
    Vae,
    fit,
    from_pictures,
    noising_level,
    sdedit,
    to_pictures,
)
from small_world.pictures import photographs
from small_world.report import (
    answers,
    ap_plot,
    chance_ap,
    loss_plot,
    seed_interval,
    strength_plot,
)
from small_world.run import small_world

from distildire.io.config import build, load_config
from distildire.noise.schedule import linear_alpha_bar, sample

SIDE = 64


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty originals of two crops each, and fakes of two families."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        rgb = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        rgb[0, 0] = i // 2  # an original's crops are told by their corner
        Image.fromarray(rgb).resize((72, 80), 0).save(folder / f"r{i}.png")
        rows.append([f"r{i}.png", "real", "photos", f"original{i // 2}"])
    for i, source in enumerate(["sd1__a", "stylegan2_b"] * 3):
        Image.fromarray(rng.integers(0, 256, (66, 70, 3), dtype=np.uint8)).save(
            folder / f"f{i}.png"
        )
        rows.append([f"f{i}.png", "fake", source, f"f{i}"])
    table = pd.DataFrame(rows, columns=["path", "label", "source", "original_path"])
    table.assign(split="train").to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_no_original_is_in_two_parts(manifest: Path) -> None:
    config = PicturesConfig(str(manifest), train=6, test=5, side=SIDE)
    parts = photographs(config)
    assert {name: len(part) for name, part in parts.items()} == {
        "generator": 18, "train": 6, "test": 5,
    }  # fmt: skip
    corners = {name: set(part[:, 0, 0, 0].tolist()) for name, part in parts.items()}
    assert sum(map(len, corners.values())) == len(set.union(*corners.values())) == 20
    with pytest.raises(ValueError, match="too few"):
        photographs(PicturesConfig(str(manifest), train=15, test=6))


def test_sdedit_from_pure_noise_is_sampling() -> None:
    alpha_bar = linear_alpha_bar()

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.3 * x_t + 0.001 * t[:, None, None, None]

    torch.manual_seed(0)
    noise, x0 = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 8, 8) * 2 - 1
    level = float(alpha_bar[950])
    start = level**0.5 * x0 + (1 - level) ** 0.5 * noise
    whole = sdedit(predict, x0, alpha_bar, 20, 20, noise)
    torch.testing.assert_close(whole, sample(predict, start, alpha_bar, 20))


def test_sdedit_with_the_true_noise_gives_the_picture_back() -> None:
    torch.manual_seed(1)
    noise, x0 = torch.randn(1, 3, 8, 8), torch.rand(1, 3, 8, 8) * 1.8 - 0.9
    for strength in (0.05, 0.5, 1.0):
        count = noising_level(strength, 20)
        again = sdedit(lambda x_t, t: noise, x0, linear_alpha_bar(), count, 20, noise)
        torch.testing.assert_close(again, x0, atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="strength"):
        noising_level(0.0, 20)


def test_pictures_survive_the_way_there_and_back() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    assert (to_pictures(from_pictures(pictures)) == pictures).all()


def test_a_broken_off_training_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    config = build(WorldConfig, {"vae": {"width": 8, "latent": 4}}).vae

    def run(name: str, stop: int | None = None) -> dict[str, torch.Tensor]:
        def report(stage: str, done: int, total: int, loss: float) -> None:
            if done == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        codec = Vae(config)
        budget = Budget(steps=104, batch=2, lr=1e-3, ema=0.9)
        fit(codec, codec.loss, pictures, tmp_path / name, budget, report)
        return codec.state_dict()

    whole = run("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run("broken.pt", stop=103)
    again = run("broken.pt")
    assert all(torch.allclose(whole[key], again[key], atol=1e-6) for key in whole)


def test_intervals_over_seeds_are_students() -> None:
    mean, half = seed_interval([0.8, 0.9, 1.0])
    assert mean == pytest.approx(0.9)
    assert half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)
    assert seed_interval([0.5]) == (0.5, None)


def test_answers_hold_fail_or_stay_open() -> None:
    def run(method: str, seed: int, ap: float) -> dict[str, object]:
        scores = {"fake": {"ap": ap}, "vae": {"ap": 0.999}, "gan": {"ap": 0.997}}
        return {"method": method, "seed": seed, "scores": scores}

    runs = [
        *(run("dire", s, 0.90 + 0.001 * s) for s in range(3)),
        *(run("distildire-dire", s, 0.89 + 0.001 * s) for s in range(3)),
        *(run("distildire-image", s, 0.70 + 0.002 * s) for s in range(3)),
        *(run("no-distillation", s, ap) for s, ap in enumerate((0.80, 0.99, 0.90))),
    ]
    found = {(a["first"], a["second"], a["family"]): a["verdict"] for a in answers(runs)}
    assert found["distildire-dire", "dire", "fake"] == "holds"
    assert found["distildire-image", "dire", "fake"] == "fails"
    assert found["distildire-dire", "no-distillation", "fake"].endswith("spread of the seeds")
    assert found["distildire-dire", "dire", "unseen"] == "open: both over AP 0.995"


def test_chance_is_the_ap_of_random_scores() -> None:
    chance = chance_ap({"train-real": 9, "test-real": 150, "test-fake": 150, "test-vae": 60})
    assert chance.keys() == {"fake", "vae"}
    rng = np.random.default_rng(0)
    for family, fakes in (("fake", 150), ("vae", 60)):
        labels = np.arange(150 + fakes) < fakes
        drawn = [average_precision_score(labels, rng.random(len(labels))) for _ in range(500)]
        # Average precision of finite samples lies a little above the share.
        assert chance[family] == pytest.approx(np.mean(drawn), abs=0.02)


def test_plots_show_every_method_apart_and_alike_in_each_panel() -> None:
    # The first imitates nothing, and so is in one panel only.
    runs = [
        {
            "method": spec.name,
            "by_strength": {"0.1": 0.6, "0.4": 0.7},
            "history": [{"bce": 0.6, "imitation": float(bool(spec.teacher))}] * 30,
        }
        for spec in METHODS
    ]
    bce, imitation = loss_plot(runs).axes
    seen = [
        {line.get_label(): (line.get_color(), line.get_linestyle()) for line in ax.lines}
        for ax in (bce, imitation, strength_plot(runs).axes[0])
    ]
    assert seen[0] == seen[2]
    assert len(set(seen[0].values())) == len(METHODS)
    assert seen[1] == {spec.name: seen[0][spec.name] for spec in METHODS if spec.teacher}


def test_no_ap_falls_out_of_the_plot() -> None:
    rows = [{"method": "dire", "scores": {"fake": {"ap": (0.6, 0.1)}, "vq": {"ap": (0.05, None)}}}]
    ax = ap_plot(rows, {"fake": 0.5, "vq": 0.286}).axes[0]
    assert ax.get_xlim()[0] <= 0.0
    assert ax.get_xlim()[1] >= 1.0


def test_methods_are_named() -> None:
    assert chosen(WorldConfig()) == list(METHODS)
    picked = build(WorldConfig, {"student": {"methods": ["kl", "dire"]}})
    assert [spec.name for spec in chosen(picked)] == ["dire", "kl"]
    with pytest.raises(ValueError, match="magic unknown"):
        chosen(build(WorldConfig, {"student": {"methods": ["magic"]}}))


@pytest.mark.slow
def test_every_stage_at_the_smallest_size(manifest: Path, tmp_path: Path) -> None:
    smoke = Path(__file__).parents[2] / "projects/small_world/smoke.yaml"
    changes = [
        f"pictures.manifest={manifest}", "pictures.train=8", "pictures.test=4",
        "pictures.judged=3", "pictures.unseen=2", "sampling_steps=2", "student.seeds=[0, 1]",
        "student.teacher=resnet18", "student.teacher_stage=2", "student.teacher_pretrained=false",
    ]  # fmt: skip
    config = load_config(WorldConfig, smoke, changes)
    result = small_world(config, tmp_path / "out")
    rows = {row["method"]: row for row in result["rows"]}
    assert set(rows) == set(config.student.methods)
    assert set(rows["dire"]["scores"]) == {"fake", "vae", "vq", "diffusion", "gan"}
    assert rows["dire"]["flops"] > 30 * rows["distildire-dire"]["flops"]
    page = (tmp_path / "out/small-world.md").read_text()
    assert "What holds" in page
    # Nothing is made twice: what is there is taken as it is.
    for seed in (0, 1):
        file = tmp_path / f"out/runs/dire-{seed}.json"
        kept = json.loads(file.read_text())
        kept["scores"]["fake"]["ap"] = 0.125
        file.write_text(json.dumps(kept))
    again = small_world(config, tmp_path / "out")
    assert {r["method"]: r["scores"]["fake"]["ap"] for r in again["rows"]}["dire"] == (0.125, 0.0)
    with pytest.raises(ValueError, match="other options \\(adm\\)"):
        small_world(load_config(WorldConfig, smoke, [*changes, "adm.steps=7"]), tmp_path / "out")
