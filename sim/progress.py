"""How far a run is, on stderr: a bar in a terminal, a few plain lines elsewhere and under NO_COLOR."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from p2pfl.report.record import Float
from sim.world import OnRound

PLAIN_LINES = 10


@contextmanager
def progress(rounds: int) -> Iterator[OnRound]:
    """What to tell of every measured row; what it showed is cleared or closed at the end."""
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal and "NO_COLOR" not in os.environ:
        with _bar(rounds, console) as on_round:
            yield on_round
    else:
        yield _lines(rounds)


@contextmanager
def _bar(rounds: int, console: Console) -> Iterator[OnRound]:
    columns = TextColumn("round {task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.description}"), console=console, transient=True) as shown:
        bar = shown.add_task("", total=rounds)
        yield lambda row, accuracy: shown.update(bar, completed=row, description=_accuracy(accuracy))


def _lines(rounds: int) -> OnRound:
    began = perf_counter()
    every = max(1, rounds // PLAIN_LINES)

    def on_round(row: int, accuracy: Float) -> None:
        if row % every == 0 or row == rounds:
            print(f"round {row}/{rounds}  {_accuracy(accuracy)}  {perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

    return on_round


def _accuracy(accuracy: Float) -> str:
    """Of those who have ended the round by now: where some are away or behind, it says how many they are."""
    known = accuracy[~np.isnan(accuracy)]
    if not len(known):
        return ""
    of = "" if len(known) == len(accuracy) else f" of {len(known):,} peers"
    return f"accuracy {known.mean():.3f} (min {known.min():.3f}){of}"
