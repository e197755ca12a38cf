"""A picture of a graph, or of the rounds of a schedule: peers on a circle, in SVG that needs nothing else."""

from collections.abc import Sequence
from html import escape
from math import ceil, cos, pi, sin, sqrt

from topology.weights import Rows

_PANEL = 240  # pixels, of a round; a circle of peers with room for its title
_NAMED_MAX = 40  # peers, more of whom would write their numbers over each other

_STYLE = (
    "svg{background:#fff}line{stroke:#5b6b8c;stroke-opacity:.55}circle{fill:#1f6feb}text{fill:#333;font:11px sans-serif;"
    "text-anchor:middle}marker path{fill:#5b6b8c}"
    "@media(prefers-color-scheme:dark){svg{background:#0d1117}line{stroke:#9fb3d9}text{fill:#ddd}marker path{fill:#9fb3d9}}"
)


def svg(rounds: Sequence[Rows], titles: Sequence[str]) -> str:
    """One panel a round, with a title: a line from whom peers receive, thicker for more weight, an arrow if only one way."""
    columns = ceil(sqrt(len(rounds)))
    width, height = columns * _PANEL, ceil(len(rounds) / columns) * _PANEL
    panels = [
        f'<g transform="translate({place % columns * _PANEL} {place // columns * _PANEL})">{_panel(rows, title)}</g>'
        for place, (rows, title) in enumerate(zip(rounds, titles, strict=True))
    ]
    arrow = '<marker id="arrow" viewBox="0 0 6 6" refX="9" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    defs = f'<style>{_STYLE}</style><defs>{arrow}<path d="M0 0 6 3 0 6z"/></marker></defs>'
    return "\n".join([head, defs, *panels, "</svg>"]) + "\n"


def _panel(rows: Rows, title: str) -> str:
    center, radius, at = _PANEL / 2, _PANEL / 2 - 34, _circle(len(rows))
    place = [(center + radius * x, center + 8 + radius * y) for x, y in at]
    parts = [f'<text x="{center:.0f}" y="14">{escape(title)}</text>']
    for i, row in enumerate(rows):
        for j, weight in row.items():
            both = i in rows[j]
            if j != i and (j < i or not both):
                (x1, y1), (x2, y2) = place[j], place[i]
                arrow = "" if both else ' marker-end="url(#arrow)"'
                stroke = 0.6 + 2.4 * min(1.0, abs(weight))
                parts.append(
                    f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{stroke:.2f}"{arrow}/>'
                )
    dot = max(1.0, min(4.0, 200 / len(rows)))
    for i, ((x, y), (toward_x, toward_y)) in enumerate(zip(place, at, strict=True)):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{dot:.1f}"/>')
        if len(rows) <= _NAMED_MAX:
            parts.append(f'<text x="{x + 13 * toward_x:.1f}" y="{y + 13 * toward_y + 4:.1f}">{i}</text>')
    return "".join(parts)


def _circle(n: int) -> list[tuple[float, float]]:
    """Peer 0 on top, the others clockwise."""
    return [(sin(2 * pi * i / n), -cos(2 * pi * i / n)) for i in range(n)]
