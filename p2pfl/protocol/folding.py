"""Updates that are mixed one by one, as each is whole, so that one of them takes memory at a time and not all.

For rules that are a weighted mean in difference form, x + sum_j w_j (x_j - x): there the weight of whoever is missing goes to
the peer itself, so that each w_j is known before the round is over. The sum is the learner's. What is in it can't be taken
back: another update of that neighbor and round is superseded, and if the sum is lost, so is all that was in it.
"""

from collections.abc import Mapping

from p2pfl.protocol.events import Effect, Fold, Folded, FoldedUpdate, PeerId, Rejected, Release
from p2pfl.protocol.inbox import Inbox
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.slots import Arriving


class Folding:
    """What of the present round is in the sum, and what is on its way there."""

    def __init__(self, inbox: Inbox, ledger: Ledger) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._under_way: dict[int, Arriving] = {}
        self._folded: list[Arriving] = []
        self.weights: Mapping[PeerId, float] | None = None
        """Of this round, from the moment when something was to be folded: so that weights of two plans are never mixed."""

    @property
    def is_under_way(self) -> bool:
        """Whether a `Fold` is not answered yet."""
        return bool(self._under_way)

    @property
    def is_begun(self) -> bool:
        """Whether anything is in the sum."""
        return bool(self._folded)

    def begin(self, weights: Mapping[PeerId, float]) -> list[Effect]:
        """Fold what is whole and of this round. `weights` are those of the plan now."""
        effects: list[Effect] = []
        for update in self._inbox.slots.to_fold():
            if self.weights is None:
                self.weights = weights
            if update.sender not in self.weights:
                continue  # the plan that named it came too late for this round
            assert update.payload is not None
            self._inbox.slots.settle(update)
            self._under_way[update.ticket] = update
            weight = self.weights[update.sender]
            effects.append(Fold(update.ticket, update.header.step, update.sender, update.payload, weight))
        return effects

    def folded(self, event: Folded) -> list[Effect]:
        """An answer: its memory, and its place, are free."""
        update = self._under_way.pop(event.ticket)
        assert update.payload is not None
        released = Release(update.payload)
        update.payload = None
        if event.reason is None:
            update.is_folded = True
            self._folded.append(update)
            return [released, *self._inbox.make_room(update)]
        self._ledger.of(update.sender).rejected += 1
        self._ledger.reasons[update.sender, event.reason] += 1
        return [released, Rejected(event.reason, update.sender), *self._inbox.drop(update)]

    def lost(self) -> list[Effect]:
        """The sum is gone, and so is whatever was to be added: what ended a learner is not given to the next."""
        effects: list[Effect] = []
        for update in (*self._folded, *self._under_way.values()):
            self._ledger.of(update.sender).lost += 1
            if update.payload is not None:
                effects.append(Release(update.payload))
            effects += self._inbox.drop(update)
        self._folded, self._under_way = [], {}
        return effects

    def end(self) -> tuple[FoldedUpdate, ...]:
        """The round is over; what the sum consists of, in the order it was added."""
        assert not self._under_way
        done = tuple(FoldedUpdate(one.sender, one.header.boot_epoch, one.header.seq) for one in self._folded)
        self._folded, self.weights = [], None
        return done
