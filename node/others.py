"""Who else is in a node's network, and how the node comes to know: what its process asks, of whichever sort the network is."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from node.admission.exchange import LinkSet
from node.live import Live
from node.upkeep.control import Answers
from node.upkeep.journal import Journal
from p2pfl.failure import Failure
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, Member
from p2pfl.protocol.events import Event, IdentityConflict, PeerId
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.relay.tunnels import Tunnels
from p2pfl.protocol.round import Plan

End = Callable[[Failure, bool], None]
"""Ends the node for this reason; with True it may say good-bye."""


class Others(Protocol):
    """Two sorts: `listed.Listed`, who were known beforehand, and `founded.Founded`, who come and go. Made before anything
    listens; `begin` when all parts are there."""

    @property
    def members(self) -> Mapping[PeerId, Member]:
        """Who is one now, oneself among them; the same object for ever."""

    @property
    def network_id(self) -> bytes: ...

    @property
    def neighbors_most(self) -> int:
        """With how many one gossips at most."""

    @property
    def neighbors_held(self) -> int:
        """Of how many updates may be held: also of those who were neighbors until a moment ago."""

    @property
    def epoch_before(self) -> int:
        """The newest boot epoch that anybody has seen of us, as far as is known here."""

    @property
    def answers(self) -> Answers:
        """What the owner can ask at the control socket, beside what can be asked of any node."""

    # ---- asked by links ---------------------------------------------------------------------------------------------------

    def keys_of(self, peer: PeerId) -> tuple[bytes, ...]:
        """The transport keys with which it may call, the newest first."""

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Where it can be dialled."""

    @property
    def dials_loopback(self) -> bool:
        """Whether loopback addresses of others are dialled."""

    @property
    def refused(self) -> Callable[[PeerId], None] | None:
        """Hears of every dial at which a member's machine said that nobody listens there; None where nobody wants to know."""

    def called(self, peer: PeerId) -> None:
        """A member has dialled a new link to us."""

    def heard(self, event: Event) -> bool:
        """Something happened on a link. Whether it is no business of the peer's."""

    def tunnels(self, signer: Keyring) -> Tunnels | None:
        """Ways to those who can't be dialled, over relays; None where there are none of both."""

    # ---- asked for the peer -----------------------------------------------------------------------------------------------

    @property
    def charter(self) -> Charter:
        """What holds for all; what it says of the model is empty where only the trainer knows."""

    def agreed(self, schema: bytes, update_bytes: int) -> Charter:
        """What holds for all, where our trainer makes this model. Raises `Failure` unless that is the network's."""

    def planned(self, signer: Keyring, boot: Boot) -> tuple[Plan, Liveness | None]:
        """With whom to gossip in this life; and what follows those who come and go, where they do."""

    # ---- running ----------------------------------------------------------------------------------------------------------

    async def begin(self, signer: Keyring, links: LinkSet, live: Live, journal: Journal, end: End) -> None:
        """All parts are there. Raises `Failure`."""

    async def close(self) -> None: ...

    def conflicted(self, conflict: IdentityConflict) -> None:
        """Two machines say that they are one and the same member."""

    def account(self) -> dict[str, Any] | None:
        """Of who is live, for a status; None where that is not known of anybody but the neighbors."""
