"""Over which relay two members meet: both work it out alike and ask nobody.

Each hidden member keeps links with its homes, the relays that come first by a hash of (relay, member). Whoever looks for it
finds it there, even if it does not look for whoever comes; one that comes or goes moves only those that it is a home of
(rendezvous hashing, Thaler and Ravishankar 1998).
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from p2pfl.protocol.events import PeerId

HOMES = 2  # one may fail, and the other is linked already


def homes(member: PeerId, relays: Iterable[PeerId]) -> tuple[PeerId, ...]:
    """Where a hidden member can be found."""
    return _ranked(member, tuple(relays))[:HOMES]


@lru_cache(maxsize=1024)
def meeting_order(caller: PeerId, callee: PeerId, relays: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
    """All relays, in the order in which the two try them: the callee's homes, the caller's, the others."""
    order = (*homes(callee, relays), *homes(caller, relays), *_ranked(callee, relays))
    return tuple(dict.fromkeys(order))


@lru_cache(maxsize=1024)
def _ranked(member: PeerId, relays: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
    return tuple(sorted(relays, key=lambda relay: (_score(member, relay), relay)))


def _score(member: PeerId, relay: PeerId) -> bytes:
    return hashlib.blake2b(member + relay, digest_size=8, person=b"p2pfl/home").digest()
