"""Files decoded in processes of their own: one that crashes its decoder costs one answer, or row.

Codecs are C, and hostile files find their bugs. Each worker has limits of memory and CPU time and
can write no file; one that dies is replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from distildire.explain.facts import Facts
from distildire.explain.storage import Storage
from distildire.io.hashing import sha256_of
from distildire.io.pictures import MAX_PIXELS, RGB, ImageError
from distildire.io.preprocessing import Preprocessing
from distildire.isolation.worker import receive, send
from distildire.loading import Given, Loaded, content_of, shown_name, what_is_wrong
from distildire.provenance import Declaration, Origin

if TYPE_CHECKING:
    from distildire.video.judge import Prepared

MEMORY = 3 * 2**30
"""Bytes that a worker may take beside those of its libraries: a picture of 50 megapixels takes a
third, a video in 8K half."""

PICTURE_SECONDS, VIDEO_SECONDS = 60.0, 150.0
"""CPU seconds of one file; and twice that by the clock."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); \
from distildire.isolation.worker import main; main()"

_NEEDED = re.compile(
    "PATH|HOME|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|(LD|DYLD)_.*|MALLOC_.*|GLIBC_TUNABLES"
    "|SYSTEMROOT|WINDIR|TEMP|TMP|USERPROFILE"  # on Windows
)
"""Variables that a worker gets of its parent's."""


class Crashed(Exception):  # noqa: N818  (of the file, not of the program)
    """A worker died of a file; the message is one sentence for its owner."""


class _Worker:
    """One process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # An interrupt of the parent is no business of its workers: they end with its pipes.
            start_new_session=True,
            env=_environment(),
        )
        self._requests = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)
        self._is_ready = False
        send(self._requests, settings)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer to one request.

        Raises:
            Crashed: the process died, or took too long.
            RuntimeError: it never started.
        """
        if not self._is_ready:
            if receive(self._answers) is None:
                raise RuntimeError("a decoding process could not be started")
            self._is_ready = True
        limit = 2 * words["seconds"]
        timer = threading.Timer(limit, self._process.kill)
        timer.daemon = True
        timer.start()
        started = time.monotonic()
        try:
            send(self._requests, words, data)
            answer = receive(self._answers)
        except OSError:
            answer = None
        timer.cancel()
        if answer is not None:
            return answer
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._requests.close()
            self._process.wait(5)
        if time.monotonic() - started >= limit:
            raise Crashed(f"this file keeps its decoder busy for over {limit:.0f} s")
        if self._process.returncode == -getattr(signal, "SIGXCPU", 0):
            seconds = words["seconds"]
            raise Crashed(f"this file keeps its decoder busy for over {seconds:.0f} CPU seconds")
        raise Crashed("this file makes its decoder crash")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):  # what it held can't be written any more
                pipe.close()


class Workers:
    """A pool of decoding processes; each takes one file at a time."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        count: int,
        *,
        memory: int = MEMORY,
        decoder: str | None = None,
        crashed: Callable[[], None] = lambda: None,
    ) -> None:
        """Start `count` processes.

        Args:
            preprocessing: cuts the crops.
            count: processes.
            memory: bytes that each may take beside those of its libraries.
            decoder: "module:function" in the place of `pictures.decode_bytes`, for tests.
            crashed: called whenever one has died.
        """
        self._settings = {
            "preprocessing": dataclasses.asdict(preprocessing),
            "memory": memory,
            "decoder": decoder,
        }
        self._crashed = crashed
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._count = count
        for _ in range(count):
            self._idle.put(_Worker(self._settings))

    def load_item(self, item: Given) -> Loaded:
        """`loading.load` with a file read here and decoded in a worker."""
        name = ""
        try:
            name = shown_name(item)
            content = content_of(item)
        except Exception as error:  # its row says so
            return Loaded(name, error=what_is_wrong(error))
        if not isinstance(content, bytes):
            raise TypeError(f"{type(content).__name__}: only files are decoded in processes")
        return self.load(content, name)

    def load(self, data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Loaded:
        """`loading.load` in a worker; a crash is an error like any other."""
        words = {"what": "crops", "name": name, "max_pixels": max_pixels}
        try:
            answer, payload = self._ask(words, data, PICTURE_SECONDS)
        except Crashed as crash:
            return Loaded(name, sha256_of(data), error=str(crash))
        shape = answer.pop("shape")
        crops = None if shape is None else _array(payload, shape)
        return Loaded(**{**answer, "size": tuple(answer["size"]), "crops": crops})

    def pixels(self, data: bytes, max_pixels: int) -> RGB:
        """`pictures.decode_bytes` in a worker; a crash raises ImageError like any damage."""
        answer, payload = self._examine({"what": "pixels", "max_pixels": max_pixels}, data)
        return _array(payload, answer["shape"])

    def facts(self, data: bytes) -> Facts:
        """`facts.facts_of` in a worker; a crash raises ImageError like any damage."""
        answer, _ = self._examine({"what": "facts"}, data)
        storage, origin = answer["storage"], answer["origin"]
        return Facts(
            Storage(**{**storage, "passed_over": tuple(storage["passed_over"])}),
            Origin(origin["declares"], tuple(Declaration(**one) for one in origin["findings"])),
            answer["c2pa"],
        )

    def video(self, data: bytes) -> Prepared:
        """`video.judge.prepare_video` in a worker; a crash is an error like any other."""
        from distildire.video.frames import Candidate, Frames
        from distildire.video.judge import Prepared

        try:
            answer, payload = self._ask({"what": "video"}, data, VIDEO_SECONDS)
        except Crashed as crash:
            return Prepared(sha256_of(data), error=str(crash))
        frames = answer["frames"]
        if frames is None:
            return Prepared(**answer)
        crops = _array(payload, (len(frames["chosen"]), *answer.pop("shape")))
        blank = np.zeros((16, 16), np.float32)
        frames["chosen"] = tuple(
            Candidate(time, crops[i], blank, nothing)
            for i, (time, nothing) in enumerate(frames["chosen"])
        )
        frames["scenes"] = tuple(frames["scenes"])
        return Prepared(**{**answer, "frames": Frames(**frames)})

    def close(self) -> None:
        """End all processes; those at work first finish it."""
        for _ in range(self._count):
            self._idle.get().end()

    def _examine(self, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer on one picture.

        Raises:
            ImageError: what is wrong with it, a crash too.
        """
        try:
            answer, payload = self._ask(words, data, PICTURE_SECONDS)
        except Crashed as crash:
            raise ImageError(str(crash)) from None
        if answer["error"] is not None:
            raise ImageError(answer["error"])
        return answer, payload

    def _ask(
        self, words: dict[str, Any], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        worker = self._idle.get()
        try:
            if not worker.lives:  # killed from outside between two files
                worker = self._replaced(worker)
            return worker.ask({**words, "seconds": seconds}, data)
        # Whatever went wrong, what the worker would say next is not to be trusted.
        except BaseException:
            worker = self._replaced(worker)
            raise
        finally:
            self._idle.put(worker)

    def _replaced(self, worker: _Worker) -> _Worker:
        worker.end()
        self._crashed()
        return _Worker(self._settings)


def _environment() -> dict[str, str]:
    """What a process needs to start, and none of the keys that the parent may have beside it."""
    kept = {name: value for name, value in os.environ.items() if _NEEDED.fullmatch(name.upper())}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _array(payload: bytes, shape: tuple[int, ...] | list[int]) -> RGB:
    return np.frombuffer(payload, np.uint8).reshape(shape)
