"""What two peers say to each other, a second time: written from docs/protocol.md and docs/admission.md alone.

Nothing of p2pfl, node, sim or topology is imported here or in `second_peer`, on purpose: what they have to know and the
documents do not say is a gap in the documents. Nothing here has a socket or a clock; whatever is not as the documents say ends
in an AssertionError or in nacl's own errors.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
from nacl import bindings
from nacl.signing import SigningKey, VerifyKey

VERSION = 1
HELLO, OFFER, CREDIT, CHUNK, BYE = range(1, 6)
PING, ACK, PING_REQUEST, NACK, DIGESTS, SUMMARY, WANTED, RECORDS = range(16, 24)
JOIN, WELCOME, REFUSED, INVENTORY, PAPERS = range(64, 69)

CHUNK_BYTES, INLINE_MAX, REQUEST_BYTES = 2**20, 65_536, 4_096
DAY_S = 86_400


def blake(data: bytes, person: bytes = b"", size: int = 32) -> bytes:
    return hashlib.blake2b(data, digest_size=size, person=person).digest()


# Frames and statements


def frame(kind: int, *fields: Any) -> bytes:
    return bytes(msgpack.packb([VERSION, kind, *fields]))


def fields_of(body: bytes) -> list[Any]:
    """Of a flat array; the version in front is looked at and left out."""
    version, *fields = msgpack.unpackb(body, raw=False)
    assert version == VERSION, version
    return list(fields)


def statement(key: SigningKey, context: str, *fields: Any) -> bytes:
    body = bytes(msgpack.packb([VERSION, *fields]))
    return body + key.sign(context.encode() + b"\0" + body).signature


def verified(signer: bytes, context: str, said: bytes) -> list[Any]:
    """The fields of a statement; nacl's BadSignatureError where `signer` did not say it."""
    body, signature = said[:-64], said[-64:]
    VerifyKey(signer).verify(context.encode() + b"\0" + body, signature)
    return fields_of(body)


def line_content(kind: str, line: str) -> bytes:
    said, text = "".join(line.split())[: len(f"p2pfl-{kind}-1-")], "".join(line.split())[len(f"p2pfl-{kind}-1-") :]
    assert said == f"p2pfl-{kind}-1-"
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    content, check = data[:-5], data[-5:]
    assert check == hashlib.blake2b(content, digest_size=5, key=kind.encode(), person=b"p2pfl/line").digest()
    return content


def each(joined: bytes) -> list[bytes]:
    """Byte strings, each behind its length as 2 bytes."""
    parts = []
    while joined:
        length = int.from_bytes(joined[:2], "big")
        parts.append(joined[2 : 2 + length])
        joined = joined[2 + length :]
    return parts


# An update


HEADER = ("network", "charter", "schema", "signer", "boot_id", "boot_epoch", "seq", "step", "phase", "part", "age", "samples")
HEADER += ("chunks_digest", "readers_digest", "key_commitment")


@dataclass(frozen=True)
class Update:
    """One that was opened: its header's fields, and its payload."""

    header: dict[str, Any]
    payload: bytes


def nonce(index: int, count: int) -> bytes:
    return index.to_bytes(8, "big") + bytes([index == count - 1]) + bytes(15)


def sealed(payload: bytes, key: bytes) -> list[bytes]:
    cut = [payload[at : at + CHUNK_BYTES] for at in range(0, len(payload), CHUNK_BYTES)] or [b""]
    seal = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt
    return [seal(chunk, None, nonce(index, len(cut)), key) for index, chunk in enumerate(cut)]


def opened(chunk: bytes, index: int, count: int, key: bytes) -> bytes:
    return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(chunk, None, nonce(index, count), key)


def chunks_digest(length: int, digests: bytes) -> bytes:
    return blake(length.to_bytes(8, "big") + digests, b"p2pfl/chunks")


@dataclass
class Incoming:
    """An update that was offered, verified and whose key was unwrapped."""

    header: dict[str, Any]
    length: int
    digests: list[bytes]
    key: bytes
    got: list[bytes] = field(default_factory=list)

    def add(self, index: int, chunk: bytes) -> Update | None:
        """The update, where this was the last of its chunks."""
        assert index == len(self.got), "chunks come in order"
        assert blake(chunk) == self.digests[index]
        self.got.append(opened(chunk, index, len(self.digests), self.key))
        if len(self.got) < len(self.digests):
            return None
        payload = b"".join(self.got)
        assert len(payload) == self.length
        return Update(self.header, payload)


# Members


@dataclass(frozen=True)
class Network:
    """What a member knows of its network, all of it signed down from the root key in its invite."""

    id: bytes
    root: bytes
    charter: bytes
    credential: bytes

    @property
    def charter_digest(self) -> bytes:
        _network, name, _serial, _signed_at, schema, update_bytes, settings = fields_of(self.charter[:-64])
        return blake(bytes(msgpack.packb([name, schema, update_bytes])) + settings, b"p2pfl/charter")

    @property
    def schema(self) -> bytes:
        return bytes(fields_of(self.charter[:-64])[4])


def welcomed(root: bytes, network: bytes, answer: bytes) -> tuple[Network, list[bytes]]:
    """What a door's answer says, and the credentials and records in it in turn, all of it verified; AssertionError with the
    reason of a refusal."""
    kind, *said = fields_of(answer)
    assert kind == WELCOME, said
    charter, credential, _roster, entries, _revocations = said
    assert verified(root, "p2pfl/charter/v1", charter)[0] == network
    papers = each(entries)
    for shown, record in [*zip(papers[::2], papers[1::2], strict=True)]:
        assert vouched(root, shown) == (network, verified(fields_of(record[:-64])[1], "p2pfl/addr/v1", record)[1])
    return Network(network, root, charter, credential), papers


def vouched(root: bytes, credential: bytes) -> tuple[bytes, bytes]:
    """The network and the identity that a credential is for, once all in it was verified but that its admitter is a member."""
    certificate, issuer, invite, receipt = fields_of(credential)
    signer, token = root, b""
    if issuer:
        _network, signer, _name, role, *_ = verified(root, "p2pfl/cert/v1", issuer)
        assert role == 2
    if invite:
        _network, token, *_ = verified(signer, "p2pfl/invite/v1", invite)
        signer = token
    network, identity, *_ = verified(signer, "p2pfl/cert/v1", certificate)
    if receipt:
        _network, of, digest, admitter, _at = fields_of(receipt[:-64])
        verified(admitter, "p2pfl/receipt/v1", receipt)
        assert (of, digest) == (token, blake(certificate, b"p2pfl/cert")) and admitter != identity
    return network, identity


# What everybody works out alike


def neighbors(kind: str, members: Sequence[bytes], own: bytes, seed: int, degree: int) -> set[bytes]:
    """Whom an overlay links a member with."""
    others = set(members) - {own}
    if kind in ("complete", "epidemic") or (kind == "random_regular" and len(members) <= degree + 1):
        return others
    links = set[tuple[bytes, bytes]]()
    for ring in range(degree // 2 if kind == "random_regular" else 1):
        places = sorted((overlay_hash(f"ring {seed} {ring} 0 ", member), member) for member in members)
        for at, (place, member) in enumerate(places):
            following, successor = places[(at + 1) % len(places)]
            links.add((member, successor))
            power = 2**63
            while kind == "exponential" and power > (following - place) % 2**64 > 0:
                aim = (place + power) % 2**64
                links.add((member, next((other for there, other in places if there >= aim), places[0][1])))
                power //= 2
    return {b if a == own else a for a, b in links if own in (a, b)} - {own}


def targets(members: Sequence[bytes], sender: bytes, seed: int, step: int, fanout: int) -> set[bytes]:
    """To whom a member of an epidemic sends in one round."""
    others, drawn, count = sorted(set(members) - {sender}), set[bytes](), 0
    while len(drawn) < min(fanout, len(others)):
        drawn.add(others[overlay_hash(f"epidemic {seed} {step} {count} ", sender) % len(others)])
        count += 1
    return drawn


def overlay_hash(said: str, member: bytes) -> int:
    return int.from_bytes(blake(said.encode() + member, b"p2pfl/overlay", 8), "big")


def digests(versions: dict[bytes, tuple[int, int, int]], revocations: Sequence[bytes] = ()) -> bytes:
    """The frame that opens a comparison. `versions`: of each live member epoch, incarnation, and 1 where it is suspected."""
    buckets = [0] * 64
    for member, version in versions.items():
        said = member + " ".join(map(str, version)).encode()
        buckets[member[0] >> 2] ^= int.from_bytes(blake(said, b"p2pfl/bucket", 8), "big")
    return frame(DIGESTS, b"".join(one.to_bytes(8, "big") for one in buckets), blake(listed(revocations), b"p2pfl/revoked"))


def inventoried(statements: Sequence[bytes]) -> bytes:
    """The buckets of an inventory of these credentials and revocations."""
    names = sorted(blake(one, b"p2pfl/papers", 16) for one in statements)
    return b"".join(blake(b"".join(name for name in names if name[0] % 64 == k), size=8) for k in range(64))


def listed(parts: Sequence[bytes]) -> bytes:
    """In ascending order, each behind its length."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in sorted(parts))
