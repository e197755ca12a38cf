"""A peer's Learns and folds, as orders to its trainer."""

import asyncio
from collections import deque
from collections.abc import Callable

from node.training.arena import Arena, Slot
from node.training.orders import FoldAnswer, FoldFailed, FoldOrder, LearnAnswer, LearnOrder, LearnRefused
from node.training.trainer_process import TrainerProcess
from node.upkeep.journal import Journal
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Event,
    Fold,
    Folded,
    FoldsLost,
    Learn,
    Learned,
    LearnFailed,
    Outgoing,
    Payload,
    PeerId,
    Verdict,
)


class Learns:
    """One Learn at a time, at the earliest `pace_s` after the one before; folds in the order in which they are asked for.
    `tell` hears how each ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        trainer: TrainerProcess,
        arena: Arena,
        journal: Journal,
        pace_s: float,
        tell: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._trainer = trainer
        self._arena = arena
        self._journal = journal
        self._pace_s = pace_s
        self._tell = tell
        self._paced: asyncio.TimerHandle | None = None
        self._learn: Learn | None = None
        self._outgoing_slot: Slot | None = None
        self._folds: deque[Fold] = deque()  # the first of them is ordered
        self._has_folded = False  # anything for the Learn that is to come
        self._next_learn = 0.0

    def fold(self, fold: Fold) -> None:
        self._folds.append(fold)
        self._has_folded = True
        if len(self._folds) == 1:
            self._order_fold()

    def learn(self, learn: Learn) -> None:
        self._learn, self._has_folded = learn, False
        now = self._loop.time()
        start = max(now, self._next_learn)
        self._next_learn = start + self._pace_s
        if start > now:
            self._paced = self._loop.call_at(start, self._order_learn, learn)
        else:
            self._order_learn(learn)

    def answered(self, answer: LearnAnswer | LearnRefused | FoldAnswer | FoldFailed) -> None:
        match answer:
            case LearnAnswer():
                self._learned(answer)
            case LearnRefused(step, reason):
                self._learn_failed(step, reason)
            case FoldAnswer(ticket, refusal):
                self._folds.popleft()
                self._order_fold()
                self._tell(Folded(ticket, Reason(refusal) if refusal else None))
            case FoldFailed(_, reason):
                self._folds_lost(reason)

    def trainer_died(self, reason: str) -> None:
        """What it was doing is lost; the next is ordered of another one. That may be at once: what the peer folds when it hears
        of a Learn that failed waits for the next trainer already."""
        if self._learn is not None and self._outgoing_slot is not None:
            self._learn_failed(self._learn.step, reason)
        elif self._has_folded:
            self._folds_lost(reason)

    def close(self) -> None:
        if self._paced is not None:
            self._paced.cancel()

    def _order_fold(self) -> None:
        if self._folds:
            fold = self._folds[0]
            slot = slot_of(fold.payload).index
            self._trainer.order(FoldOrder(fold.ticket, fold.sender, slot, fold.payload.length, fold.weight))

    def _folds_lost(self, reason: str) -> None:
        self._folds.clear()
        self._has_folded = False
        self._journal.incident("fold_failed", reason)
        self._tell(FoldsLost(reason))

    def _order_learn(self, learn: Learn) -> None:
        self._outgoing_slot = self._arena.take()
        order = LearnOrder(
            learn.step,
            tuple((a.sender, a.step, a.age, slot_of(a.payload).index, a.payload.length) for a in learn.arrived),
            tuple(learn.weights.items()),
            learn.local_steps,
            learn.evaluate,
            self._outgoing_slot.index,
            folded=tuple(update.sender for update in learn.folded),
        )
        self._trainer.order(order)

    def _learned(self, answer: LearnAnswer) -> None:
        learn, slot = self._learn, self._outgoing_slot
        assert learn is not None and slot is not None and learn.step == answer.step
        self._learn = self._outgoing_slot = None
        mixed = {update.sender: update for update in learn.mixes}
        judged = ((mixed[PeerId(sender)], reason) for sender, reason in answer.verdicts)
        verdicts = tuple(
            Verdict(update.sender, update.epoch, update.seq, Reason(reason) if reason else None) for update, reason in judged
        )
        outgoing = Outgoing(Payload(answer.length, b"", slot))
        self._trainer.delivered += 1
        self._tell(Learned(answer.step, (outgoing,), verdicts, answer.metrics))

    def _learn_failed(self, step: int, reason: str) -> None:
        slot = self._outgoing_slot
        assert slot is not None
        self._learn = self._outgoing_slot = None
        self._arena.give_back(slot)
        self._journal.incident("learn_failed", reason)
        self._tell(LearnFailed(step, reason))


def slot_of(payload: Payload) -> Slot:
    """Where in the arena it lies."""
    assert isinstance(payload.buffer, Slot)
    return payload.buffer
