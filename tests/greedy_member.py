"""A member in the hands of an attacker, on real links to real nodes: it takes the place of a node of the fault bench, with its
keys, and signs and seals whatever it likes.

Its updates are whole, valid and all different, if only in their last chunk, so that it can make them faster than anybody can
open them.
"""

import asyncio
import os
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any

from node.listed import Listed
from node.setup import ListedOthers
from node.transport.links import Links
from p2pfl.protocol import envelope, wire
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.events import Event, FrameReceived, LinkUp, PeerId
from p2pfl.protocol.identity import Keyring
from sim.entropy import SeededEntropy
from tests.cluster import BRISK, LIMIT_S, Cluster, Node

KEY = b"k" * 32


class GreedyMember:
    """`async with GreedyMember(cluster, node) as liar:`; the node was killed."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        assert not node.is_running
        told = cluster.network.setup(node.index, node.folder)
        os.close(told.secrets_fd)
        assert isinstance(told.others, ListedOthers)
        listed = Listed(told, told.others)
        self.charter = listed.agreed(node.ready["schema"], node.ready["update_bytes"])
        self.id = node.identity.peer_id
        self.offered: Counter[PeerId] = Counter()
        self.bytes_sent: Counter[PeerId] = Counter()
        """Of chunks."""
        self._keyring = Keyring(node.identity, listed.members)
        self._entropy = SeededEntropy(7, b"greedy")
        self._boot_epoch, self._seq = max(line["epoch"] for line in node.lines() if line["what"] == "life") + 1, 0
        self._steps: Counter[PeerId] = Counter()
        self._linked: set[PeerId] = set()
        self._credits: asyncio.Queue[tuple[PeerId, wire.Credit]] = asyncio.Queue()
        self._changed = asyncio.Event()
        length, size = self.charter.update_bytes, envelope.CHUNK_BYTES
        count = envelope.chunk_count(length)
        plain = bytes(length)
        self._chunks = [envelope.seal_chunk(KEY, i, i == count - 1, plain[i * size : (i + 1) * size]) for i in range(count)]
        self._digests = list(map(envelope.digest, self._chunks))
        self._links = Links(
            self.charter.network_id, listed.members, node.identity, node.listens, self._heard, BRISK, dials_loopback=True
        )

    async def __aenter__(self) -> "GreedyMember":
        await self._links.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._links.close(0)

    async def meet(self, other: Node) -> None:
        """Until it has sent us an update, which is when we know what round it is in, and it hears us."""
        peer = other.identity.peer_id
        self._links.dial(peer)
        async with asyncio.timeout(LIMIT_S):
            while peer not in self._steps:
                await self._changed.wait()
                self._changed.clear()

    # ---- what it says -------------------------------------------------------------------------------------------------------

    def offer(self, to: Node, **changes: Any) -> None:
        """A valid update of the round after the one that the reader was in last, unless header fields are changed."""
        self._say(to, wire.encode(self._offer(to, **changes)))

    def offer_unreadable(self, to: Node) -> None:
        """The most expensive refusal: all is checked, and in the end its key is wrapped for somebody else."""
        good = self._offer(to)
        (reader, wrapped) = good.readers[0]
        self._say(to, wire.encode(replace(good, readers=((reader, wrapped[:-1] + bytes([wrapped[-1] ^ 1])),))))

    async def flood(self, to: Node, seconds: float, bytes_per_s: float) -> None:
        """One valid update after the other: as soon as one is whole, the next, at most so fast."""
        peer, began, sent = to.identity.peer_id, monotonic(), 0
        self.offer(to)
        while (now := monotonic()) < began + seconds:
            await asyncio.sleep(max(0.0, sent / bytes_per_s - (now - began)))
            try:
                async with asyncio.timeout(0.5):
                    reader, credit = await self._credits.get()
            except TimeoutError:
                self.offer(to)  # of a round that is over; the next one is not
                continue
            if reader != peer or credit.chunks_digest != self._named:
                continue
            for index in range(credit.first, credit.upto):
                self._say(to, wire.encode(wire.Chunk(credit.chunks_digest, index)), self._chunks[index])
                sent += len(self._chunks[index])
            if credit.upto == len(self._chunks):
                self.offer(to)
        self.bytes_sent[peer] += sent

    def _offer(self, to: Node, **changes: Any) -> wire.Offer:
        peer = to.identity.peer_id
        self._seq += 1
        self._renew()
        honest: dict[str, Any] = {
            "network": self.charter.network_id,
            "charter": self.charter.digest,
            "schema": self.charter.schema,
            "signer": self.id,
            "boot_id": b"greedy".ljust(16, b"\0"),
            "boot_epoch": self._boot_epoch,
            "seq": self._seq,
            "step": self._steps[peer] + 1,
            "phase": 0,
            "part": self._seq,
            "age": 5,
            "samples": 10,
            "chunks_digest": self._named,
            "readers_digest": envelope.readers_digest([peer]),
            "key_commitment": envelope.commitment(KEY),
        }
        header = wire.Header(**(honest | changes))
        self.offered[peer] += 1
        nonces = [self._entropy.draw(24)]
        return envelope.offer(header, self._keyring, [peer], KEY, nonces, self.charter.update_bytes, tuple(self._digests))

    def _renew(self) -> None:
        """Another content: the last value of the vector."""
        last = len(self._chunks) - 1
        begin = last * envelope.CHUNK_BYTES
        plain = struct.pack("<f", self._seq / 1e6).rjust(self.charter.update_bytes - begin, b"\0")
        self._chunks[last] = envelope.seal_chunk(KEY, last, True, plain)
        self._digests[last] = envelope.digest(self._chunks[last])
        self._named = envelope.chunks_digest(self.charter.update_bytes, self._digests)

    def _say(self, to: Node, *frames: bytes) -> None:
        """All over one connection, so that no offer overtakes the chunks of the update before."""
        self._links.send(to.identity.peer_id, frames, bulk=True)

    # ---- what it hears ------------------------------------------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        match event:
            case LinkUp(peer):
                hello = wire.Hello(
                    self.charter.network_id, self.charter.digest, b"greedy".ljust(16, b"\0"), self._boot_epoch, 0, True
                )
                self._links.send(peer, (wire.encode(hello),))
            case FrameReceived(hop, frames):
                with suppress(RejectedFrame):
                    match wire.decode(bytes(frames[0])):
                        case wire.Credit() as credit:
                            self._credits.put_nowait((hop, credit))
                        case wire.Offer(header):
                            self._steps[hop] = wire.decode_header(header).step
            case _:
                pass
        self._changed.set()
