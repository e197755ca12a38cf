"""Hostile members: what an attacker does who owns a machine of the federation, with its peer and its keys.

The peer and the learner are the honest ones. An attack stands between them and the world: it changes what the learner hands to
the peer, or what the peer hands to the network, and signs again what it changed. So whatever an honest peer does about it is
what it would do in a live network.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.random import Generator, Philox

from p2pfl.learning.codec import CODECS, Vector
from p2pfl.learning.learner import Computed, Learner, LearnerState, data_of
from p2pfl.learning.mixer import Folding
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.protocol import envelope, wire
from p2pfl.protocol.events import Learn, PeerId

if TYPE_CHECKING:
    from sim.host import Host

Frames = tuple[Sized, ...]
Learning = Callable[[Learner, LearnerState, Learn, Folding | None], tuple[LearnerState, Computed]]
Sending = Callable[[PeerId, Frames], Iterable[Frames]]

LIE = 1 << 62  # an age or a number of samples that nobody has


def _learn_honestly(
    learner: Learner, state: LearnerState, learn: Learn, folding: Folding | None
) -> tuple[LearnerState, Computed]:
    return learner.learn(state, learn, folding)


def _send_honestly(to: PeerId, frames: Frames) -> Iterable[Frames]:
    return (frames,)


@dataclass(frozen=True, slots=True)
class Attack:
    """How a machine answers `Learn`, and which messages leave it where its peer wants to send one."""

    learn: Learning = _learn_honestly
    sent: Sending = _send_honestly


HONEST = Attack()


# ---- lies in the vector -------------------------------------------------------------------------------------------------


def sign_flip(host: "Host") -> Attack:
    """Sends -x instead of x."""
    return Attack(learn=_sending_instead(host, lambda vector: -vector))


def gaussian(host: "Host") -> Attack:
    """Sends noise, N(0, 1) in every coordinate."""
    chance = Generator(Philox(key=_key(host, "gaussian")))
    return Attack(learn=_sending_instead(host, lambda vector: chance.standard_normal(len(vector)).astype(np.float32)))


def label_flip(host: "Host") -> Attack:
    """Learns class c as class C - 1 - c, and is honest otherwise."""
    world = host.world
    peer = TaskPeer(host.index, world.peers)
    task = replace(world.task, data=_flipped(world.task))
    learner = Learner(host.id, task, peer, world.training, world.codec, world.limits, world.seed)
    return Attack(learn=lambda _, state, learn, folding: learner.learn(state, learn, folding))


def stubborn(host: "Host") -> Attack:
    """Never mixes and never learns: on a connected graph plain gossip ends at its vector."""

    def learn(learner: Learner, state: LearnerState, request: Learn, folding: Folding | None) -> tuple[LearnerState, Computed]:
        _, computed = learner.learn(state, request, folding)
        payload = CODECS[host.world.codec.kind]().encode(state.vector, {})[0]
        return state, replace(computed, payload=payload, mixed=state.vector)

    return Attack(learn=learn)


def free_rider(host: "Host") -> Attack:
    """Takes the others' models and passes them on, without learning anything."""
    return Attack(learn=lambda learner, state, learn, folding: learner.learn(state, replace(learn, local_steps=0), folding))


def _sending_instead(host: "Host", lie: Callable[[Vector], Vector]) -> Learning:
    codec = CODECS[host.world.codec.kind]()

    def learn(learner: Learner, state: LearnerState, request: Learn, folding: Folding | None) -> tuple[LearnerState, Computed]:
        after, computed = learner.learn(state, request, folding)
        vector, _ = codec.decode(computed.payload, {}, learner.dimension, np.inf)
        return after, replace(computed, payload=codec.encode(lie(vector), {})[0])

    return learn


def _flipped(task: Task) -> Callable[[TaskPeer], Any]:
    classes = len(task.labels)

    def data(peer: TaskPeer) -> Any:
        (inputs, targets), test = data_of(task, peer)
        return (inputs, classes - 1 - targets), test

    return data


# ---- lies in the header -------------------------------------------------------------------------------------------------


def wrong_age(host: "Host") -> Attack:
    """Claims to have seen more local steps than anybody."""
    return Attack(sent=_claiming(host, age=LIE))


def wrong_samples(host: "Host") -> Attack:
    """Claims to have more data than anybody."""
    return Attack(sent=_claiming(host, samples=LIE))


def replay(host: "Host") -> Attack:
    """Sends the first offer that each neighbor got once more after every later one."""
    first: dict[PeerId, Frames] = {}

    def sent(to: PeerId, frames: Frames) -> Iterable[Frames]:
        if _offer_in(frames) is None:
            return (frames,)
        return (frames, first[to]) if first.setdefault(to, frames) is not frames else (frames,)

    return Attack(sent=sent)


def equivocation(host: "Host") -> Attack:
    """Offers every neighbor two different updates of the same step. Its sequence numbers are its own: even ones for what its
    peer sent, odd ones for the other."""

    def sent(to: PeerId, frames: Frames) -> Iterable[Frames]:
        offer = _offer_in(frames)
        if offer is None:
            return (frames,)
        seq = 2 * wire.decode_header(offer.header).seq
        other = tuple(hashlib.blake2b(digest, digest_size=32).digest() for digest in offer.digests)
        second = replace(offer, digests=other)
        lie = _signed(host, second, seq=seq + 1, chunks_digest=envelope.chunks_digest(offer.length, other))
        return (wire.encode(_signed(host, offer, seq=seq)), *frames[1:]), (wire.encode(lie),)

    return Attack(sent=sent)


def _claiming(host: "Host", **claims: int) -> Sending:
    def sent(to: PeerId, frames: Frames) -> Iterable[Frames]:
        offer = _offer_in(frames)
        return (frames,) if offer is None else ((wire.encode(_signed(host, offer, **claims)), *frames[1:]),)

    return sent


def _offer_in(frames: Frames) -> wire.Offer | None:
    message = wire.decode(cast(bytes, frames[0]))
    return message if isinstance(message, wire.Offer) else None


def _signed(host: "Host", offer: wire.Offer, **changes: Any) -> wire.Offer:
    """The offer with another header, really signed by this member."""
    header = wire.encode_header(replace(wire.decode_header(offer.header), **changes))
    return replace(offer, header=header, signature=host.signer.sign(envelope.UPDATE_CONTEXT, envelope.digest(header)))


def _key(host: "Host", purpose: str) -> int:
    text = f"{purpose} {host.world.seed} {host.index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


ATTACKS: dict[str, Callable[["Host"], Attack]] = {
    "sign_flip": sign_flip,
    "gaussian": gaussian,
    "label_flip": label_flip,
    "stubborn": stubborn,
    "replay": replay,
    "equivocation": equivocation,
    "wrong_age": wrong_age,
    "wrong_samples": wrong_samples,
    "free_rider": free_rider,
}
"""The attacks that `[[fault]] attack` can name."""

ON_CLASSES: Sequence[str] = ("label_flip",)
"""Those that need a task whose targets are classes."""
