"""A process that decodes files under limits; `pool` talks to it.

Its standard input brings requests and its standard output takes answers, each a line of JSON and
bytes: nothing is unpickled, so that a decoder taken over by a file gains no more than its process.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import math
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from distildire.explain.facts import facts_of
from distildire.io.pictures import RGB, ImageError, decode_bytes
from distildire.io.preprocessing import Preprocessing
from distildire.loading import load, what_is_wrong

_HEAD = struct.Struct("<IQ")


def send(pipe: BinaryIO, words: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write one message: a tree fit for JSON, and bytes."""
    head = json.dumps(words).encode()
    pipe.write(_HEAD.pack(len(head), len(data)) + head)
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None at the end of the pipe, wherever it comes."""
    sizes = pipe.read(_HEAD.size)
    if len(sizes) < _HEAD.size:
        return None
    words, data = _HEAD.unpack(sizes)
    head, content = pipe.read(words), pipe.read(data)
    if len(head) < words or len(content) < data:
        return None
    return json.loads(head), content


def main() -> None:
    """Answer requests until the pipe ends."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    started = receive(requests)
    if started is None:
        return
    settings = started[0]
    preprocessing = Preprocessing(**settings["preprocessing"])
    decoder = _named(settings["decoder"]) if settings["decoder"] else decode_bytes
    _limit(settings["memory"])
    send(answers, {"ready": True})
    while (request := receive(requests)) is not None:
        words, data = request
        _limit_cpu(words["seconds"])
        if words["what"] == "video":
            send(answers, *_video(words, data, preprocessing))
        elif words["what"] == "pixels":
            send(answers, *_pixels(words, data, decoder))
        elif words["what"] == "facts":
            send(answers, _facts(data))
        else:
            send(answers, *_crops(words, data, preprocessing, decoder))


def _crops(
    words: dict[str, Any], data: bytes, preprocessing: Preprocessing, decoder: Callable[..., RGB]
) -> tuple[dict[str, Any], bytes]:
    loaded = load(
        data, preprocessing, name=words["name"], max_pixels=words["max_pixels"], decoder=decoder
    )
    crops = loaded.crops
    tree = dataclasses.asdict(dataclasses.replace(loaded, crops=None))
    return tree | {"shape": None if crops is None else crops.shape}, (
        b"" if crops is None else crops.tobytes()
    )


def _pixels(
    words: dict[str, Any], data: bytes, decoder: Callable[..., RGB]
) -> tuple[dict[str, Any], bytes]:
    try:
        rgb = decoder(data, max_pixels=words["max_pixels"])
    except (ImageError, MemoryError) as error:
        return {"error": what_is_wrong(error)}, b""
    return {"error": None, "shape": rgb.shape}, rgb.tobytes()


def _facts(data: bytes) -> dict[str, Any]:
    try:
        return {"error": None, **dataclasses.asdict(facts_of(data))}
    except (ImageError, MemoryError) as error:
        return {"error": what_is_wrong(error)}


def _video(
    words: dict[str, Any], data: bytes, preprocessing: Preprocessing
) -> tuple[dict[str, Any], bytes]:
    from distildire.video.judge import FRAMES, prepare_video

    prepared = prepare_video(io.BytesIO(data), preprocessing, FRAMES)
    tree: dict[str, Any] = {f.name: getattr(prepared, f.name) for f in dataclasses.fields(prepared)}
    frames = prepared.frames
    if frames is None:
        return tree, b""
    tree["frames"] = {f.name: getattr(frames, f.name) for f in dataclasses.fields(frames)}
    tree["frames"]["chosen"] = [[one.time, one.nothing] for one in frames.chosen]
    tree["shape"] = frames.chosen[0].crops.shape
    return tree, b"".join(one.crops.tobytes() for one in frames.chosen)


def _named(decoder: str) -> Callable[..., RGB]:
    module, _, name = decoder.partition(":")
    found: Callable[..., RGB] = getattr(importlib.import_module(module), name)
    return found


def _limit(memory: int) -> None:
    """`memory` bytes beside those taken so far, no byte into any file, no core dump."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    taken = 0
    if (statm := Path("/proc/self/statm")).exists():
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, taken + memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def _limit_cpu(seconds: float) -> None:
    """`seconds` of all cores from now on, to the kernel's signal."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(
        resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )
