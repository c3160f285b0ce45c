"""Fuzz the decoder for as long as asked: `python tests/fuzz_images.py MINUTES [FOLDER]`.

Each file is checked as in test_images_fuzz: refused in words, within 2 s of processor time,
without more memory than stated. Seeds are small files of every format that is read, and the
pictures of FOLDER. Where the package atheris is installed the search is guided by the lines
of Pillow and distildire that a file reaches, and a file that fails is left in the working
folder; else hypothesis draws damage at random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

LARGEST_SEED = 200_000
"""Bytes; larger pictures of FOLDER are left out, since a fuzzer reads each a thousand times."""


def guided(seconds: float, folder: Path | None) -> None:
    """Fuzz with atheris; ends the process."""
    with atheris.instrument_imports(include=["PIL", "distildire"]):
        from test_pictures_fuzz import check

        from damage import seeds

    corpus = Path(tempfile.mkdtemp(prefix="fuzz-images-"))
    for i, data in enumerate(seeds(folder)):
        if len(data) <= LARGEST_SEED:
            (corpus / f"seed-{i}").write_bytes(data)
    check(b"")
    options = [f"-max_total_time={int(seconds)}", f"-max_len={LARGEST_SEED}", "-timeout=60"]
    # atheris counts the bytes of Python's own heap too: the check has a limit of its own.
    options += ["-rss_limit_mb=2048", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()


def at_random(seconds: float, folder: Path | None) -> None:
    """Fuzz with hypothesis, without guidance."""
    from hypothesis import HealthCheck, given, settings
    from test_pictures_fuzz import check

    from damage import damaged

    options: dict[str, Any] = {"max_examples": 2000, "deadline": None, "database": None}
    health = list(HealthCheck)
    round_: Callable[[], None] = settings(**options, suppress_health_check=health)(
        given(damaged(folder))(check)
    )
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        round_()
        rounds += 1
        print(f"{2000 * rounds} files, no fault", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--random", action="store_true", help="hypothesis, not atheris")
    given_options = parser.parse_args()
    fuzz = at_random if given_options.random or atheris is None else guided
    fuzz(60 * given_options.minutes, given_options.folder)
