"""What a network agreed on. Plain data: `node` and `sim` make it from a file or a scenario."""

import hashlib
from dataclasses import astuple, dataclass, field
from typing import Literal

import msgpack

from p2pfl.protocol.events import PeerId


@dataclass(frozen=True, slots=True)
class Member:
    """A member and its public keys: `transport_key` is for CURVE, update keys are wrapped for `seal_key` (X25519)."""

    id: PeerId
    name: str
    address: str
    transport_key: bytes
    seal_key: bytes


@dataclass(frozen=True, slots=True)
class GossipRules:
    """How the members gossip. All durations in seconds.

    In *rounds* a peer waits for the neighbors whose link is up until clamp(floor_s, median + deviations * MAD of the waits
    it has seen, ceiling_s); for the very first updates it waits for all of them, up to gather_s. In *async* mode it learns
    and pushes to one random neighbor every period_s.
    """

    mode: Literal["rounds", "async"] = "rounds"
    rounds: int = 20
    floor_s: float = 1.0
    ceiling_s: float = 10.0
    deviations: float = 6.0
    gather_s: float = 30.0
    period_s: float = 1.0
    age_cap: int = 1000  # an age is believed up to one's own + this
    step_window: int = 1000  # a step is accepted up to one's own + this
    staleness: int = 1  # in rounds, an update this many rounds old may stand in for a missing one
    checkpoint_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Charter:
    """The agreement. `schema` is the digest of layout, codec, algorithm and labels; `update_bytes` the exact length of an
    encoded update under it. `terms` is the settings that the root signed, as bytes: the gossip rules, and whatever else must be
    the same for all. Empty where no root signed any.

    root: the Ed25519 public key that vouches for the members, 32 bytes. network_id: 16 bytes that name the network, of its name
    and root. digest: 32 bytes that two peers must share before they exchange anything. Both are in every header, so that they
    are computed once.
    """

    name: str
    root: bytes
    schema: bytes
    update_bytes: int
    gossip: GossipRules
    terms: bytes = b""
    network_id: bytes = field(init=False, repr=False, compare=False)
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Signed terms have the rules in them: as they were signed, so that it does not matter how anybody else packs a float.
        rules = self.terms or msgpack.packb(astuple(self.gossip))
        agreed = msgpack.packb((self.name.encode(), self.schema, self.update_bytes)) + rules
        object.__setattr__(self, "network_id", network_id(self.root, self.name))
        object.__setattr__(self, "digest", hashlib.blake2b(agreed, digest_size=32, person=b"p2pfl/charter").digest())


def network_id(root: bytes, name: str) -> bytes:
    """What names a network, 16 bytes: of its root key and what people call it."""
    return hashlib.blake2b(root + name.encode(), digest_size=16, person=b"p2pfl/net").digest()
