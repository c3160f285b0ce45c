"""Local git clones: where one lies, and the files of its commits, read with git."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


def find_clone(clones: Path, repository: str) -> Path | None:
    """The git directory of `owner/name` below `clones`, bare or with a work tree."""
    joined = repository.replace("/", "+")
    for folder in (clones / joined / "repo", clones / joined, clones / repository):
        for directory in (folder / ".git", folder):
            if (directory / "HEAD").is_file() and (directory / "objects").is_dir():
                return directory
    return None


def read_blobs(git: Path, names: Sequence[str]) -> Iterator[bytes | None]:
    """The contents of `commit:path` names in order; None where there is none."""
    command = ["git", "--git-dir", str(git), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in names:
            if "\n" in name:
                yield None
                continue
            process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
            process.stdin.flush()
            header = process.stdout.readline().split()
            if len(header) < 3 or not header[-1].isdigit():
                yield None
                continue
            content = process.stdout.read(int(header[-1]))
            process.stdout.read(1)
            yield content if header[-2] == b"blob" else None
        process.stdin.close()
