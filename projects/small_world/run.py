"""The small world, stage by stage; each leaves a file, and a killed run goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from distildire.io.config import to_dict
from distildire.io.writing import whole_file, write_json
from distildire.noise import load_noise_source
from distildire.noise.source import NoiseSource
from small_world.config import WorldConfig, chosen
from small_world.generators import (
    Budget,
    Report,
    Vae,
    Vq,
    adm_network,
    ddpm_loss,
    diffusion_fakes,
    fit,
    from_pictures,
    reconstructions,
    save_adm,
)
from small_world.pictures import (
    Pictures,
    photographs,
    published_fakes,
    same_history,
)
from small_world.report import save_report
from small_world.students import Maps, Sets, cost, run_method

Arrays: TypeAlias = dict[str, NDArray[Any]]

DIRE_BATCH = 32


def small_world(config: WorldConfig, out: Path, report: Report | None = None) -> dict[str, Any]:
    """Make the world, compare the methods, write the page.

    Files in `out`: `pictures.npz`, the generators, `fakes.npz`, `maps-*.npz`,
    `runs/METHOD-SEED.json`, and at the end `small-world.json`, `small-world.md` and plots.

    Raises:
        ValueError: `out` was made with other options.
    """
    specs = chosen(config)
    out.mkdir(parents=True, exist_ok=True)
    _same_config(out / "config.json", config)
    side = config.pictures.side

    # Photographs --------------------------------------------------------------------------
    real = stage(out / "pictures.npz", lambda: dict(photographs(config.pictures)))
    published = stage(out / "published.npz", lambda: dict(published_fakes(config.pictures)))

    # Generators ---------------------------------------------------------------------------
    source = _diffusion(config, real["generator"], out, report)
    torch.manual_seed(1)
    codecs: dict[str, Vae | Vq] = {"vae": Vae(config.vae), "vq": Vq(config.vq)}
    for name, codec in codecs.items():
        how = config.vae if name == "vae" else config.vq
        budget = Budget(how.steps, how.batch, how.lr)
        fit(codec, codec.loss, real["generator"], out / f"{name}.pt", budget, report)

    # Fakes --------------------------------------------------------------------------------
    fakes = stage(out / "fakes.npz", lambda: _fakes(config, source, real))
    n, unseen = config.pictures.judged, config.pictures.unseen
    sets = {
        "train-real": real["train"], "train-fake": fakes["train"],
        "test-real": real["test"][:n], "test-fake": fakes["test"][:n],
        **{f"test-{k}": reconstructions(v, real["test"][:unseen]) for k, v in codecs.items()},
        **{f"test-{family}": pictures for family, pictures in published.items()},
    }  # fmt: skip
    maps = {
        name: _maps(source, same_history(pictures, config.pictures.quality),
                    config.sampling_steps, out / f"maps-{name}", report)
        for name, pictures in sets.items()
    }  # fmt: skip

    # Methods ------------------------------------------------------------------------------
    judged = Sets(
        train={name: maps[f"train-{name}"] for name in ("real", "fake")},
        tests={name[5:]: part for name, part in maps.items() if name.startswith("test-")},
        strengths=fakes["test_strength"][:n],
    )
    (out / "runs").mkdir(exist_ok=True)
    results = []
    for spec in specs:
        for seed in config.student.seeds[: spec.seeds or None]:
            file = out / "runs" / f"{spec.name}-{seed}.json"
            if not file.is_file():
                watch = _watch(f"{spec.name} {seed}", config.student.steps, report)
                write_json(file, run_method(spec, config.student, judged, seed, watch))
            results.append(json.loads(file.read_text()))
    costs = {spec.name: cost(spec, config.student, source, side) for spec in specs}
    found = {"config": to_dict(config), "costs": costs, "runs": results,
             "counts": {name: len(part) for name, part in maps.items()},
             "fakes": {"train": len(fakes["train"]), "test": len(fakes["test"])}}  # fmt: skip
    return save_report(found, out, {k: v for k, v in sets.items() if k.startswith("test-")})


def stage(file: Path, make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays in `file`, which `make` fills where it isn't there; whole or not at all."""
    if not file.is_file():
        arrays = dict(make())
        with whole_file(file) as whole:
            np.savez(whole, **arrays)  # type: ignore[arg-type]
    with np.load(file) as saved:
        return {name: saved[name] for name in saved.files}


def _diffusion(
    config: WorldConfig, pictures: Pictures, out: Path, report: Report | None
) -> NoiseSource:
    folder = out / "adm"
    how = config.adm
    if not (folder / "scheduler_config.json").is_file():
        torch.manual_seed(0)
        network = adm_network(how, config.pictures.side)
        budget = Budget(how.steps, how.batch, how.lr, how.ema)
        fit(network, ddpm_loss(network), pictures, out / "adm.pt", budget, report)
        save_adm(network, folder)
    return load_noise_source(folder)


def _fakes(config: WorldConfig, source: NoiseSource, real: Arrays) -> Arrays:
    arrays: Arrays = {}
    for seed, name in enumerate(("train", "test")):
        arrays[name], arrays[f"{name}_strength"] = diffusion_fakes(
            source, real[name], config.strengths, config.sampling_steps, seed
        )
    return arrays


def _maps(
    source: NoiseSource, pictures: Pictures, steps: int, place: Path, report: Report | None
) -> Maps:
    """eps0 and DIRE of every picture, in parts that are kept."""
    parts = []
    for start in range(0, len(pictures), DIRE_BATCH):
        x0 = from_pictures(pictures[start : start + DIRE_BATCH])

        def make(x0: torch.Tensor = x0) -> Arrays:
            dire = (source.dire(x0, steps) * 255.0).round().to(torch.uint8)
            return {"eps0": source.eps0(x0).half().numpy(), "dire": dire.numpy()}

        parts.append(stage(place.with_name(f"{place.name}-{start:05d}.npz"), make))
        if report is not None:
            report(place.name, min(start + DIRE_BATCH, len(pictures)), len(pictures), 0.0)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in ("eps0", "dire")}
    return Maps(pictures, joined["eps0"], joined["dire"])


def _watch(
    name: str, steps: int, report: Report | None
) -> Callable[[dict[str, float]], None] | None:
    if report is None:
        return None
    return lambda row: report(name, int(row["step"]), steps, row["loss"])


def _same_config(file: Path, config: WorldConfig) -> None:
    tree = to_dict(config)
    # Which methods and seeds are compared may grow: nothing that is on disk depends on it.
    keyed = {**tree, "student": {k: v for k, v in tree["student"].items() if k not in _GROWING}}
    if not file.is_file():
        write_json(file, keyed)
    elif (saved := json.loads(file.read_text())) != json.loads(json.dumps(keyed)):
        changed = [key for key in keyed if saved.get(key) != json.loads(json.dumps(keyed[key]))]
        raise ValueError(
            f"{file.parent} was made with other options ({', '.join(changed)}): give another --out"
        )


_GROWING = ("methods", "seeds")
