"""The pages name functions and tests: they must be there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/distildire"


def names_in(file: Path) -> set[str]:
    """Functions, classes, and methods as `Class.method`."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            }
    return found


def named(page: str) -> list[tuple[Path, str]]:
    """(file, name) of everything that a page spells `file.py:name`."""
    text = (ROOT / "docs" / page).read_text()
    return [
        (ROOT / path if path.startswith("tests/") else SOURCE / path, name)
        for path, name in re.findall(r"`([\w/]+\.py):([\w.]+)`", text)
    ]


@pytest.mark.parametrize("page", ["architecture.md", "method.md", "threat-model.md"])
def test_what_the_pages_name_is_there(page: str) -> None:
    found = named(page)
    assert len(found) >= 10
    missing = [f"{file}:{name}" for file, name in found if name not in names_in(file)]
    assert not missing


def test_equations_lead_to_their_source() -> None:
    """Each name of the method's table is code, and the API page shows that code."""
    text = (ROOT / "docs/method.md").read_text()
    links = re.findall(r"\[`([\w.]+)`\]\(api\.md#distildire\.([\w.]+)\)", text)
    assert len(links) > 15
    with_source = r"^::: distildire\.([\w.]+)\n    options:\n      show_source: true$"
    shown = re.findall(with_source, (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    for name, anchor in links:
        assert name == anchor
        assert any(f"{name}.".startswith(f"{entry}.") for entry in shown), name
        parts = name.split(".")
        files = [(SOURCE.joinpath(*parts[:n]).with_suffix(".py"), n) for n in range(1, len(parts))]
        ((file, depth),) = [(file, n) for file, n in files if file.is_file()]
        assert ".".join(parts[depth:]) in names_in(file), name


@pytest.mark.parametrize("module", ["noise.schedule", "distill.loss"])
def test_every_equation_has_its_row(module: str) -> None:
    tree = ast.parse((SOURCE / f"{module.replace('.', '/')}.py").read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs/method.md").read_text(), re.MULTILINE)
    public = [f"[`{module}.{name}`]" for name in names if not name.startswith("_")]
    assert len(public) >= 5
    assert not [link for link in public if not any(link in row for row in rows)]


def test_what_holds_a_promise_is_a_test() -> None:
    promises = named("threat-model.md")
    held = [(file, name) for file, name in promises if file.is_relative_to(ROOT / "tests")]
    assert len(held) > 20
    assert all(name.startswith("test_") for _, name in held)


def test_tests_named_by_file_are_there() -> None:
    for page in ("method.md", "limits.md", "use.md", "train.md"):
        text = (ROOT / "docs" / page).read_text()
        for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
            assert (ROOT / path).is_file(), f"{page}: {path}"


def test_every_extra_is_described() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in ("docs/index.md", "README.md"):
        text = (ROOT / page).read_text()
        missing = [e for e in project["optional-dependencies"] if f"`{e}`" not in text]
        assert not missing, f"{page}: {missing}"


def test_every_benchmark_is_listed_with_its_page() -> None:
    folder = ROOT / "benchmarks"
    text = (folder / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+\.py)` \|", text, re.MULTILINE)
    assert rows == sorted(script.name for script in folder.glob("*.py"))
    for page, heading in re.findall(r"\]\(([\w./-]+)#([\w-]+)\)", text):
        titles = re.findall(r"^#+ (.*)$", (folder / page).read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert heading in anchors, f"{page}#{heading}"
