"""A second, minimal implementation of a peer, written from docs/protocol.md and docs/admission.md alone.

It makes its own keys, asks at a join door with an invite, dials members over CURVE, answers their greetings and pings, and
sends and opens signed, sealed updates. Unless it listens it has no address, and all comes back over what it dialled. It trains
nothing, keeps nothing on disk, and does one thing at a time.
"""

import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import zmq
from nacl.encoding import RawEncoder
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey
from zmq.utils import z85

from tests.second_protocol import (
    ACK,
    BYE,
    CHUNK,
    CREDIT,
    DAY_S,
    HEADER,
    HELLO,
    INLINE_MAX,
    JOIN,
    OFFER,
    PING,
    RECORDS,
    REQUEST_BYTES,
    VERSION,
    Incoming,
    Network,
    Update,
    blake,
    chunks_digest,
    fields_of,
    frame,
    line_content,
    sealed,
    statement,
    verified,
    welcomed,
)


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


class Listener:
    """The port of a member: lets in whose key is known, and says from whom each message came."""

    def __init__(self, context: zmq.Context[Any], keys: Keys, hop_of: Callable[[bytes], bytes | None]) -> None:
        self._hop_of = hop_of
        self.gate = context.socket(zmq.REP)
        self.gate.bind("inproc://zeromq.zap.01")
        self.router = context.socket(zmq.ROUTER)
        self.router.curve_server = True
        self.router.curve_secretkey = z85.encode(bytes(keys.transport))
        self.router.zap_domain = b"members"
        self.address = f"127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        self.announced: dict[bytes, dict[bytes, set[bytes]]] = {}
        """By hop and token: the channels."""
        self.heard: list[tuple[bytes, int]] = []
        """The hop and kind of every message."""

    def admit(self) -> None:
        version, request, *_about, key = self.gate.recv_multipart()
        hop = self._hop_of(key)
        self.gate.send_multipart([version, request, b"200" if hop else b"400", b"", (hop or b"").hex().encode(), b""])

    def message(self) -> tuple[bytes, list[bytes]]:
        """The hop and the frames of the next one; none where it was an announcement."""
        _route, *frames = self.router.recv_multipart(copy=False)
        hop, said = bytes.fromhex(str(frames[0].get("User-Id"))), [one.bytes for one in frames]
        if len(said) == 1 and len(said[0]) == 23 and said[0].startswith(b"p2pfl/link/v1\0"):
            self.announced.setdefault(hop, {}).setdefault(said[0][15:], set()).add(said[0][14:15])
            return hop, []
        self.heard += [(hop, said[0][2])] if said != [b""] else []
        return hop, said


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
        self.listener: Listener | None = None
        self._incoming: dict[tuple[bytes, bytes], Incoming] = {}
        self._outgoing: dict[tuple[bytes, bytes], tuple[list[bytes], int]] = {}

    def now(self) -> int:
        return int(time.time())

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.context.destroy(linger=0)

    def listen(self) -> None:
        self.listener = Listener(self.context, self.keys, self._hop_of)

    def _hop_of(self, transport_key: bytes) -> bytes | None:
        return next((peer for peer, record in self.records.items() if record[6] == transport_key), None)

    # Getting in

    def record(self, network: bytes, has_left: bool = False) -> bytes:
        transport, seal = bytes(self.keys.transport.public_key), bytes(self.keys.seal.public_key)
        address = self.listener.address.encode() if self.listener else b""
        said = (self.life.epoch, self.life.id, 0, has_left, address, b"", transport, seal, 0, self.now())
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
        for socket in (*sockets, *((self.listener.gate, self.listener.router) if self.listener else ())):
            poller.register(socket, zmq.POLLIN)
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"heard {[kind for _peer, kind, _fields in self.heard]}")
            for socket, _event in poller.poll(20):
                if socket in sockets:
                    self.hear(sockets[socket], socket.recv_multipart())
                elif self.listener and socket is self.listener.gate:
                    self.listener.admit()
                elif self.listener:
                    self.hear(*self.listener.message())

    def hear(self, peer: bytes, frames: Sequence[bytes]) -> None:
        if frames in ([], [b""]):  # announces a link, or only asks whether we are there
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
