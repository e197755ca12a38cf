"""One peer on a real machine: every event goes in at one door, and every effect that comes out is carried out in order."""

import asyncio
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol, assert_never

from node.checkpoint import Checkpoints
from node.learns import Learns
from node.sealing import Sealing
from node.training.arena import Arena, Slot
from node.training.orders import (
    Answer,
    FoldAnswer,
    FoldFailed,
    LearnAnswer,
    LearnRefused,
    ModelWritten,
    Save,
    Saved,
    SaveFailed,
    WriteModel,
)
from node.training.trainer_process import TrainerDied, TrainerProcess
from node.turns import Turns
from node.upkeep.journal import Journal
from p2pfl.protocol.allowance import Allowances
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Abandon,
    Dial,
    Effect,
    Event,
    Finished,
    Fold,
    HangUp,
    IdentityConflict,
    Learn,
    Open,
    PeerId,
    Persist,
    Rejected,
    Release,
    RoundEnded,
    Seal,
    Send,
    ViewChanged,
)
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.peer import Peer


class LinkSet(Protocol):
    """What is used of `links.Links`."""

    @property
    def bytes_sent(self) -> Mapping[PeerId, int]: ...
    @property
    def bytes_received(self) -> Mapping[PeerId, int]: ...
    @property
    def dropped(self) -> Mapping[PeerId, int]: ...
    @property
    def refused(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def muted(self) -> int: ...
    def mute(self, peer: PeerId, until: float) -> None: ...
    def dial(self, peer: PeerId) -> None: ...
    def hang_up(self, peer: PeerId) -> None: ...
    def send(self, to: PeerId, frames: tuple[Any, ...], bulk: bool) -> object: ...


class LivePeer:
    """Drives `peer`; `finished` is set to its last step when it is done, everything it asked for is durable and
    sent, and its model is where its owner looks for it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        peer: Peer,
        links: LinkSet,
        trainer: TrainerProcess,
        arena: Arena,
        checkpoints: Checkpoints,
        journal: Journal,
        model: Path,
        pace_s: float,
        on_conflict: Callable[[IdentityConflict], None] | None = None,
    ) -> None:
        """`model` is where the model goes at the end. `on_conflict` hears, once the event is over, of two machines that run as
        one member."""
        self._loop = loop
        self._peer = peer
        self._links = links
        self._trainer = trainer
        self._arena = arena
        self._checkpoints = checkpoints
        self._journal = journal
        self._on_conflict = on_conflict
        self._model = model
        self._sealing = Sealing(loop, arena, self.tell)
        self._turns = Turns(loop, peer, self._carry_out)
        self._learns = Learns(loop, trainer, arena, journal, pace_s, self.tell)
        self._persisting: dict[str, Persist] = {}
        self._held: list[Send] = []
        self._finished_step: int | None = None
        self._is_leaving = False
        self.has_left_model = False
        self.on_view: Callable[[], None] = lambda: None
        """Hears that other members are live than before."""
        self.membership_bytes = 0
        """Of messages between memberships, sent so far: what it costs to know who is live."""
        self.finished: asyncio.Future[int] = loop.create_future()

    @property
    def allowances(self) -> Allowances:
        return self._peer.allowances

    def tell(self, event: Event) -> None:
        """The door."""
        self._turns.tell(event)

    def last_words(self) -> str:
        """How it ended, for people."""
        return f"ended after round {self._finished_step}"

    def trainer_answered(self, answer: Answer | TrainerDied) -> None:
        match answer:
            case LearnAnswer() | LearnRefused() | FoldAnswer() | FoldFailed():
                self._learns.answered(answer)
            case Saved(path, digest):
                self._saved(path, digest)
            case SaveFailed(path, reason):
                self._not_durable(path, reason)
            case ModelWritten(_, failure):
                self._model_written(failure)
            case TrainerDied():
                self._trainer_died("the trainer died")
            case _:
                raise AssertionError(f"an answer that nobody asked for: {answer}")

    def close(self) -> None:
        self._learns.close()
        self._turns.close()
        self._sealing.close()

    def counters(self) -> dict[str, Any]:
        """Totals since the start, for people and records."""
        ledger = self._peer.ledger
        return {
            "bytes_sent": sum(self._links.bytes_sent.values()),
            "bytes_received": sum(self._links.bytes_received.values()),
            "bytes_to": {short(peer): size for peer, size in self._links.bytes_sent.items()},
            "updates_sent": ledger.sent,
            "updates_applied": ledger.applied,
            "rejected": ledger.rejected,
            "trainer_restarts": self._trainer.restarts,
            "strangers_refused": self._links.refused,
            "messages_unknown": self._links.unknown,
            "messages_muted": self._links.muted,
            "messages_dropped": sum(self._links.dropped.values()),
        }

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(to, frames, bulk):
                if is_membership(frames):
                    self.membership_bytes += sum(map(len, frames))
                if self._persisting:
                    self._held.append(effect)
                else:
                    self._links.send(to, frames, bulk)
            case Seal():
                self._sealing.seal(effect)
            case Open():
                self._sealing.open(effect)
            case Abandon(ticket):
                self._sealing.abandon(ticket)
            case Release(payload):
                if isinstance(payload.buffer, Slot):
                    self._arena.give_back(payload.buffer)
            case Fold():
                self._learns.fold(effect)
            case Learn():
                self._learns.learn(effect)
            case Dial(peer):
                self._links.dial(peer)
            case HangUp(peer):
                self._links.hang_up(peer)
            case IdentityConflict():
                assert self._on_conflict is not None, "only who has a membership hears of doubles"
                self._loop.call_soon(self._on_conflict, effect)
            case ViewChanged():
                self.on_view()  # its plan follows by itself; people ask when they want to know
            case Persist():
                self._persist(effect)
            case Rejected(reason, blame):
                self._journal.rejected(reason, blame)
                if reason is Reason.RATE_LIMITED:
                    self._links.mute(blame, self._peer.allowances.banned_until(blame))
            case RoundEnded():
                self._round_ended(effect)
            case Finished(step):
                self._finished_step = step
                self._finish_when_durable()
            case _:
                assert_never(effect)

    # ---- durability -----------------------------------------------------------------------------------------------------

    def _persist(self, persist: Persist) -> None:
        try:
            path = str(self._checkpoints.next_arrays())
        except OSError as error:
            self._journal.incident("checkpoint_failed", error.strerror or str(error))
            return
        if not self._trainer.is_up:
            self._journal.incident("checkpoint_failed", "there is no trainer to save from")
            return
        self._persisting[path] = persist
        self._trainer.order(Save(path))

    def _saved(self, path: str, digest: bytes) -> None:
        persist = self._persisting[path]
        try:
            self._checkpoints.complete(Path(path), digest, persist.step, persist.state)
        except OSError as error:
            self._not_durable(path, error.strerror or str(error))
        else:
            self._persisted(path)

    def _not_durable(self, path: str, reason: str) -> None:
        """Gossip and training go on, with the checkpoint before; the next one is tried when it is due."""
        self._journal.incident("checkpoint_failed", reason)
        self._persisted(path)

    def _persisted(self, path: str) -> None:
        del self._persisting[path]
        if not self._persisting:
            held, self._held = self._held, []
            for send in held:
                self._links.send(send.to, send.frames, send.bulk)
            self._finish_when_durable()

    def _finish_when_durable(self) -> None:
        if self._finished_step is None or self._persisting or self._is_leaving:
            return
        self._is_leaving = True
        if self._trainer.is_up:
            self._trainer.order(WriteModel(str(self._model)))
        else:
            self._model_written("there is no trainer to write it")

    def _model_written(self, failure: str) -> None:
        assert self._finished_step is not None
        self.has_left_model = not failure
        if failure:
            self._journal.incident("model_not_written", failure)
        self.finished.set_result(self._finished_step)

    def _trainer_died(self, reason: str) -> None:
        for path in list(self._persisting):
            self._not_durable(path, reason)
        self._learns.trainer_died(reason)
        if self._is_leaving and not self.finished.done():
            self._model_written(reason)

    # ---- people ---------------------------------------------------------------------------------------------------------

    def _round_ended(self, ended: RoundEnded) -> None:
        self._journal.round_ended(
            {
                "step": ended.step,
                **ended.metrics,
                "waited_s": round(ended.waited_s, 6),
                "applied": ended.applied,
                "missing": [short(peer) for peer in ended.missing],
                **self.counters(),
            }
        )


def is_membership(frames: tuple[Sized, ...]) -> bool:
    """By its kind alone."""
    head = frames[0] if frames else b""
    return isinstance(head, bytes) and len(head) > 2 and head[2] in gossip_wire.KINDS


def short(peer: PeerId) -> str:
    """An id as journals and records write it."""
    return peer.hex()[:16]
