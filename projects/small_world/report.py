"""From runs to a table, claims in words, plots and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Runs = Sequence[Mapping[str, Any]]

ALLOWED_LOSS = 0.02
"""AP that DistilDIRE may lie below DIRE."""

CEILING = 0.995
"""AP over which two methods can't be told apart by these pictures."""


def seed_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half width of its 95% interval over seeds by Student's t; None for one seed)."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, float(t.ppf(0.975, len(values) - 1)) * error


def table(runs: Runs, costs: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """One row per method: figures by family as [mean, half width], cost, symptoms seen."""
    rows = []
    for name in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == name]
        families = own[0]["scores"]
        rows.append(
            {
                "method": name,
                "seeds": len(own),
                **costs[name],
                "scores": {
                    family: {
                        figure: seed_interval([run["scores"][family][figure] for run in own])
                        for figure in families[family]
                    }
                    for family in families
                },
                "lambda": float(np.mean([run["lambda"] for run in own])),
                "seconds_a_step": float(np.mean([run["seconds_a_step"] for run in own])),
                "symptoms": sorted({symptom for run in own for symptom in run["symptoms"]}),
            }
        )
    return rows


def difference(runs: Runs, first: str, second: str, family: str = "fake") -> dict[str, Any] | None:
    """AP of `first` less that of `second`, by seed; None where either was not run.

    `family` is "fake" (the world's own), or "unseen": the mean over all the others. `ceiling`
    says that both rank almost every picture right, so that nothing can be told.
    """
    scores = {
        name: {run["seed"]: _ap(run, family) for run in runs if run["method"] == name}
        for name in (first, second)
    }
    seeds = sorted(scores[first].keys() & scores[second].keys())
    if not seeds:
        return None
    mean, half = seed_interval([scores[first][s] - scores[second][s] for s in seeds])
    lowest = min(float(np.mean(list(by_seed.values()))) for by_seed in scores.values())
    return {"first": first, "second": second, "family": family, "mean": mean, "half": half,
            "ceiling": lowest > CEILING}  # fmt: skip


def _ap(run: Mapping[str, Any], family: str) -> float:
    scores = run["scores"]
    if family != "unseen":
        return float(scores[family]["ap"])
    return float(np.mean([scores[name]["ap"] for name in scores if name != "fake"] or [np.nan]))


QUESTIONS = (
    ("DistilDIRE (DIRE to the teacher) is at most 0.02 AP below DIRE",
     "distildire-dire", "dire", -ALLOWED_LOSS),
    ("DistilDIRE (image to the teacher) is at most 0.02 AP below DIRE",
     "distildire-image", "dire", -ALLOWED_LOSS),
    ("distillation helps: DIRE to the teacher against no teacher",
     "distildire-dire", "no-distillation", 0.0),
    ("distillation helps: the image to the teacher against no teacher",
     "distildire-image", "no-distillation", 0.0),
    ("distillation helps: DIRE to the teacher at lambda 0.1 against no teacher",
     "lambda-0.1", "no-distillation", 0.0),
    ("distillation helps: DIRE to the teacher by KL against no teacher",
     "kl", "no-distillation", 0.0),
    ("the first-step noise adds to the image", "no-distillation", "image", 0.0),
    ("the image adds to the first-step noise", "no-distillation", "eps0", 0.0),
    ("DIRE is the better thing to show the teacher", "distildire-dire", "distildire-image", 0.0),
    ("lambda 1.0 beats 0.1", "distildire-dire", "lambda-0.1", 0.0),
    ("lambda 1.0 beats 0.5", "distildire-dire", "lambda-0.5", 0.0),
    ("a learned lambda beats 1.0", "lambda-adaptive", "distildire-dire", 0.0),
    ("the MSE of maps beats the KL of softened channels", "distildire-dire", "kl", 0.0),
    ("one joint network beats a branch for each input", "distildire-dire", "separate", 0.0),
)  # fmt: skip
"""(claim, method, other method, least difference of AP at which it holds)."""


def answers(runs: Runs) -> list[dict[str, Any]]:
    """Each question on the own fakes and on the unseen families.

    It holds, fails, or is open where the seeds can't tell or both are at the ceiling.
    """
    found = []
    for claim, first, second, least in QUESTIONS:
        for family in ("fake", "unseen"):
            gap = difference(runs, first, second, family)
            if gap is not None and np.isfinite(gap["mean"]):
                verdict = _verdict(gap, least)
                found.append({"claim": claim, **gap, "least": least, "verdict": verdict})
    return found


def _verdict(gap: Mapping[str, Any], least: float) -> str:
    mean, half = gap["mean"], gap["half"]
    if half is None:
        return "open: one seed only"
    if gap["ceiling"]:
        return f"open: both over AP {CEILING}"
    if mean - half > least:
        return "holds"
    return "fails" if mean + half < least else "open: within the spread of the seeds"


def save_report(
    found: dict[str, Any], out: Path, examples: Mapping[str, NDArray[np.uint8]]
) -> dict[str, Any]:
    """Write small-world.json, small-world.md and the plots; return what is in the JSON."""
    runs = found["runs"]
    result = {
        **{key: found[key] for key in ("config", "counts", "fakes")},
        "rows": table(runs, found["costs"]),
        "answers": answers(runs),
    }
    (out / "small-world.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "small-world.md").write_text(page(result))
    ap_plot(result["rows"], chance_ap(result["counts"])).savefig(out / "ap.png", dpi=120)
    strength_plot(runs).savefig(out / "strength.png", dpi=120)
    loss_plot(runs).savefig(out / "losses.png", dpi=120)
    example_plot(examples).savefig(out / "examples.png", dpi=120)
    return result


def chance_ap(counts: Mapping[str, int]) -> dict[str, float]:
    """AP of scores that know nothing, by family: the share of fakes among what is ranked."""
    real = counts["test-real"]
    return {
        name.removeprefix("test-"): count / (count + real)
        for name, count in counts.items()
        if name.startswith("test-") and name != "test-real"
    }


def page(result: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    rows = result["rows"]
    by_method = {row["method"]: row for row in rows}
    lines = [
        "# The small world", "",
        *_setting(result), "",
        "## Figures", "",
        *_method_rows(rows, chance_ap(result["counts"])), "",
        "![AP by method](ap.png)", "", "![AUC by strength](strength.png)", "",
        "## What holds", "",
        *_claims(result["answers"]), *_saved(by_method), "",
        "## Failure signatures", "",
        *_signatures(by_method), "",
        "![Losses](losses.png)", "", "![Pictures](examples.png)", "",
        "## Beware", "",
        "A generator of this size leaves coarser traces than any published one, and the "
        "published pictures were scaled down, which erases most of theirs. Rankings "
        "within this table say something of the method; the figures themselves say "
        "nothing of pictures at full size.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _setting(result: Mapping[str, Any]) -> list[str]:
    """What was trained, on what."""
    config, counts = result["config"], result["counts"]
    adm, student = config["adm"], config["student"]
    return [
        "The paper's claims, checked where a CPU can train everything: pictures of "
        f"{config['pictures']['side']} x {config['pictures']['side']} pixels.", "",
        f"- **Diffusion model**: ADM's UNet with {list(adm['channels'])} channels, trained for "
        f"{adm['steps']} steps of {adm['batch']} photographs.",
        f"- **Fakes**: {result['fakes']['train']} + {result['fakes']['test']} held-out "
        f"photographs, noised to {', '.join(f'{s:g}' for s in config['strengths'])} of the "
        f"schedule and sampled back in steps of {config['sampling_steps']} (SDEdit). A method "
        f"learns from {counts['train-real']} pairs and is judged on {counts['test-real']}.",
        "- **Unseen**: reconstructions by a variational (`vae`) and a vector-quantised (`vq`) "
        "autoencoder trained alike; published generators scaled down (`diffusion`, `gan`).",
        f"- **Budget**: every student ({student['backbone']}, from random weights) has "
        f"{student['steps']} steps of {student['batch']}; {len(student['seeds'])} seeds. All "
        "pictures end with the same JPEG pass.",
    ]  # fmt: skip


def _method_rows(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float]) -> list[str]:
    """One row per method, after what its columns are."""
    families = list(rows[0]["scores"])
    unseen = [family for family in families if family != "fake"]
    lines = [
        "Mean over the seeds, with the half width of its 95% interval (Student's t). AP of "
        "fakes against the test photographs; FLOPs and seconds are for one verdict. AP of scores "
        f"that know nothing: {', '.join(f'{f} {chance[f]:.3f}' for f in families)}.", "",
        f"| method | ACC | AP | {' | '.join(f'AP {u}' for u in unseen)} | FLOPs | seconds |",
        f"|---|{'--:|' * (len(unseen) + 4)}",
    ]  # fmt: skip
    for row in rows:
        scores = row["scores"]
        cells = [_number(scores["fake"]["acc"]), _number(scores["fake"]["ap"])]
        cells += [_number(scores[family]["ap"]) for family in unseen]
        cells += [f"{row['flops'] / 1e9:.2f} G", f"{row['seconds']:.4f}"]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return lines


def _claims(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row per question."""
    lines = ["| claim | on | difference of AP | |", "|---|---|--:|---|"]
    for answer in answers:
        gap = _number((answer["mean"], answer["half"]), sign=True)
        which = "own fakes" if answer["family"] == "fake" else "unseen"
        lines.append(f"| {answer['claim']} | {which} | {gap} | {answer['verdict']} |")
    return lines


def _saved(by_method: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What DistilDIRE costs beside DIRE, where both were run."""
    if not {"dire", "distildire-dire"} <= by_method.keys():
        return []
    base, ours = by_method["dire"], by_method["distildire-dire"]
    saved = 1.0 - ours["flops"] / base["flops"]
    faster = base["seconds"] / ours["seconds"]
    return ["", f"DistilDIRE saves {saved:.1%} of DIRE's FLOPs here and is {faster:.1f} times as "
            "fast."]  # fmt: skip


def _signatures(by_method: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The symptoms of every method, and where a learned lambda ended."""
    lines = [f"- {name}: {symptom}." for name, row in by_method.items()
             for symptom in row["symptoms"]] or ["None was seen."]  # fmt: skip
    if (learned := by_method.get("lambda-adaptive")) is not None:
        lines += ["", f"The learned lambda ended at {learned['lambda']:.3g}."]
    return lines


def _number(value: Sequence[float | None], *, sign: bool = False) -> str:
    mean, half = value
    text = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    return text if half is None else f"{text} ± {half:.3f}"


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def ap_plot(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float]) -> Any:
    """AP by method, one marker per family; dotted lines where uninformed scores lie."""
    figure = _figure(7.0, 1.4 + 0.32 * len(rows))
    ax = figure.subplots()
    for shift, family in enumerate(rows[0]["scores"]):
        values = [row["scores"][family]["ap"] for row in rows]
        bars = ax.errorbar(
            [mean for mean, _ in values], np.arange(len(rows)) + 0.12 * (shift - 2),
            xerr=[half or 0.0 for _, half in values], fmt="o", markersize=4, label=family,
        )  # fmt: skip
        ax.axvline(chance[family], linestyle=":", linewidth=0.8, color=bars[0].get_color())
    ax.set_yticks(np.arange(len(rows)), [row["method"] for row in rows])
    ax.set(xlabel="AP (95% interval over seeds; dotted: chance)", xlim=(0.0, 1.02))
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _styles(runs: Runs) -> dict[str, dict[str, Any]]:
    """A colour and a dash that are a method's own in every panel."""
    names = list(dict.fromkeys(run["method"] for run in runs))
    return {
        name: {"color": f"C{i % 10}", "linestyle": ("-", "--")[i // 10 % 2]}
        for i, name in enumerate(names)
    }


def strength_plot(runs: Runs) -> Any:
    """AUC against how far the photographs were noised."""
    figure = _figure(7.0, 4.0)
    ax = figure.subplots()
    for name, style in _styles(runs).items():
        own = [run["by_strength"] for run in runs if run["method"] == name]
        means = [float(np.mean([run[s] for run in own])) for s in own[0]]
        ax.plot([float(s) for s in own[0]], means, marker="o", label=name, **style)
    ax.set(xlabel="strength (share of the noise schedule)", ylabel="AUC")
    ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def loss_plot(runs: Runs) -> Any:
    """BCE and imitation apart, first seed of each method."""
    figure = _figure(9.0, 3.6)
    panels = figure.subplots(1, 2)
    for name, style in _styles(runs).items():
        run = next(run for run in runs if run["method"] == name)
        for ax, key in zip(panels, ("bce", "imitation"), strict=True):
            values = np.array([row[key] for row in run["history"]])
            if values.any():
                width = max(1, len(values) // 20)
                smooth = np.convolve(values, np.ones(width) / width, "valid")
                ax.plot(smooth, label=name, linewidth=1, **style)
    for ax, title in zip(panels, ("BCE", "imitation (MSE, or KL where named)"), strict=True):
        ax.set(title=title, xlabel="step", yscale="log")
    panels[0].legend(frameon=False, fontsize=6)
    return figure


def example_plot(sets: Mapping[str, NDArray[np.uint8]], count: int = 12) -> Any:
    """A row of pictures of each kind; reals and fakes are pairs."""
    figure = _figure(0.7 * count + 1.0, 0.75 * len(sets))
    panels = figure.subplots(len(sets), count, squeeze=False)
    for line, (name, pictures) in zip(panels, sets.items(), strict=True):
        for i, ax in enumerate(line):
            ax.set_xticks([])
            ax.set_yticks([])
            if i < len(pictures):
                ax.imshow(pictures[i])
        line[0].set_ylabel(name.removeprefix("test-"), fontsize=7)
    return figure
