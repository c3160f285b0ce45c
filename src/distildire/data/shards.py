"""WebDataset's tar shards as a manifest: pictures and their labels in the same tar."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from distildire.io.pictures import DEVELOPED_SUFFIXES
from distildire.io.tars import BETWEEN, SUFFIX, braces, members, read_member
from distildire.io.text import storable, words_of

if TYPE_CHECKING:
    import pandas as pd

ABOUT = (".json", ".cls")
"""Endings of what tells about a picture: an object with `label` and further columns, or the
class alone."""


_COMPRESSED = (
    "pictures are read in any order, which a compressed tar doesn't allow: decompress it "
    "first (gunzip, bunzip2, unxz, unzstd)"
)


class ShardsError(ValueError):
    """Shards that can't be read as a manifest; the message names the shard and the mend."""


COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst")


def is_shards(source: str) -> bool:
    """Whether it names tars: `train.tar`, `train-{0000..0099}.tar`, also compressed ones."""
    return source.lower().endswith((SUFFIX, *COMPRESSED))


def read_shards(source: str) -> pd.DataFrame:
    """One row per picture, in the shards' order: `path` (SHARD.tar::MEMBER) and what is told of it.

    As WebDataset groups them, `a/b.jpg`, `a/b.json` and `a/b.cls` are one sample, as is
    `a/b.mask.png`: every picture of a sample has a row, with its label. What belongs to no picture
    (`__stats__.json`) is passed over. The object in
    a .json gives `label`, and every other plain value a column (`source`, `generator`, `split`,
    ...); a .cls gives the label. Where no source is told, it is the shard's name without `.tar`.

    Raises:
        ShardsError: a shard that is missing, compressed or holds no picture, or a picture
            without a label or with a name that is no UTF-8.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for shard in braces(source):
        rows += _rows_of(shard)
    return pd.DataFrame(rows)


def _rows_of(shard: str) -> list[dict[str, Any]]:
    if shard.lower().endswith(COMPRESSED):
        raise ShardsError(f"{shard}: {_COMPRESSED}")
    try:
        names = list(members(shard))
    except OSError as error:
        words = error.strerror or words_of(error)
        if words.startswith("not a plain"):
            words += f": {_COMPRESSED}"
        raise ShardsError(f"{shard}: cannot be read as a manifest: {words}") from None
    pictures = [n for n in names if PurePosixPath(n).suffix.lower() in DEVELOPED_SUFFIXES]
    if not pictures:
        raise ShardsError(f"{shard}: holds no picture")
    about: dict[str, dict[str, Any]] = {_key(name): {} for name in pictures}
    for name in names:
        if PurePosixPath(name).suffix.lower() in ABOUT and _key(name) in about:
            about[_key(name)].update(_told(shard, name))
    for name in pictures:
        if storable(name) != name:
            raise ShardsError(
                f"{shard}: the name {storable(name)} is no UTF-8: pack it under another"
            )
        if "label" not in about[_key(name)]:
            raise ShardsError(
                f"{shard}: {name} has no label: put a {_key(name)}.json with the label, or a "
                f"{_key(name)}.cls beside it, or list {shard.rpartition('/')[2]}{BETWEEN}{name} "
                "in a manifest"
            )
    source = {"source": PurePosixPath(shard).stem}
    return [{**source, **about[_key(name)], "path": f"{shard}{BETWEEN}{name}"} for name in pictures]


def _key(name: str) -> str:
    """What the parts of a sample share: the name up to the first dot of its last part."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}" if folder else last.partition(".")[0]


def _told(shard: str, name: str) -> dict[str, Any]:
    try:
        text = read_member(shard, name).decode()
        if name.lower().endswith(".cls"):
            return {"label": text.strip()}
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, not an object")
    except (OSError, ValueError) as error:
        raise ShardsError(f"{shard}: {name}: not readable: {error}") from None
    return {key: v for key, v in content.items() if isinstance(v, str | int | float | bool)}
