"""What peers would send, without sending it: the bytes of a run in rounds, or in equal periods of asynchronous gossip, on a
network that does not delay.

Every size is that of the encoded message, so that it equals what the event engine counts, frame by frame. Only whole numbers
in a header vary in length; what has the same lengths is encoded once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from p2pfl.protocol import wire
from p2pfl.protocol.envelope import sealed_length
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.inbox import CREDIT_CHUNKS
from sim.link_bytes import LinkBytes
from sim.masks import Masks
from sim.merging import Ages, Pushes
from sim.world import World

Float = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes. sent, received: cumulative [rounds + 1, peers]: row r is what a peer has sent, or what was sent to it, when it has
    mixed r times. link_bytes: of the whole run, on every edge of the world's graph: see `LinkBytes`."""

    sent: Float
    received: Float
    link_bytes: Float


def traffic(world: World, update_bytes: int, local_steps: Whole, masks: Masks | None = None) -> Traffic:
    """local_steps: [peers]. Where peers are away or links cut, their finding each other again is not counted."""
    by_link = LinkBytes(world.graph)
    credit = _credits(update_bytes)
    sent, received = [], []
    for round, links in enumerate(_rounds(world, masks or Masks(), local_steps)):
        readers = links.count(links.senders, links.goes)
        update = _offers(readers, np.int64(round), links.ages, world.samples, update_bytes) + _chunks(update_bytes)  # to one
        heard = np.bincount(links.receivers[links.arrives], update[links.senders[links.arrives]], world.peers)
        sent.append(update * readers + credit * links.count(links.receivers, links.arrives))
        received.append(heard + credit * links.count(links.senders, links.arrives))
        by_link.add(links.senders, links.receivers, update[links.senders] * links.goes)
        if credit:
            by_link.add(links.receivers, links.senders, credit * links.arrives)
    greeting = _hello(True) + _hello(False)  # one asks, one answers, on every link and either way
    met = np.array(sorted(_met(world)), dtype=np.int64).reshape(-1, 2)
    for one, other in ((met[:, 0], met[:, 1]), (met[:, 1], met[:, 0])):
        by_link.add(one, other, np.full(len(met), greeting))
    greetings = greeting * np.bincount(met.ravel(), minlength=world.peers)
    return Traffic(_cumulative(greetings, sent), _cumulative(greetings, received), by_link.total)


def update_counts(world: World, masks: Masks | None = None) -> tuple[list[int], list[int]]:
    """The updates that every peer sends to its readers in the run, and those that it mixes."""
    sent, mixed = np.zeros((2, world.peers), dtype=np.int64)
    for links in _rounds(world, masks or Masks(), np.zeros(world.peers, dtype=np.int64)):
        sent += links.count(links.senders, links.goes)
        mixed += links.count(links.receivers, links.arrives)
    return sent.tolist(), mixed.tolist()


@dataclass(frozen=True, slots=True)
class _Links:
    """The directed links of one round, each [edges]: from whom to whom, whether an update is sent and whether it arrives.

    ages: of what every peer sends, [peers].
    """

    peers: int
    ages: Whole
    senders: Whole
    receivers: Whole
    goes: NDArray[np.bool_]
    arrives: NDArray[np.bool_]

    def count(self, ends: Whole, which: NDArray[np.bool_]) -> Whole:
        """How many of these links every peer is at this end of: [peers]."""
        return np.bincount(ends[which], minlength=self.peers)


def _rounds(world: World, masks: Masks, local_steps: Whole) -> Iterator[_Links]:
    if world.gossip.mode == "async":
        ages = Ages(Pushes(world.schedule or world.weights, world.peers, masks, world.seed), local_steps, world.gossip.age_cap)
        for period in map(ages.pass_period, range(world.rounds)):
            goes = np.ones(len(period.senders), dtype=bool)
            yield _Links(world.peers, period.ages, period.senders, period.receivers, goes, period.arrives)
        return
    senders, receivers = _edges(world.rows(0))
    for round in range(world.rounds):
        if world.schedule is not None:
            senders, receivers = _edges(world.rows(round))
        goes = masks.is_sent(round, senders, receivers, world.peers)
        arrives = masks.arrives(round, senders, receivers, world.peers, world.seed)
        yield _Links(world.peers, (round + 1) * local_steps, senders, receivers, goes, arrives)


def _met(world: World) -> set[tuple[int, int]]:
    """Who is linked with whom in some round."""
    met: set[tuple[int, int]] = set()
    for round in range(1 if world.schedule is None else world.rounds):
        met |= set(zip(*np.sort(_edges(world.rows(round)), axis=0).tolist(), strict=True))
    return met


def _edges(rows: Sequence[Mapping[int, float]]) -> tuple[Whole, Whole]:
    """(senders, receivers), in the order in which the batched engine draws losses."""
    pairs = np.array([(j, i) for i, row in enumerate(rows) for j in sorted(row) if j != i], dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _cumulative(first: Whole, each: Sequence[NDArray[Any]]) -> Float:
    total: Float = np.cumsum(np.stack([first, *each]).astype(np.float64), axis=0)
    return total


def _offers(readers: Whole, round: np.int64, ages: Whole, samples: Whole, length: int) -> Whole:
    """Bytes of the offers of a round [peers]: an update's sequence number and step are the round it is of."""
    kinds = np.broadcast_arrays(readers, _narrowest(round), _narrowest(ages), _narrowest(samples))
    number = np.ravel_multi_index([np.searchsorted(LEAST, kind) for kind in kinds[1:]], (len(LEAST),) * 3)
    number += kinds[0] * len(LEAST) ** 3  # one whole number a kind: rows would take a hundred times as long to sort
    _, example, where = np.unique(number, return_index=True, return_inverse=True)
    sizes = np.array([_offer(*(int(kind.flat[place]) for kind in kinds), length) for place in example])
    offers: Whole = sizes[where].reshape(ages.shape)
    return offers


def _narrowest(numbers: Whole | np.int64) -> Whole:
    """The least whole number that msgpack writes in as many bytes."""
    return LEAST[np.searchsorted(LEAST, numbers, side="right") - 1]


LEAST = np.array([0, 1 << 7, 1 << 8, 1 << 16, 1 << 32])


@cache
def _offer(readers: int, round: int, age: int, samples: int, length: int) -> int:
    if readers == 0:
        return 0
    digest, short = bytes(32), bytes(16)
    header = wire.Header(
        network=short,
        charter=digest,
        schema=digest,
        signer=PeerId(digest),
        boot_id=short,
        boot_epoch=1,
        seq=round,
        step=round,
        phase=0,
        part=0,
        age=age,
        samples=samples,
        chunks_digest=digest,
        readers_digest=digest,
        key_commitment=digest,
    )
    wrapped = ((PeerId(digest), bytes(wire.WRAPPED_BYTES)),) * readers
    digests = (digest,) * wire.chunk_count(length)
    return len(wire.encode(wire.Offer(wire.encode_header(header), bytes(wire.SIGNATURE_BYTES), length, digests, wrapped)))


def _chunks(length: int) -> int:
    """Bytes of the sealed chunks of one update, and of their own messages where they do not ride along with the offer."""
    count = wire.chunk_count(length)
    bodies = sum(sealed_length(length, i) for i in range(count))
    if bodies <= wire.INLINE_MAX:
        return bodies
    return bodies + sum(len(wire.encode(wire.Chunk(bytes(32), i))) for i in range(count))


def _credits(length: int) -> int:
    """Bytes of the credit that a reader grants for one update: ahead of what it opened, and again when half is used."""
    count = wire.chunk_count(length)
    if count == 1 and sealed_length(length, 0) <= wire.INLINE_MAX:
        return 0
    upto = min(CREDIT_CHUNKS, count)
    total = len(wire.encode(wire.Credit(bytes(32), upto)))
    for opened in range(1, count):
        if upto < count and upto - opened <= CREDIT_CHUNKS // 2:
            upto = min(opened + CREDIT_CHUNKS, count)
            total += len(wire.encode(wire.Credit(bytes(32), upto)))
    return total


def _hello(reply: bool) -> int:
    return len(wire.encode(wire.Hello(bytes(16), bytes(32), bytes(16), 1, 0, reply)))
