"""A self-contained HTML page: headings, text, tables and plots that open offline.

By hand and not with Jinja2: a part is a line or two of HTML, and the call that adds it writes its
Markdown as well, for which Jinja2 would need a second template.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24;background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}
th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #d8dee4;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #8c959f}
img{max-width:100%;height:auto}.lead{font-size:1.05rem;border-left:4px solid #8c959f;
padding-left:.8rem}.bad{border-color:#b42318}.good{border-color:#1a7f37}
figure{margin:1rem 0}figcaption{font-size:.85rem;color:#57606a}
"""


class Page:
    """Collects the parts of one page; `html()` and `markdown()` give the whole."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{html.escape(title)}</h1>"]
        self._markdown: list[str] = [f"# {title}\n"]

    def heading(self, text: str) -> None:
        """A heading of the second level."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")
        self._markdown.append(f"## {text}\n")

    def text(self, text: str, kind: str = "") -> None:
        """A paragraph; `kind` is "", "lead", "lead bad" or "lead good"."""
        self._parts.append(f'<p class="{html.escape(kind)}">{html.escape(text)}</p>')
        self._markdown.append(f"{text}\n")

    def bullets(self, lines: Sequence[str]) -> None:
        """A list of points."""
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        self._parts.append(f"<ul>{items}</ul>")
        self._markdown += [*(f"- {line}" for line in lines), ""]

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table; the columns are those of the first row."""
        if not rows:
            return
        names = list(rows[0])
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell(row.get(name)))}</td>" for name in names)
            + "</tr>"
            for row in rows
        )  # fmt: skip
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        self._markdown.append(markdown_table(rows))

    def figure(self, figure: Any, caption: str) -> None:
        """A matplotlib figure, as PNG inside the page; Markdown goes without."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        code = base64.b64encode(buffer.getvalue()).decode()
        words = html.escape(caption)
        self._parts.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{code}">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def html(self) -> str:
        """The whole page, which opens offline."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head><body>"
            + "\n".join(self._parts)
            + "</body></html>\n"
        )

    def markdown(self) -> str:
        """The same without its figures, and headings that stand over figures alone."""
        followed = zip(self._markdown, [*self._markdown[1:], "## "], strict=True)
        return "\n".join(
            part for part, after in followed
            if not (part.startswith("## ") and after.startswith("## "))
        )  # fmt: skip


def cell(value: Any) -> str:
    """A table cell: three digits for floats, a dash for nothing."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {share:.0%}" for key, share in value.items()) or "–"
    return str(value)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same table as Markdown."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (cell(row.get(name)).replace("|", "\\|") for name in names)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
