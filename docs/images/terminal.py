"""The picture of the command line in README: what a command prints on a terminal, as it is.

    python docs/images/terminal.py docs/images/terminal.png distildire detect examples

Runs the command on a pseudo-terminal; draws with rich (its colours) and Chromium.
"""

from __future__ import annotations

import io
import os
import pty
import shlex
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

WIDTH = 92

PAGE = """<!doctype html><meta charset="utf-8"><style>
body{{margin:0;background:#191919}} pre{{margin:0;padding:22px 26px;width:max-content;
font:15px/1.35 "DejaVu Sans Mono",Menlo,Consolas,monospace;color:#d9d9d9;background:#191919}}
{stylesheet}</style><pre>{code}</pre>"""


def printed(command: list[str]) -> str:
    """What the command writes on a terminal of `WIDTH` columns, once its progress is gone."""
    os.environ |= {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    read = io.BytesIO()

    def keep(handle: int) -> bytes:
        data = os.read(handle, 1024)
        read.write(data)
        return data

    if status := pty.spawn(command, keep):
        raise SystemExit(f"{shlex.join(command)}: exit status {status}")
    text = read.getvalue().decode().replace("\r\n", "\n")
    return text.rpartition("\x1b[2K")[2].rstrip()


def draw(command: list[str], out: Path) -> None:
    """Write the picture of a prompt, the command, and what it prints."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), (shlex.join(command), "bold")))
    console.print(Text.from_ansi(printed(command)))
    page = console.export_html(theme=DIMMED_MONOKAI, code_format=PAGE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(device_scale_factor=1.5)
        tab.set_content(page)
        tab.locator("pre").screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    draw(sys.argv[2:], Path(sys.argv[1]))
