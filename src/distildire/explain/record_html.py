"""A record as one HTML page for people: no script, no network, fit to print.

By hand and not with Jinja2: `record` is part of the base install, which would grow by two packages
for this one page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from distildire.calibration import Label
from distildire.explain.words import HEADLINES, WHOLE, final_verdict, headline, percent

_STYLE = """
:root{--ink:#16191d;--soft:#5a626c;--line:#d9dde2;--paper:#fff;--fake:#b23a1e;--real:#1f5f8f;
--unsure:#76601a}
*{box-sizing:border-box}
body{margin:0 auto;max-width:52rem;padding:2.5rem 1.25rem;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI","Helvetica Neue",Arial,sans-serif}
header p{color:var(--soft);margin:0;font-size:.85rem}
h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0 1rem;font-weight:650;letter-spacing:-.01em}
h1.fake{color:var(--fake)}h1.real{color:var(--real)}h1.unsure{color:var(--unsure)}
h2{font-size:.95rem;margin:2rem 0 .5rem;padding-top:.9rem;border-top:1px solid var(--line)}
figure{margin:1.2rem 0 0;display:flex;gap:1rem;flex-wrap:wrap}
figure div{position:relative;flex:1 1 14rem;max-width:24rem}
figure img{width:100%;display:block}
figure img.over{position:absolute;inset:0;height:100%}
figcaption{flex-basis:100%;color:var(--soft);font-size:.85rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.28rem .8rem .28rem 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
th{width:15rem;font-weight:400;color:var(--soft)}
code{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
@media print{body{padding:0;font-size:12px}h2{break-after:avoid}}
"""

_COLOURS = {"fake": "#b23a1e", "real": "#1f5f8f", "unsure": "#76601a"}


def render(tree: Mapping[str, Any]) -> str:
    """The tree of a record -> HTML."""
    file, result, model = tree["input"], tree["result"], tree["model"]
    title = headline(result, tree["stability"])
    verdict = final_verdict(result, tree["stability"])
    parts = [
        f"<header><p>Forensic record · distildire {escape(tree['software']['distildire'])}</p>",
        f'<h1 class="{verdict}">{escape(title)}</h1></header>',
        f"<p>{escape(tree['summary'])}</p>",
        scale(result, verdict),
        _pictures(tree),
        _section("Result", _result_rows(result)),
        _section("File", _file_rows(file)),
        _section("What the file says of itself", _provenance_rows(tree)),
    ]
    if tree["stability"]:
        parts.append(_section("Stability", _stability_rows(tree["stability"])))
    parts += [
        _section("Model", _model_rows(model)),
        _section("Software", ((k, v or "not installed") for k, v in tree["software"].items())),
        "<h2>Limits</h2><ul>",
        *(f"<li>{escape(limit)}</li>" for limit in tree["limits"]),
        "</ul>",
    ]
    if tree["made_at"]:
        parts.append(f"<p>Made at {escape(tree['made_at'])}.</p>")
    body = "\n".join(part for part in parts if part)
    name = escape(file["name"] or file["sha256"][:12])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{name}: {escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def scale(result: Mapping[str, Any], verdict: Label) -> str:
    """The probability in the verdict's colour, from 0 to 100%, with the unsure band, as SVG."""

    def at(probability: float) -> float:
        return 10 + 580 * probability

    low, high = (result[k]["probability"] for k in ("real_below", "fake_above"))
    p = result["probability"]
    label = f"Calibrated probability of generated: {percent(p, 1)}"
    anchor = "start" if p < 0.08 else "end" if p > 0.92 else "middle"
    return (
        f'<svg viewBox="0 0 600 62" role="img" aria-label="{label}" width="100%">'
        '<rect x="10" y="28" width="580" height="6" fill="#e4e7eb"/>'
        f'<rect x="{at(low):.1f}" y="28" width="{max(1.0, at(high) - at(low)):.1f}" height="6" '
        'fill="#c9b86a"/>'
        f'<circle cx="{at(p):.1f}" cy="31" r="8" fill="{_COLOURS[verdict]}"/>'
        f'<text x="{at(p):.1f}" y="16" text-anchor="{anchor}">{percent(p, 1)}</text>'
        '<text x="10" y="56">0% · camera</text>'
        '<text x="590" y="56" text-anchor="end">generated · 100%</text></svg>'
    )


def _pictures(tree: Mapping[str, Any]) -> str:
    picture = escape(tree["input"]["thumbnail"])
    cells = [f'<div><img src="{picture}" alt="The picture examined, reduced"></div>']
    caption = "The picture, reduced."
    whole = tree["result"]["looked_at"]["share"] >= WHOLE
    if tree["heatmap"]:
        over = escape(tree["heatmap"]["overlay"])
        cells.append(
            f'<div><img src="{picture}" alt=""><img class="over" src="{over}" '
            'alt="Heat map over the picture"></div>'
        )
        caption = (
            "Left, the picture, reduced. Right, where the score comes from: warm places speak "
            "for generated, cool ones against"
            + (", and under the grey veil it didn't look" if not whole else "")
            + ". It shows what the model weighed, not what was altered. "
            + escape(tree["heatmap"]["note"])
        )
    return f"<figure>{''.join(cells)}<figcaption>{caption}</figcaption></figure>"


def _section(title: str, rows: Iterable[tuple[str, object]]) -> str:
    lines = (
        f"<tr><th scope=row>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<h2>{escape(title)}</h2><table>{''.join(lines)}</table>"


def _result_rows(result: Mapping[str, Any]) -> list[tuple[str, object]]:
    low, high = result["real_below"], result["fake_above"]
    note = [("Note", result["note"])] if result["note"] else []
    return [
        *note,
        ("Verdict of the score alone", HEADLINES[result["verdict"]]),
        ("Looked at", result["looked_at"]["words"]),
        ("Calibrated probability of generated", percent(result["probability"], 2)),
        ("Uncalibrated score (logit)", result["logit"]),
        ("Error budget", f"{100 * result['fpr']:g}% of camera pictures"),
        ("Generated above", f"{percent(high['probability'], 2)} (logit {high['logit']})"),
        ("Camera below", f"{percent(low['probability'], 2)} (logit {low['logit']})"),
    ]


def _file_rows(file: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("Name", file["name"] or "not given"),
        ("SHA-256", file["sha256"]),
        ("Perceptual hash", file["perceptual_hash"]),
        ("Size", f"{file['width']} × {file['height']} pixels, {file['bytes']:,} bytes"),
        ("Format", f"{file['format']}, {file['mode']}"),
    ]


def _provenance_rows(tree: Mapping[str, Any]) -> list[tuple[str, object]]:
    c2pa, file = tree["provenance"]["c2pa"], tree["input"]
    about = tree["provenance"]
    rows: list[tuple[str, object]] = [("Says of its origin", about["declares"] or "nothing")]
    rows += [
        (f"{finding['source']} ({finding['kind']})", finding["value"])
        for finding in about["findings"]
    ]
    rows.append(("Content credentials (C2PA)", _c2pa_words(c2pa)))
    rows += [(f"EXIF {name}", value) for name, value in file["exif"].items()]
    rows += [("EXIF position", "stored in the file")] if file["gps"] else []
    rows += [(f"Text “{name}”", value) for name, value in file["text"].items()]
    if not (file["exif"] or file["gps"] or file["text"]):
        rows.append(("EXIF and text", "none"))
    rows += [("Passed over", sentence) for sentence in file["passed_over"]]
    return rows


def _c2pa_words(c2pa: Mapping[str, Any]) -> str:
    status = c2pa["status"]
    if status == "unchecked":
        return "not checked: c2pa-python is not installed"
    if status in {"none", "unreadable"}:
        return {"none": "none", "unreadable": "present or damaged, cannot be read"}[status]
    by = " · ".join(filter(None, (c2pa["claim_generator"], c2pa["issuer"])))
    return f"{status}; says that {c2pa['says']}" + (f"; by {by}" if by else "")


def _stability_rows(stability: Mapping[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("Verdict stays the same", "yes" if stability["stable"] else "no")
    ]
    rows += [(name, percent(p, 1)) for name, p in stability["scores"].items()]
    return rows


def _model_rows(model: Mapping[str, Any]) -> list[tuple[str, object]]:
    fit = model["calibration"]
    return [
        ("Name", model["name"]),
        ("SHA-256 of the weights", model["sha256"]),
        ("Looks at", model["looks_at"]),
        (
            "Calibrated on",
            f"{fit['n_real']} camera and {fit['n_fake']} generated pictures"
            + (f": {fit['data']}" if fit["data"] else ""),
        ),
        ("Temperature, bias", f"{fit['temperature']:.4f}, {fit['bias']:.4f}"),
    ]
