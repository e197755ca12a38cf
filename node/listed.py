"""Members who were known beforehand and stay the same, as where all peers run on one machine: nothing is found out."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from node.admission.exchange import LinkSet
from node.live import Live
from node.others import End
from node.setup import ListedOthers, Setup
from node.upkeep.control import Answers
from node.upkeep.journal import Journal
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, Member
from p2pfl.protocol.events import Event, IdentityConflict, PeerId
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.round import Plan, static_plan


class Listed:
    """They are where their `Setup` says, and the trainer knows what they agreed on beside the gossip rules."""

    refused = None
    dials_loopback = True  # whoever wrote the list meant it
    epoch_before = 0

    def __init__(self, setup: Setup, listed: ListedOthers) -> None:
        self.members: Mapping[PeerId, Member] = {member.id: member for member in listed.members}
        self.answers: Answers = {}
        self._plan = static_plan(setup.own.id, listed.send_to, listed.weights)
        self._neighbors = max(1, len(listed.weights) - 1)
        self.charter = _charter(setup, self.members)

    @property
    def network_id(self) -> bytes:
        return self.charter.network_id

    @property
    def neighbors_most(self) -> int:
        return self._neighbors

    @property
    def neighbors_held(self) -> int:
        return self._neighbors

    def keys_of(self, peer: PeerId) -> tuple[bytes, ...]:
        return (self.members[peer].transport_key,)

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        return (self.members[peer].address,)

    def called(self, peer: PeerId) -> None:
        pass

    def heard(self, event: Event) -> bool:
        return False

    def tunnels(self, signer: Keyring) -> None:
        return None

    def agreed(self, schema: bytes, update_bytes: int) -> Charter:
        return replace(self.charter, schema=schema, update_bytes=update_bytes)

    def planned(self, signer: Keyring, boot: Boot) -> tuple[Plan, Liveness | None]:
        return self._plan, None

    async def begin(self, signer: Keyring, links: LinkSet, live: Live, journal: Journal, end: End) -> None:
        pass

    async def close(self) -> None:
        pass

    def conflicted(self, conflict: IdentityConflict) -> None:
        raise AssertionError("only who has a membership hears of doubles")

    def account(self) -> None:
        return None


def _charter(setup: Setup, members: Iterable[PeerId]) -> Charter:
    """Nobody vouched for them: a digest of who they are stands for a root key. Whatever model the trainer makes is right."""
    everyone = b"".join(sorted(members))
    founders = hashlib.blake2b(everyone, digest_size=32, person=b"p2pfl/founders").digest()
    return Charter(setup.network, founders, b"", 0, setup.gossip)
