"""How one data set becomes the data of many peers: which rows each peer gets.

There are two ways. `divide` deals every row to exactly one peer. `draw` serves more peers than the set has rows for: each
peer has a mixture of labels, and gets a given number of rows by it. Both are pure functions of the targets and the seed.

The label-wise Dirichlet division is that of Yurochkin et al., "Bayesian nonparametric federated learning of neural networks"
(ICML 2019), section 5; drawing peer by peer is that of Hsu, Qi and Brown, "Measuring the effects of non-identical data
distribution for federated visual classification" (2019), section 3. Shards are those of McMahan et al., "Communication-
efficient learning of deep networks from decentralized data" (AISTATS 2017), section 3.
"""

import difflib
import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning.streams import philox

Targets = NDArray[np.int64]  # [rows], class numbers
Rows = NDArray[np.int64]  # sorted row numbers
Mixtures = NDArray[np.float64]  # [peers, classes], every row sums to 1

FEWEST_ROWS = 8  # a peer with less can hardly fill one minibatch
_ALL_PEERS = -1  # the stream is no single peer's


@dataclass(frozen=True, slots=True)
class Partition:
    """A kind of partition and its number: alpha, or the shards of a peer; 0 where the kind has none."""

    kind: str
    number: float = 0.0


def parse(text: str) -> Partition:
    """ "iid", "dirichlet:ALPHA", "shards:K" or "quantity:ALPHA"."""
    kind, colon, argument = text.strip().lower().partition(":")
    if kind not in DIVISIONS:
        near = difflib.get_close_matches(kind, DIVISIONS, n=1)
        raise _bad(f"no partition is called {kind!r}", f"Did you mean {near[0]!r}?" if near else f"There are {_FORMS}.")
    if kind == "iid":
        if colon:
            raise _bad(f"the partition {text!r} has a number", "Write it as iid.")
        return Partition(kind)
    try:
        number = float(argument)
    except ValueError:
        raise _bad(f"the partition {text!r} needs a number after its name", f"The forms are {_FORMS}.") from None
    if not 0 < number < float("inf") or (kind == "shards" and number != int(number)):
        wanted = "a whole number of at least 1" if kind == "shards" else "a number above 0"
        raise _bad(f"the partition {text!r} has the number {argument}", f"{kind} needs {wanted}.")
    return Partition(kind, number)


def divide(partition: Partition, targets: Targets, peers: int, seed: int) -> list[Rows]:
    """The rows of every peer: disjoint, together all of them.

    Where the draw leaves a peer with fewer than `FEWEST_ROWS` (or a quarter of the mean share, if that is less; at least
    one), it takes rows one by one from whoever has most.
    """
    if len(targets) < peers:
        raise _bad(
            f"{len(targets)} rows cannot be divided among {peers} peers",
            "Set data.samples_per_peer, so that peers draw rows with replacement.",
        )
    rng = philox(seed, _ALL_PEERS, "partition", 0)
    parts = DIVISIONS[partition.kind](targets, peers, rng, partition.number)
    return [np.sort(part) for part in _levelled(parts, max(1, min(FEWEST_ROWS, len(targets) // (4 * peers))))]


def draw(partition: Partition, targets: Targets, peers: int, samples: int, seed: int) -> list[Rows]:
    """`samples` rows for every peer, by a mixture of labels of its own.

    Within a label no row is dealt a second time before all have been dealt once; so peers are disjoint as long as the set
    lasts.
    """
    if partition.kind not in MIXTURES:
        raise _bad(
            f"the partition {partition.kind!r} gives peers different numbers of rows, data.samples_per_peer the same",
            "Leave one of them out.",
        )
    rng = philox(seed, _ALL_PEERS, "partition", 0)
    labels, counts = np.unique(targets, return_counts=True)
    mixtures = MIXTURES[partition.kind](counts / counts.sum(), peers, rng, partition.number)
    wanted = np.stack([rng.multinomial(samples, mixture) for mixture in mixtures])  # [peers, classes]
    parts: list[list[Rows]] = [[] for _ in range(peers)]
    for column, label in enumerate(labels):
        dealt = _dealt(np.flatnonzero(targets == label), int(wanted[:, column].sum()), rng)
        for part, rows in zip(parts, np.split(dealt, np.cumsum(wanted[:-1, column])), strict=True):
            part.append(rows)
    return [np.sort(np.concatenate(part)) for part in parts]


def iid(targets: Targets, peers: int, rng: np.random.Generator, _: float) -> list[Rows]:
    """Equal shares of a random order."""
    return np.array_split(rng.permutation(len(targets)), peers)


def dirichlet(targets: Targets, peers: int, rng: np.random.Generator, alpha: float) -> list[Rows]:
    """The rows of every label are divided by shares from a symmetric Dirichlet over the peers."""
    pieces = [
        _cut(rng.permutation(np.flatnonzero(targets == label)), _shares(peers, rng, alpha)) for label in np.unique(targets)
    ]
    return [rng.permutation(np.concatenate(of_peer)) for of_peer in zip(*pieces, strict=True)]


def shards(targets: Targets, peers: int, rng: np.random.Generator, per_peer: float) -> list[Rows]:
    """The rows in order of label, cut into equal shards, of which every peer is dealt `per_peer`."""
    count = peers * int(per_peer)
    if count > len(targets):
        raise _bad(
            f"{len(targets)} rows cannot be cut into {count} shards",
            "Take fewer shards or peers, or set data.samples_per_peer.",
        )
    order = rng.permutation(len(targets))
    by_label = np.array_split(order[np.argsort(targets[order], kind="stable")], count)
    deal = rng.permutation(count).reshape(peers, -1)
    return [np.concatenate([by_label[shard] for shard in hand]) for hand in deal]


def quantity(targets: Targets, peers: int, rng: np.random.Generator, alpha: float) -> list[Rows]:
    """A random order, cut by shares from a symmetric Dirichlet: peers differ in size, not in labels."""
    return _cut(rng.permutation(len(targets)), _shares(peers, rng, alpha))


def iid_mixtures(prior: NDArray[np.float64], peers: int, rng: np.random.Generator, _: float) -> Mixtures:
    """Everyone has the labels of the whole set."""
    return np.tile(prior, (peers, 1))


def dirichlet_mixtures(prior: NDArray[np.float64], peers: int, rng: np.random.Generator, alpha: float) -> Mixtures:
    """Dirichlet(alpha * classes * prior): for equal classes what `dirichlet` tends to as the peers become many."""
    weights = rng.standard_gamma(np.tile(alpha * len(prior) * prior, (peers, 1)))
    return _normalised(weights, rng)


def shards_mixtures(prior: NDArray[np.float64], peers: int, rng: np.random.Generator, per_peer: float) -> Mixtures:
    """`shards` of a set without end: the unit interval, coloured by label, cut into equal shards."""
    count = peers * int(per_peer)
    cuts = np.linspace(0, 1, count + 1)
    ends = np.concatenate([[0.0], np.cumsum(prior)])
    ends[-1] = 1.0
    below = np.interp(cuts, ends, np.arange(len(ends)))  # position in labels: its whole part is the label
    shares = np.clip(below[1:, None] - np.arange(len(prior)), 0, 1) - np.clip(below[:-1, None] - np.arange(len(prior)), 0, 1)
    hands = (shares * prior * count)[rng.permutation(count)].reshape(peers, -1, len(prior))
    mixtures = hands.mean(axis=1)
    normalised: Mixtures = mixtures / mixtures.sum(axis=1, keepdims=True)
    return normalised


DIVISIONS: dict[str, Callable[[Targets, int, np.random.Generator, float], list[Rows]]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "shards": shards,
    "quantity": quantity,
}
MIXTURES: dict[str, Callable[[NDArray[np.float64], int, np.random.Generator, float], Mixtures]] = {
    "iid": iid_mixtures,
    "dirichlet": dirichlet_mixtures,
    "shards": shards_mixtures,
}
_FORMS = "iid, dirichlet:ALPHA, shards:K and quantity:ALPHA"


def _shares(peers: int, rng: np.random.Generator, alpha: float) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = _normalised(rng.standard_gamma(np.full((1, peers), alpha)), rng)[0]
    return shares


def _normalised(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Rows of gamma weights as rows that sum to 1. A tiny alpha can round a whole row to 0; it then falls on one entry."""
    empty = np.flatnonzero(weights.sum(axis=1) == 0)
    weights[empty, rng.integers(weights.shape[1], size=len(empty))] = 1.0
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def _cut(rows: Rows, shares: NDArray[np.float64]) -> list[Rows]:
    """`rows` in consecutive pieces, each within one row of its share."""
    return np.split(rows, np.rint(np.cumsum(shares[:-1]) * len(rows)).astype(np.int64))


def _dealt(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    """`count` of `rows`, in fresh random orders one after another."""
    orders = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate([*orders, rows[:0]])[:count]


def _levelled(parts: list[Rows], fewest: int) -> list[Rows]:
    """Peers with too few rows take the last row of whoever has most, one by one. Parts come in random order."""
    sizes = [len(part) for part in parts]
    richest = [(-size, peer) for peer, size in enumerate(sizes)]
    heapq.heapify(richest)
    taken: dict[int, list[int]] = {}
    for poor, size in enumerate(sizes):
        for _ in range(fewest - size):
            rich = richest[0][1]
            sizes[rich] -= 1
            heapq.heapreplace(richest, (-sizes[rich], rich))
            taken.setdefault(poor, []).append(parts[rich][sizes[rich]])
    kept = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    return [np.append(part, taken[peer]) if peer in taken else part for peer, part in enumerate(kept)]


def _bad(message: str, hint: str) -> Failure:
    return Failure("bad_partition", f"{message}.", hint)
