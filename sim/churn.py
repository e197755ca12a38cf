"""Churn: peers that go away and come back, in sessions whose lengths are those of the literature.

A peer is up for a session, then away for an absence, in turn. Both are drawn from one family, with the means
`mean_session_s` and mean_session_s * rate / (1 - rate), so that a share `rate` of the peers is away at any moment. A run
begins in the middle of things: who is away at its start, and for how long still, is drawn from the stationary distribution,
so that the share holds from the first moment on (renewal theory: the residual of a session that an observer meets has the
density (1 - F(t)) / mean).
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import gamma, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from pydantic import Field, model_validator

from p2pfl.failure import Failure
from p2pfl.settings import FileName, Section

if TYPE_CHECKING:
    from sim.world import World


class ChurnSection(Section):
    """`[churn]` of a scenario.

    `model` says how long sessions and absences are: "exponential"; "weibull" with `shape` (0.38 is what Stutzbach and Rejaie,
    IMC 2006, measured for Debian's BitTorrent peers); "pareto" (Lomax) with `shape`, above 1; or "diurnal": every peer is up
    once a day, for mean_session_s, most of them around the same hour. A `trace` file (peer,time,up|down) replaces the model.
    """

    model: Literal["exponential", "weibull", "pareto", "diurnal"] = "exponential"
    rate: float = Field(default=0.0, ge=0, le=0.999)  # share of the peers that is away, on average
    mean_session_s: float = Field(default=10.0, ge=0.001, le=1e9)  # seconds that a peer stays
    shape: float | None = Field(default=None, gt=0.1, le=100)
    trace: FileName | None = None
    leave: Literal["graceful", "crash"] = "graceful"  # whether who goes away persists and says good-bye

    @model_validator(mode="after")
    def _fits(self) -> "ChurnSection":
        if self.trace is not None and self.rate:
            raise ValueError("give rate or trace, not both")
        if self.model == "pareto" and self.shape is not None and self.shape <= 1:
            raise ValueError("shape must be above 1, for a pareto session to have a mean")
        return self

    @property
    def is_calm(self) -> bool:
        """Whether nobody ever goes away."""
        return self.rate == 0 and self.trace is None


@dataclass(frozen=True, slots=True)
class Change:
    """From `time` on the peer is up, or away."""

    time: float
    is_up: bool


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long a session or an absence lasts, and what is left of one that is met at a random moment."""

    whole: Callable[[Generator, float], float]
    """(chance, mean) -> seconds."""
    left: Callable[[Generator, float], float]
    """(chance, mean) -> seconds, of the residual of a length-biased one."""


def exponential() -> Lengths:
    """Memoryless: what is left is distributed like the whole."""
    return Lengths(lambda chance, mean: mean * chance.exponential(), lambda chance, mean: mean * chance.exponential())


def weibull(shape: float) -> Lengths:
    """P(X > t) = exp(-(t / scale)^shape), of mean scale * gamma(1 + 1/shape)."""

    def scale(mean: float) -> float:
        return mean / gamma(1 + 1 / shape)

    # Length-biased, it is scale * G^(1/shape) with G from Gamma(1 + 1/shape); an observer comes at a uniform place in it.
    return Lengths(
        lambda chance, mean: scale(mean) * chance.weibull(shape),
        lambda chance, mean: scale(mean) * chance.gamma(1 + 1 / shape) ** (1 / shape) * chance.random(),
    )


def pareto(shape: float) -> Lengths:
    """Lomax: P(X > t) = (1 + t / beta)^-shape, of mean beta / (shape - 1). What is left has the tail of shape - 1."""
    return Lengths(
        lambda chance, mean: mean * (shape - 1) * chance.pareto(shape),
        lambda chance, mean: mean * (shape - 1) * chance.pareto(shape - 1),
    )


SHAPES = {"weibull": 0.38, "pareto": 2.0}
"""Where none is given: Debian's peers (Stutzbach and Rejaie 2006, figure 5), and the Lomax of the classic churn models."""


def lengths(model: str, shape: float | None) -> Lengths:
    """The family of a section."""
    match model:
        case "exponential":
            return exponential()
        case "weibull":
            return weibull(shape or SHAPES["weibull"])
        case "pareto":
            return pareto(shape or SHAPES["pareto"])
        case _:
            raise AssertionError(f"no family of lengths: {model}")


def changes(section: ChurnSection, peer: int, seed: int, trace: Sequence[Change] = ()) -> Iterator[Change]:
    """When this peer is up and away, from time 0 on, without end where the model has none. The first is at time 0."""
    if section.trace is not None:
        yield from trace
    elif section.rate == 0:
        yield Change(0.0, True)
    elif section.model == "diurnal":
        yield from _diurnal(section, _chance(seed, peer))
    else:
        yield from _alternating(section, _chance(seed, peer))


def away(world: "World") -> NDArray[np.bool_]:
    """[rounds, peers]: who is away in which round, where every round takes `world.round_s`.

    A peer that is away in round r trains and sends nothing in it, and keeps its vector. It mixes at the end of round r - 1
    if it is up in round r: so a peer that comes back takes what its neighbors have just sent, and gives nothing.
    """
    found = np.zeros((world.rounds, world.peers), dtype=bool)
    middles = (np.arange(world.rounds) + 0.5) * world.round_s
    for peer in range(world.peers):
        found[:, peer] = ~_is_up_at(takewhile(lambda change: change.time <= middles[-1], world.changes(peer)), middles)
    return found


SHOWN = 80  # characters of a line that can't be read


def read_trace(path: Path, peers: int) -> tuple[tuple[Change, ...], ...]:
    """The changes of every peer, from lines of peer,time,up|down, in the order of time. Who has no line, or whose first is
    `down`, is up from the start."""

    def refuse(line: int, what: str, hint: str = "Every line is peer,time,up or peer,time,down, sorted by time.") -> Failure:
        return Failure("bad_trace", f"churn.trace: {path}, line {line}: {what}.", hint)

    found: list[list[Change]] = [[] for _ in range(peers)]
    last = 0.0
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8" if isinstance(error, ValueError) else str(error)
        raise Failure("bad_trace", f"churn.trace: {path}: {reason}.", "Give the path of a CSV file.") from None
    for number, row in enumerate(rows, 1):
        if not row or (number == 1 and row[0].strip() == "peer"):
            continue
        try:
            peer, time, word = int(row[0]), float(row[1]), row[2].strip()
        except (ValueError, IndexError):
            raise refuse(number, f"{','.join(row)[:SHOWN]!r} can't be read") from None
        if not 0 <= peer < peers:
            raise refuse(number, f"there is no peer {peer}", f"Peers are 0 to {peers - 1}.")
        if word not in ("up", "down"):
            raise refuse(number, f"{word[:SHOWN]!r} is neither up nor down")
        if not (isfinite(time) and time >= 0):
            raise refuse(number, f"{row[1].strip()} is no time from 0 on")
        if time < last:
            raise refuse(number, f"the times are not sorted: {row[1].strip()} after {last:g}")
        if (was_up := found[peer][-1].is_up if found[peer] else word == "down") == (word == "up"):
            raise refuse(number, f"peer {peer} is {'up' if was_up else 'down'} already")
        last = time
        found[peer].append(Change(time, word == "up"))
    if not any(found):
        raise Failure("bad_trace", f"churn.trace: {path}: nobody comes or goes in it.", "Leave out churn.trace, or fill it.")
    return tuple(tuple(_from_the_start(own)) for own in found)


def _from_the_start(own: list[Change]) -> list[Change]:
    if own and own[0].time == 0:
        return own
    return [Change(0.0, not own[0].is_up if own else True), *own]


def _alternating(section: ChurnSection, chance: Generator) -> Iterator[Change]:
    family = lengths(section.model, section.shape)
    means = {True: section.mean_session_s, False: section.mean_session_s * section.rate / (1 - section.rate)}
    is_up = bool(chance.random() >= section.rate)
    yield Change(0.0, is_up)
    time = family.left(chance, means[is_up])
    while True:
        is_up = not is_up
        yield Change(time, is_up)
        time += family.whole(chance, means[is_up])


HOURS = 0.1  # standard deviation, in days, of the hour at which peers come


def _diurnal(section: ChurnSection, chance: Generator) -> Iterator[Change]:
    """Up in [comes, comes + mean_session_s) of every day."""
    day = section.mean_session_s / (1 - section.rate)
    comes = float(chance.normal(0.0, HOURS)) % 1.0 * day
    goes = (comes + section.mean_session_s) % day
    yield Change(0.0, goes < comes)
    at, is_up = (goes, False) if goes < comes else (comes, True)
    while True:
        yield Change(at, is_up)
        at, is_up = at + (day - section.mean_session_s if not is_up else section.mean_session_s), not is_up


def _is_up_at(history: Iterator[Change], times: NDArray[np.floating]) -> NDArray[np.bool_]:
    known = list(history)
    place = np.searchsorted([change.time for change in known], times, side="right") - 1
    return np.array([change.is_up for change in known])[place]


def _chance(seed: int, peer: int) -> Generator:
    key = hashlib.blake2b(b"churn %d %d" % (seed, peer), digest_size=16).digest()
    return Generator(Philox(key=int.from_bytes(key, "big")))
