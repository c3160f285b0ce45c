"""The notebook's code runs from top to bottom, without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/quickstart.ipynb"


def test_quickstart_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    tree = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in tree["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        assert not cell["outputs"], "commit the notebook without its outputs"
        exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
        assert capsys.readouterr().out
