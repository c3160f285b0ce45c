"""The command line: thin, every command imports what it needs when it runs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from distildire import __version__

if TYPE_CHECKING:
    from distildire.detector import Detector

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Tell camera images from generated ones: a calibrated score, on a laptop, offline.",
)
models_app = typer.Typer(no_args_is_help=True, help="List, show, fetch and convert models.")
app.add_typer(models_app, name="models")


class Format(str, Enum):
    """How results are written."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Bundled model by name, or the folder of a bundle.")
]
FprOption = Annotated[
    float,
    typer.Option(
        help="Error budget, 0 to 0.5: at most this share of real pictures is called fake; "
        "what is not clear enough for it is 'unsure'."
    ),
]


def main() -> None:
    """Entry point: known errors become one line on stderr and exit code 2."""
    try:
        app()
    except (ValueError, ModuleNotFoundError) as error:
        fail(_missing_extra(error) if isinstance(error, ModuleNotFoundError) else str(error))


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    typer.echo(f"distildire: {message}", err=True)
    raise SystemExit(2)


_EXTRAS = {
    "eval": ("sklearn", "pandas", "pyarrow", "matplotlib"),
    "train": ("torch", "torchvision", "timm", "diffusers", "accelerate", "dacite", "safetensors",
              "huggingface_hub", "tensorboard", "onnx", "onnxscript"),
    "web": ("fastapi", "uvicorn", "multipart", "starlette"),
    "video": ("av",),
    "scale": ("ray",),
}  # fmt: skip


def _missing_extra(error: ModuleNotFoundError) -> str:
    name = (error.name or "").split(".")[0]
    for extra, packages in _EXTRAS.items():
        if name in packages:
            return f"this needs the extra '{extra}': pip install 'distildire[{extra}]'"
    return str(error)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"distildire {__version__}")
        raise typer.Exit


# Verdicts ---------------------------------------------------------------------------------


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
    sort: Annotated[bool, typer.Option("--sort", help="Most likely fakes first.")] = False,
    stability: Annotated[
        bool,
        typer.Option("--stability", help="Score re-encoded copies too; 'unsure' where it flips."),
    ] = False,
    heatmap: Annotated[
        Path | None, typer.Option(help="Write where the score comes from, as PNG, into DIR.")
    ] = None,
) -> None:
    """Judge pictures: real, fake or unsure, with a calibrated probability of fake.

    The probability assumes equal shares of real and fake pictures. Exit code 0: every file
    was scored; 1: at least one could not be; 2: wrong usage.
    """
    from distildire.detector import Detector
    from distildire.files import find_files
    from distildire.results import resume_jsonl, write_csv, write_jsonl, write_table

    if resume and (out is None or format is not Format.jsonl or sort):
        fail("--resume goes with --format jsonl --out FILE, and not with --sort")
    if out is not None and not out.parent.is_dir():
        fail(f"--out {out}: no such folder {out.parent}")
    detector = Detector(model, fpr=fpr)
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
        for row in with_progress(judge(detector, files, stability, heatmap), "pictures"):
            judged += 1
            errors += row["error"] is not None
            yield row
        if not judged and not done:
            typer.echo("distildire: no pictures found", err=True)

    results: Iterable[dict[str, Any]] = rows()
    if sort:
        results = sorted(results, key=lambda r: (r["probability"] is None, -(r["probability"] or 0)))
    with output(out, append=resume) as file:
        if format is Format.jsonl:
            write_jsonl(results, file)
        elif format is Format.csv:
            write_csv(results, file)
        else:
            write_table(results, file, _note(detector, fpr))
    raise typer.Exit(1 if errors else 0)


def judge(
    detector: Detector, files: Iterable[str], stability: bool, heatmap: Path | None
) -> Iterator[dict[str, Any]]:
    """Rows of the results in the order of the files, pictures and videos alike."""
    from distildire.files import is_video

    for video, group in itertools.groupby(files, is_video):
        if video:
            yield from (_judge_video(detector, path) for path in group)
            continue
        for verdict in detector.stream(group):
            row = verdict.to_dict()
            if verdict.error is None and (stability or heatmap):
                row |= _look_closer(detector, verdict.path, stability, heatmap)
            yield row


def _judge_video(detector: Detector, path: str) -> dict[str, Any]:
    try:
        from distildire.video import judge_video

        return judge_video(detector, path).to_dict()
    except ModuleNotFoundError as error:
        message = _missing_extra(error)
    except ValueError as error:
        message = str(error)
    from distildire.detector import Verdict

    return Verdict(
        path, None, None, None, None, detector.name, None, None, message
    ).to_dict()


def _look_closer(
    detector: Detector, path: str, stability: bool, heatmap: Path | None
) -> dict[str, Any]:
    """Stability and heat map of one picture that was scored."""
    from distildire.images import decode

    rgb = decode(path)
    extra: dict[str, Any] = {}
    if stability:
        from distildire.stability import stability as check

        found = check(detector, rgb)
        extra = {"verdict": found.verdict, "stability": found.to_dict()}
    if heatmap is not None:
        from distildire.heatmap import save_heatmap

        extra["heatmap"] = str(save_heatmap(detector, rgb, heatmap, Path(path)))
    return extra


def _note(detector: Detector, fpr: float) -> str:
    calibration = detector.bundle.calibration
    images = f"{calibration.n_real} real and {calibration.n_fake} fake" if calibration else "no"
    return (
        f"Model {detector.name}. P(fake) assumes equal shares of real and fake pictures. Verdicts "
        f"at an error budget of {fpr:.0%}, from {images} held-out pictures; a verdict is a "
        "reason to look closer, not a proof."
    )


def with_progress(rows: Iterable[Any], what: str) -> Iterator[Any]:
    """Pass rows through, with a counter on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from rows
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
    from rich.progress import TimeElapsedColumn

    columns = (SpinnerColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        for row in rows:
            progress.advance(task)
            yield row


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


# Models -----------------------------------------------------------------------------------


@models_app.command("list")
def models_list() -> None:
    """The bundled models, one a line: name, size, crops and calibration."""
    from distildire.bundle import bundled, load_bundle

    for name in bundled():
        bundle = load_bundle(name)
        cut, size = bundle.preprocessing, bundle.graph.stat().st_size / 1e6
        images = bundle.calibration.n_real + bundle.calibration.n_fake if bundle.calibration else 0
        typer.echo(
            f"{name}\t{size:.1f} MB\t{cut.crops} crops of {cut.crop} px\t"
            f"calibrated on {images} pictures\tsha256 {bundle.sha256[:12]}"
        )


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="Name or folder.")] = "nano",
) -> None:
    """Everything that is recorded of a model, then its card."""
    import json

    from distildire.bundle import load_bundle

    bundle = load_bundle(model)
    about = json.loads((bundle.folder / "bundle.json").read_text())
    if about.get("calibration"):
        for key in ("real_quantiles", "fake_quantiles"):
            about["calibration"].pop(key, None)
    typer.echo(json.dumps(about, indent=2))
    card = bundle.folder / "MODEL_CARD.md"
    if card.is_file():
        typer.echo("\n" + card.read_text())


# Training ---------------------------------------------------------------------------------


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="YAML file; the keys are those of TrainConfig.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. optim.steps=500.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")
    ] = False,
) -> None:
    """Distil a detector: the student learns the labels and the teacher's feature map.

    On several GPUs: `accelerate launch -m distildire train --config FILE`.
    """
    from distildire.config import load_config
    from distildire.distill.config import TrainConfig
    from distildire.distill.train import train as run

    options = load_config(TrainConfig, config, set_ or [])
    best = run(options, out or Path("runs") / options.name, resume=resume, report=_report)
    typer.echo(best)


def _report(row: dict[str, Any]) -> None:
    values = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step")
    typer.echo(f"step {row['step']}: {values}", err=True)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    crops: Annotated[int | None, typer.Option(help="Crops scored for each picture, 1-5.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of a crop, in pixels.")] = None,
    half: Annotated[bool, typer.Option(help="Store the weights as float16.")] = True,
) -> None:
    """Turn a checkpoint into a bundle: one ONNX graph from RGB to logit."""
    from distildire.distill.export import export as run
    from distildire.distill.export import load_checkpoint
    from distildire.distill.train import describe_data

    changes = {k: v for k, v in (("crops", crops), ("crop", crop)) if v is not None}
    data = describe_data(load_checkpoint(checkpoint)[1])
    bundle = run(
        checkpoint, out, name=name, half=half, preprocessing=changes, data=data,
        command="distildire train --config config.yaml; distildire export best.pt",
    )  # fmt: skip
    typer.echo(f"{bundle.folder}: {bundle.graph.stat().st_size / 1e6:.1f} MB, not calibrated yet")


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Folder of a bundle.")],
    manifest: Annotated[Path, typer.Argument(help="Held-out pictures with labels.")],
    split: Annotated[str, typer.Option(help="Only rows of this split.")] = "",
    equalize: Annotated[
        bool, typer.Option(help="Bring every picture to one history first.")
    ] = True,
) -> None:
    """Fit probability and thresholds on pictures that were not trained on."""
    from distildire.bundle import load_bundle
    from distildire.calibration import calibrate as fit
    from distildire.data.manifest import FAKE, read_manifest
    from distildire.evaluate.scoring import score_manifest

    bundle = load_bundle(model)
    table = read_manifest(manifest)
    if split:
        table = table[table["split"] == split].reset_index(drop=True)
    scores = score_manifest(bundle, table, equalized=equalize, progress=progress_bar("calibrate"))
    table = table.assign(logit=scores).dropna(subset="logit")
    found = fit(
        table["logit"], table["label"] == FAKE, bundle.sha256,
        data=f"{table['source'].nunique()} sources, {'equalized' if equalize else 'as they are'}",
    )  # fmt: skip
    bundle.with_calibration(found).save()
    typer.echo(
        f"{bundle.name}: temperature {found.temperature:.3f}, bias {found.bias:+.3f}, from "
        f"{found.n_real} real and {found.n_fake} fake pictures"
    )
    for budget in (0.01, 0.05):
        below, above = found.thresholds(budget)
        typer.echo(f"  budget {budget:.0%}: real below {below:.3f}, fake above {above:.3f}")


def progress_bar(what: str) -> Callable[[int, int], None]:
    """A callback (done, total) that draws on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda done, total: None

    def draw(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{what}: {done}/{total}{end}")
        sys.stderr.flush()

    return draw
