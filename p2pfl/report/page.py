"""One page from one record: self-contained, opened from disk, with nothing to fetch and no server to ask.

A strict content policy (hashes of its own style and script, nothing else) holds even where escaping failed. Shapes are SVG
made here, so that the page is whole without its script; the script adds pointing, sorting, downloading and the peer's line.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from p2pfl.report.chart import Chart, curves, rounds_drawn, row_means, written, written_bytes
from p2pfl.report.link_picture import link_table
from p2pfl.report.picture import Graph, graph, heat_map, spread, timeline
from p2pfl.report.plain import plain
from p2pfl.report.record import Float, PeerRecord, RunRecord
from p2pfl.report.record_json import to_json
from p2pfl.report.summary import alive, final_accuracy, final_alone, least, mean

# A browser sorts and scrolls this many rows at once; of more peers the table shows those with the lowest accuracy.
TABLE_ROWS_MAX = 1000
# Numbers per peer and round that the page carries (about 6 bytes each); a longer record keeps them in result.json alone.
EMBEDDED_VALUES_MAX = 500_000
MARKS_LISTED_MAX = 100


def render(record: RunRecord) -> str:
    """The whole HTML document. Write it as UTF-8."""
    style, script = asset("page.css"), asset("page.js")
    names = tuple(plain(peer.name) for peer in record.peers)
    charts = charts_of(record)
    drawn = graph(record, names)
    embedded, whole = _embedded(record)
    return (
        environment()
        .get_template("page.html")
        .render(
            record=record,
            names=names,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src '{content_hash(style)}'; script-src '{content_hash(script)}'; "
            "img-src data:; base-uri 'none'; form-action 'none'",
            headline=_headline(record),
            charts=charts,
            graph=drawn,
            spread=spread(record, names),
            heat=heat_map(record, names),
            timeline=timeline(record, names),
            links=link_table(record, names),
            rows=_rows(record),
            rejected=_rejected(record),
            settings=list(_settled(record.settings)),
            marks=sorted(record.marks, key=lambda mark: mark.round)[:MARKS_LISTED_MAX],
            bytes_total=sum(peer.bytes_sent for peer in record.peers),
            states=_states(record),
            whole=whole,
            data=_script_json({**_pointed(record, charts), "places": _places(drawn)}),
            embedded=Markup(_in_script(embedded)),
        )
    )


@dataclass(frozen=True, slots=True)
class Headline:
    """Accuracies in [0, 1] over the living peers, None where not measured."""

    together: float | None
    together_least: float | None
    alone: float | None
    alone_least: float | None

    @property
    def gain(self) -> float | None:
        return None if self.together is None or self.alone is None else self.together - self.alone


def _headline(record: RunRecord) -> Headline:
    living = alive(record)
    together, alone = final_accuracy(record)[living], final_alone(record)[living]
    return Headline(mean(together), least(together), mean(alone), least(alone))


def charts_of(record: RunRecord) -> list[Chart]:
    if len(record.accuracy) == 0 or not record.peers:
        return []
    rounds = rounds_drawn(len(record.accuracy))
    alone = row_means(record.alone_accuracy[rounds][:, alive(record)]) if len(record.alone_accuracy) else np.empty(0)
    nothing = np.empty(0)
    found = (
        curves("accuracy", "Accuracy", "percent", rounds, record.accuracy[rounds], alone, record.marks),
        curves("loss", "Loss", "number", rounds, record.loss[rounds], nothing, record.marks),
        curves("distance", "Consensus distance", "log", rounds, record.consensus_distance[rounds, None], nothing, record.marks),
        curves("bytes", "Bytes sent per peer", "bytes", rounds, record.bytes_sent[rounds], nothing, record.marks),
        curves("up", "Peers up", "percent", rounds, _up(record)[rounds, None], nothing, record.marks),
    )
    return [chart for chart in found if chart is not None]


def _up(record: RunRecord) -> Float:
    """[rounds + 1]: the share that is up in the round which begins there; NaN where everybody was, always."""
    if record.up.size == 0 or bool(record.up.all()):
        return np.full(len(record.accuracy), np.nan)
    share = record.up.mean(axis=1)
    return np.append(share, share[-1])


def _rows(record: RunRecord) -> list[tuple[int, PeerRecord, float]]:
    """(index, peer, alone), all of them in order or, of too many, those with the lowest accuracy."""
    alone = final_alone(record).tolist()
    rows = [(index, peer, alone[index]) for index, peer in enumerate(record.peers)]
    if len(rows) <= TABLE_ROWS_MAX:
        return rows
    return sorted(rows, key=lambda row: row[1].accuracy if math.isfinite(row[1].accuracy) else 2.0)[:TABLE_ROWS_MAX]


def _rejected(record: RunRecord) -> dict[str, int]:
    total: dict[str, int] = {}
    for peer in record.peers:
        for reason, count in peer.rejected.items():
            total[reason] = total.get(reason, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _states(record: RunRecord) -> dict[str, int]:
    states: dict[str, int] = {}
    for peer in record.peers:
        states[peer.state] = states.get(peer.state, 0) + 1
    return states


def _settled(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted keys and values written as in JSON."""
    for key, value in settings.items():
        dotted = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            yield from _settled(value, f"{dotted}.")
        else:
            yield dotted, json.dumps(value, default=str, ensure_ascii=False)


def _pointed(record: RunRecord, charts: list[Chart]) -> dict[str, Any]:
    rounds = rounds_drawn(len(record.accuracy)).tolist() if charts else []
    return {
        "rounds": rounds,
        "series": {
            chart.name: {"unit": chart.unit, "low": chart.y.low, "high": chart.y.high, "lines": chart.series}
            for chart in charts
        },
    }


def _places(drawn: Graph | None) -> list[list[float]]:
    return [] if drawn is None else [[dot.x, dot.y] for dot in drawn.dots]


def _embedded(record: RunRecord) -> tuple[str, bool]:
    """The record for the download, its curves rounded to five decimals, and whether it has all of them."""
    whole = 4 * record.accuracy.size <= EMBEDDED_VALUES_MAX
    n = len(record.peers)
    none = np.empty((0, n))
    return to_json(
        replace(
            record,
            accuracy=np.round(record.accuracy, 5) if whole else none,
            loss=np.round(record.loss, 5) if whole else none,
            alone_accuracy=np.round(record.alone_accuracy, 5) if whole else none,
            bytes_sent=record.bytes_sent if whole else none,
            consensus_distance=record.consensus_distance if whole else np.empty(0),
            up=record.up if whole else np.empty((0, 0), dtype=np.bool_),
        )
    ), whole


def _script_json(value: Any) -> Markup:
    return Markup(_in_script(json.dumps(value, allow_nan=False, separators=(",", ":"))))


def _in_script(text: str) -> str:
    """JSON that can stand inside a script element: `<` is what could end it, `&` and `>` go with it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(asset),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = lambda text: plain(str(text))
    environment.filters["bytes"] = lambda value: written_bytes(float(value))
    environment.filters["percent"] = lambda value: written(value, "percent")
    environment.filters["number"] = lambda value: written(value, "number")
    environment.filters["sortable"] = lambda value: f"{value:.9g}" if math.isfinite(value) else ""
    return environment


def asset(name: str) -> str:
    return files("p2pfl.report").joinpath("assets", name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
