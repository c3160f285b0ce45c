"""What all commands share: the application, its errors, options and progress."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from distildire import __version__
from distildire.io.text import shown
from distildire.io.writing import WriteError

if TYPE_CHECKING:
    from distildire.detector import Detector

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Tell camera images from generated ones: a calibrated score, on a laptop, offline.",
)


STDIN = "-"
"""The path that stands for one picture on standard input."""


class Format(StrEnum):
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
        help="Error budget, above 0, at most 0.5: no more than this share of real pictures is "
        "called fake; what is not clear enough for it is 'unsure'."
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option(help="Thresholds of one kind of pictures; see `distildire calibrate --by`."),
]


class DeviceName(StrEnum):
    """What runs the network."""

    cpu = "cpu"
    cuda = "cuda"
    openvino = "openvino"
    auto = "auto"


DeviceOption = Annotated[
    DeviceName,
    typer.Option(help="What runs the network; auto: CUDA where it works, else the CPU."),
]
AcceptLeak = Annotated[
    bool, typer.Option("--accept-leak", help="Go on although the files give the class away.")
]


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    warn(message)
    raise SystemExit(2)


def warn(message: str) -> None:
    """One line on stderr."""
    with contextlib.suppress(OSError):  # a full disk under stderr: there is no one left to tell
        lines = "\n".join(map(shown, message.splitlines()))
        typer.echo(f"distildire: {lines}", err=True)


def refuse_input(out: Path, *inputs: str | Path | None) -> None:
    """Refuse to write over what is read."""
    for given in inputs:
        with contextlib.suppress(OSError, ValueError):
            if given is not None and out.samefile(given):
                fail(f"--out: {out} is read, and would be written over: give another name")


def in_words(error: OSError) -> str:
    """A system error as one sentence that names the file."""
    if isinstance(error, WriteError) or error.strerror is None:
        return str(error) or type(error).__name__
    if error.filename is None and error.errno in {errno.ENOSPC, errno.EIO, errno.EBADF}:
        return f"cannot write standard output: {error.strerror}"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def give_up_stdout() -> None:
    """Drop what stdout could not take, so that Python doesn't try again at its end."""
    try:
        sys.stdout.flush()
    except (AttributeError, ValueError):
        pass
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin() -> bytes:
    """The bytes of one picture on standard input.

    Raises:
        ImageError: none there, or more than a file may have.
    """
    from distildire.io.pictures import MAX_BYTES, ImageError

    try:
        data = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise ImageError("nothing is on standard input")
    if len(data) > MAX_BYTES:
        raise ImageError(f"too large: over the limit of {MAX_BYTES / 2**20:.0f} MiB")
    return data


_EXTRAS = {
    "eval": ("sklearn", "pandas", "pyarrow", "matplotlib"),
    "train": ("torch", "torchvision", "timm", "diffusers", "accelerate", "dacite", "safetensors",
              "huggingface_hub", "tensorboard", "onnx", "onnxscript"),
    "web": ("fastapi", "uvicorn", "multipart", "starlette", "prometheus_client"),
    "video": ("av",),
    "scale": ("ray", "fsspec"),
    "openvino": ("openvino",),
}  # fmt: skip


def missing_extra(error: ImportError) -> str:
    """Which extra brings the package that could not be imported."""
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


def say_device(detector: Detector, asked: DeviceName) -> None:
    """On stderr what `auto` took."""
    if asked is DeviceName.auto:
        typer.echo(f"distildire: device {detector.device}", err=True)


def say_kind(detector: Detector) -> None:
    """On stderr that the kind asked for has no thresholds of its own."""
    if detector.kind is not None and detector.thresholds_of is None:
        warn(
            f"--kind {detector.kind}: too few real pictures of it are in the calibration: the "
            "thresholds are those of all pictures"
        )


def with_counter(rows: Iterable[Any], what: str) -> Iterator[Any]:
    """Pass rows through, with a counter on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from rows
        return
    from rich.console import Console
    from rich.progress import (
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (SpinnerColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        for row in rows:
            progress.advance(task)
            yield row


def progress_bar(what: str) -> Callable[[int, int | None], None]:
    """A callback (done, total) that draws on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda done, total: None

    def draw(done: int, total: int | None) -> None:
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{what}: {done}/{total or '?'}{end}")
        sys.stderr.flush()

    return draw


def stage_bar(stage: str, done: int, total: int) -> None:
    """The same for a progress callback that names its stage."""
    progress_bar(stage)(done, total)


def show_row(row: dict[str, Any], run: str = "") -> None:
    """One row of a training log on stderr; `run` tells which run where there are several."""
    numbers = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items() if k != "step"}
    values = "  ".join(f"{k} {v}" for k, v in numbers.items())
    typer.echo(f"{run}{': ' if run else ''}step {row['step']}: {values}", err=True)


def say(path: Path, *lines: str | Path) -> None:
    """Where results were written, and what they come to, for stdout."""
    for line in map(str, (*lines, path)):
        typer.echo(shown(line))
