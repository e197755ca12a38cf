"""Pictures of a run as files of their own, for a paper: true coordinates, plain fonts, no style sheet, dark on white."""

import re
from collections.abc import Sequence
from html import escape

from p2pfl.report.chart import SIDE, Axis, Chart, Tick
from p2pfl.report.page import charts_of
from p2pfl.report.picture import Graph, graph
from p2pfl.report.plain import plain
from p2pfl.report.record import RunRecord

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 26, 40  # margins around the plot
INK, MUTED, GRID, LINE, ALONE, MARK = "#161c2d", "#596377", "#e4e8f0", "#4353c9", "#b4520a", "#a3246b"
# Of viridis, as on the page (page.css): .s0 to .s15.
SHADES = (
    *("#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e"),
    *("#1f988b", "#22a884", "#35b779", "#54c568", "#7ad151", "#a5db36", "#d2e21b", "#fde725"),
)


def pictures(record: RunRecord) -> dict[str, str]:
    """SVG documents by file name: graph.svg, and one for each quantity that was measured, such as accuracy.svg."""
    found = {f"{chart.name}.svg": _curves(chart) for chart in charts_of(record)}
    drawn = graph(record, tuple(plain(peer.name) for peer in record.peers))
    return found if drawn is None else {"graph.svg": _graph(drawn), **found}


def _curves(chart: Chart) -> str:
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [text_at(LEFT, 16, chart.title, "start", INK, 13), *axes(chart.y, chart.x_ticks)]
    for stroke in chart.marks:
        x = LEFT + across * stroke.at / 100
        parts.append(f'<path d="M{x:.2f} {TOP}v{down}" stroke="{MARK}" stroke-dasharray="2 3"/>')
    looks = (
        (chart.band, f'fill="{LINE}" fill-opacity=".13"'),
        (chart.middle, f'fill="{LINE}" fill-opacity=".25"'),
        (chart.alone, f'fill="none" stroke="{ALONE}" stroke-width="1.75" stroke-dasharray="6 4"'),
        (chart.line, f'fill="none" stroke="{LINE}" stroke-width="2"'),
    )
    parts += [f'<path d="{placed(path)}" {look} stroke-linejoin="round"/>' for path, look in looks if path]
    return document(WIDTH, HEIGHT, chart.says, parts)


def axes(y: Axis, x_ticks: Sequence[Tick]) -> list[str]:
    """Grid, ticks and the word under them, of one plot."""
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = []
    for tick in y.ticks:
        height = TOP + down * tick.at / 100
        parts.append(
            f'<path d="M{LEFT} {height:.2f}h{across}" stroke="{GRID}"/>{text_at(LEFT - 7, height + 4, tick.text, "end")}'
        )
    for tick in x_ticks:
        parts.append(text_at(LEFT + across * tick.at / 100, HEIGHT - BOTTOM + 16, tick.text, "middle"))
    return [*parts, text_at(LEFT + across / 2, HEIGHT - 8, "round", "middle")]


def _graph(drawn: Graph) -> str:
    few = any(dot.label for dot in drawn.dots)
    thin = 1.1 if few else 0.5
    parts = [
        f'<path d="{path}" fill="none" stroke="#c9d0de" stroke-width="{thin * (1 + 0.65 * width):.2f}"/>'
        for width, path in drawn.edges
    ]
    for dot in drawn.dots:
        look = f'fill="{SHADES[dot.shade]}"' if dot.shade is not None else f'fill="{GRID}" stroke="{MUTED}"'
        parts.append(
            f'<circle cx="{dot.x:g}" cy="{dot.y:g}" r="{drawn.radius:.1f}" {look}><title>{escape(dot.title)}</title></circle>'
        )
        if dot.label:
            away = drawn.radius + 34 if dot.y > SIDE / 2 else -drawn.radius - 14
            parts.append(text_at(dot.x, dot.y + away, dot.label, "middle", INK, 29))
    says = f"Peers coloured by final accuracy, from {drawn.legend[0]} (dark) to {drawn.legend[1]} (light)."
    return document(SIDE, SIDE, says, parts)


def placed(path: str) -> str:
    """A path in the square of a chart, at its place in the picture."""
    across, down = (WIDTH - LEFT - RIGHT) / SIDE, (HEIGHT - TOP - BOTTOM) / SIDE
    return re.sub(
        r"(-?[\d.]+) (-?[\d.]+)",
        lambda point: f"{LEFT + across * float(point[1]):.2f} {TOP + down * float(point[2]):.2f}",
        path,
    )


def text_at(x: float, y: float, text: str, anchor: str, colour: str = MUTED, size: int = 11) -> str:
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'


def document(width: int, height: int, says: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'{head} font-family="Helvetica, Arial, sans-serif">',
            f"<title>{escape(says)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )
