"""How far the image detector carries to video: clips made of labelled pictures, by H.264 quality.

    python benchmarks/video_quality.py MANIFEST --config configs/probe.yaml --out DIR

Pictures come from the sources that the config holds out (`val_sources`), as many of each
class, spread over the sources. Each becomes clips of two seconds in which a window pans over
it or zooms into it, encoded by x264 at each quality. Compared are the AUC of the clips'
verdicts and that of the same pictures as they are; in pairs it is the mean over the origins
(column `repository`, else `source`) that hold both classes. The rank correlation of a clip's
score with its picture's tells how far the score carries, whatever it is worth. Writes
video.json and a table, video.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from distildire import Detector
from distildire.data.manifest import FAKE, read_manifest
from distildire.data.ranking import pair_auc
from distildire.io.pictures import RGB, decode
from distildire.video.judge import judge_video

FPS, SECONDS = 12, 2.0
MARGIN = 0.12
"""Share of the shorter side that a pan crosses, or a zoom leaves out at its end."""


def pick(table: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """`count` pictures of each class, taken from the sources in turn."""
    shuffled = table.sample(frac=1.0, random_state=seed)
    turn = shuffled.groupby(["label", "source"]).cumcount()
    ordered = shuffled.assign(turn=turn).sort_values(["turn", "source", "path"])
    return ordered.groupby("label").head(count).sort_values("path")


def frames_of(rgb: RGB, zoom: bool) -> Iterator[RGB]:
    """A window that pans in whole pixels, or zooms with resampling; sides are even."""
    height, width = rgb.shape[:2]
    margin = round(MARGIN * min(height, width))
    size = ((width - margin) // 2 * 2, (height - margin) // 2 * 2)
    for k in range(round(FPS * SECONDS)):
        part = k / (FPS * SECONDS - 1)
        if zoom:
            cut = part * margin / 2
            box = (cut, cut * height / width, width - cut, height - cut * height / width)
            resample = Image.Resampling.BICUBIC
            yield np.asarray(Image.fromarray(rgb).resize(size, resample, box=box))
        else:
            shift = round(part * margin)
            yield np.ascontiguousarray(rgb[shift : shift + size[1], shift : shift + size[0]])


def write_clip(path: Path, frames: Sequence[RGB], crf: int) -> None:
    """Encode as H.264, with x264's own choices but for the quality."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": str(crf)})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for k, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def score(
    detector: Detector, table: pd.DataFrame, qualities: Sequence[int], frames: int
) -> pd.DataFrame:
    """One row per picture: its label, motion, logit, and the logit of its clip at each quality."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        origins = table.get("repository", table["source"])
        for i, (path, label, origin) in enumerate(
            zip(table["path"], table["label"], origins, strict=True)
        ):
            rgb = decode(path)
            zoom = i % 2 == 1
            row: dict[str, Any] = {
                "path": path,
                "origin": origin,
                "fake": label == FAKE,
                "zoom": zoom,
            }
            row["picture"] = detector.logit(rgb)
            moving = list(frames_of(rgb, zoom))
            for crf in qualities:
                write_clip(clip, moving, crf)
                verdict = judge_video(detector, clip, frames=frames)
                if verdict.error:
                    raise ValueError(f"{path} at {crf}: {verdict.error}")
                row[f"crf {crf}"] = verdict.logit
                row[f"bytes at crf {crf}"] = clip.stat().st_size
            rows.append(row)
            print(f"{i + 1}/{len(table)}", end="\r", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def interval(
    fake: NDArray[np.bool_], logits: NDArray[np.float64], draws: int = 1000
) -> tuple[float, float]:
    """95% bootstrap interval of the AUC over pictures."""
    rng, values = np.random.default_rng(0), []
    while len(values) < draws:
        chosen = rng.integers(0, len(fake), len(fake))
        if 0 < fake[chosen].sum() < len(fake):
            values.append(roc_auc_score(fake[chosen], logits[chosen]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def summary(
    detector: Detector, scores: pd.DataFrame, qualities: Sequence[int]
) -> list[dict[str, Any]]:
    """AUC with its interval, all and by motion, and what verdicts come out, for each quality.

    In pairs one clip of each class is enough, where a report of pictures asks for five.
    """
    fake = scores["fake"].to_numpy(bool)
    rows = []
    for name in ("picture", *(f"crf {crf}" for crf in qualities)):
        logits = scores[name].to_numpy(float)
        called = np.array([detector.verdict_of(value)[1] == "fake" for value in logits])
        row = {"as": name, "auc": roc_auc_score(fake, logits), "auc_ci": interval(fake, logits)}
        row["auc_pairs"], _ = pair_auc(fake, logits, scores["origin"], min_class=1)
        row["rank_correlation"] = scores[name].corr(scores["picture"], method="spearman")
        for motion, chosen in (("pan", ~scores["zoom"]), ("zoom", scores["zoom"])):
            mask = chosen.to_numpy(bool)
            row[f"auc_{motion}"] = roc_auc_score(fake[mask], logits[mask])
        row |= {"reals_called_fake": called[~fake].mean(), "fakes_called_fake": called[fake].mean()}
        row |= {"median_real": np.median(logits[~fake]), "median_fake": np.median(logits[fake])}
        if name != "picture":
            row["median_kilobytes"] = scores[f"bytes at {name}"].median() / 1000
        rows.append({k: v if isinstance(v, str | tuple) else float(v) for k, v in row.items()})
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| scored as | AUC (95%) | in pairs | pans | zooms | rank correlation | reals called fake "
        "| fakes called fake | kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["auc_ci"]
        size = f"{row['median_kilobytes']:.0f}" if "median_kilobytes" in row else ""
        lines.append(
            f"| {row['as']} | {row['auc']:.3f} ({low:.2f}-{high:.2f}) | {row['auc_pairs']:.3f} | "
            f"{row['auc_pan']:.3f} | {row['auc_zoom']:.3f} | {row['rank_correlation']:.2f} | "
            f"{row['reals_called_fake']:.1%} | {row['fakes_called_fake']:.1%} | {size} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--config", type=Path, help="take only its data.val_sources")
    parser.add_argument("--split", default="", help="take only this split")
    parser.add_argument("--count", type=int, default=100, help="pictures of each class")
    parser.add_argument("--crf", type=int, nargs="+", default=[18, 23, 28, 35])
    parser.add_argument("--frames", type=int, default=12, help="scored of each clip at most")
    options = parser.parse_args()
    table = read_manifest(options.manifest)
    if options.split:
        table = table[table["split"] == options.split]
    if options.config:
        held_out = yaml.safe_load(options.config.read_text())["data"]["val_sources"]
        table = table[table["source"].isin(held_out)]
    table = pick(table, options.count)
    detector = Detector(options.model)
    scores = score(detector, table, options.crf, options.frames)
    rows = summary(detector, scores, options.crf)
    about = {
        "model": detector.name, "sha256": detector.bundle.sha256, "frames": options.frames,
        "n_real": int((~scores["fake"]).sum()), "n_fake": int(scores["fake"].sum()),
        "sources": sorted(table["source"].unique()), "rows": rows,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "video.json").write_text(json.dumps(about, indent=1) + "\n")
    (options.out / "video.md").write_text(table_of(rows))
    print(f"{about['n_real']} real, {about['n_fake']} fake\n\n{table_of(rows)}")


if __name__ == "__main__":
    main()
