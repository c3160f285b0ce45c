"""What a file holds beside its pixels: how it was stored, and what it says of its own origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distildire.explain.storage import Storage, storage_of
from distildire.provenance import Origin, read_origin
from distildire.provenance.credentials import c2pa_summary


@dataclass(frozen=True)
class Facts:
    """All that a record takes from a file apart from its pixels."""

    storage: Storage
    origin: Origin
    c2pa: dict[str, Any]
    """As `c2pa_summary` gives it."""


def facts_of(data: bytes) -> Facts:
    """Read them from a picture file that `pictures.decode` accepts."""
    return Facts(storage_of(data), read_origin(data), c2pa_summary(data))
