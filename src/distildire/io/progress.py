"""How work that takes long reports its progress: through a callback of one of three shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Done: TypeAlias = Callable[[int], None]
"""Called with the number of pictures (frames, steps, ...) done, where the whole is unknown."""

DoneOf: TypeAlias = Callable[[int, int], None]
"""Called with (done, in all)."""

StageDoneOf: TypeAlias = Callable[[str, int, int], None]
"""Called with (name of the stage, done, in all)."""
