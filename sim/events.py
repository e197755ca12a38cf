"""The event engine: the very peer of a live node, driven under virtual time.

Every peer is a `Peer`; its messages go over links with latency and loss, its keys and nonces come from the seed, its vectors
are computed by the very `Learner` of a live node. Sealing, signing and opening are done for real. What is abstracted: the
links are not ZeroMQ, computing and sealing take no virtual time, and nobody's disk fails.
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.learner import Learner
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.events import Effect, Event, LinkUp, PeerId, Started
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.randomness import Choices
from sim.agenda import Agenda
from sim.entropy import SeededEntropy
from sim.host import Host
from sim.measure import Float, Measures
from sim.trace import line
from sim.world import OnRound, OnTrace, World


@dataclass(frozen=True, slots=True)
class EventsOutcome:
    """What came of a run. Arrays over [rounds + 1, peers] have row 0 before training; see `RunRecord`."""

    parameters: NDArray[np.float32]
    accuracy: Float
    loss: Float
    consensus_distance: Float
    bytes_sent: Float
    bytes_received: Float
    updates_sent: tuple[int, ...]
    updates_applied: tuple[int, ...]
    rejected: Sequence[Mapping[str, int]]
    events: int
    virtual_s: float


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
        self._running = world.peers
        self._world = world
        self._on_trace = on_trace
        self._loss = Choices(world.seed, b"loss")
        identities = [Identity.generate(SeededEntropy(world.seed, b"identity %d" % i)) for i in range(world.peers)]
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
        charter = _charter(world, identities, learners[0])
        ids = [identity.peer_id for identity in identities]
        self._index = {peer: i for i, peer in enumerate(ids)}
        self.hosts = [Host(self, i, identities[i], learners[i], charter, ids) for i in range(world.peers)]

    def run(self) -> None:
        """Start every peer and let time pass until nothing is planned any more."""
        for host in self.hosts:
            self.agenda.at(0.0, partial(host.tell, Started()))
        while self._running and self.agenda.step():
            pass

    def left(self, host: Host) -> None:
        """A peer has finished."""
        self._running -= 1
        self.measures.left(host.index)

    def host_of(self, peer: PeerId) -> Host:
        return self.hosts[self._index[peer]]

    def carry(self, sender: Host, to: PeerId, frames: tuple[Sized, ...]) -> None:
        """Put a message on a link, which may lose it."""
        network = self._world.network
        if network.loss and self._loss.uniform(0.0, 1.0) < network.loss:
            return
        receiver = self.host_of(to)
        self.agenda.at(self.agenda.now + network.latency, partial(receiver.receive, sender.peer.own, frames))

    def link(self, dialer: Host, to: PeerId) -> None:
        """A link comes up one latency after it was dialled."""
        self.agenda.at(self.agenda.now + self._world.network.latency, partial(dialer.tell, LinkUp(to)))

    def trace(self, host: Host, event: Event, effects: list[Effect]) -> None:
        if self._on_trace is not None:
            self._on_trace(line(self.agenda.now, host.name, event, effects))

    def outcome(self) -> EventsOutcome:
        """What the hosts and the measures show now."""
        measures, ledgers = self.measures, [host.peer.ledger for host in self.hosts]
        return EventsOutcome(
            parameters=np.stack([host.mixed for host in self.hosts]),
            accuracy=measures.accuracy,
            loss=measures.loss,
            consensus_distance=measures.consensus_distance,
            bytes_sent=measures.bytes_sent,
            bytes_received=measures.bytes_received,
            updates_sent=tuple(ledger.sent for ledger in ledgers),
            updates_applied=tuple(ledger.applied for ledger in ledgers),
            rejected=tuple(ledger.rejected for ledger in ledgers),
            events=self.agenda.steps,
            virtual_s=self.agenda.now,
        )

    @property
    def world(self) -> World:
        return self._world


def _charter(world: World, identities: list[Identity], learner: Learner) -> Charter:
    members = {
        identity.peer_id: Member(identity.peer_id, name, "", identity.transport_key, identity.seal_key)
        for identity, name in zip(identities, world.names, strict=True)
    }
    rules = GossipRules(rounds=world.rounds, **world.gossip.model_dump())
    return Charter(f"simulation {world.seed}", learner.schema, learner.update_bytes, rules, members)
