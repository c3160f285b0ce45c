"""A video's timeline as SVG, without a plotting library."""

from __future__ import annotations

from html import escape

from distildire.video import VideoVerdict

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 200, 44, 24, 30
_COLOURS = {"fake": "#b23a1e", "real": "#1f5f8f", "unsure": "#76601a", None: "#5a626c"}


def timeline_svg(verdict: VideoVerdict) -> str:
    """The frames' probabilities over time, with the moment that decided marked."""
    if not verdict.timeline:
        raise ValueError(f"{verdict.path}: nothing to plot: {verdict.error}")
    end = max(verdict.duration or 0.0, verdict.timeline[-1].time, 0.001)

    def x(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 12) * seconds / end

    def y(probability: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - probability)

    points = [(x(frame.time), y(frame.probability)) for frame in verdict.timeline]
    colour = _COLOURS[verdict.verdict]
    start, stop = verdict.suspicious or (0.0, 0.0)
    left, right = x(start) - 4, x(stop) + 4
    title = f"{verdict.path}: {verdict.verdict}, {100 * (verdict.probability or 0):.1f}%"
    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(p):.1f}" y2="{y(p):.1f}" '
        f'stroke="#e2e5e9"/><text x="{_LEFT - 6}" y="{y(p) + 4:.1f}" text-anchor="end">'
        f"{100 * p:.0f}%</text>"
        for p in (0.0, 0.5, 1.0)
    )
    dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points)
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f"<title>{escape(title)}</title>"
        "<style>text{font:12px system-ui,sans-serif;fill:#5a626c}</style>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
        f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="{colour}" opacity="0.12"/>'
        f'{grid}<polyline points="{line}" fill="none" stroke="#b9bec5"/>'
        f'<g fill="{colour}">{dots}</g>'
        f'<text x="{_LEFT}" y="16">{escape(title)}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{_clock(0)}</text>'
        f'<text x="{_WIDTH - 12}" y="{_HEIGHT - 8}" text-anchor="end">{_clock(end)}</text></svg>\n'
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
