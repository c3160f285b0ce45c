"""Equal bytes scored once on Ray: actors ask one of them whose turn a picture is.

An actor hashes what it reads and scores the pictures that it is given; rows of copies come back
without a score, and the driver fills in what it knows of their bytes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distildire.io.hashing import sha256_of
from distildire.loading import Unread
from distildire.scale.items import failing
from distildire.scale.once import Once, row_of_copy

CHANGED = "cannot be read: the file that it is a copy of was changed while it was read"
"""Of a copy whose original is not to be had any more; the next run tries it again."""


class Claims:
    """Which file of a run is scored, of those with equal bytes: the first that asks."""

    def __init__(self, known: Iterable[bytes]) -> None:
        """`known`: hashes of pictures that have been scored already."""
        self._first: dict[bytes, str | None] = dict.fromkeys(known)

    def claim(self, digests: Sequence[bytes | None], paths: Sequence[str]) -> list[bool]:
        """Whether each is to be scored; a file whose actor has died asks again, and may."""
        pairs = zip(digests, paths, strict=True)
        return [d is None or self._first.setdefault(d, path) == path for d, path in pairs]


def claims_for(once: Once) -> Any:
    """An actor `Claims` on the driver's own machine, which a run can't do without anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor: Any = ray.remote(Claims)
    return actor.options(num_cpus=0, scheduling_strategy=here).remote(list(once.known))


def without_copies(
    pictures: Iterable[Unread], claims: Any
) -> tuple[list[Unread], dict[str, list[Any]]]:
    """(the same, read, copies failing; their columns `digest`, hex, and `copy`)."""
    found = [(picture.path, _read(picture)) for picture in pictures]
    digests = [bytes.fromhex(sha256_of(d)) if isinstance(d, bytes) else None for _, d in found]
    ours: list[bool] = ray.get(claims.claim.remote(digests, [path for path, _ in found]))
    held = []
    for (path, data), mine in zip(found, ours, strict=True):
        wrong = data if isinstance(data, str) else None if mine else "a copy"
        read = partial(failing, wrong) if wrong is not None else partial(bytes, data)
        held.append(Unread(path, read))
    hashes = ["" if digest is None else digest.hex() for digest in digests]
    return held, {"digest": hashes, "copy": [not mine for mine in ours]}


def _read(picture: Unread) -> bytes | str:
    """Its bytes, or what is wrong with them."""
    try:
        return picture.read()
    except Exception as error:  # the row says so
        return str(error).strip() or type(error).__name__


def with_copies(rows: Iterable[dict[str, Any]], once: Once) -> Iterator[dict[str, Any]]:
    """The rows as the parts have them; that of a copy waits for the row of its original."""
    waiting: defaultdict[bytes, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        digest, copy = bytes.fromhex(row.pop("digest")), row.pop("copy")
        if copy and once.known.get(digest) is None:
            waiting[digest].append(row)
        elif copy:
            yield row_of_copy(row, digest, once)
        else:
            if digest:
                once.learn(digest, row)
            yield row
            for other in waiting.pop(digest, ()):
                yield row_of_copy(other, digest, once)
    # Their original died with its actor, and had other bytes when another read it.
    for row in itertools.chain.from_iterable(waiting.values()):
        yield row | {"error": CHANGED}
