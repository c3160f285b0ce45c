"""The stand-in bundle as a method, opened in the benchmark's processes without torch."""

from __future__ import annotations

import os

from distildire.bench.methods import BundleMethod

FOLDER = "STANDIN_BUNDLE"
"""Variable of the environment that names the bundle's folder."""


def bundle() -> BundleMethod:
    return BundleMethod(os.environ[FOLDER])
