"""The event engine: the very peer of a live node, driven under virtual time.

Every peer is a `Peer` on a `Host`; its messages go over `Links`, its keys and nonces come from the seed, its vectors are
computed by the very `Learner` of a live node. Sealing, signing and opening are done for real. Peers come and go as churn and
faults say. What is abstracted: the links are not ZeroMQ, sealing takes no virtual time, and no disk is ever full.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.learner import Learner
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.protocol import wire
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.events import Effect, Event, PeerId
from p2pfl.protocol.randomness import Choices
from p2pfl.report.record import Mark
from sim import fault
from sim.accounting import crypto_of
from sim.agenda import Agenda
from sim.churn import Change
from sim.founded import Founded, identities_of
from sim.garbage import rare_collections
from sim.host import Host
from sim.invariants import Invariants
from sim.links import Links
from sim.measure import Float, Measures
from sim.plans import plans_of
from sim.together import Together
from sim.trace import line
from sim.world import OnRound, OnTrace, World


@dataclass(frozen=True, slots=True)
class EventsOutcome:
    """What came of a run. Arrays over [rounds + 1, peers] have row 0 before training; see `RunRecord`.

    up: [rounds, peers], who was up when the first peer had trained in round r. finished: who did all rounds before the end.
    link_bytes: sent, by (sender, receiver).
    """

    parameters: NDArray[np.float32]
    accuracy: Float
    loss: Float
    consensus_distance: Float
    bytes_sent: Float
    bytes_received: Float
    link_bytes: Mapping[tuple[int, int], int]
    updates_sent: tuple[int, ...]
    updates_applied: tuple[int, ...]
    rejected: Sequence[Mapping[str, int]]
    up: NDArray[np.bool_]
    marks: tuple[Mark, ...]
    finished: tuple[bool, ...]
    events: int
    virtual_s: float
    fallback_reason: str | None
    awareness: str = ""


def run_events(world: World, on_round: OnRound | None = None, on_trace: OnTrace | None = None) -> EventsOutcome:
    """Run until every peer has finished."""
    federation = Federation(world, on_round, on_trace)
    federation.run()
    return federation.outcome()


class Federation:
    """All peers of a run, the links between them and the agenda."""

    def __init__(self, world: World, on_round: OnRound | None, on_trace: OnTrace | None) -> None:
        self.agenda = Agenda()
        self.measures = Measures(world.rounds, world.peers, on_round)
        self.marks: list[Mark] = []
        self.done: set[int] = set()  # who has finished all its rounds
        self._kept_down: set[int] = set()  # by a fault, whatever churn says
        self._running = 0  # processes
        self._expected = 0  # faults that are still to come or to end
        self._world = world
        self._on_trace = on_trace
        self.crypto = crypto_of(world.network.crypto, world.peers, world.seed)
        identities = identities_of(world.seed, world.peers)
        model = Model(world.task, world.seed)
        learners = [
            Learner(
                identities[i].peer_id,
                world.task,
                TaskPeer(i, world.peers),
                world.training,
                world.codec,
                world.limits,
                world.seed,
                model,
            )
            for i in range(world.peers)
        ]
        self.together = Together(learners[0], world.peers)
        self.reader = _reader(world.peers)
        charter = _charter(world, learners[0])
        ids = [identity.peer_id for identity in identities]
        self.members = {
            identity.peer_id: Member(identity.peer_id, name, "", identity.transport_key, identity.seal_key)
            for identity, name in zip(identities, world.names, strict=True)
        }
        self._index = {peer: i for i, peer in enumerate(ids)}
        self.founded = None if world.overlay is None else Founded(world.overlay, self, charter.network_id, world.seed)
        plans, speeds = plans_of(world, ids), _speeds(world)
        self.hosts = [Host(self, i, identities[i], learners[i], charter, plans[i], speeds[i]) for i in range(world.peers)]
        self.links = Links(self)
        self.links.tells_refusals = self.founded is not None
        self.invariants = Invariants(self)

    def run(self, until: float = inf) -> None:
        """Start every peer and let time pass until all who are up have finished, and nobody else will be brought back; or until
        this virtual time."""
        world = self._world
        for one in world.faults:
            self._expected += 1 + (one.heal is not None)
            fault.plan(one, self)
        self._kept_down = {peer for one in world.faults if one.kind == "join" for peer in one.peers}
        if self.founded is not None:
            self.founded.found([host for host in self.hosts if self._begins(host)])
        for host in self.hosts:
            self._next_change(host, world.changes(host.index))
        with rare_collections():
            while self._is_going_on() and self.agenda.step(until):
                self.invariants.stepped()
        self.invariants.check_all()

    def _begins(self, host: Host) -> bool:
        """Whether it is there from the first moment on."""
        return host.index not in self._kept_down and next(self._world.changes(host.index), Change(0.0, False)).is_up

    def _is_going_on(self) -> bool:
        return len(self.done) < len(self.hosts) and bool(self._running or self._expected or not self.done)

    def _next_change(self, host: Host, changes: Iterator[Change]) -> None:
        change = next(changes, None)
        if change is not None:
            self.agenda.at(change.time, partial(self._change, host, change, changes))

    def _change(self, host: Host, change: Change, changes: Iterator[Change]) -> None:
        """Churn: a peer comes or goes."""
        if host.index in self.done:
            return
        if host.index not in self._kept_down:
            if change.is_up:
                self._switch_on(host)
            else:
                self._switch_off(host, is_graceful=self._world.churn.leave == "graceful")
        self._next_change(host, changes)

    def take_down(self, host: Host, is_graceful: bool) -> None:
        """A fault ends the process of a peer, which stays away until a fault brings it back."""
        self._kept_down.add(host.index)
        self._switch_off(host, is_graceful)

    def bring_up(self, host: Host) -> None:
        """A fault starts the process of a peer."""
        self._kept_down.discard(host.index)
        self._switch_on(host)

    def _switch_on(self, host: Host) -> None:
        if host.is_on or host.index in self.done:
            return
        self._running += 1
        self.measures.came(host.index)
        host.start()
        self.links.came_up(host)

    def _switch_off(self, host: Host, is_graceful: bool) -> None:
        if not host.is_on:
            return
        if is_graceful:
            host.leave()
        else:
            host.crash()
            self.went(host)

    def went(self, host: Host) -> None:
        """The process of a peer has ended."""
        self._running -= 1
        if self.founded is not None:
            self.founded.went(host)
        self.together.forget(host.index)
        self.links.went_down(host)
        self.measures.went(host.index)

    def left(self, host: Host, step: int) -> None:
        """A peer has finished, with all its rounds or because it was stopped."""
        if step >= self._world.rounds:
            self.done.add(host.index)
        self.went(host)

    def mark(self, text: str) -> None:
        """A fault begins or ends: for the time line."""
        self._expected -= 1
        self.marks.append(Mark(self.measures.round, text))

    def host_of(self, peer: PeerId) -> Host:
        return self.hosts[self._index[peer]]

    def carry(self, sender: Host, to: PeerId, frames: tuple[Sized, ...], bulk: bool) -> None:
        """Put a message on a link."""
        self.links.send(sender, self.host_of(to), frames, bulk)

    def link(self, dialer: Host, to: PeerId) -> None:
        """Keep a link up from now on."""
        self.links.dial(dialer, self.host_of(to))

    def hang_up(self, dialer: Host, to: PeerId) -> None:
        """Let a link go."""
        self.links.hang_up(dialer, self.host_of(to))

    def viewed(self, host: Host) -> None:
        """Other members are live than before, in the eyes of this peer."""
        if self.founded is not None:
            self.founded.viewed(host)

    def handled(self, host: Host, event: Event, effects: list[Effect]) -> None:
        """A peer was told something, and asks for these effects, which are not carried out yet."""
        if self._on_trace is not None:
            self._on_trace(line(self.agenda.now, host.name, event, effects))
        self.invariants.handled(host, event, effects)

    def outcome(self) -> EventsOutcome:
        """What the hosts and the measures show now."""
        measures, lives = self.measures, [host.ledgers for host in self.hosts]
        return EventsOutcome(
            parameters=np.stack([host.mixed for host in self.hosts]),
            accuracy=measures.accuracy,
            loss=measures.loss,
            consensus_distance=measures.consensus_distance,
            bytes_sent=measures.bytes_sent,
            bytes_received=measures.bytes_received,
            link_bytes=self.links.bytes,
            updates_sent=tuple(sum(ledger.sent for ledger in ledgers) for ledgers in lives),
            updates_applied=tuple(sum(ledger.applied for ledger in ledgers) for ledgers in lives),
            rejected=tuple(dict(sum((Counter(ledger.rejected) for ledger in ledgers), Counter())) for ledgers in lives),
            up=measures.up,
            marks=tuple(self.marks),
            finished=tuple(i in self.done for i in range(len(self.hosts))),
            events=self.agenda.steps,
            virtual_s=self.agenda.now,
            fallback_reason=self.together.fallback_reason,
            awareness="" if self.founded is None else self.founded.awareness(),
        )

    @property
    def world(self) -> World:
        return self._world


def _charter(world: World, learner: Learner) -> Charter:
    rules = GossipRules(rounds=world.rounds, **world.gossip.model_dump())
    return Charter(f"simulation {world.seed}", bytes(32), learner.schema, learner.update_bytes, rules)


def _reader(peers: int) -> wire.Reader:
    """What goes to several peers is decoded for the first of them. What is under way at one time are a few messages a peer."""
    kept = 256 + 2 * peers
    return wire.Reader(lru_cache(kept)(wire.decode), lru_cache(kept)(wire.decode_header))


def _speeds(world: World) -> list[float]:
    """Seconds of a local step on every peer's machine. As many are stragglers as the scenario says, whoever they are."""
    steps = [world.step_s.drawn(Choices(world.seed, b"speed %d" % i)) for i in range(world.peers)]
    lots = [Choices(world.seed, b"straggler %d" % i).below(1 << 60) for i in range(world.peers)]
    count = round(world.compute.stragglers * world.peers)
    for i in sorted(range(world.peers), key=lots.__getitem__)[:count]:
        steps[i] *= world.compute.straggler_factor
    return steps
