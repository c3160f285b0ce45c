"""Generators by how their names begin: manifests write "StyleGAN2 (inferred)" and "SD1.x"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def begins_with(names: ArrayLike, prefixes: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the names [N] begin with one of the prefixes; upper and lower case are alike."""
    wanted = tuple(p.strip().casefold() for p in prefixes if p.strip())
    return np.array([str(n).casefold().startswith(wanted) for n in np.asarray(names, object)], bool)


def check_prefixes(names: ArrayLike, prefixes: Sequence[str]) -> None:
    """Raise ValueError for a prefix that no name has: most likely it is misspelt."""
    for prefix in prefixes:
        if not begins_with(names, [prefix]).any():
            known = ", ".join(sorted({str(n) for n in np.asarray(names, object)} - {""})) or "none"
            raise ValueError(f"no generator begins with {prefix!r} (generators: {known})")
