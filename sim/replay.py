"""`p2pfl sim replay`: what every peer was doing at some moment of a traced run.

A trace says what happened but holds no models. Its first line is the scenario, from which the same run is made again up to that
moment; every line of it is compared with the trace on the way, so that what is shown is what was.
"""

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from p2pfl.failure import Failure
from sim.engine import one_thread
from sim.events import Federation
from sim.host import Host
from sim.scenario import BYTES_MAX, TOP, Scenario
from sim.trace import VERSION, written
from sim.world import world_of

SHOWN = 100  # characters of a line that differs


@dataclass(frozen=True, slots=True)
class PeerMoment:
    """One peer at the moment. state: "away" where its process does not run, else what the peer is doing."""

    name: str
    state: str
    step: int
    age: int
    held: int  # updates
    sent: int
    applied: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A federation at a virtual time; `lines` of the trace were the same until then."""

    time: float
    events: int
    lines: int
    seed: int
    peers: tuple[PeerMoment, ...]


def replay(trace: Path, until: float) -> Moment:
    """Run it again until this virtual time, or to its end if that is before. A `Failure` where it is not the same run."""
    try:
        with trace.open(encoding="ascii") as lines:
            scenario = _scenario(trace, lines.readline(BYTES_MAX))
            check = _Check(trace, lines)
            with one_thread():
                federation = Federation(world_of(scenario), None, check.line)
                federation.run(until)
    except OSError as error:
        raise Failure("unreadable_trace", f"{trace}: {error.strerror}.", "Give the trace.jsonl of a run.") from None
    except UnicodeDecodeError:
        raise _no_trace(trace) from None
    peers = tuple(_moment(host, federation.done) for host in federation.hosts)
    return Moment(federation.agenda.now, federation.agenda.steps, check.lines, scenario.seed, peers)


class _Check:
    """Compares a run with its trace, line by line; neither is ever in memory."""

    def __init__(self, trace: Path, lines: Iterator[str]) -> None:
        self.lines = 0
        self._trace = trace
        self._expected = lines

    def line(self, found: dict[str, object]) -> None:
        self.lines += 1
        expected, text = next(self._expected, "").rstrip("\n"), written(found)
        if expected != text:
            place = next((i for i, (a, b) in enumerate(zip(expected, text, strict=False)) if a != b), 0)
            near = slice(max(0, place - SHOWN // 2), place + SHOWN // 2)
            raise Failure(
                "other_run",
                f"{self._trace}: line {self.lines + 1} says {expected[near] or 'nothing'!r} where this run has {text[near]!r}.",
                "A trace is replayed by the version, on the kind of machine and from the files that made it.",
            )


def _scenario(trace: Path, header: str) -> Scenario:
    try:
        found: Any = json.loads(header)
    except (ValueError, RecursionError):
        raise _no_trace(trace) from None
    match found:
        case {"trace": version, "scenario": None} if version == VERSION:
            hint = "Replay takes scenarios that are all in files."
            raise Failure("not_replayable", f"{trace}: its task or graph was an object in Python.", hint)
        case {"trace": version, "scenario": {**settings}, "folder": str(folder)} if version == VERSION and "\0" not in folder:
            if not settings.keys() <= set(TOP):
                raise _no_trace(trace)
            return Scenario.from_settings(cast(dict[str, Any], settings), Path(folder))
        case _:
            raise _no_trace(trace)


def _moment(host: Host, done: Set[int]) -> PeerMoment:
    peer, ledgers = host.peer, host.ledgers
    return PeerMoment(
        name=host.name,
        state=peer.state.name.lower() if host.is_on or host.index in done else "away",
        step=peer.step,
        age=peer.age,
        held=sum(1 for _ in peer.inbox.slots),
        sent=sum(ledger.sent for ledger in ledgers),
        applied=sum(ledger.applied for ledger in ledgers),
        rejected=sum(sum(ledger.rejected.values()) for ledger in ledgers),
    )


def _no_trace(trace: Path) -> Failure:
    return Failure("bad_trace", f"{trace}: this is no trace.", "Make one with: p2pfl sim run SCENARIO.toml --trace")
