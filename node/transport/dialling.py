"""Where a member may be dialled, and how often: a record's addresses are its subject's word, and it may name a victim."""

from dataclasses import dataclass

from node.transport.address import Address
from node.transport.sockets import Patience
from p2pfl.protocol.bucket import Buckets

ADDRESSES_MAX = 3
KEYS_MAX = 2
_AT_ONCE = 32
_HOSTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Contact:
    """How a member can be met now: where it says it is, and the transport keys that it may have, the newest first."""

    name: str
    addresses: tuple[str, ...]
    keys: tuple[bytes, ...]


class Dialling:
    """What all links of a peer share: the pace at which they dial one host, whichever members are said to be there, and the
    rule that a stated loopback address is dialled only by one who is on loopback too. Elsewhere it would be a way to have us
    call services of our own machine that trust whoever can call them."""

    def __init__(self, patience: Patience) -> None:
        self.is_on_loopback = True
        """Whether loopback addresses of others may be dialled."""
        # Two dead members behind one address are dialled as often as anywhere else, at twice a longest backoff each.
        self._buckets = Buckets(4 / patience.backoff_max_s, _AT_ONCE, _HOSTS_MAX)

    def refusal(self, place: Address, now: float) -> str:
        """Why this numeric address is not dialled now, in words; "" where it may be."""
        if fault := misplaced(place, self.is_on_loopback):
            return fault
        if not self._buckets.take(place.neighborhood, 1, now):
            return "that host was dialled too often"
        return ""


def misplaced(place: Address, dials_loopback: bool) -> str:
    """Why this numeric address is never dialled, in words; "" where it may be."""
    if not place.is_one_host:
        return "that is no address of one machine"
    if place.is_loopback and not dials_loopback:
        return "that address is on whichever machine dials it"
    return ""
