"""What a machine is to a live peer: it tells the peer what happens, and carries out what the peer asks for.

A host outlives its peer's process. Switched off, it forgets everything but its disk; switched on again, a new `Peer` with a
later boot epoch goes on from what was durable.
"""

from collections import deque
from collections.abc import Sized
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.codec import Refused
from p2pfl.learning.learner import Computed, Learner, LearnerState, LearningFailed
from p2pfl.learning.mixer import Folding
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Abandon,
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Finished,
    Fold,
    Folded,
    FoldsLost,
    FrameReceived,
    HangUp,
    IdentityConflict,
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
    Started,
    StopRequested,
    Verdict,
    ViewChanged,
)
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.peer import Peer
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.room import allotment
from p2pfl.protocol.round import Plan
from sim.agenda import Action, Priority
from sim.entropy import SeededEntropy
from sim.hostile import ATTACKS, HONEST, Attack
from sim.sealing import Opener

if TYPE_CHECKING:
    from sim.events import Federation
    from sim.world import World

WALL_EPOCH = 1_700_000_000.0  # what a simulated peer's wall clock shows when a run begins


class Host:
    """One peer, its learner, its disk and its state, in a federation."""

    def __init__(
        self,
        federation: "Federation",
        index: int,
        identity: Identity,
        learner: Learner,
        charter: Charter,
        plan: Plan,
        step_s: float,
    ) -> None:
        """`step_s`: virtual seconds that this machine takes for a local step."""
        world = federation.world
        self.name = world.names[index]
        self.index = index
        self.id = identity.peer_id
        self.bytes_sent = 0
        self.bytes_received = 0
        self.learner = learner
        self.state: LearnerState = learner.first()
        self.mixed: NDArray[np.float32] = self.state.vector
        self.is_on = False
        self.has_finished = False
        self.epoch = 0  # of the present life of the process, or of the last
        self.past: list[Ledger] = []  # of earlier lives
        self.step_s = step_s
        self.wall_offset = 0.0
        self.signer = federation.crypto.signer(identity, federation.members)
        self._attack: Attack = HONEST
        self._durable: tuple[bytes | None, LearnerState] = None, self.state
        self._durable_from = 0.0
        self._pending: tuple[LearnerState, NDArray[np.float32]] | None = None
        self._folding: Folding | None = None
        self._folds: deque[Fold] = deque()
        self._opener = Opener(federation.crypto)
        self._planned: float | None = None
        self._paused: deque[Event] | None = None
        self._federation = federation
        self._agenda = federation.agenda
        self._charter = charter
        self._plan = plan
        self._choices = Choices(world.seed, b"choices %d" % index)
        self._entropy = SeededEntropy(world.seed, b"entropy %d" % index)
        self.peer = self._new_peer(None)

    @property
    def ledgers(self) -> list[Ledger]:
        """The books of all lives of this peer."""
        return [*self.past, self.peer.ledger]

    # ---- on and off -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The process begins, or begins again from what was durable, with a later boot epoch."""
        if self.epoch:
            self.past.append(self.peer.ledger)
        self.epoch += 1
        restored, self.state = self._durable
        self.is_on, self.has_finished = True, False
        self.peer = self._new_peer(restored)
        self._opener, self._pending, self._planned, self._paused = Opener(self._federation.crypto), None, None, None
        self._folding, self._folds = None, deque()
        self.tell(Started())

    def crash(self) -> None:
        """The process is gone, and with it everything that was not durable."""
        self.is_on = False

    def leave(self) -> None:
        """The operator stops the peer: it persists, says good-bye, and its process ends."""
        self.resume()
        self.tell(StopRequested())

    def pause(self) -> None:
        """The process stands still: whatever happens to it waits."""
        if self._paused is None:
            self._paused = deque()

    def resume(self) -> None:
        """What has waited happens now, in its order."""
        waiting, self._paused = self._paused or deque(), None
        while waiting and self._paused is None:
            self.tell(waiting.popleft())
        if self._paused is None and self.is_on:
            self._wake_if_due()

    def turn_hostile(self, attack: str | None) -> None:
        """From now on this machine is in the hands of an attacker, whose peer and keys are real; None gives it back."""
        self._attack = HONEST if attack is None else ATTACKS[attack](self)

    @property
    def is_hostile(self) -> bool:
        return self._attack is not HONEST

    @property
    def now(self) -> Instant:
        """What its clocks show."""
        return Instant(self._agenda.now, WALL_EPOCH + self._agenda.now + self.wall_offset)

    @property
    def world(self) -> "World":
        return self._federation.world

    def _new_peer(self, restored: bytes | None) -> Peer:
        world, founded = self._federation.world, self._federation.founded
        boot, liveness, plan = Boot(self.epoch, self._entropy.draw(16)), None, self._plan
        if founded is not None and self.is_on:
            boot = founded.boot(self)
            liveness = founded.liveness(self, boot, self.now)
            plan = liveness.plan
        can_fold = self.learner.can_fold and self._charter.gossip.mode == "rounds"
        allotted = allotment(max(1, len(plan.senders)), self.learner.update_bytes, can_fold)
        return Peer(
            own=self.id,
            signer=self.signer,
            charter=self._charter,
            members=self._federation.members,
            plan=plan,
            local_steps=self.learner.local_steps,
            samples=self.learner.samples,
            boot=boot,
            choices=self._choices,
            entropy=self._entropy,
            restored=restored,
            evaluate_every=world.evaluate_every,
            reader=self._federation.reader,
            liveness=liveness,
            room=allotted.places if allotted.folds else None,
            folds=allotted.folds,
        )

    # ---- events and effects ---------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Let the peer handle an event and carry out what it wants."""
        if not self.is_on:
            return
        if self._paused is not None:
            self._paused.append(event)
            return
        now = self.now
        if isinstance(event, Learned) and self._pending is not None and not self.has_finished:
            self.state, self.mixed = self._pending
        effects = self.peer.handle(event, now)
        self._federation.handled(self, event, effects)
        for effect in effects:
            self._carry_out(effect)
        if self.is_on and self.peer.deadline is not None and self.peer.deadline != self._planned:
            # One entry per deadline; those that the peer has moved on from come to nothing.
            self._planned = self.peer.deadline
            self._agenda.at(max(self.peer.deadline, self._agenda.now), self._wake_if_due)

    def receive(self, hop: PeerId, frames: tuple[Sized, ...]) -> None:
        """A message arrived."""
        self.bytes_received += _length(frames)
        self.tell(FrameReceived(hop, frames))

    def _wake_if_due(self) -> None:
        if self._paused is None and self.peer.deadline is not None and self.peer.deadline <= self._agenda.now:
            self._planned = None
            self.tell(DeadlineReached())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Open():
                self._soon(self._opener.opened(effect))
            case Release() | Rejected():
                pass  # memory is collected, and the ledger has counted the refusal
            case Send(to, frames, bulk):
                for message in self._attack.sent(to, frames):
                    self._send(to, message, bulk)
            case Seal():
                self._soon(self._federation.crypto.sealed(effect))
            case Dial(peer):
                self._federation.link(self, peer)
            case Abandon(ticket):
                self._opener.abandon(ticket)
            case Fold():
                self._folds.append(effect)
                self._agenda.at(self._agenda.now, self._in_this_life(self._fold_next))
            case Learn():
                if not self._federation.world.evaluated[self.index]:
                    effect = replace(effect, evaluate=False)
                folding, self._folding = self._folding, None
                self._federation.together.ask(self.index, self.learner, self.state, effect, folding)
                due = self._agenda.now + effect.local_steps * self.step_s
                self._agenda.at(due, partial(self._learn, self.epoch, effect, folding), Priority.LEARNING)
            case RoundEnded(step, metrics):
                self._federation.measures.ended(
                    step, self.index, self.mixed, dict(metrics), self.bytes_sent, self.bytes_received
                )
            case Persist(_, state):
                self._persist(state)
            case Finished(step):
                self.has_finished, self.is_on = True, False
                self._federation.left(self, step)
            case HangUp(peer):
                self._federation.hang_up(self, peer)
            case ViewChanged():
                self._federation.viewed(self)
            case IdentityConflict(peer):
                raise AssertionError(f"{self.name} takes {peer.hex()[:8]} for two, and there is only one of each here")
            case _:
                assert_never(effect)

    def _send(self, to: PeerId, frames: tuple[Sized, ...], bulk: bool) -> None:
        """Hand a message to the link, but not before what was persisted is durable."""
        self.bytes_sent += _length(frames)
        if self._durable_from <= self._agenda.now:
            return self._federation.carry(self, to, frames, bulk)
        return self._agenda.at(self._durable_from, self._in_this_life(partial(self._federation.carry, self, to, frames, bulk)))

    def _persist(self, state: bytes) -> None:
        """Durable all at once, when the disk has written it: a crash before leaves what was durable until then."""
        written = state, self.state
        disk_s = self._federation.world.compute.disk_s
        if not disk_s:
            self._durable = written
            return
        self._durable_from = max(self._durable_from, self._agenda.now) + disk_s
        self._agenda.at(self._durable_from, self._in_this_life(partial(setattr, self, "_durable", written)))

    def _soon(self, event: Event) -> None:
        self._agenda.at(self._agenda.now, partial(self._tell_in, self.epoch, event))

    def _tell_in(self, epoch: int, event: Event) -> None:
        """An answer reaches only the process that asked, which may have ended by itself meanwhile."""
        if self.epoch == epoch:
            self.tell(event)

    def _in_this_life(self, action: Action) -> Action:
        """The action, unless the process has ended until then by itself or otherwise."""
        epoch = self.epoch

        def act() -> None:
            if self.epoch == epoch and (self.is_on or self.has_finished):
                action()

        return act

    def _fold_next(self) -> None:
        """One after the other, as a trainer does; what fails ends them all."""
        if not self._folds:
            return None
        fold, reason = self._folds.popleft(), None
        try:
            self._folding = self.learner.fold(self.state, self._folding, fold.sender, fold.payload, fold.weight)
        except Refused as refused:
            reason = Reason(refused.reason)
        except LearningFailed as failure:
            self._folding = None
            self._folds.clear()
            return self.tell(FoldsLost(str(failure)))
        return self.tell(Folded(fold.ticket, reason))

    def _learn(self, epoch: int, learn: Learn, folding: Folding | None) -> None:
        if self.epoch != epoch or not self.is_on:
            return None
        try:
            state, computed = self._learned(learn, folding)
        except LearningFailed as failure:
            return self.tell(LearnFailed(learn.step, str(failure)))
        by_sender = {update.sender: update for update in learn.mixes}
        verdicts = tuple(
            Verdict(update.sender, update.epoch, update.seq, Reason(reason) if reason else None)
            for sender, reason in computed.verdicts
            if (update := by_sender[PeerId(sender)])
        )
        payload = bytes(computed.payload)
        outgoing = Outgoing(Payload(len(payload), self._federation.crypto.digest(payload), payload))
        self._pending = state, computed.mixed
        return self.tell(Learned(learn.step, (outgoing,), verdicts, computed.metrics))

    def _learned(self, learn: Learn, folding: Folding | None) -> tuple[LearnerState, Computed]:
        """Together with the others, but for who is in the hands of an attacker."""
        if self._attack.learn is HONEST.learn:
            return self._federation.together.answer(self.index)
        self._federation.together.forget(self.index)
        return self._attack.learn(self.learner, self.state, learn, folding)


def _length(frames: tuple[Sized, ...]) -> int:
    return sum(map(len, frames))
