"""Exchanges papers with the neighbors over the links there are: with each new one, and with one of them now and then."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from node.admission.papers import Papers
from node.entropy import SystemEntropy, instant
from node.upkeep.journal import Journal
from p2pfl.protocol.admission import reconciliation
from p2pfl.protocol.admission.reconciliation import Reconciliation
from p2pfl.protocol.allowance import Allowances
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.randomness import Choices

EVERY_S = 30.0  # +- 50 %, so that nobody keeps step


class LinkSet(Protocol):
    """What is used of `links.Links`."""

    def members_changed(self) -> None: ...
    def send(self, to: PeerId, frames: tuple[Any, ...], bulk: bool = False) -> object: ...
    def answer(self, to: PeerId, frames: tuple[Any, ...]) -> object: ...


class Exchange:
    """`on_new` is called when the roster learned something. `refused` counts papers of others, and messages about them."""

    def __init__(
        self, papers: Papers, links: LinkSet, allowances: Allowances, journal: Journal, on_new: Callable[[], None]
    ) -> None:
        self.refused: Counter[Reason] = Counter()
        self.linked: set[PeerId] = set()
        self._members = papers.roster.members
        self._choices = Choices(int.from_bytes(SystemEntropy().draw(8), "big"), b"reconcile")
        self._reconciliation = Reconciliation(papers.roster, papers.charters, self._choices)
        self._links, self._allowances, self._journal, self._on_new = links, allowances, journal, on_new
        self._due = instant().monotonic + self._period

    def link_up(self, peer: PeerId) -> None:
        self.linked.add(peer)
        self._ask(peer)

    def link_down(self, peer: PeerId) -> None:
        self.linked.discard(peer)

    def amended(self) -> None:
        """There is a newer charter: everybody that there is a link with gets it, before anything that is said under it."""
        for peer in sorted(self.linked):
            self._links.send(peer, (self._reconciliation.amendment(),))

    def turn(self, now: float) -> None:
        """Called now and then, with the monotonic time."""
        linked = sorted(self.linked)
        if now >= self._due and linked:
            self._due = now + self._period
            self._ask(linked[self._choices.below(len(linked))])

    def receive(self, hop: PeerId, frame: bytes) -> None:
        """A frame that `concerns` this."""
        now = instant()
        if hop not in self._members:
            return
        try:
            if not self._allowances.admits(hop, len(frame), now.monotonic):
                raise RejectedFrame(Reason.RATE_LIMITED)
            outcome = self._reconciliation.receive(hop, frame, now)
        except RejectedFrame as refused:
            self._reject(refused.reason, hop)
            self._allowances.refused(hop)
            return
        if outcome.refused:
            self._reject(Reason.BAD_CHAIN, hop, outcome.refused)
        if outcome.charter is not None:
            self._reject(outcome.charter, hop)
            if outcome.charter is Reason.CHARTER_CONFLICT:
                self._journal.incident(
                    "charter_conflict", "the root signed two charters with one number: it must sign a higher one"
                )
        for answer in outcome.answers:
            self._links.send(hop, (answer,))
        if outcome.is_new:
            self._on_new()

    @property
    def _period(self) -> float:
        return EVERY_S * self._choices.uniform(0.5, 1.5)

    def _ask(self, peer: PeerId) -> None:
        self._links.send(peer, (self._reconciliation.inventory(),))

    def _reject(self, reason: Reason, hop: PeerId, count: int = 1) -> None:
        self.refused[reason] += count
        self._journal.rejected(reason, hop)


def concerns(frame: bytes) -> bool:
    """Whether a message is one about papers, by its kind alone."""
    return len(frame) > 2 and frame[2] in reconciliation.KINDS
