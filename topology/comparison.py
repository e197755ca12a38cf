"""Which graph for so many peers and so many bytes a round: candidates of every kind that fit, and how fast each agrees."""

from collections.abc import Iterator
from dataclasses import dataclass

from topology.consensus import rounds_to_consensus, updates_sent
from topology.errors import TopologyError
from topology.families import at_least
from topology.specification import schedule_from_specification

DEGREES = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a kind costs and brings. Bytes are those that a peer sends."""

    kind: str
    bytes_per_round: float  # the mean of all peers
    bytes_per_round_max: int  # of the peer that sends most
    rounds: int | None  # until epsilon of the disagreement is left; None if it stays
    bytes_to_consensus: float | None  # in these rounds, the mean of all peers


def compared(
    peers: int, bytes_per_round: int | None, update_bytes: int, epsilon: float = 1e-3, seed: int = 0
) -> list[Candidate]:
    """Every candidate in which nobody sends more than `bytes_per_round`, the one that agrees in fewest rounds first.

    Among equals the one that sends fewest bytes. Raises `TopologyError` where the bytes don't carry a single update.
    """
    at_least(2, peers=peers)
    at_least(1, update_bytes=update_bytes)
    most = peers - 1 if bytes_per_round is None else bytes_per_round // update_bytes
    if most < 1:
        message = f"{bytes_per_round} bytes a round don't carry one update of {update_bytes}."
        raise TopologyError(message, f"Give at least {update_bytes} bytes.")
    candidates = []
    for kind in _kinds(peers, most):
        try:
            schedule = schedule_from_specification(kind, peers, seed, "uniform" if kind == "exponential" else "metropolis")
        except TopologyError:  # there is none of so many peers
            continue
        mean, largest = updates_sent(schedule)
        if largest <= most:
            rounds = rounds_to_consensus(schedule, epsilon)
            total = None if rounds is None else rounds * mean * update_bytes
            candidates.append(Candidate(kind, mean * update_bytes, largest * update_bytes, rounds, total))
    if not candidates:
        raise TopologyError(f"No kind of graph joins {peers} peers with {bytes_per_round} bytes.", "Give more bytes a round.")
    return sorted(candidates, key=_rank)


def _rank(candidate: Candidate) -> tuple[float, float]:
    never = float("inf")
    return (candidate.rounds or never, candidate.bytes_to_consensus or never)


def _kinds(peers: int, most: int) -> Iterator[str]:
    """Those that may fit: what `updates_sent` says decides. Epidemic peers send to as many as the fanout."""
    yield from ("ring", "torus", "hypercube", "exponential", "complete", "star")
    yield from ("one_peer_exponential", "one_peer_hypercube", "random_matching", "equitopo")
    for degree in DEGREES:
        if degree <= min(most, peers - 1):
            yield from (f"random_regular:{degree}", f"base_k:{degree}", f"epidemic:{degree}", f"epidemic_oracle:{degree}")
