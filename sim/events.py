"""The event engine: the very peer of a live node, driven under virtual time.

Every peer is a `Peer`; its messages go over links with latency and loss, its keys and nonces come from the seed, its vectors
are computed by the very `Learner` of a live node. Sealing, signing and opening are done for real. What is abstracted: the
links are not ZeroMQ, computing and sealing take no virtual time, and nobody's disk fails.
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import assert_never, cast

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.learner import Learner, LearnerState, LearningFailed
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.protocol import envelope
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Abandon,
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Finished,
    FrameReceived,
    Instant,
    Learn,
    Learned,
    LearnFailed,
    LinkUp,
    Open,
    Opened,
    Outgoing,
    Payload,
    PeerId,
    Persist,
    Rejected,
    Release,
    RoundEnded,
    Seal,
    Sealed,
    Send,
    Started,
    Verdict,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.outbox import Boot
from p2pfl.protocol.peer import Peer, State
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import static_plan
from sim.agenda import Agenda, Priority
from sim.entropy import SeededEntropy
from sim.measure import Float, Measures
from sim.trace import line
from sim.world import OnRound, OnTrace, World

WALL_EPOCH = 1_700_000_000.0  # what a simulated peer's wall clock shows when a run begins


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
        while not all(host.is_finished for host in self.hosts) and self.agenda.step():
            pass

    def host_of(self, peer: PeerId) -> "Host":
        return self.hosts[self._index[peer]]

    def carry(self, sender: "Host", to: PeerId, frames: tuple[Sized, ...]) -> None:
        """Put a message on a link, which may lose it."""
        network = self._world.network
        if network.loss and self._loss.uniform(0.0, 1.0) < network.loss:
            return
        receiver = self.host_of(to)
        self.agenda.at(self.agenda.now + network.latency, partial(receiver.receive, sender.peer.own, frames))

    def link(self, dialer: "Host", to: PeerId) -> None:
        """A link comes up one latency after it was dialled."""
        self.agenda.at(self.agenda.now + self._world.network.latency, partial(dialer.tell, LinkUp(to)))

    def trace(self, host: "Host", event: Event, effects: list[Effect]) -> None:
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


class Host:
    """What a machine is to a live peer: it tells the peer what happens and carries out what the peer asks for."""

    def __init__(
        self,
        federation: Federation,
        index: int,
        identity: Identity,
        learner: Learner,
        charter: Charter,
        ids: list[PeerId],
    ) -> None:
        world = federation.world
        entropy = SeededEntropy(world.seed, b"entropy %d" % index)
        self.name = world.names[index]
        self.index = index
        self.bytes_sent = 0
        self.bytes_received = 0
        self.learner = learner
        self.state: LearnerState = learner.first()
        self.mixed: NDArray[np.float32] = self.state.vector
        self._pending: tuple[LearnerState, NDArray[np.float32]] | None = None
        self._opening: dict[int, bytearray] = {}
        self._planned: float | None = None
        self._federation = federation
        self._agenda = federation.agenda
        self.peer = Peer(
            own=ids[index],
            signer=Keyring(identity, charter.members),
            charter=charter,
            plan=static_plan(
                ids[index],
                [ids[j] for j in world.send_to(index)],
                {ids[j]: weight for j, weight in world.weights[index].items()},
            ),
            local_steps=learner.local_steps,
            samples=learner.samples,
            boot=Boot(1, entropy.draw(16)),
            choices=Choices(world.seed, b"choices %d" % index),
            entropy=entropy,
            evaluate_every=world.evaluate_every,
        )

    def tell(self, event: Event) -> None:
        """Let the peer handle an event and carry out what it wants."""
        now = Instant(self._agenda.now, WALL_EPOCH + self._agenda.now)
        if isinstance(event, Learned) and self._pending is not None:
            self.state, self.mixed = self._pending
        effects = self.peer.handle(event, now)
        self._federation.trace(self, event, effects)
        for effect in effects:
            self._carry_out(effect)
        if self.peer.deadline is not None and self.peer.deadline != self._planned:
            # One entry per deadline; those that the peer has moved on from come to nothing.
            self._planned = self.peer.deadline
            self._agenda.at(max(self.peer.deadline, self._agenda.now), self._wake_if_due)

    @property
    def is_finished(self) -> bool:
        return self.peer.state is State.FINISHED

    def receive(self, hop: PeerId, frames: tuple[Sized, ...]) -> None:
        """A message arrived."""
        self.bytes_received += _length(frames)
        self.tell(FrameReceived(hop, frames))

    def _wake_if_due(self) -> None:
        if self.peer.deadline is not None and self.peer.deadline <= self._agenda.now:
            self.tell(DeadlineReached())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Dial(peer):
                self._federation.link(self, peer)
            case Send(to, frames):
                self.bytes_sent += _length(frames)
                self._federation.carry(self, to, frames)
            case Seal():
                self._soon(Sealed(effect.ticket, _sealed(effect)))
            case Open():
                self._soon(self._opened(effect))
            case Abandon(ticket):
                self._opening.pop(ticket, None)
            case Learn():
                self._agenda.at(self._agenda.now, partial(self._learn, effect), Priority.LEARNING)
            case RoundEnded(step, metrics):
                self._federation.measures.ended(
                    step, self.index, self.mixed, dict(metrics), self.bytes_sent, self.bytes_received
                )
            case Finished():
                self._federation.measures.left(self.index)
            case Release() | Persist() | Rejected():
                pass  # memory is collected, no disk is simulated, and the ledger has counted the refusal
            case _:
                assert_never(effect)

    def _soon(self, event: Event) -> None:
        self._agenda.at(self._agenda.now, partial(self.tell, event))

    def _opened(self, effect: Open) -> Opened:
        sealed = cast(bytes, effect.chunk)
        if envelope.digest(sealed) != effect.digest:
            return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
        plain = envelope.open_chunk(effect.key, effect.index, effect.index == effect.count - 1, sealed)
        if plain is None:
            return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
        buffer = self._opening.setdefault(effect.ticket, bytearray())
        buffer += plain
        if effect.index < effect.count - 1:
            return Opened(effect.ticket, effect.index)
        payload = bytes(self._opening.pop(effect.ticket))
        return Opened(effect.ticket, effect.index, None, Payload(len(payload), envelope.digest(payload), payload))

    def _learn(self, learn: Learn) -> None:
        try:
            state, computed = self.learner.learn(self.state, learn)
        except LearningFailed as failure:
            return self.tell(LearnFailed(learn.step, str(failure)))
        by_sender = {arrived.sender: arrived for arrived in learn.arrived}
        verdicts = tuple(
            Verdict(arrived.sender, arrived.epoch, arrived.seq, Reason(reason) if reason else None)
            for sender, reason in computed.verdicts
            if (arrived := by_sender[PeerId(sender)])
        )
        payload = bytes(computed.payload)
        outgoing = Outgoing(Payload(len(payload), envelope.digest(payload), payload))
        self._pending = state, computed.mixed
        return self.tell(Learned(learn.step, (outgoing,), verdicts, computed.metrics))


def _charter(world: World, identities: list[Identity], learner: Learner) -> Charter:
    members = {
        identity.peer_id: Member(identity.peer_id, name, "", identity.transport_key, identity.seal_key)
        for identity, name in zip(identities, world.names, strict=True)
    }
    rules = GossipRules(rounds=world.rounds, **world.gossip.model_dump())
    return Charter(f"simulation {world.seed}", learner.schema, learner.update_bytes, rules, members)


def _sealed(seal: Seal) -> tuple[Payload, ...]:
    plain = memoryview(cast(bytes, seal.payload.buffer))
    total = envelope.chunk_count(len(plain))
    chunks = []
    for i in range(total):
        part = plain[i * envelope.CHUNK_BYTES : (i + 1) * envelope.CHUNK_BYTES]
        sealed = envelope.seal_chunk(seal.key, i, i == total - 1, part)
        chunks.append(Payload(len(sealed), envelope.digest(sealed), sealed))
    return tuple(chunks)


def _length(frames: tuple[Sized, ...]) -> int:
    return sum(map(len, frames))
