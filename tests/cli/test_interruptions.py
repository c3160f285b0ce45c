"""`detect --out --resume`, killed at random moments and on full disks: each row once, and whole."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits are those of POSIX")

PICTURES = 240


@pytest.fixture
def many(folder: Path) -> Path:
    """Pictures, every eighth of them broken, and names that are hard to write."""
    good = folder / "a.png"
    for i in range(PICTURES):
        target = folder / f"{i:03d}.png"
        if i % 8:
            target.symlink_to(good)
        else:
            target.write_text("no picture")
    for name in (b"caf\xe9.png", b"two\nlines.png", b"[brackets].png", "写".encode() + b".png"):
        shutil.copy(good, folder / os.fsdecode(name))
    return folder


def command(many: Path, bundle: Path, out: Path) -> list[str]:
    options = ["--model", str(bundle), "--format", "jsonl", "--out", str(out), "--resume"]
    return [sys.executable, "-m", "distildire", "detect", str(many), *options]


def whole_rows(out: Path) -> dict[str, dict[str, object]]:
    """The rows of a file by their paths; only its last line may be cut short."""
    if not out.exists():
        return {}
    rows: dict[str, dict[str, object]] = {}
    *lines, rest = out.read_bytes().split(b"\n")
    for line in lines:
        row = json.loads(line)
        assert row["path"] not in rows, "a row twice"
        rows[row["path"]] = row
    assert not rest or rest.startswith(b"{")
    return rows


def check_kept(before: dict[str, dict[str, object]], after: dict[str, dict[str, object]]) -> None:
    """No row of `before` is lost or another, but for errors that were tried again."""
    for path, row in before.items():
        assert path in after, f"{path!r} is lost"
        assert after[path] == row or row["error"] is not None


def check_end(many: Path, bundle: Path, out: Path) -> None:
    """The last run ends, and gives what one run gives that nobody disturbs."""
    done = subprocess.run(command(many, bundle, out), capture_output=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    calm = out.with_name("calm.jsonl")
    subprocess.run(command(many, bundle, calm), capture_output=True, check=False)
    assert out.read_bytes().endswith(b"\n")
    assert whole_rows(out) == whole_rows(calm)
    assert len(whole_rows(out)) == PICTURES + 6
    left = {p.name for p in out.parent.iterdir()} - {many.name, "out.jsonl", "calm.jsonl"}
    assert not {name for name in left if "jsonl" in name}


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(many: Path, bundle: Path, tmp_path: Path, kills: int) -> None:
    chance, out = random.Random(kills), tmp_path / "out.jsonl"
    killed, rows = 0, whole_rows(out)
    moments: list[int] = []
    while killed < kills:
        if chance.random() < 0.3:  # what was broken is mended, so that rows are replaced
            broken = [p for p in many.glob("*.png") if p.is_file() and p.stat().st_size == 10]
            if broken:
                chance.choice(broken).write_bytes((many / "a.png").read_bytes())
        if len(rows) == PICTURES + 6:
            out.unlink()
            rows = {}
        with subprocess.Popen(command(many, bundle, out), stderr=subprocess.DEVNULL) as process:
            size = out.stat().st_size if out.exists() else 0
            grown = chance.choice((0, 0, chance.randrange(2000), chance.randrange(9000)))
            give_up = time.monotonic() + chance.uniform(0.2, 4) + (300 if grown else 0)
            while process.poll() is None and time.monotonic() < give_up:
                if grown and out.exists() and out.stat().st_size >= size + grown:
                    break
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        after = whole_rows(out)
        check_kept(rows, after)
        rows = after
        moments.append(len(rows))
    print(f"rows after each kill: {moments}")
    check_end(many, bundle, out)


@pytest.mark.parametrize("times", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_full_at_random_moments(many: Path, bundle: Path, tmp_path: Path, times: int) -> None:
    chance = random.Random(times)
    with small_disk(tmp_path) as disk:
        out = disk / "out.jsonl"
        rows = whole_rows(out)
        for _ in range(times):
            size = out.stat().st_size if out.exists() else 0
            with full_after(disk, size + chance.randrange(500, 9000)) as limit:
                done = subprocess.run(
                    command(many, bundle, out), capture_output=True, check=False, preexec_fn=limit
                )
            assert done.returncode == 2, done.stderr
            assert done.stderr.count(b"\n") == 1
            assert b"out.jsonl" in done.stderr
            after = whole_rows(out)
            check_kept(rows, after)
            rows = after
        check_end(many, bundle, out)


@contextmanager
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB where this process may mount one; else a folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = False
    if shutil.which("mount") is not None and os.geteuid() == 0:
        mounted = not subprocess.run(options, capture_output=True, check=False).returncode
    try:
        yield disk
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def full_after(disk: Path, most: int) -> Iterator[object]:
    """No file over `most` bytes: by a disk that is filled up, or a limit on the process."""
    if not os.path.ismount(disk):

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        yield limit
        return
    space = os.statvfs(disk)
    held = sum(p.stat().st_size for p in disk.iterdir())
    rest = space.f_bavail * space.f_frsize - max(4096, most - held)
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, rest)))
    try:
        yield None
    finally:
        filler.unlink()
