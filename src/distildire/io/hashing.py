"""SHA-256 of what is judged, trained on and shipped."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO


def sha256_of(source: bytes | str | Path | BinaryIO) -> str:
    """Hex SHA-256 of bytes, of the file at a path, or of an open file, which is rewound."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    source.seek(0)
    while chunk := source.read(2**20):
        digest.update(chunk)
    source.seek(0)
    return digest.hexdigest()
