"""Published weights: fetched with resume, and pinned.

By hand and not with pooch, which starts a broken download anew, where of 2.2 GB only the rest
should come, and would add requests to the base install.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from distildire.io.hashing import sha256_of
from distildire.io.writing import write_json

BytesDone: TypeAlias = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all if known)."""

TRIES = 4
"""Connections made for one file before giving up; each resumes where the last broke."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A published file: on a model hub (`repository`), or at a plain address (`url`)."""

    file: str
    url: str = ""
    repository: str = ""
    size: int | None = None
    """Bytes, where known beforehand."""
    sha256: str | None = None
    """Where unknown, the first download's is recorded and pinned from then on."""


REMOTES = {
    "paper-imagenet": Remote(
        file="imagenet-distil-dire-11e.pth", repository="yevvonlim/distildire"
    ),
    "paper-celebahq": Remote(
        file="celebahq-distil-dire-34e.pth", repository="yevvonlim/distildire"
    ),
    "adm-imagenet256": Remote(
        file="256x256_diffusion_uncond.pt",
        url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
        "256x256_diffusion_uncond.pt",
        size=2_211_383_297,
        sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
    ),
}


class FetchError(ValueError):
    """A download that failed; one line that says what to get and where to put it."""


def cache_home() -> Path:
    """Where fetched weights live: DISTILDIRE_HOME, else ~/.cache/distildire."""
    home = os.environ.get("DISTILDIRE_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "distildire"


def fetch(
    name: str,
    home: Path | None = None,
    *,
    progress: BytesDone | None = None,
    remote: Remote | None = None,
) -> Path:
    """Fetch published weights into the cache folder; return the file's path.

    A file already there is checked against its pinned size and SHA-256 and kept. A broken
    download stays as `<file>.part` and is resumed.

    Args:
        name: one of `REMOTES` (any name, if `remote` is given).
        home: folder to put it in, by default `cache_home()`.
        progress: hears of the bytes as they arrive.
        remote: where from, in place of `REMOTES[name]`.

    Raises:
        FetchError: unknown name, no network, or a file that isn't the pinned one.
    """
    if remote is None:
        if name not in REMOTES:
            raise FetchError(f"{name!r} is not published: give one of {', '.join(REMOTES)}")
        remote = REMOTES[name]
    home = home or cache_home()
    path = home / remote.file
    pinned = _pinned(home, name, remote)
    if path.is_file():
        return _verified(path, name, home, pinned)
    try:
        home.mkdir(parents=True, exist_ok=True)
        if remote.repository:
            part = _from_hub(remote, home)
        else:
            part = download(remote.url, path, size=pinned.size, progress=progress)
    except (OSError, http.client.HTTPException) as error:
        what = f"{remote.repository} {remote.file}" if remote.repository else remote.url
        raise FetchError(
            f"cannot fetch {name} ({_reason(error)}): download {what} by other means and put it "
            f"at {path}"
        ) from error
    _verified(part, name, home, pinned)
    part.replace(path)
    return path


def download(
    url: str, path: Path, *, size: int | None = None, progress: BytesDone | None = None
) -> Path:
    """Download `url` to `<path>.part`, resuming what is there; return the part's path.

    A server without ranges is read from the start again. A connection that breaks is made
    anew, up to `TRIES` times as long as bytes arrive.

    Raises:
        OSError: no connection, an HTTP error, or one that broke for good.
    """
    part = path.with_name(path.name + ".part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        if size is not None and before == size:
            return part
        try:
            if _receive(url, part, before, progress):
                return part
            broken: OSError = ConnectionError("the connection broke off")
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
            broken = error
        except (OSError, http.client.HTTPException) as error:
            broken = error if isinstance(error, OSError) else ConnectionError(str(error))
        grew = part.exists() and part.stat().st_size > before
        failures = 1 if grew else failures + 1
        if failures >= TRIES or (not grew and isinstance(broken, urllib.error.URLError)):
            raise broken
        time.sleep(min(0.2 * 2**failures, 5.0))


def _receive(url: str, part: Path, have: int, progress: BytesDone | None) -> bool:
    """Append to `part` from byte `have` on; whether everything announced has come."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # Nothing after the last byte: complete, or longer than the file and thus wrong.
            whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if whole.isdigit() and int(whole) == have:
                return True
            part.unlink()
            return False
        raise
    with answer:
        resumed = answer.status == 206
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
    return total is None or have == total


def _from_hub(remote: Remote, home: Path) -> Path:
    """Download through huggingface_hub, which resumes and caches by itself."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        raise FetchError(
            f"fetching {remote.file} needs huggingface_hub: pip install 'distildire[train]'"
        ) from None
    # The hub's own errors derive from OSError, ValueError and httpx's classes.
    try:
        with _errors_alone("huggingface_hub"):
            # Asked once: `hf_hub_download` asks for half a minute where there is no network.
            get_hf_file_metadata(hf_hub_url(remote.repository, remote.file))
            return Path(hf_hub_download(remote.repository, remote.file, local_dir=home / "hub"))
    except Exception as error:
        raise ConnectionError(_reason(error)) from error


@contextmanager
def _errors_alone(name: str) -> Iterator[None]:
    """A package's log without what it tries again."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _pinned(home: Path, name: str, remote: Remote) -> Remote:
    """`remote` with the size and hash recorded at the first download, where it has none."""
    record = _read_pins(home).get(name)
    if remote.sha256 or not record:
        return remote
    return Remote(remote.file, remote.url, remote.repository, record["size"], record["sha256"])


def _verified(path: Path, name: str, home: Path, pinned: Remote) -> Path:
    size = path.stat().st_size
    if pinned.size is not None and size != pinned.size:
        raise FetchError(
            f"{path}: {size:,} bytes instead of {pinned.size:,}: half downloaded or another "
            "file; delete it and fetch again"
        )
    sha256 = sha256_of(path)
    if pinned.sha256 is not None and sha256 != pinned.sha256:
        raise FetchError(
            f"{path}: SHA-256 {sha256} is not the pinned {pinned.sha256}: another or a damaged "
            "file; delete it and fetch again"
        )
    if pinned.sha256 is None:
        pins = {**_read_pins(home), name: {"size": size, "sha256": sha256}}
        write_json(home / "pins.json", pins, indent=2, sort_keys=True)
    return path


def _read_pins(home: Path) -> dict[str, Any]:
    try:
        content = json.loads((home / "pins.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise FetchError(f"{home / 'pins.json'}: damaged ({error}); delete it") from error
    return content if isinstance(content, dict) else {}


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return (str(reason).splitlines() or [type(error).__name__])[0][:200]
