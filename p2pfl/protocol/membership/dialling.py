"""Which links membership asks for: to the neighbors it watches, and for a while to helpers and to those it looks for."""

from collections.abc import Iterable

from p2pfl.protocol.events import Dial, HangUp, MembershipEffect, PeerId


class Dialling:
    """`links` are up, whoever dialled; the others are what was asked for."""

    def __init__(self) -> None:
        self.links: set[PeerId] = set()
        self.watched: tuple[PeerId, ...] = ()
        self._until: dict[PeerId, float] = {}
        self._asked: set[PeerId] = set()

    @property
    def deadline(self) -> float:
        """When the next dial for a while is over."""
        return min(self._until.values(), default=float("inf"))

    def borrow(self, peer: PeerId, until: float) -> None:
        """A link to this member for a while."""
        self._until[peer] = max(until, self._until.get(peer, until))

    def changes(self, now: float) -> Iterable[MembershipEffect]:
        """Dials and hang-ups that make what was asked for what is wanted now."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        wanted = self._until.keys() | set(self.watched)
        for peer in sorted(wanted - self._asked):
            yield Dial(peer)
        for peer in sorted(self._asked - wanted):
            yield HangUp(peer)
        self._asked = set(wanted)

    def again(self, peer: PeerId) -> Iterable[MembershipEffect]:
        """The link to a watched neighbor carries one way only: a new one may carry both."""
        if peer in self._asked:
            yield HangUp(peer)
            yield Dial(peer)
