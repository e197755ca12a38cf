"""Who is whose neighbor in a live network, worked out by every member alike from the members it knows and one seed.

Nothing is agreed in messages: whoever has the same members has the same graph, whatever machine it is. Members stand on rings
by the hash of their ids, so that one who comes or goes moves the links next to it and leaves all others. Pure standard library,
because the network process of a node loads this, and must stay small.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from topology.errors import TopologyError

Kind = Literal["ring", "random_regular", "exponential", "epidemic", "complete"]
Id = bytes
Links = Mapping[Id, tuple[Id, ...]]

KINDS: tuple[str, ...] = get_args(Kind)
WATCHED_MIN, WATCHED_MAX = 4, 8  # links that failure detection watches: 4 survive three losses, 8 cost no more than they tell


@dataclass(frozen=True, slots=True)
class RoundLinks:
    """One member's part of a round: whom it sends to, and what it gives to what it receives, itself included. Sums to 1."""

    send_to: tuple[Id, ...]
    weights: Mapping[Id, float]


def overlay(kind: str, members: Sequence[Id], own: Id, seed: int, degree: int = 4) -> tuple[Id, ...]:
    """The neighbors of `own`, in canonical order: those whom it has links with. Symmetric: who is mine, I am theirs.

    `members` in any order, `own` among them or not (then: who would be its neighbors). `degree` counts for `random_regular`,
    where it is even and some may have fewer, and for `epidemic`, where it is the fanout and everybody may meet everybody.
    Raises `TopologyError`.
    """
    everyone = tuple(sorted({*members, own}))
    return graph(kind, everyone, seed, degree)[own]


def watched(members: Sequence[Id], own: Id, seed: int) -> tuple[Id, ...]:
    """Whom failure detection watches, whatever graph the models take: 8 hash-ring neighbors, as far as there are so many."""
    return overlay("random_regular", members, own, seed, WATCHED_MAX)


@lru_cache(maxsize=8)
def graph(kind: str, members: tuple[Id, ...], seed: int, degree: int) -> Links:
    """All neighbors of all members, who come in canonical order. Kept for the last few memberships, because a simulator asks
    for every member in turn."""
    if kind not in KINDS:
        raise TopologyError(f"There is no overlay {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
    if degree < 1:
        raise TopologyError(f"A degree of {degree} links nobody.", "Choose at least 1.")
    if kind == "random_regular" and degree % 2:
        raise TopologyError(f"random_regular:{degree} is made of rings, which give two links each.", "Choose an even degree.")
    if kind in ("complete", "epidemic") or (kind == "random_regular" and len(members) <= degree + 1):
        return {own: tuple(other for other in members if other != own) for own in members}
    if kind == "exponential":
        return _symmetric(members, _fingers(members, seed))
    rings = 1 if kind == "ring" else degree // 2
    return _symmetric(members, [edge for ring in range(rings) for edge in _ring(members, seed, ring)])


def epidemic_targets(members: Sequence[Id], sender: Id, seed: int, round: int, fanout: int) -> tuple[Id, ...]:
    """To whom `sender` sends in this round: `fanout` different others, by a public hash of (seed, round, sender), so that
    receivers know whom to await (Epidemic Learning, de Vos et al. 2023, each drawing its own)."""
    others = sorted(set(members) - {sender})
    drawn: set[Id] = set()
    count = 0
    while len(drawn) < min(fanout, len(others)):
        drawn.add(others[_hash(b"epidemic", seed, round, count, sender) % len(others)])
        count += 1
    return tuple(sorted(drawn))


def metropolis(own: Id, degrees: Mapping[Id, int]) -> dict[Id, float]:
    """Metropolis-Hastings weights: 1 / (1 + max(own degree, neighbor's degree)) each, the rest to oneself.

    `degrees` are what the neighbors state of themselves. Nobody's word is worth much: a neighbor that states less than we
    have, nothing or nonsense gets 1 / (1 + own degree), and no lie gets it more.
    """
    weights = {peer: 1.0 / (1 + max(len(degrees), stated)) for peer, stated in sorted(degrees.items())}
    return {own: 1.0 - sum(weights.values()), **weights}


def round_links(
    kind: str, members: Sequence[Id], own: Id, seed: int, degree: int, stated: Mapping[Id, int] | None = None
) -> Callable[[int], RoundLinks]:
    """What `own` does in each round, while the members are these. `stated` are the degrees that neighbors state; who has
    stated none is taken to have ours. None: those that the overlay gives them, which is what who sees the same members would
    state, and leaves nobody a word to lie with."""
    neighbors = overlay(kind, members, own, seed, degree)
    if kind != "epidemic":
        if stated is None:
            links = graph(kind, tuple(sorted({*members, own})), seed, degree)
            stated = {peer: len(links[peer]) for peer in neighbors}
        weights = metropolis(own, {peer: stated.get(peer, 0) for peer in neighbors})
        return lambda _round: RoundLinks(neighbors, weights)

    def drawn(round: int) -> RoundLinks:
        senders = [peer for peer in neighbors if own in epidemic_targets(members, peer, seed, round, degree)]
        share = 1.0 / (1 + len(senders))
        return RoundLinks(epidemic_targets(members, own, seed, round, degree), dict.fromkeys((own, *senders), share))

    return drawn


# ---- edges --------------------------------------------------------------------------------------------------------------


def _ring(members: tuple[Id, ...], seed: int, ring: int) -> list[tuple[Id, Id]]:
    """Everybody to its successor on one hash ring."""
    order = sorted(members, key=lambda member: _place(seed, ring, member))
    return list(zip(order, order[1:] + order[:1], strict=True))


def _fingers(members: tuple[Id, ...], seed: int) -> list[tuple[Id, Id]]:
    """Everybody to its successor, and to who stands half, a quarter, an eighth, ... of the ring further (Chord, 2001). By
    places, not by counts as in the static graph: there one who joins would move a link of everybody."""
    places = sorted((_place(seed, 0, member)[0], member) for member in members)
    hashes = [place for place, _ in places]
    edges = _ring(members, seed, 0)
    for i, (place, member) in enumerate(places):
        gap = (hashes[(i + 1) % len(places)] - place) % (1 << 64)
        step = 1 << 63
        while step > gap > 0:  # nearer ones all fall on the successor
            edges.append((member, places[bisect_left(hashes, (place + step) % (1 << 64)) % len(places)][1]))
            step >>= 1
    return edges


def _symmetric(members: tuple[Id, ...], edges: list[tuple[Id, Id]]) -> Links:
    neighbors: dict[Id, set[Id]] = {member: set() for member in members}
    for one, other in edges:
        if one != other:
            neighbors[one].add(other)
            neighbors[other].add(one)
    return {member: tuple(sorted(others)) for member, others in neighbors.items()}


@lru_cache(maxsize=1 << 16)
def _place(seed: int, ring: int, member: Id) -> tuple[int, Id]:
    """Where a member stands on a ring; the id decides between equal hashes."""
    return _hash(b"ring", seed, ring, 0, member), member


def _hash(purpose: bytes, seed: int, first: int, second: int, member: Id) -> int:
    text = b"%s %d %d %d " % (purpose, seed, first, second) + member
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"p2pfl/overlay").digest(), "big")
