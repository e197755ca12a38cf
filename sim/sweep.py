"""A sweep: every combination of some values, under several seeds. What is finished stays finished.

Every cell is a run's folder under cells/, named by a digest of its resolved scenario, which appears whole or not at all; so a
sweep that was interrupted goes on by being started again, and sweeps in one folder share their cells.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from p2pfl.failure import ExitCode, Failure
from p2pfl.report.chart import row_means
from p2pfl.report.record import Float, RunRecord
from p2pfl.report.record_json import from_json
from p2pfl.report.summary import alive, final_accuracy, final_alone, least, mean
from sim.engine import choose, run
from sim.grid import Axis, Cell
from sim.output import run_folder
from sim.world import world_of

SWEEPS = Path(".p2pfl/sweeps")
CELLS = "cells"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sweep keeps of a cell: numbers over the peers, NaN where not measured. Curves are [rounds + 1]."""

    accuracy: float
    accuracy_least: float
    alone: float
    bytes_per_peer: float
    seconds: float
    accuracy_curve: Float
    alone_curve: Float  # empty where the run without gossip was not made
    distance_curve: Float


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell and what came of it; None where its models diverged."""

    cell: Cell
    outcome: Outcome | None


def run_cells(folder: Path, axes: Sequence[Axis], cells: Sequence[Cell], say: Callable[[str], None]) -> list[Finished]:
    """Run those that are not finished yet. All are checked before the first runs."""
    every = {cell.name: cell for cell in cells}  # two values may mean the same
    known = {name: outcome for name, cell in every.items() if (outcome := _found(folder, cell)) is not None}
    rest = [cell for name, cell in every.items() if name not in known]
    _check(rest)
    if known:
        say(f"{len(known)} of {len(every)} cells are finished already, in {folder}")
    clock = _Clock([every[name] for name in known], known)
    finished: dict[str, Outcome | None] = {**known}
    try:
        for number, cell in enumerate(rest, 1):
            outcome, taken = _run(folder, cell)
            finished[cell.name] = outcome
            clock.tell(cell, taken)
            place = f"{len(known) + number}/{len(every)}  {label(axes, cell.values)}  seed {cell.seed}"
            say(f"{place}: {_said(outcome)}, {taken:.1f} s{clock.left(rest[number:])}")
    except KeyboardInterrupt:
        raise Failure(
            "interrupted",
            f"Interrupted: {len(finished)} of {len(every)} cells are finished, in {folder}.",
            "The same command goes on with the others.",
            ExitCode.INTERRUPTED,
        ) from None
    return [Finished(cell, finished[cell.name]) for cell in cells]


def sweep_folder(out: Path | None, scenario: Path) -> Path:
    """`out`, or a folder named after the scenario's file. A `Failure` where it can't be, or holds something else."""
    folder = out or SWEEPS / scenario.stem
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CELLS).is_dir():
        raise Failure("output_exists", f"--out {folder}: it holds something else than a sweep.", "Give another folder.")
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(
            "output_unwritable", f"{folder}: {error.strerror}.", "Give a folder that can be written: --out."
        ) from None
    return folder


def label(axes: Sequence[Axis], values: Sequence[str]) -> str:
    """The values with their keys, such as "kind=ring rate=0.1"."""
    return " ".join(f"{axis.key.rpartition('.')[2]}={value}" for axis, value in zip(axes, values, strict=True))


def outcome_of(record: RunRecord) -> Outcome:
    """The few numbers and curves of one run."""
    living = alive(record)
    accuracy = final_accuracy(record)[living]
    sent = np.array([peer.bytes_sent for peer in record.peers], dtype=np.float64)
    return Outcome(
        accuracy=_number(mean(accuracy)),
        accuracy_least=_number(least(accuracy)),
        alone=_number(mean(final_alone(record)[living])),
        bytes_per_peer=_number(mean(sent)),
        seconds=record.seconds,
        accuracy_curve=row_means(record.accuracy),
        alone_curve=row_means(record.alone_accuracy),
        distance_curve=record.consensus_distance,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _check(cells: Sequence[Cell]) -> None:
    """One of each combination: seeds change the draw, seldom what can be."""
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        if cell.values not in seen:
            seen.add(cell.values)
            choose(world_of(cell.scenario), cell.scenario.engine)


def _found(folder: Path, cell: Cell) -> Outcome | None:
    path = folder / CELLS / cell.name / "result.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("bad_cell", f"{path}: {error}.", "Remove its folder to run this cell again.") from None
    try:
        record = from_json(text)
    except Failure as failure:
        raise Failure("bad_cell", f"{path}: {failure.message}", "Remove its folder to run this cell again.") from None
    if {**record.settings, "engine": cell.settings["engine"]} != cell.settings:
        raise Failure("bad_cell", f"{path}: this is another scenario's result.", "Remove its folder to run this cell again.")
    return outcome_of(record)


def _run(folder: Path, cell: Cell) -> tuple[Outcome | None, float]:
    began = perf_counter()
    try:
        with run_folder(folder / CELLS / cell.name, cell.scenario.title, cell.seed) as cell_folder:
            record = run(cell.scenario).record
            cell_folder.write(record)
    except Failure as failure:
        if failure.code != "diverged":
            raise
        return None, perf_counter() - began
    return outcome_of(record), perf_counter() - began


def _said(outcome: Outcome | None) -> str:
    return "diverged" if outcome is None else f"accuracy {outcome.accuracy:.3f}"


class _Clock:
    """How long the rest will take: as long as the same combination took under other seeds, or as the others on average."""

    def __init__(self, cells: Sequence[Cell], known: dict[str, Outcome]) -> None:
        self._taken: dict[tuple[str, ...], list[float]] = {}
        for cell in cells:
            self.tell(cell, known[cell.name].seconds)

    def tell(self, cell: Cell, seconds: float) -> None:
        self._taken.setdefault(cell.values, []).append(seconds)

    def left(self, rest: Sequence[Cell]) -> str:
        if not rest:
            return ""
        means = {values: sum(taken) / len(taken) for values, taken in self._taken.items()}
        average = sum(means.values()) / len(means)
        return f", about {_duration(sum(means.get(cell.values, average) for cell in rest))} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
