"""What a person sees on stderr while peers run: a live table on a terminal, else one plain line a round."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING

from node.local.run import LocalPeer, LocalRun
from p2pfl.report.plain import plain

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_S = 0.1
NAME_MAX = 12  # columns
TROUBLES_MAX = 4  # the newest, under the live table
_BARS = "▁▂▃▄▅▆▇█"

Watch = Callable[[LocalRun], None]


def missed(run: LocalRun) -> list[str]:
    """Of a run that is over: who has no line for some of its rounds."""
    short = [(peer, run.network.terms.rounds + 1 - len(peer.rounds)) for peer in run.peers if peer.state == "done"]
    return [
        f"{plain(peer.name)} could not finish {rounds} of {run.network.terms.rounds + 1} steps"
        for peer, rounds in short
        if rounds > 0
    ]


@contextmanager
def shown(title: str) -> Iterator[Watch]:
    """Yields what to call at every change."""
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        with _table(title) as watch:
            yield watch
    else:
        print(title, file=sys.stderr, flush=True)
        yield _lines()


def _lines() -> Watch:
    said = -1
    told = heard = 0

    def watch(run: LocalRun) -> None:
        nonlocal said, told, heard
        for kill, step in run.kills[told:]:
            print(f"{plain(run.peers[kill.peer].name)} was killed in round {step + 1}", file=sys.stderr, flush=True)
        told = len(run.kills)
        for trouble in _troubles(run, heard):
            print(trouble, file=sys.stderr, flush=True)
        heard = len(run.incidents)
        step = _reached(run)
        if step > said:
            said = step
            print(f"round {step}/{run.network.terms.rounds}  {_accuracy(run)}", file=sys.stderr, flush=True)

    return watch


@contextmanager
def _table(title: str) -> Iterator[Watch]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    drawn = 0.0
    with Live(console=Console(stderr=True), auto_refresh=False) as live:

        def watch(run: LocalRun) -> None:
            nonlocal drawn
            now = monotonic()
            if now - drawn >= REFRESH_S or _is_over(run):
                drawn = now
                live.update(Group(_drawn(title, run), *map(Text, _troubles(run, 0)[-TROUBLES_MAX:])), refresh=True)

        yield watch


def _drawn(title: str, run: LocalRun) -> "Table":
    from rich.table import Table
    from rich.text import Text

    step = _reached(run)
    caption = f"{_accuracy(run)}   {_sparkline(run)}" if step >= 0 else "starting"
    # All of it fits into 80 columns: no borders, and names cut.
    table = Table(
        title=f"{title} · round {max(step, 0)}/{run.network.terms.rounds}",
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("peer", no_wrap=True, max_width=NAME_MAX)
    table.add_column("state", no_wrap=True)
    for column in ("round", "accuracy", "loss", "wait ms", "missing", "out kB", "in kB", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    for peer in run.peers:
        line = peer.rounds[-1] if peer.rounds else {}
        rejected = sum(peer.counters.get("rejected", {}).values())
        cells = (
            (str(line["step"]) if line else ""),
            (f"{line['accuracy']:.3f}" if "accuracy" in line else ""),
            (f"{line['loss']:.3g}" if "loss" in line else ""),
            (f"{line['waited_s'] * 1000:.0f}" if line else ""),
            (str(len(line["missing"])) if line else ""),
            f"{peer.counters.get('bytes_sent', 0) / 1000:.0f}",
            f"{peer.counters.get('bytes_received', 0) / 1000:.0f}",
            str(rejected),
        )
        style = {"killed": "red", "failed": "red", "done": "green"}.get(peer.state)
        table.add_row(Text(plain(peer.name)), Text(peer.state, style=style or ""), *cells)
    return table


def _troubles(run: LocalRun, heard: int) -> list[str]:
    """Who could not learn, and why; without the first `heard` incidents."""
    return [
        f"{plain(run.peers[peer].name)} could not learn: {plain(incident['text'])}"
        for peer, incident in run.incidents[heard:]
        if incident["kind"] == "learn_failed"
    ]


def _living(run: LocalRun) -> list[LocalPeer]:
    return [peer for peer in run.peers if peer.state not in ("killed", "failed")]


def _reached(run: LocalRun) -> int:
    """The round that everyone who is alive has finished."""
    return min((peer.step for peer in _living(run)), default=-1)


def _is_over(run: LocalRun) -> bool:
    return all(peer.state in ("done", "killed", "failed") for peer in run.peers)


def _accuracy(run: LocalRun) -> str:
    found = _accuracies(run, _reached(run))
    return f"accuracy {fmean(found):.3f} (min {min(found):.3f})" if found else "accuracy not measured"


def _sparkline(run: LocalRun) -> str:
    means = []
    for step in range(_reached(run) + 1):
        if found := _accuracies(run, step):
            means.append(fmean(found))
    return "".join(_BARS[min(int(mean * len(_BARS)), len(_BARS) - 1)] for mean in means[-40:])


def _accuracies(run: LocalRun, step: int) -> list[float]:
    """Of those who are alive, after the same round: some may be further."""
    return [line["accuracy"] for peer in _living(run) for line in peer.rounds if line["step"] == step and "accuracy" in line]
