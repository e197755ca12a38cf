"""`[[fault]]`: what a scenario does to peers and links at given moments of virtual time, and how it ends.

A crashed process loses what was not durable; its machine's links break when its neighbors notice. A paused one stands still
and finds everything waiting. A partition cuts every link between its groups, a cut those from the first group to the second.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

from pydantic import BeforeValidator, Field, model_validator

from p2pfl.failure import Failure
from p2pfl.settings import Section
from sim.links import Block

if TYPE_CHECKING:
    from sim.events import Federation
    from sim.world import World

Kind = Literal["crash", "restart", "leave", "join", "pause", "partition", "cut", "slow", "corrupt", "hostile", "clock"]

NAMED_MAX = 1_000_000  # peers that one fault hits: as many as a scenario may have
OF_GROUPS = ("partition", "cut")
LASTING = ("crash", "leave", "pause", "partition", "cut", "slow", "corrupt", "hostile", "clock")
"""The kinds that `heal` can end."""


def _numbers(given: Any) -> tuple[int, ...]:
    """3, "3", "0-499", or a list of those."""
    if isinstance(given, str):
        return _all([_span(part.strip()) for part in given.split(",")])
    if isinstance(given, list | tuple):
        return _all([_numbers(one) for one in given])
    if isinstance(given, bool) or not isinstance(given, int):
        raise ValueError('peers are numbers, or ranges such as "0-499"')
    return (given,)


def _all(spans: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """One after another; refused before they are written out, where that would fill the memory."""
    if sum(map(len, spans)) > NAMED_MAX:
        raise ValueError(f"these are more than {NAMED_MAX:,} peers")
    return tuple(chain(*spans))


def _span(text: str) -> Sequence[int]:
    found = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", text)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f'{text!r} is no peer and no range such as "0-499"')
    return range(int(found[1]), int(found[2] or found[1]) + 1)


Peers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_numbers, json_schema_input_type=int | str | list[int | str])
]


class FaultSection(Section):
    """One `[[fault]]`. Times are virtual seconds from the beginning; `heal` is when it ends: for a crash or a leave, when the
    peers are started again."""

    at: float = Field(ge=0, allow_inf_nan=False)
    kind: Kind
    peers: Peers = ()
    groups: tuple[Peers, ...] = ()  # of a partition: whoever is in none is in one more; of a cut: from, to
    heal: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    attack: str | None = None  # of a hostile peer
    factor: float = Field(default=10.0, gt=0, allow_inf_nan=False)  # of slow: so many times longer a local step takes
    share: float = Field(default=1.0, gt=0, le=1)  # of corrupt: of the updates that these peers send
    offset_s: float = Field(default=0.0, allow_inf_nan=False)  # of clock: how far the wall clock jumps

    @model_validator(mode="after")
    def _fits(self) -> "FaultSection":
        if self.kind in OF_GROUPS:
            self._check_groups()
        elif not self.peers or self.groups:
            raise ValueError(f"{self.kind} needs peers, and no groups")
        if self.heal is not None and self.kind not in LASTING:
            raise ValueError(f"{self.kind} does not last, so leave out heal")
        if self.heal is not None and self.heal <= self.at:
            raise ValueError(f"heals at {self.heal:g}, before it begins at {self.at:g}")
        if self.kind == "pause" and self.heal is None:
            raise ValueError("pause needs heal, or nothing would ever end")
        if (self.attack is not None) != (self.kind == "hostile"):
            raise ValueError("attack is what hostile peers do: give both or neither")
        return self

    def _check_groups(self) -> None:
        named = list(chain(*self.groups))
        if self.peers or not self.groups or not all(self.groups):
            raise ValueError(f"{self.kind} needs groups of at least one peer, and no peers")
        if self.kind == "cut" and len(self.groups) != 2:
            raise ValueError("cut needs two groups: from the first to the second nothing arrives")
        if len(named) != len(set(named)):
            twice = Counter(named).most_common(1)[0][0]
            raise ValueError(f"the groups overlap: peer {twice} is in two")

    @property
    def text(self) -> str:
        """For the time line: what, and whom it hits."""
        whom = " | ".join(map(_spans, self.groups)) if self.groups else _spans(self.peers)
        return f"{self.attack or self.kind} {whom}"


def check(faults: Sequence[FaultSection], world: "World", attacks: Sequence[str]) -> None:
    """A `Failure` for what can't happen in this world."""
    end = world.rounds * world.round_s
    for number, fault in enumerate(faults, 1):
        where = f"fault {number} ({fault.kind})"
        named = {*fault.peers, *chain(*fault.groups)}
        if outside := sorted(peer for peer in named if peer >= world.peers):
            raise Failure("bad_fault", f"{where}: there is no peer {outside[0]}.", f"Peers are 0 to {world.peers - 1}.")
        if fault.kind == "partition" and len(fault.groups) == 1 and len(named) == world.peers:
            raise Failure("bad_fault", f"{where}: all peers are in one group.", "Leave some out, or name two groups.")
        if fault.at >= end:
            hint = f"{world.rounds} rounds of about {world.round_s:g} s are over at {end:g} s."
            raise Failure("bad_fault", f"{where}: at = {fault.at:g} is after the end.", hint)
        if fault.attack is not None and fault.attack not in attacks:
            raise Failure("bad_fault", f"{where}: there is no attack {fault.attack!r}.", f"There are {', '.join(attacks)}.")


def plan(fault: FaultSection, federation: "Federation") -> None:
    """Put its beginning and its end on the agenda."""
    blocks = [_block(fault)] if fault.groups else []

    def begin() -> None:
        federation.mark(fault.text)
        _begin(fault, blocks, federation)

    def heal() -> None:
        federation.mark(f"end of {fault.text}")
        _heal(fault, blocks, federation)

    federation.agenda.at(fault.at, begin)
    if fault.heal is not None:
        federation.agenda.at(fault.heal, heal)


def _begin(fault: FaultSection, blocks: list[Block], federation: "Federation") -> None:
    hosts = [federation.hosts[peer] for peer in fault.peers]
    match fault.kind:
        case "crash":
            for host in hosts:
                federation.take_down(host, is_graceful=False)
        case "leave":
            for host in hosts:
                federation.take_down(host, is_graceful=True)
        case "restart":
            for host in hosts:
                federation.take_down(host, is_graceful=False)
                federation.bring_up(host)
        case "join":
            for host in hosts:
                federation.bring_up(host)
        case "pause":
            for host in hosts:
                host.pause()
        case "partition" | "cut":
            for block in blocks:
                federation.links.cut(block)
        case "slow":
            for host in hosts:
                host.step_s *= fault.factor
        case "corrupt":
            for host in hosts:
                federation.links.corrupted[host.index] = fault.share
        case "hostile":
            for host in hosts:
                host.turn_hostile(fault.attack)
        case "clock":
            for host in hosts:
                host.wall_offset += fault.offset_s
        case _:
            assert_never(fault.kind)


def _heal(fault: FaultSection, blocks: list[Block], federation: "Federation") -> None:
    hosts = [federation.hosts[peer] for peer in fault.peers]
    match fault.kind:
        case "crash" | "leave":
            for host in hosts:
                federation.bring_up(host)
        case "pause":
            for host in hosts:
                host.resume()
        case "partition" | "cut":
            for block in blocks:
                federation.links.heal(block)
        case "slow":
            for host in hosts:
                host.step_s /= fault.factor
        case "corrupt":
            for host in hosts:
                federation.links.corrupted.pop(host.index, None)
        case "hostile":
            for host in hosts:
                host.turn_hostile(None)
        case "clock":
            for host in hosts:
                host.wall_offset -= fault.offset_s
        case "restart" | "join":
            raise AssertionError(f"{fault.kind} does not last")
        case _:
            assert_never(fault.kind)


def _block(fault: FaultSection) -> Block:
    """Which messages can't pass: (sender, receiver) -> bool."""
    if fault.kind == "cut":
        senders, receivers = map(frozenset, fault.groups)
        return lambda sender, receiver: sender in senders and receiver in receivers
    group_of = {peer: number for number, group in enumerate(fault.groups) for peer in group}
    return lambda sender, receiver: group_of.get(sender) != group_of.get(receiver)


def _spans(peers: Sequence[int]) -> str:
    """1, 2, 3, 7 as "1-3,7"."""
    spans: list[list[int]] = []
    for peer in sorted(peers):
        if spans and peer == spans[-1][1] + 1:
            spans[-1][1] = peer
        else:
            spans.append([peer, peer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
