"""What peers would send, without sending it: the bytes of a run in rounds on a network that neither loses nor delays.

Every size is that of the encoded message, so that it equals what the event engine counts, frame by frame. Only whole numbers
in a header vary in length; what has the same lengths is encoded once.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from p2pfl.protocol import wire
from p2pfl.protocol.envelope import sealed_length
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.inbox import CREDIT_CHUNKS
from sim.world import World

Float = NDArray[np.float64]
Whole = NDArray[np.int64]


def traffic(world: World, update_bytes: int, local_steps: Whole) -> tuple[Float, Float]:
    """(sent, received), each cumulative [rounds + 1, peers]: row r is what a peer has sent, or what was sent to it, when it has
    mixed r times. local_steps: [peers]."""
    readers = np.array([len(world.send_to(i)) for i in range(world.peers)])
    senders = [[j for j in world.weights[i] if j != i] for i in range(world.peers)]
    contacts = np.array([len({*world.send_to(i), *senders[i]}) for i in range(world.peers)])
    greetings = (_hello(True) + _hello(False)) * contacts  # one asks, one answers, on every link and either way
    rounds = np.arange(world.rounds)[:, None]
    ages = (rounds + 1) * local_steps
    update = _offers(readers, rounds, ages, world.samples, update_bytes) + _chunks(
        update_bytes
    )  # [rounds, peers], to one reader
    granted = _credits(update_bytes) * np.array([len(row) for row in senders])
    heard = np.stack([update[:, row].sum(axis=1) for row in senders], axis=1)
    answered = _credits(update_bytes) * readers
    return _cumulative(greetings, update * readers + granted), _cumulative(greetings, heard + answered)


def _cumulative(first: Whole, each: Whole) -> Float:
    rows = np.concatenate([first[None], each]).astype(np.float64)
    total: Float = np.cumsum(rows, axis=0)
    return total


def _offers(readers: Whole, rounds: Whole, ages: Whole, samples: Whole, length: int) -> Whole:
    """Bytes of the offers [rounds, peers]: an update's sequence number and step are the round it is of."""
    kinds = np.broadcast_arrays(readers, _narrowest(rounds), _narrowest(ages), _narrowest(samples))
    flat, where = np.unique(np.stack([kind.ravel() for kind in kinds]), axis=1, return_inverse=True)
    sizes = np.array([_offer(*map(int, kind), length) for kind in flat.T])
    offers: Whole = sizes[where].reshape(ages.shape)
    return offers


def _narrowest(numbers: Whole) -> Whole:
    """The least whole number that msgpack writes in as many bytes."""
    least = np.array([0, 1 << 7, 1 << 8, 1 << 16, 1 << 32])
    return least[np.searchsorted(least, numbers, side="right") - 1]


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
