"""What the base install can import, with every extra out of reach."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import distildire

SOURCE = Path(distildire.__file__).parent
ROOT = SOURCE.parents[1]
FOLDERS = sorted(path.parent for path in SOURCE.glob("*/__init__.py"))

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IMPORT_WITHOUT = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}: it is an extra", name=name)

sys.meta_path.insert(0, Blocked())
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{{name}}: {{error}}")
"""


def brought_by(requirements: Iterable[str]) -> set[str]:
    """The distributions that these bring along, as far as they are installed."""
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            try:
                needs = [Requirement(text) for text in requires(name) or ()]
            except PackageNotFoundError:
                continue
            waiting += [n for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


@cache
def extras() -> frozenset[str]:
    """The modules that extras bring and the base install doesn't have."""
    optional = PROJECT["optional-dependencies"].values()
    more = brought_by(r for group in optional for r in group if not r.startswith("distildire["))
    base = brought_by(PROJECT["dependencies"])
    return frozenset(
        module
        for module, names in packages_distributions().items()
        if (given := set(map(canonicalize_name, names))) & more and not given & base
    )


def doc(folder: Path) -> str:
    return importlib.import_module(f"distildire.{folder.name}").__doc__ or ""


def is_base(folder: Path) -> bool:
    return "Base install" in doc(folder)


def failures(modules: list[str]) -> str:
    code = IMPORT_WITHOUT.format(extras=set(extras()), modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE.parent
    )
    return done.stdout


def test_base_modules_need_no_extra() -> None:
    top = [path for path in SOURCE.glob("*.py") if path.stem != "__main__"]
    inside = [path for folder in FOLDERS if is_base(folder) for path in folder.glob("*.py")]
    assert len(inside) > 30
    names = {
        ".".join(("distildire", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in (*top, *inside)
    }
    assert failures(sorted(name.removesuffix(".__init__") for name in names)) == ""


def test_every_folder_opens_without_its_extra() -> None:
    """So that `import distildire.noise` can say what is missing when it is missed."""
    folders = [f"distildire.{folder.name}" for folder in FOLDERS if folder.name != "web"]
    assert failures(folders) == ""


def test_the_block_blocks() -> None:
    assert "torch" in failures(["distildire.noise.schedule"])
    assert {"fsspec", "onnxscript", "sklearn", "scipy", "starlette"} <= extras()
    assert not extras() & {"numpy", "PIL", "onnxruntime", "typer", "rich", "yaml"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_names_its_extra(folder: Path) -> None:
    known = set(PROJECT["optional-dependencies"])
    named = re.search(r"[Ee]xtra `(\w+)`", doc(folder))
    assert is_base(folder) or (named is not None and named[1] in known), doc(folder)


def test_few_files_stand_at_the_top() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 10
