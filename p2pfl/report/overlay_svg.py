"""The small multiples of an overlay as a picture of its own, for a paper or a page of the docs."""

from collections.abc import Sequence
from html import escape

from p2pfl.report.overlay import DrawnLine, DrawnPanel, Row, drawn
from p2pfl.report.plain import plain
from p2pfl.report.svg import BOTTOM, HEIGHT, INK, LEFT, MARK, RIGHT, TOP, WIDTH, axes, document, placed, text_at

PANELS_ABREAST = 3
KEY_HEIGHT = 20
KEY_COLUMNS = 2
# Of overlay.css, .c0 to .c7.
COLOURS = ("#0065a3", "#c24e00", "#00805c", "#a8457f", "#8a6d00", "#2f89b8", "#5b5b66", "#6a4fc0")


def overlay_picture(row: Row, legend: Sequence[str]) -> str | None:
    """An SVG document; None where nothing was measured. legend: the names of the lines, in the order of their colours."""
    panels = drawn(row, {name: index for index, name in enumerate(legend)})
    if not panels:
        return None
    abreast = min(PANELS_ABREAST, len(panels))
    parts = [
        f'<g transform="translate({WIDTH * (index % abreast)} {HEIGHT * (index // abreast)})">{"".join(_panel(panel, row))}</g>'
        for index, panel in enumerate(panels)
    ]
    down = HEIGHT * -(-len(panels) // abreast)
    columns = max(1, min(KEY_COLUMNS * abreast, len(legend)))
    parts += [
        _key(index, name, LEFT + (WIDTH * abreast - LEFT) / columns * (index % columns), down + KEY_HEIGHT * (index // columns))
        for index, name in enumerate(legend)
    ]
    says = "; ".join(panel.says for panel in panels)
    return document(WIDTH * abreast, down + KEY_HEIGHT * -(-len(legend) // columns) + 6, plain(says), parts)


def _panel(panel: DrawnPanel, row: Row) -> list[str]:
    title = row.title + (f", {plain(panel.title)}" if panel.title else "")
    parts = [text_at(LEFT, 16, title, "start", INK, 13), *axes(panel.y, panel.x_ticks)]
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    for mark in panel.marks:
        parts.append(f'<path d="M{LEFT + across * mark.at / 100:.2f} {TOP}v{down}" stroke="{MARK}" stroke-dasharray="2 3"/>')
    for line in panel.lines:
        if line.band:
            parts.append(f'<path d="{placed(line.band)}" fill="{COLOURS[line.colour]}" fill-opacity=".16"/>')
    for line in panel.lines:
        parts.append(
            f'<path d="{placed(line.path)}" {_stroke(line.colour, line.is_dashed)}><title>{_says(line)}</title></path>'
        )
        for x, y in line.dots:
            place = f'cx="{LEFT + across * x / 100:.2f}" cy="{TOP + down * y / 100:.2f}"'
            parts.append(f'<circle {place} r="3" fill="{COLOURS[line.colour]}"/>')
    return parts


def _key(index: int, name: str, x: float, y: float) -> str:
    is_dashed = index >= len(COLOURS)
    sample = f'<path d="M{x:.2f} {y + 8:.2f}h22" {_stroke(index % len(COLOURS), is_dashed)}/>'
    return sample + text_at(x + 28, y + 12, plain(name), "start", INK)


def _stroke(colour: int, is_dashed: bool) -> str:
    dashes = ' stroke-dasharray="6 4"' if is_dashed else ""
    return f'fill="none" stroke="{COLOURS[colour]}" stroke-width="2" stroke-linejoin="round"{dashes}'


def _says(line: DrawnLine) -> str:
    return escape(plain(line.says))
