"""A federation under faults, as a test writes it.

    f = Rehearsal(peers=20, topology="ring", task="digits", seed=7)
    f.at(10).kill([3, 4, 5])
    f.at(20).restart(4)
    r = f.run(until=60)

Times are virtual seconds from the beginning, of which a round takes one unless the scenario's [compute] and [network] say
otherwise. Whatever a scenario file can say can be given by name.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.ma import MaskedArray

from p2pfl.failure import Failure
from sim.engine import run
from sim.result import Result
from sim.scenario import ROUNDS_MAX, Scenario
from sim.world import world_of

ROUND_S = 1.0  # what a round is taken to last where no time passes in a scenario

Peers = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class Rehearsed(Result):
    """A `Result` whose curves leave out who is away: `accuracy[-1].min()` is of the peers that are there."""

    @property
    def accuracy(self) -> "MaskedArray[Any, np.dtype[np.float64]]":
        """[rounds + 1, peers], masked where a peer was away or was not measured."""
        return np.ma.masked_invalid(self.record.accuracy)

    @property
    def loss(self) -> "MaskedArray[Any, np.dtype[np.float64]]":
        """As `accuracy`."""
        return np.ma.masked_invalid(self.record.loss)


CarryOut = Callable[[Scenario], Result]
"""How a scenario is run: in virtual time (`sim.run`), or really."""


class Rehearsal:
    """The scenario, and what is to happen in it. `on_run` hears of every scenario before it is carried out."""

    def __init__(
        self, *, carry_out: CarryOut = run, on_run: Callable[[Scenario], None] = lambda _: None, **settings: Any
    ) -> None:
        self._settings = settings
        self._faults: list[Mapping[str, Any]] = list(settings.pop("fault", ()))
        self._carry_out = carry_out
        self._on_run = on_run

    def at(self, seconds: float) -> "Moment":
        """What happens then: f.at(10).kill(3)"""
        return Moment(self._faults, seconds)

    def run(self, *, until: float | None = None, rounds: int | None = None) -> Rehearsed:
        """Run it for so many rounds, or for as many as begin before `until` (virtual seconds), or as the scenario says."""
        if until is not None and rounds is not None:
            raise Failure("usage", "run: until and rounds are both given.", "Give one of them.")
        if until is not None:
            rounds = self._rounds(until)
        scenario = self._scenario({} if rounds is None else {"rounds": rounds})
        world_of(scenario)  # whatever can't be is refused here, for real processes too
        self._on_run(scenario)
        result = self._carry_out(scenario)
        return Rehearsed(result.parameters, result.record, result.events)

    def _rounds(self, until: float) -> int:
        if not until > 0:
            raise Failure("usage", f"run: until = {until:g} is no time.", "Give virtual seconds, above 0.")
        round_s = world_of(self._scenario({"rounds": ROUNDS_MAX})).round_s or ROUND_S
        return max(1, ceil(until / round_s))

    def _scenario(self, more: Mapping[str, Any]) -> Scenario:
        return Scenario(**{**self._settings, **more, "fault": self._faults})


@dataclass(frozen=True, slots=True)
class Moment:
    """Faults that begin at one time. Each returns the moment, so that more can follow. `heal` is the time when it ends."""

    _faults: list[Mapping[str, Any]]
    seconds: float

    def kill(self, peers: Peers, *, heal: float | None = None) -> "Moment":
        """SIGKILL: what was not durable is lost. `heal`: when they are started again."""
        return self._add("crash", peers=peers, heal=heal)

    def restart(self, peers: Peers) -> "Moment":
        """Start them again from what is durable, whether they were there or not."""
        return self._add("restart", peers=peers)

    def leave(self, peers: Peers, *, heal: float | None = None) -> "Moment":
        """They persist, say good-bye and end."""
        return self._add("leave", peers=peers, heal=heal)

    def join(self, peers: Peers) -> "Moment":
        """They come now; until then they were not there."""
        return self._add("join", peers=peers)

    def pause(self, peers: Peers, *, heal: float | None = None) -> "Moment":
        """SIGSTOP: whatever happens to them waits."""
        return self._add("pause", peers=peers, heal=heal)

    def partition(self, *groups: Peers, heal: float | None = None) -> "Moment":
        """Nothing passes between the groups; whoever is in none is in one more."""
        return self._add("partition", groups=[_listed(group) for group in groups], heal=heal)

    def cut(self, senders: Peers, receivers: Peers, *, heal: float | None = None) -> "Moment":
        """Nothing passes from the first to the second; the other way all does."""
        return self._add("cut", groups=[_listed(senders), _listed(receivers)], heal=heal)

    def slow(self, peers: Peers, factor: float = 10.0, *, heal: float | None = None) -> "Moment":
        """Their local steps take so many times longer."""
        return self._add("slow", peers=peers, factor=factor, heal=heal)

    def corrupt(self, peers: Peers, share: float = 1.0, *, heal: float | None = None) -> "Moment":
        """Such a share of what they send arrives damaged."""
        return self._add("corrupt", peers=peers, share=share, heal=heal)

    def hostile(self, peers: Peers, attack: str, *, heal: float | None = None) -> "Moment":
        """Their machines are in the hands of an attacker, whose keys are real."""
        return self._add("hostile", peers=peers, attack=attack, heal=heal)

    def clock(self, peers: Peers, offset_s: float, *, heal: float | None = None) -> "Moment":
        """Their wall clocks jump."""
        return self._add("clock", peers=peers, offset_s=offset_s, heal=heal)

    def _add(self, kind: str, peers: Peers | None = None, **settings: Any) -> "Moment":
        named = {} if peers is None else {"peers": _listed(peers)}
        given = {name: value for name, value in settings.items() if value is not None}
        self._faults.append({"at": self.seconds, "kind": kind, **named, **given})
        return self


def as_toml(scenario: Scenario) -> str | None:
    """The scenario as a file that runs it again; None where a task or a graph was given as an object."""
    if scenario.own_task is not None or scenario.own_graph is not None:
        return None
    settings = scenario.model_dump(mode="json", exclude_defaults=True)
    sections = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    lines = [f"{name} = {_toml(value)}" for name, value in settings.items() if name not in sections]
    for name, section in sections.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in section.items() if value is not None)]
    return "\n".join(lines) + "\n"


def kept(scenario: Scenario, path: Path) -> Path | None:
    """Write it there, as a file that runs it again; None where it can't be one."""
    text = as_toml(scenario)
    if text is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _toml(value: Any) -> str:
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items() if inner is not None) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return json.dumps(value)  # strings, numbers and booleans are written alike


def _listed(peers: Peers) -> list[int]:
    return [peers] if isinstance(peers, int) else list(peers)
