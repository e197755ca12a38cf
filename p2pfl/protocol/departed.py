"""Forgetting former members, so that a peer which lives for years needs no more memory than its network has members.

Tables of a peer get a row for whoever is mentioned. They are looked through when they have become twice as long as the last
look left them, so that a look costs next to nothing an event, however many come and go.
"""

from collections.abc import Container

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.inbox import Inbox
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.neighbors import Neighbors
from p2pfl.protocol.window import ReplayWindow

ROWS_MIN = 1024  # that are not worth a look


class Departed:
    """Of whoever is no member, the books of one peer keep a sum, and its other tables nothing."""

    def __init__(
        self, members: Container[PeerId], ledger: Ledger, neighbors: Neighbors, window: ReplayWindow, inbox: Inbox
    ) -> None:
        self._members = members
        self._ledger, self._neighbors, self._window, self._inbox = ledger, neighbors, window, inbox
        self._look_at = ROWS_MIN

    def look(self, near: Container[PeerId]) -> None:
        """Forget all who are no members, but for those of whom something is here still: a link, or an update. `near` are the
        neighbors by the plan, which may be a moment older than the membership."""
        if len(self._ledger) + len(self._neighbors) < self._look_at:
            return
        held = {update.sender for update in self._inbox.slots}
        known = self._ledger.peers | self._neighbors.peers | self._window.signers
        gone = {
            peer
            for peer in known
            if peer not in self._members and peer not in near and peer not in held and not self._neighbors.of(peer).has_link
        }
        self._ledger.fold(gone)
        self._neighbors.forget(gone)
        self._inbox.forget(gone)
        self._look_at = max(ROWS_MIN, 2 * (len(self._ledger) + len(self._neighbors)))
