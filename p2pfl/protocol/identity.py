"""Who a peer is: three secrets, how they rest on a disk, and what they do for updates.

One key each for signing (Ed25519: the peer's id), for links (X25519: CURVE) and for wrapped update keys (X25519), so that no
protocol can be played against another, and the last two can be changed without becoming somebody else.

How they rest on a disk is `keyfile`; the magic is "p2pfl-id".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nacl import bindings
from nacl.exceptions import CryptoError

from p2pfl.failure import Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.keyfile import KeyFile
from p2pfl.protocol.randomness import Entropy

SECRET_BYTES = 32
SHARED_MAX = 1024  # keys shared with neighbors that are kept
FILE = KeyFile(b"p2pfl-id", "identity", 3 * SECRET_BYTES, b"p2pfl/identity")

_P = (1 << 255) - 19
_LOW_ORDER = {  # u-coordinates; Bernstein, https://cr.yp.to/ecdh.html#validate
    0,
    1,
    _P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}
_NONCE_BYTES = 24


@dataclass(frozen=True, slots=True)
class Identity:
    """The three secrets of a peer, 32 bytes each. Never printed."""

    sign_seed: bytes = field(repr=False)
    transport_secret: bytes = field(repr=False)
    seal_secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, entropy: Entropy) -> "Identity":
        """A new peer."""
        return cls(*(entropy.draw(SECRET_BYTES) for _ in range(3)))

    @property
    def peer_id(self) -> PeerId:
        """The Ed25519 public key."""
        public, _ = bindings.crypto_sign_seed_keypair(self.sign_seed)
        return PeerId(public)

    @property
    def transport_key(self) -> bytes:
        """The X25519 public key of the peer's links, raw; CURVE wants it in Z85."""
        return bindings.crypto_scalarmult_base(self.transport_secret)

    @property
    def seal_key(self) -> bytes:
        """The X25519 public key that update keys are wrapped for."""
        return bindings.crypto_scalarmult_base(self.seal_secret)

    def to_bytes(self, passphrase: str | None, entropy: Entropy) -> bytes:
        """The identity as it rests on a disk, sealed unless `passphrase` is None. Raises `Failure` for an empty one."""
        return FILE.to_bytes(self.sign_seed + self.transport_secret + self.seal_secret, passphrase, entropy)

    @classmethod
    def from_bytes(cls, data: bytes, passphrase: str | None, source: str = "the identity") -> "Identity":
        """What `to_bytes` gave. `source` names the file to people. Raises `Failure` with exit code IDENTITY."""
        secrets = FILE.from_bytes(data, passphrase, source)
        return cls(*(secrets[i : i + SECRET_BYTES] for i in range(0, 3 * SECRET_BYTES, SECRET_BYTES)))


def is_sealed(data: bytes, source: str = "the identity") -> bool:
    """Whether a passphrase is needed. Raises `Failure` where this is no identity at all."""
    return FILE.is_sealed(data, source)


class Oath(Protocol):
    """Signs as ourselves, and checks members' signatures: what tunnels and memberships need of a `Keyring`."""

    def sign(self, context: bytes, digest: bytes) -> bytes: ...
    def verify(self, signer: PeerId, context: bytes, digest: bytes, signature: bytes) -> bool: ...


class Keyring:
    """A peer's own secrets and the members' public keys: the `envelope.Signer` of a real peer. `members` may change while it is
    in use; whoever adds one has asked `check_seal_key`."""

    def __init__(self, identity: Identity, members: Mapping[PeerId, Member]) -> None:
        """Raises `Failure` for a member whose seal key keeps no secret."""
        _, self._sign_key = bindings.crypto_sign_seed_keypair(identity.sign_seed)
        self._seal_secret = identity.seal_secret
        for member in members.values():
            check_seal_key(member)
        self._members = members
        self._shared: dict[bytes, bytes] = {}

    def sign(self, context: bytes, digest: bytes) -> bytes:
        """Ed25519 over context ‖ digest."""
        return bindings.crypto_sign(context + digest, self._sign_key)[: bindings.crypto_sign_BYTES]

    def verify(self, signer: PeerId, context: bytes, digest: bytes, signature: bytes) -> bool:
        """Whether a member signed this; False for a stranger."""
        if signer not in self._members:
            return False
        try:
            return bindings.crypto_sign_open(signature + context + digest, signer) == context + digest
        except CryptoError:
            return False

    def wrap(self, reader: PeerId, key: bytes, nonce: bytes) -> bytes:
        """nonce ‖ NaCl box of `key`, from our seal key to the reader's."""
        return nonce + bindings.crypto_box_afternm(key, nonce, self._agree(reader))

    def unwrap(self, sender: PeerId, wrapped: bytes) -> bytes | None:
        """The key that `sender` wrapped for us, or None if it did not."""
        if sender not in self._members:
            return None
        try:
            return bindings.crypto_box_open_afternm(wrapped[_NONCE_BYTES:], wrapped[:_NONCE_BYTES], self._agree(sender))
        except CryptoError:
            return None

    def _agree(self, peer: PeerId) -> bytes:
        """The key shared with a member. Ten times as costly as what it is used for, hence kept; made only for neighbors."""
        seal_key = self._members[peer].seal_key
        shared = self._shared.get(seal_key)
        if shared is None:
            if len(self._shared) >= SHARED_MAX:  # of members that are gone, or that change their keys all the time
                self._shared.clear()
            shared = self._shared[seal_key] = bindings.crypto_box_beforenm(seal_key, self._seal_secret)
        return shared


def keeps_secrets(key: bytes) -> bool:
    """Whether this X25519 public key does. Points of low order agree on zero with everybody; libsodium would refuse them, but
    only when the key is used."""
    u = int.from_bytes(key, "little") & (1 << 255) - 1
    return len(key) == bindings.crypto_box_PUBLICKEYBYTES and u % _P not in _LOW_ORDER


def check_seal_key(member: Member) -> None:
    """Raises `Failure` unless the member's seal key keeps secrets."""
    if not keeps_secrets(member.seal_key):
        message = f"member {member.name!r}: its seal_key is no X25519 public key."
        raise Failure("bad_member", message, "Take it from the member's own identity.")
