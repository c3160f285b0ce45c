"""`distildire detect`: verdicts for pictures, videos and folders."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from distildire.cli.app import (
    DeviceName,
    DeviceOption,
    Format,
    FprOption,
    KindOption,
    ModelOption,
    app,
    fail,
    missing_extra,
    say_device,
    with_counter,
)

if TYPE_CHECKING:
    from distildire.detector import Detector
    from distildire.verdict import Verdict


@app.command()
def detect(
    paths: Annotated[list[str], typer.Argument(help="Pictures, videos, and folders of them.")],
    model: ModelOption = "nano",
    format: Annotated[Format, typer.Option(help="How the results are written.")] = Format.table,
    out: Annotated[
        Path | None, typer.Option(help="Write the results to this file, not to stdout.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out FILE: skip what it holds already.")
    ] = False,
    fpr: FprOption = 0.01,
    kind: KindOption = None,
    sort: Annotated[bool, typer.Option("--sort", help="Most likely fakes first.")] = False,
    stability: Annotated[
        bool,
        typer.Option("--stability", help="Score re-encoded copies too; 'unsure' where it flips."),
    ] = False,
    heatmap: Annotated[
        Path | None, typer.Option(help="Write where the score comes from, as PNG, into DIR.")
    ] = None,
    device: DeviceOption = DeviceName.cpu,
) -> None:
    """Judge pictures: real, fake or unsure, with a calibrated probability of fake.

    The probability assumes equal shares of real and fake pictures. Exit code 0: every file
    was scored; 1: at least one could not be; 2: wrong usage.
    """
    from distildire.detector import Detector
    from distildire.io.finding import find_files
    from distildire.io.results import resume_jsonl, write_csv, write_jsonl, write_table
    from distildire.verdict import COLUMNS

    if resume and (out is None or format is not Format.jsonl or sort):
        fail("--resume goes with --format jsonl --out FILE, and not with --sort")
    if out is not None and not out.parent.is_dir():
        fail(f"--out {out}: no such folder {out.parent}")
    detector = Detector(model, fpr=fpr, kind=kind, device=device.value)
    say_device(detector, device)
    errors = 0

    def folder_failed(message: str) -> None:
        nonlocal errors
        errors += 1
        typer.echo(f"distildire: cannot list {message}", err=True)

    done = resume_jsonl(out) if resume and out is not None else set()
    files = (p for p in find_files(paths, folder_failed) if p not in done)

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal errors
        judged = 0
        for row in with_counter(judge(detector, files, fpr, stability, heatmap), "pictures"):
            judged += 1
            errors += row["error"] is not None
            yield row
        if not judged and not done:
            typer.echo("distildire: no pictures found", err=True)

    results: Iterable[dict[str, Any]] = rows()
    if sort:
        results = fakes_first(results)
    with output(out, append=resume) as file:
        if format is Format.jsonl:
            write_jsonl(results, file)
        elif format is Format.csv:
            write_csv(results, COLUMNS, file)
        else:
            caution = f" {detector.bundle.heatmap_note}" if heatmap else ""
            write_table(results, file, _note(detector, fpr) + caution)
    raise typer.Exit(1 if errors else 0)


def fakes_first(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Sort by probability, errors last, the order of the files where it is equal."""
    # As text: a hundred thousand rows take 50 MB, and as dictionaries three times as much.
    kept = [
        (row["probability"] is None, -(row["probability"] or 0.0), i, json.dumps(row))
        for i, row in enumerate(rows)
    ]
    kept.sort()
    return (json.loads(text) for *_, text in kept)


def judge(
    detector: Detector, files: Iterable[str], fpr: float, stability: bool, heatmap: Path | None
) -> Iterator[dict[str, Any]]:
    """Rows of the results in the order of the files, pictures and videos alike."""
    from distildire.io.finding import is_video

    for video, group in itertools.groupby(files, is_video):
        if video:
            yield from (_judge_video(detector, path, fpr) for path in group)
            continue
        for verdict in detector.stream(group, fpr):
            row = verdict.to_dict()
            if verdict.error is None and (stability or heatmap):
                row |= _look_closer(detector, verdict, fpr, stability, heatmap)
            yield row


def _judge_video(detector: Detector, path: str, fpr: float) -> dict[str, Any]:
    try:
        from distildire.video.judge import judge_video

        return judge_video(detector, path, fpr=fpr).to_dict()
    except ModuleNotFoundError as error:
        message = missing_extra(error)
    except ValueError as error:
        message = str(error)
    return detector.not_scored(path, message, fpr=fpr).to_dict()


def _look_closer(
    detector: Detector, verdict: Verdict, fpr: float, stability: bool, heatmap: Path | None
) -> dict[str, Any]:
    """Stability and heat map of one picture that was scored."""
    from distildire.io.pictures import decode

    rgb = decode(verdict.path)
    extra: dict[str, Any] = {}
    if stability:
        from distildire.explain.stability import stability as check

        found = check(detector, rgb, fpr=fpr)
        extra = {"verdict": found.verdict, "stability": found.to_dict()}
    if heatmap is not None:
        from distildire.explain.heatmap import heat_of, save_heatmap

        target = heatmap / f"{Path(verdict.path).stem}-{(verdict.sha256 or '')[:8]}.png"
        note = detector.bundle.heatmap_note
        save_heatmap(target, rgb, heat_of(detector, rgb), note)
        extra |= {"heatmap": str(target), "heatmap_note": note}
    return extra


def _note(detector: Detector, fpr: float) -> str:
    calibration = detector.bundle.calibration
    images = f"{calibration.n_real} real and {calibration.n_fake} fake" if calibration else "no"
    data = f" ({calibration.data})" if calibration and detector.kind else ""
    return (
        f"Model {detector.name}. P(fake) assumes equal shares of real and fake pictures. Verdicts "
        f"at an error budget of {fpr:.0%}, from {images} held-out pictures{data}; a verdict is a "
        "reason to look closer, not a proof."
    )


class output:  # noqa: N801 - reads as a function
    """stdout, or a file that is opened when the first result is there to be written."""

    def __init__(self, path: Path | None, *, append: bool = False) -> None:
        self.path, self.mode = path, "a" if append else "w"
        self.file: IO[str] = sys.stdout

    def __enter__(self) -> IO[str]:
        if self.path is not None:
            self.file = self.path.open(self.mode, encoding="utf-8")
        return self.file

    def __exit__(self, *_: object) -> None:
        if self.path is not None:
            self.file.close()
