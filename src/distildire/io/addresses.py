"""Addresses (`s3://bucket/a`), and those of local files as the paths that they are."""

from __future__ import annotations

import re
from urllib.parse import unquote


def is_address(text: str) -> bool:
    """Whether it begins with a protocol."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def local_form(text: str) -> str:
    """`file://` addresses as the path that they are."""
    if not text.lower().startswith("file://"):
        return text
    path = text[len("file://") :]
    return unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path)
