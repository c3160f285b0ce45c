"""The command line: thin, every command imports what it needs when it runs.

Base install; a command that needs an extra names it.
"""

from __future__ import annotations

import itertools
import sys

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
from distildire.cli.app import app, fail, give_up_stdout, in_words, missing_extra
from distildire.io.text import escape_on_the_way_out

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
    escape_on_the_way_out()
    if "--out=" in sys.argv or ("--out", "") in itertools.pairwise(sys.argv):
        fail("--out is empty: give a name")  # else it would stand for the folder at hand
    try:
        app()
    except ImportError as error:
        fail(missing_extra(error))
    except OSError as error:  # that of a write too, which is a ValueError as well
        give_up_stdout()
        fail(in_words(error))
    except ValueError as error:
        fail(str(error))
