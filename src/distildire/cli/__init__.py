"""The command line: thin, every command imports what it needs when it runs.

Base install; a command that needs an extra names it.
"""

from __future__ import annotations

from distildire.cli import (
    detect,
    evidence,
    experiment,
    models,
    record,
    score,
    serving,
    training,
)
from distildire.cli.app import app, fail, missing_extra

__all__ = [
    "app",
    "detect",
    "evidence",
    "experiment",
    "main",
    "models",
    "record",
    "score",
    "serving",
    "training",
]


def main() -> None:
    """Entry point: known errors become one line on stderr and exit code 2."""
    try:
        app()
    except ImportError as error:
        fail(missing_extra(error))
    except ValueError as error:
        fail(str(error))
