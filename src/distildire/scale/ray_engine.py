"""Scoring with Ray Data: one actor per core, each with a detector of its own (extra `scale`)."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayActorError, RayError

from distildire.detector import Detector
from distildire.io.addresses import is_address
from distildire.io.pictures import read_bytes
from distildire.isolation.pool import Workers
from distildire.loading import Unread
from distildire.scale.addresses import read_address
from distildire.scale.chunks import chunks
from distildire.scale.items import Item, failing
from distildire.scale.once import Once
from distildire.scale.options import ScoreOptions
from distildire.scale.ray_once import claims_for, with_copies, without_copies

log = logging.getLogger(__name__)

BATCH = 32
"""Files that an actor takes at a time."""

CHUNK = 2_000
"""Files that are handed to Ray at a time for each actor, so that the list of all is never in
memory, and actors, which are opened anew, have minutes of work."""

BLOCK = 256
"""Files whose rows come back together at most: what a driver that is killed has to do again."""

CHUNK_BYTES = 256 * 2**20
"""The same where the driver has read them, out of a shard; a quarter of its object store for all at
most."""

RETRIES = 4
"""Times that files are given to an actor anew after theirs has died: some die of what they are
given, for want of memory for example, and a run that can't go on has to end."""

PATIENCE = 60
"""Seconds after which a wait for the cluster's cores is told of."""

CONNECT_MEND = (
    "see that the cluster of RAY_ADDRESS runs; where it was started with a token, set "
    "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray get-auth-token` says there"
)

START_MEND = "Ray does not start here: try again, or start it by hand (ray start --head)"

_HARMLESS = {
    "ray._private.authentication.authentication_token_setup": (
        "Token authentication is enabled for this Ray cluster"
    ),
    "ray.data._internal.progress": "Progress bars disabled",
    "ray.data._internal.execution.operators.map_operator": (
        "Specifying both num_cpus and num_gpus"
    ),
}
"""Ray's warnings of what is meant to be so: logger, and how the message begins."""

_TOLD = (
    "ray.data.exceptions",
    "ray.data._internal.execution.streaming_executor_state",
    "ray.data._internal.execution.operators.actor_pool_map_operator",
)
"""Loggers of Ray's whose errors, pages of traceback, are raised here as a sentence."""


class ScoringActor:
    """What an actor does: batches of files to columns of results."""

    def __init__(self, options: ScoreOptions, cores: int, here: str, claims: Any = None) -> None:
        """Open the detector.

        Args:
            options: of the run.
            cores: of this actor.
            here: the folder from which relative paths go.
            claims: an actor `Claims`, for copies to be left out.
        """
        self._here, self._claims = here, claims
        self._detector = Detector(
            str(options.model), fpr=options.fpr, threads=cores, device=options.device
        )
        # A file that crashed this process would crash the next actor that is given it too.
        preprocessing = self._detector.bundle.preprocessing
        self._load = Workers(preprocessing, cores, decoder=options.decoder).load_item

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Columns `path`, `size`, `mtime`, `etag`, `data`, `wrong` -> those of the parts."""
        given = zip(batch["path"], batch["data"], batch["wrong"], strict=True)
        pictures = [_picture(self._here, str(path), data, wrong) for path, data, wrong in given]
        more: dict[str, list[Any]] = {name: list(batch[name]) for name in ("size", "mtime", "etag")}
        if self._claims is not None:
            pictures, marks = without_copies(pictures, self._claims)
            more |= marks
        rows = [v.to_dict() for v in self._detector.stream(pictures, load=self._load)]
        return {name: [row[name] for row in rows] for name in rows[0]} | more


def _picture(here: str, path: str, data: Any, wrong: Any) -> Unread:
    if isinstance(wrong, str):
        return Unread(path, partial(failing, wrong))
    if isinstance(data, bytes):
        return Unread(path, partial(bytes, data))
    if is_address(path):
        return Unread(path, partial(read_address, path))
    return Unread(path, partial(read_bytes, Path(here, path)))


def row_for_actor(item: Item) -> dict[str, Any]:
    """What an actor is told; bytes only of what stands in a shard, or in this process's memory."""
    row: dict[str, Any] = {name: getattr(item, name) for name in ("path", "size", "mtime", "etag")}
    row |= {"data": None, "wrong": None}
    in_store = getattr(item.read, "func", None) is read_address
    # Also of a chain, `zip://a.png::memory://x.zip`.
    by_actors = in_store and "memory://" not in item.path
    if item.read is not None and not by_actors:
        try:
            row["data"] = item.read()
        except Exception as error:  # the row says so
            row["wrong"] = str(error)
    return row


@dataclass(frozen=True)
class Actors:
    """How many there are, and what each takes of the cluster."""

    count: int
    cores: int = 1
    gpus: float = 0.0


def actors_for(nodes: Sequence[Mapping[str, float]], device: str, gpu_share: float = 1.0) -> Actors:
    """An actor a core; where a GPU runs the network, an actor for each `gpu_share` of one.

    Args:
        nodes: the resources of each machine, as Ray counts them.
        device: see `Detector`; auto takes the GPUs where the cluster has some.
        gpu_share: part of a GPU that an actor takes, 0..1; those of a machine share its cores out,
            and all take as many as the poorest of these machines has for one.

    Raises:
        ValueError: no GPU in the cluster, or a share that is none.
    """
    if not 0 < gpu_share <= 1:
        raise ValueError(f"the share of a GPU is {gpu_share}: give a number above 0, up to 1")
    cores = [int(node.get("CPU", 0)) for node in nodes]
    places = [int(node.get("GPU", 0)) * int(1 / gpu_share) for node in nodes]
    with_gpus = [(c, min(c, p)) for c, p in zip(cores, places, strict=True) if c and p]
    if device == "cuda" and not with_gpus:
        raise ValueError(
            "device cuda: the Ray cluster has no GPU: give cpu, or ray start --num-gpus"
        )
    if device not in {"cuda", "auto"} or not with_gpus:
        return Actors(max(1, sum(cores)))
    count = sum(actors for _, actors in with_gpus)
    return Actors(count, min(c // actors for c, actors in with_gpus), gpu_share)


@contextlib.contextmanager
def connected() -> Iterator[list[dict[str, float]]]:
    """The resources of each node of the cluster that Ray is connected to in this process, else of
    the one that runs already (`RAY_ADDRESS`), else of one started here: left again at the end.

    Raises:
        ValueError: there is none at that address, it asks for a token that wasn't sent, or Ray
            doesn't start.
    """
    # Progress is the command's own, and only on a terminal.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in _HARMLESS:
        logging.getLogger(name).addFilter(_is_to_be_told)
    for name in _TOLD:
        logging.getLogger(name).addFilter(_keep_from_console)
    ours = not ray.is_initialized()
    if ours:
        _connect()
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if ours:
            ray.shutdown()


def _connect() -> None:
    for again in (True, False):
        try:
            ray.init(logging_level="warning", include_dashboard=False, log_to_driver=False)
            return
        except (ConnectionError, AuthenticationError) as error:
            raise ValueError(f"{_first_sentence(error)}: {CONNECT_MEND}") from error
        except ValueError:
            raise
        except Exception as error:  # that it timed out has no type of its own
            ray.shutdown()
            if not again:
                raise ValueError(f"{_first_sentence(error)}: {START_MEND}") from error


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", str(error).strip())[0]


def _is_to_be_told(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_HARMLESS[record.name])


def _keep_from_console(record: logging.LogRecord) -> bool:
    """Ray Data's handlers know the mark; its log file has the error whole."""
    record.hide = record.exc_info is not None or record.levelno >= logging.ERROR
    return True


def device_of(actors: Actors, options: ScoreOptions) -> str:
    """What runs the network where one of the actors would be; "auto" is decided here, for all.

    Raises:
        ValueError: the device doesn't work there; the message says why.
    """
    task: Any = ray.remote(_opened_device)
    gc.collect()  # actors of earlier runs that something still refers to hold their cores
    with _in_a_sentence():
        asked = task.options(num_cpus=actors.cores, num_gpus=actors.gpus).remote(options)
        if not ray.wait([asked], timeout=PATIENCE)[0]:
            log.warning(
                "waiting for %d cores and %g of a GPU on one machine of the Ray cluster",
                actors.cores, actors.gpus,
            )  # fmt: skip
        device: str = ray.get(asked)
    return device


def _opened_device(options: ScoreOptions) -> str:
    return Detector(str(options.model), fpr=options.fpr, threads=1, device=options.device).device


@contextlib.contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Ray's errors carry tracebacks of other machines, whose last exception says what is wrong."""
    try:
        yield
    except RayError as error:
        words = _last_line(error)
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            words = (
                f"Ray's actors died {RETRIES + 1} times of the same files: see that their machines "
                "have memory enough; what was scored before is kept"
            )
        raise ValueError(words) from error


def _last_line(error: RayError) -> str:
    lines = str(error).strip().split("\n")
    # Ray Data says below that work of its user's has failed, and how to try more often.
    named = [x for x in lines if re.match(r"[\w.]+: ", x) and not x.startswith("ray.exceptions.")]
    return re.sub(r"^[\w.]+: ", "", (named or lines)[-1].strip())


def score_items(
    items: Iterable[Item], options: ScoreOptions, actors: Actors, once: Once | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of the parts, in no particular order; with `once` equal bytes are scored once.

    Raises:
        ValueError: Ray can't go on; the message says why.
    """
    claims = None if once is None else claims_for(once)
    try:
        with _in_a_sentence():
            rows = rows_of_actors(items, options, actors, claims)
            yield from rows if once is None else with_copies(rows, once)
    finally:
        if claims is not None:
            ray.kill(claims)


def rows_of_actors(
    items: Iterable[Item], options: ScoreOptions, actors: Actors, claims: Any
) -> Iterator[dict[str, Any]]:
    """Rows as actors give them, in no particular order; `claims` as for `ScoringActor`."""
    most = min(CHUNK_BYTES * actors.count, _own_store() // 4)
    with chunks(map(row_for_actor, items), CHUNK * actors.count, most) as lists:
        for chunk in lists:
            blocks = min(len(chunk), max(4 * actors.count, math.ceil(len(chunk) / BLOCK)))
            given = ray.data.from_items(chunk, override_num_blocks=blocks)
            chunk.clear()  # Ray has it
            with warnings.catch_warnings():
                # Ray Data takes the number of retries in no other way yet.
                warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
                scored = given.map_batches(
                    ScoringActor,
                    fn_constructor_args=(options, actors.cores, str(Path.cwd()), claims),
                    batch_size=BATCH,
                    compute=ray.data.ActorPoolStrategy(size=min(actors.count, blocks)),
                    num_cpus=actors.cores,
                    num_gpus=actors.gpus or None,
                    max_task_retries=RETRIES,
                )
            yield from map(_plain, scored.iter_rows())


def _own_store() -> int:
    """Bytes of the object store on the driver's machine, where all lies that it hands out."""
    here = ray.get_runtime_context().get_node_id()
    (own,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return int(own["object_store_memory"])


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numpy's scalars and missing numbers as Python has them."""
    values = {k: v.item() if hasattr(v, "item") else v for k, v in row.items()}
    values = {k: None if v != v else v for k, v in values.items()}
    for name in ("width", "height", "size"):
        values[name] = None if values[name] is None else int(values[name])
    return values
