"""What a machine is to a live peer: it tells the peer what happens, and carries out what the peer asks for."""

from collections.abc import Sized
from functools import partial
from typing import TYPE_CHECKING, assert_never

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.learner import Learner, LearnerState, LearningFailed
from p2pfl.protocol import envelope
from p2pfl.protocol.charter import Charter
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
    Open,
    Outgoing,
    Payload,
    PeerId,
    Persist,
    Rejected,
    Release,
    RoundEnded,
    Seal,
    Send,
    Verdict,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.outbox import Boot
from p2pfl.protocol.peer import Peer
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import static_plan
from sim.agenda import Priority
from sim.entropy import SeededEntropy
from sim.sealing import Opener, sealed

if TYPE_CHECKING:
    from sim.events import Federation

WALL_EPOCH = 1_700_000_000.0  # what a simulated peer's wall clock shows when a run begins


class Host:
    """One peer, its learner and its state, in a federation."""

    def __init__(
        self,
        federation: "Federation",
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
        self._opener = Opener()
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
                self._soon(sealed(effect))
            case Open():
                self._soon(self._opener.opened(effect))
            case Abandon(ticket):
                self._opener.abandon(ticket)
            case Learn():
                self._agenda.at(self._agenda.now, partial(self._learn, effect), Priority.LEARNING)
            case RoundEnded(step, metrics):
                self._federation.measures.ended(
                    step, self.index, self.mixed, dict(metrics), self.bytes_sent, self.bytes_received
                )
            case Finished():
                self._federation.left(self)
            case Release() | Persist() | Rejected():
                pass  # memory is collected, no disk is simulated, and the ledger has counted the refusal
            case _:
                assert_never(effect)

    def _soon(self, event: Event) -> None:
        self._agenda.at(self._agenda.now, partial(self.tell, event))

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


def _length(frames: tuple[Sized, ...]) -> int:
    return sum(map(len, frames))
