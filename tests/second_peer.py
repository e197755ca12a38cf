"""A second, minimal implementation of a peer, written from docs/protocol.md and docs/admission.md alone.

Nothing of p2pfl, node, sim or topology is imported here, on purpose: what this file has to know and the documents do not say is
a gap in the documents. It makes its own keys, asks at a join door with an invite, dials members over CURVE, answers their
greetings and pings, and sends and opens signed, sealed updates. It has no address, so that all comes back over what it dialled;
it trains nothing, keeps nothing on disk, and does one thing at a time. `test_second_implementation.py` lets it meet real nodes.
"""

import base64
import hashlib
import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import zmq
from nacl import bindings
from nacl.encoding import RawEncoder
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey
from zmq.utils import z85

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


@dataclass(frozen=True)
class Keys:
    """Three secrets."""

    sign: SigningKey = field(default_factory=SigningKey.generate)
    transport: PrivateKey = field(default_factory=PrivateKey.generate)
    seal: PrivateKey = field(default_factory=PrivateKey.generate)

    @property
    def id(self) -> bytes:
        return bytes(self.sign.verify_key)


@dataclass(frozen=True)
class Life:
    """One start of a peer."""

    epoch: int
    id: bytes


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


# Links


class Link:
    """Two connections of one CURVE identity to a member, announced as the two channels of one link."""

    def __init__(self, context: zmq.Context[Any], keys: Keys, server_key: bytes, address: str) -> None:
        self.token = os.urandom(8)
        self.control, self.bulk = (dial(context, keys, server_key, address) for _ in range(2))

    def open(self, limit_s: float = 10.0) -> None:
        for socket in (self.control, self.bulk):
            handshaken(socket, limit_s)
        self.control.send(b"p2pfl/link/v1\0c" + self.token)
        self.bulk.send(b"p2pfl/link/v1\0b" + self.token)

    def close(self) -> None:
        for socket in (self.control, self.bulk):
            socket.close(linger=0)


def dial(context: zmq.Context[Any], keys: Keys, server_key: bytes, address: str) -> "zmq.Socket[Any]":
    socket = context.socket(zmq.DEALER)
    socket.curve_secretkey = z85.encode(bytes(keys.transport))
    socket.curve_publickey = z85.encode(bytes(keys.transport.public_key))
    socket.curve_serverkey = z85.encode(server_key)
    socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(f"tcp://{address}")
    return socket


def handshaken(socket: "zmq.Socket[Any]", limit_s: float) -> None:
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    is_done = monitor.poll(int(limit_s * 1000))
    socket.disable_monitor()
    monitor.close(linger=0)
    assert is_done, "nobody answers there"


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


# The peer


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


class SecondPeer:
    """A peer without an address. `records` is what it knows of others: the fields of the newest record of each, by id."""

    def __init__(self, name: str, keys: Keys | None = None) -> None:
        self.name = name
        self.keys = keys or Keys()
        self.life = Life(int(time.time()), os.urandom(16))
        self.seq = self.step = self.age = self.tickets = 0
        self.network: Network
        self.credentials: set[bytes]
        self.records: dict[bytes, list[Any]] = {}
        self.links: dict[bytes, Link] = {}
        self.heard: list[tuple[bytes, int, list[Any]]] = []
        self.updates: list[Update] = []
        self.context: zmq.Context[Any] = zmq.Context()
        self._incoming: dict[tuple[bytes, bytes], Incoming] = {}
        self._outgoing: dict[tuple[bytes, bytes], tuple[list[bytes], int]] = {}

    def now(self) -> int:
        return int(time.time())

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.context.destroy(linger=0)

    # Getting in

    def record(self, network: bytes, has_left: bool = False) -> bytes:
        transport, seal = bytes(self.keys.transport.public_key), bytes(self.keys.seal.public_key)
        said = (self.life.epoch, self.life.id, 0, has_left, b"", b"", transport, seal, 0, self.now())
        return statement(self.keys.sign, "p2pfl/addr/v1", network, self.keys.id, *said)

    def question(self, line: str, days: int = 30) -> bytes:
        """What to ask at the door with an invite, for a certificate that lasts so long."""
        name, root, token_seed, invite, issuer, _addresses, _keys = fields_of(line_content("invite", line))
        network = blake(root + name, b"p2pfl/net", 16)
        now = self.now()
        about = (network, self.keys.id, self.name.encode(), 0, now - DAY_S, now + days * DAY_S, 0)
        certificate = statement(SigningKey(token_seed), "p2pfl/cert/v1", *about)
        credential = bytes(msgpack.packb([VERSION, certificate, issuer, invite, b""]))
        short = frame(JOIN, network, credential, self.record(network), b"")
        return frame(JOIN, network, credential, self.record(network), bytes(REQUEST_BYTES - len(short) - 1))

    def join(self, line: str) -> None:
        """Become a member; AssertionError with the reason where the door refuses."""
        name, root, _seed, _invite, _issuer, addresses, keys = fields_of(line_content("invite", line))
        door = dial(self.context, self.keys, keys[:32], addresses.decode().split("\n")[0])
        handshaken(door, 10.0)
        door.send(self.question(line))
        assert door.poll(10_000), "no answer"
        answer = door.recv()
        door.close(linger=0)
        self.network, papers = welcomed(root, blake(root + name, b"p2pfl/net", 16), answer)
        self.credentials = {self.network.credential, *papers[::2]}
        for said in papers[1::2]:
            self._learn(said)

    def _learn(self, record: bytes) -> None:
        network, identity, *rest = fields_of(record[:-64])
        assert network == self.network.id
        verified(identity, "p2pfl/addr/v1", record)
        known = self.records.get(identity)
        if known is None or (rest[0], rest[2]) >= (known[0], known[2]):
            self.records[identity] = rest

    def item(self) -> bytes:
        """Our own record, as a rumor."""
        record = self.record(self.network.id)
        content = struct.pack(">H", len(self.network.credential)) + self.network.credential + record
        return struct.pack(">BH", 1, len(content)) + content

    # Links

    def dial(self, peer: bytes) -> None:
        _epoch, _boot, _incarnation, _left, addresses, _neighbors, transport, _seal, *_rest = self.records[peer]
        link = self.links[peer] = Link(self.context, self.keys, transport, addresses.decode().split("\n")[0])
        link.open()
        self.say(peer, frame(RECORDS, self.item()))
        self.say(peer, self.hello(reply=True))

    def hello(self, reply: bool) -> bytes:
        return frame(HELLO, self.network.id, self.network.charter_digest, self.life.id, self.life.epoch, self.step, reply)

    def say(self, peer: bytes, *frames: bytes) -> None:
        """Short messages go over control, all that is about an update over bulk."""
        kind = frames[0][2]
        link = self.links[peer]
        (link.bulk if kind in (OFFER, CHUNK, BYE) else link.control).send_multipart(frames)

    def pump(self, until: Callable[[], Any], limit_s: float = 20.0) -> None:
        """Hear and answer until something holds; TimeoutError if it does not."""
        deadline = time.monotonic() + limit_s
        sockets = {socket: peer for peer, link in self.links.items() for socket in (link.control, link.bulk)}
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"heard {[kind for _peer, kind, _fields in self.heard]}")
            for socket, _event in poller.poll(20):
                self.hear(sockets[socket], socket.recv_multipart())

    def hear(self, peer: bytes, frames: Sequence[bytes]) -> None:
        if frames == [b""]:  # only asks whether we are there
            return
        kind, *said = fields_of(frames[0])
        self.heard.append((peer, kind, said))
        if kind == HELLO and said[-1]:
            self.say(peer, self.hello(reply=False))
        elif kind == OFFER:
            self._take_offer(peer, said, frames[1:])
        elif kind == CHUNK:
            self._take_chunk(peer, said, frames[1])
        elif kind == CREDIT:
            self._send_chunks(peer, *said)
        elif kind == PING:
            self._answer(peer, *said)
        elif kind == RECORDS:
            self._learn_items(said[0])

    def bye(self, peer: bytes) -> None:
        self.say(peer, frame(BYE, self.step))

    # Membership

    def _answer(self, hop: bytes, ticket: bytes, asker: bytes, rumors: bytes) -> None:
        self._learn_items(rumors)
        said = b"answer" + self.network.id + self.keys.id + asker + ticket
        signature = self.keys.sign.sign(b"p2pfl/swim/v1\0" + blake(said)).signature if asker else b""
        self.say(hop, frame(ACK, ticket, signature, b""))

    def ping(self, peer: bytes) -> bytes:
        """The ticket of the question."""
        self.tickets += 1
        ticket = self.life.id + self.tickets.to_bytes(8, "big")
        self.say(peer, frame(PING, ticket, b"", b""))
        return ticket

    def _learn_items(self, items: bytes) -> None:
        while items:
            kind, length = struct.unpack(">BH", items[:3])
            content, items = items[3 : 3 + length], items[3 + length :]
            if kind == 1:
                self._learn(content[2 + int.from_bytes(content[:2], "big") :])

    # Updates

    def offer(self, payload: bytes, readers: Sequence[bytes], **changed: Any) -> tuple[list[bytes], list[bytes]]:
        """The frames of an offer of `payload`, and its sealed chunks. `changed` fields of the header are as told."""
        key = os.urandom(32)
        chunks = sealed(payload, key)
        digests = b"".join(map(blake, chunks))
        readers = sorted(readers)
        self.seq += 1
        header = {
            "network": self.network.id,
            "charter": self.network.charter_digest,
            "schema": self.network.schema,
            "signer": self.keys.id,
            "boot_id": self.life.id,
            "boot_epoch": self.life.epoch,
            "seq": self.seq,
            "step": self.step,
            "phase": 0,
            "part": 0,
            "age": self.age,
            "samples": 1,
            "chunks_digest": chunks_digest(len(payload), digests),
            "readers_digest": blake(b"".join(readers), b"p2pfl/readers"),
            "key_commitment": blake(key, b"p2pfl/commit"),
        } | changed
        encoded = bytes(msgpack.packb([VERSION, *(header[name] for name in HEADER)]))
        signature = self.keys.sign.sign(b"p2pfl/update/v1\0" + blake(encoded)).signature
        wraps = b"".join(reader + self._wrapped(key, reader) for reader in readers)
        first = frame(OFFER, encoded, signature, len(payload), digests, wraps)
        return ([first, chunks[0]] if len(chunks) == 1 and len(chunks[0]) <= INLINE_MAX else [first]), chunks

    def _box(self, peer: bytes) -> Box:
        return Box(self.keys.seal, PublicKey(self.records[peer][7]))

    def _wrapped(self, key: bytes, reader: bytes) -> bytes:
        return bytes(self._box(reader).encrypt(key, os.urandom(24), RawEncoder))

    def send(self, payload: bytes, peer: bytes, **changed: Any) -> None:
        """Offer, to one reader; the chunks follow with its credit."""
        frames, chunks = self.offer(payload, [peer], **changed)
        name = chunks_digest(len(payload), b"".join(map(blake, chunks)))
        self._outgoing[peer, name] = (chunks, 0 if len(frames) == 1 else len(chunks))
        self.say(peer, *frames)

    def _send_chunks(self, peer: bytes, name: bytes, upto: int, first: int) -> None:
        chunks, sent = self._outgoing[peer, name]
        for index in range(max(sent, first), upto):
            self.say(peer, frame(CHUNK, name, index), chunks[index])
        self._outgoing[peer, name] = (chunks, max(sent, upto))

    def _take_offer(self, hop: bytes, said: list[Any], inline: Sequence[bytes]) -> None:
        encoded, signature, length, digests, readers = said
        header = dict(zip(HEADER, fields_of(encoded), strict=True))
        assert (header["network"], header["charter"]) == (self.network.id, self.network.charter_digest)
        assert header["schema"] == self.network.schema and header["signer"] == hop
        VerifyKey(hop).verify(b"p2pfl/update/v1\0" + blake(encoded), signature)
        wraps = {readers[at : at + 32]: readers[at + 32 : at + 104] for at in range(0, len(readers), 104)}
        assert header["readers_digest"] == blake(b"".join(wraps), b"p2pfl/readers")
        assert header["chunks_digest"] == chunks_digest(length, digests)
        key = bytes(self._box(hop).decrypt(wraps[self.keys.id]))
        assert header["key_commitment"] == blake(key, b"p2pfl/commit")
        cut = [digests[at : at + 32] for at in range(0, len(digests), 32)]
        self._incoming[hop, header["chunks_digest"]] = Incoming(header, length, cut, key)
        if inline:
            self._take_chunk(hop, [header["chunks_digest"], 0], inline[0])
        else:
            self.say(hop, frame(CREDIT, header["chunks_digest"], len(cut), 0))

    def _take_chunk(self, hop: bytes, said: list[Any], chunk: bytes) -> None:
        name, index = said
        update = self._incoming[hop, name].add(index, chunk)
        if update:
            del self._incoming[hop, name]
            self.updates.append(update)
