"""Published weights: fetching them with resume, and converting what is on disk."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Where fetched weights live: DISTILDIRE_HOME, else ~/.cache/distildire."""
    home = os.environ.get("DISTILDIRE_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "distildire"
