"""Shards that lie in a folder of pictures, which gives the pictures alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from distildire.scale.shards import is_tar


class LeftOut:
    """Counts them, and says how they are scored."""

    def __init__(self, folder: str, holds_pictures: Callable[[str], bool]) -> None:
        """Begin at none; `holds_pictures` tells of a Parquet file whether it is a shard."""
        self._folder, self._holds_pictures = folder.rstrip("/"), holds_pictures
        self._endings: Counter[str] = Counter()
        self._deep = False
        self._parquet_counts: bool | None = None

    def see(self, path: str) -> None:
        """Take a file that is no picture; of Parquet files the first speaks for all."""
        ending = "".join(PurePosixPath(path).suffixes[-2:]) if is_tar(path) else ".parquet"
        if is_tar(path):
            ending = ending if ending.lower().startswith(".tar") else PurePosixPath(path).suffix
        elif path.lower().endswith(".parquet"):
            if self._parquet_counts is None:
                self._parquet_counts = self._holds_pictures(path)
            if not self._parquet_counts:
                return
        else:
            return
        self._endings[ending] += 1
        self._deep |= path.rpartition("/")[0].rstrip("/") != self._folder

    @property
    def sentence(self) -> str | None:
        """What was left out, and the pattern that scores it; None where nothing was."""
        number = self._endings.total()
        if not number:
            return None
        endings = sorted(self._endings)
        ending = endings[0] if len(endings) == 1 else "{" + ",".join(endings) + "}"
        pattern = f"{self._folder}/{'**/' if self._deep else ''}*{ending}"
        shards = "1 shard" if number == 1 else f"{number:,} shards"
        return f"{shards} (tar or Parquet) below: score '{pattern}' (quoted) for them"
