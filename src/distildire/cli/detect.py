"""`distildire detect`: verdicts for pictures, videos and folders."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from distildire.cli.app import (
    STDIN,
    DeviceName,
    DeviceOption,
    Format,
    FprOption,
    KindOption,
    ModelOption,
    app,
    fail,
    missing_extra,
    read_stdin,
    say_device,
    say_kind,
    warn,
    with_counter,
)
from distildire.cli.targets import but_heatmaps, file_to_write, format_of, refuse_pictures_in

if TYPE_CHECKING:
    from distildire.detector import Detector
    from distildire.io.resuming import Held

Row = dict[str, Any]


@app.command()
def detect(
    paths: Annotated[
        list[str],
        typer.Argument(help="Pictures, videos, and folders of them; - is a picture on stdin."),
    ],
    model: ModelOption = "nano",
    format: Annotated[
        Format | None,
        typer.Option(help="How the results are written; as --out ends by default, else a table."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the results to this file, not to stdout.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with --out FILE: skip what it holds, but for errors and "
            "files that were replaced.",
        ),
    ] = False,
    fpr: FprOption = 0.01,
    kind: KindOption = None,
    sort: Annotated[bool, typer.Option("--sort", help="Most likely fakes first.")] = False,
    stability: Annotated[
        bool,
        typer.Option(
            "--stability",
            help="Score re-encoded copies of pictures too; 'unsure' where it flips.",
        ),
    ] = False,
    heatmap: Annotated[
        Path | None,
        typer.Option(help="Write where a picture's score comes from, as PNG, into DIR."),
    ] = None,
    device: DeviceOption = DeviceName.cpu,
) -> None:
    """Judge pictures: real, fake or unsure, with a calibrated probability of fake.

    The probability assumes equal shares of real and fake pictures. Exit code 0: every file
    was scored; 1: at least one could not be; 2: wrong usage.
    """
    from distildire.io.finding import find_files
    from distildire.io.results import output
    from distildire.io.resuming import Held

    format = format or format_of(out)
    if resume and (out is None or format is not Format.jsonl or sort or STDIN in paths):
        fail("--resume goes with --format jsonl --out FILE, and not with --sort or -")
    if out is not None:
        out = file_to_write(out, paths)
    if heatmap is not None:
        refuse_pictures_in(heatmap, paths)
    asked = Asked(fpr, stability, heatmap)
    detector = _opened(model, kind, device, asked)
    tally = _Tally()
    with _alone(out):
        files = but_heatmaps(find_files(paths, tally.folder_failed), paths, heatmap)
        held = Held()
        if resume and out is not None:
            held = _taken_up(out, paths, detector, asked, tally)
            files = _once(files, lambda _, name: name not in held.done and name not in held.failed)
        rows = _judged(detector, asked, files)
        results = tally.count(rows, none=not held.done and not held.failed)
        if sort:
            results = fakes_first(results)
        with output(out, lines=format is Format.jsonl, append=resume) as file:
            _write(results, file, format, detector, asked)
    raise typer.Exit(1 if tally.errors else 0)


@dataclass(frozen=True)
class Asked:
    """What is asked of each file."""

    fpr: float
    stability: bool
    heatmap: Path | None

    @property
    def more(self) -> bool:
        """Whether more than a verdict is asked."""
        return self.stability or self.heatmap is not None

    @property
    def columns(self) -> list[str]:
        """Those of a CSV that are added to those of a verdict."""
        checked = ["flips", "stable"] if self.stability else []
        return checked + ["heatmap"] * (self.heatmap is not None)


def _opened(model: str, kind: str | None, device: DeviceName, asked: Asked) -> Detector:
    """The detector; one that can't give what is asked is refused before anything is written."""
    from distildire.detector import Detector

    detector = Detector(model, fpr=asked.fpr, kind=kind, device=device.value)
    detector.verdict_of(0.0)  # refuses a model that isn't calibrated
    say_device(detector, device)
    say_kind(detector)
    calibration = detector.bundle.calibration
    if calibration is not None and (remark := calibration.remark(asked.fpr)):
        warn(f"--fpr: {remark}")
    if asked.heatmap is not None:
        if "cam" not in detector.graph_outputs:
            fail(f"--heatmap: the model {detector.given} has no activation map")
        if asked.heatmap.exists() and not asked.heatmap.is_dir():
            fail(f"--heatmap {asked.heatmap}: a file has this name: give a folder")
    return detector


def _alone(out: Path | None) -> contextlib.AbstractContextManager[None]:
    """Be the one writer of `out`, where that is a file."""
    from distildire.io.writing import only_writer

    if out is not None and (out.is_file() or not out.exists()):
        return only_writer(out)
    return contextlib.nullcontext()


def _write(
    results: Iterable[Row], file: IO[str], format: Format, detector: Detector, asked: Asked
) -> None:
    from distildire.io.results import write_csv, write_jsonl, write_table
    from distildire.verdict import COLUMNS

    if format is Format.jsonl:
        write_jsonl(results, file)
    elif format is Format.csv:
        kind = ["kind"] * (detector.kind is not None)
        write_csv(map(_flat, results), (*COLUMNS, *kind, *asked.columns), file)
    else:
        write_table(results, file, _note(detector, asked.fpr))


class _Tally:
    """Counts what has no score."""

    errors = 0

    def folder_failed(self, message: str) -> None:
        self.errors += 1
        warn(f"cannot list {message}")

    def count(self, rows: Iterable[Row], *, none: bool) -> Iterator[Row]:
        for row in rows:
            none = False
            self.errors += row["error"] is not None
            yield row
        if none:
            warn("no pictures found")


def _taken_up(out: Path, paths: list[str], detector: Detector, asked: Asked, tally: _Tally) -> Held:
    """What `out` holds of an earlier run.

    Files whose row has an error, and those that were replaced, are judged anew first. Errors of
    files that this run doesn't ask for stay, and don't count.
    """
    from distildire.cli.earlier_rows import Making
    from distildire.io.finding import find_files
    from distildire.io.resuming import held_by, replace_rows, was_replaced
    from distildire.io.text import stored

    made_with = {"model_sha256": detector.bundle.sha256, "fpr": asked.fpr}
    making = Making(
        detector, asked.fpr, stability=asked.stability, heatmap=asked.heatmap is not None
    )
    held = held_by(out, made_with, making.differs)
    again = _once(
        find_files(paths), lambda path, name: name in held.failed or was_replaced(path, held)
    )
    judged = tally.count(_judged(detector, asked, again), none=False)
    replace_rows(out, held, map(stored, judged))
    return held


def _flat(row: Row) -> Row:
    """A row for a CSV: of its stability, what changes the verdict, and whether anything does.

    Both cells are empty where nothing was checked.
    """
    checked = row.get("stability")
    if checked is None:
        return row
    flips = "; ".join(checked["flips"])
    return row | {"flips": flips, "stable": "true" if checked["stable"] else "false"}


def _once(files: Iterable[str], wanted: Callable[[str, str], bool]) -> Iterator[str]:
    """The files that are wanted by their path, and by their name as rows have it; each once."""
    from distildire.io.text import storable

    seen: set[str] = set()
    for path in files:
        name = storable(path)
        if name not in seen and wanted(path, name):
            seen.add(name)
            yield path


def fakes_first(rows: Iterable[Row]) -> Iterator[Row]:
    """Sort by probability, errors last, the order of the files where it is equal."""
    # As text: a hundred thousand rows take 50 MB, and as dictionaries three times as much.
    kept = [
        (row["probability"] is None, -(row["probability"] or 0.0), i, json.dumps(row))
        for i, row in enumerate(rows)
    ]
    kept.sort()
    return (json.loads(text) for *_, text in kept)


def _judged(detector: Detector, asked: Asked, files: Iterable[str]) -> Iterator[Row]:
    """Rows of the results in the order of the files, with a counter."""
    thresholds = {} if detector.kind is None else {"kind": detector.thresholds_of}
    rows = (row | thresholds for row in _judge(detector, asked, files))
    return with_counter(rows, "pictures")


def _judge(detector: Detector, asked: Asked, files: Iterable[str]) -> Iterator[Row]:
    told = False
    for kind, group in itertools.groupby(files, _kind_of):
        if kind == "video":
            if asked.more and not told:
                told = True
                warn("--stability and --heatmap are not for videos, which get a verdict alone")
            yield from (_judge_video(detector, path, asked.fpr) for path in group)
        elif kind == "stdin":
            for _ in group:
                yield _judge_stdin(detector, asked)
        elif asked.more:
            yield from (_examined(detector, path, asked) for path in group)
        else:
            yield from (verdict.to_dict() for verdict in detector.stream(group, asked.fpr))


def _judge_stdin(detector: Detector, asked: Asked) -> Row:
    from distildire.io.pictures import ImageError

    try:
        data = read_stdin()
    except ImageError as error:
        return detector.not_scored(STDIN, str(error), fpr=asked.fpr).to_dict()
    return _examined(detector, data, asked)


def _kind_of(path: str) -> str:
    from distildire.io.finding import is_video

    return "stdin" if path == STDIN else "video" if is_video(path) else "picture"


def _judge_video(detector: Detector, path: str, fpr: float) -> Row:
    from distildire.bundle import BundleError

    try:
        from distildire.video.judge import judge_video

        return judge_video(detector, path, fpr=fpr).to_dict()
    except ModuleNotFoundError as error:
        message = missing_extra(error)
    except MemoryError:
        message = "too large to judge in the memory at hand"
    except BundleError:  # a device that failed is every file's
        raise
    except ValueError as error:
        message = str(error)
    return detector.not_scored(path, message, fpr=fpr).to_dict()


_OF_A_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
"""What a file system says to a name that it can't hold."""


def _examined(detector: Detector, source: str | bytes, asked: Asked) -> Row:
    """The row of a path, or of what came on stdin, with stability and heat map as asked."""
    from distildire.bundle import BundleError
    from distildire.loading import what_is_wrong

    loaded = detector.load(source, name=STDIN, keep=asked.more)
    verdict = detector.judge([loaded], [asked.fpr])[0]
    row, rgb = verdict.to_dict(), loaded.rgb
    if verdict.note is not None or rgb is None:
        # What holds nothing to judge has no verdict that could be stable, and no place of evidence.
        return row | ({"stability": None} if asked.stability and rgb is not None else {})
    try:
        if asked.stability:
            from distildire.explain.stability import stability as check

            found = check(detector, rgb, fpr=asked.fpr, logit=verdict.logit)
            row |= {"verdict": found.verdict, "stability": found.to_dict()}
        if asked.heatmap is not None:
            from distildire.explain.heatmap import heat_of, judged_places, save_heatmap
            from distildire.io.writing import name_within

            stem = "stdin" if verdict.path == STDIN else Path(verdict.path).stem
            stem = name_within(stem, 120)
            target = asked.heatmap / f"{stem}-{(verdict.sha256 or '')[:8]}.png"
            note = detector.bundle.heatmap_note
            judged = judged_places(detector.bundle.preprocessing, rgb)
            drawn = heat_of(detector, rgb) - detector.bundle.neutral
            save_heatmap(target, rgb, drawn, note, judged=judged)
            row |= {"heatmap": str(target), "heatmap_note": note}
    except BundleError:  # a device that failed is every file's
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_A_NAME:  # so is a full disk
            raise
        message = what_is_wrong(error)
        return detector.not_scored(verdict.path, message, verdict.sha256, fpr=asked.fpr).to_dict()
    return row


def _note(detector: Detector, fpr: float) -> str:
    calibration = detector.bundle.calibration
    images = f"{calibration.n_real} real and {calibration.n_fake} fake" if calibration else "no"
    data = f" ({calibration.data})" if calibration and detector.kind else ""
    return (
        f"Model {detector.given}. P(fake) assumes equal shares of real and fake pictures. Verdicts "
        f"at an error budget of {100 * fpr:g}%, from {images} held-out pictures{data}; a verdict "
        "is a reason to look closer, not a proof."
    )
