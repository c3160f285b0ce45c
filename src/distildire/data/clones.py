"""Local git clones: where one lies, and the files of its commits, read with git."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path


def find_clone(clones: Path, repository: str) -> Path | None:
    """The git directory of `owner/name` below `clones`, bare or with a work tree."""
    joined = repository.replace("/", "+")
    with contextlib.suppress(OSError, ValueError):  # what can be no folder's name
        for folder in (clones / joined / "repo", clones / joined, clones / repository):
            for directory in (folder / ".git", folder):
                if (directory / "HEAD").is_file() and (directory / "objects").is_dir():
                    return directory
    return None


def read_blobs(git: Path, names: Iterable[str]) -> Iterator[bytes | None]:
    """The contents of `commit:path` names in order; None where there is none.

    Some names end git itself, such as those that lead out of the repository: it begins anew
    at the next.
    """
    left = iter(names)
    for first in left:
        yield from _until_git_ends(git, itertools.chain([first], left))


def _until_git_ends(git: Path, names: Iterable[str]) -> Iterator[bytes | None]:
    """The same as far as one run of git goes, None for the name that ended it."""
    command = ["git", "--git-dir", str(git), "cat-file", "--batch"]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with (
        contextlib.suppress(BrokenPipeError),  # when what a dead git didn't take is closed
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        for name in names:
            if "\n" in name:
                yield None
                continue
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
                process.stdin.flush()
            header = process.stdout.readline().split()
            if len(header) < 3 or not header[-1].isdigit():
                yield None
                if not header:
                    return
                continue
            content = process.stdout.read(int(header[-1]))
            process.stdout.read(1)
            yield content if header[-2] == b"blob" else None
        process.stdin.close()
