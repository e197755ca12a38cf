"""The mix of all peers at once: x_i + sum_j W_ij (Q(x_j) - Q(x_i)) as one sparse product, tile by tile of columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning.codec import CODECS, Unencodable, round_trip
from p2pfl.learning.local import Stacks
from p2pfl.settings import CodecSection
from sim.masks import Masks, Whole
from sim.workers import Workers

Rows = Sequence[Mapping[int, float]]

# A tile's rows are read once for every edge, so all of them should stay in the second-level cache; but a row of a tile should
# fill two cache lines (benchmarks/batched_scale.py).
TILE_BYTES = 1 << 20
TILE_COLUMNS_MIN = 32

# Matrices of a schedule that are kept.
KEPT = 64


class WeightSchedule(Protocol):
    """Mixing weights by round, as `topology` makes them; `period` is None where no round is like another."""

    @property
    def period(self) -> int | None: ...
    def rows(self, round: int, /) -> Rows: ...


@dataclass(frozen=True, slots=True)
class Edges:
    """The directed links of a W, in the order of (receiver, sender): who sends, who receives, the weight; each [edges].

    columns, ends: where embedding_bag finds the rows of every bag, peers by their places. chosen: where the values of
    `columns` are in [edges' weights, peers' own weights].
    """

    senders: Whole
    receivers: Whole
    weights: NDArray[np.float64]
    columns: torch.Tensor
    ends: torch.Tensor
    chosen: Whole


class Product:
    """x_i + sum_j w_ij (Q(x_j) - Q(x_i)) of all peers, who stand in `order`, for whatever edges a round has."""

    def __init__(self, order: Sequence[int], codec: CodecSection, device: torch.device) -> None:
        self._order, self._codec, self._device = order, CODECS[codec.kind](), device
        self._place = np.argsort(order)

    @property
    def peers(self) -> int:
        return len(self._order)

    def edges(self, senders: Whole, receivers: Whole, weights: NDArray[np.float64]) -> Edges:
        """These links, in whatever order; none from a peer to itself."""
        peers, place = len(self._order), self._place
        order = np.lexsort((senders, receivers))
        senders, receivers, weights = senders[order], receivers[order], weights[order]
        # Every bag: what arrives, in the order of the senders, then the peer's own.
        bags = np.concatenate([place[receivers], np.arange(peers)])
        chosen = np.lexsort((np.concatenate([senders, np.full(peers, peers)]), bags))
        columns = np.concatenate([place[senders], np.arange(peers)])[chosen]
        ends = np.concatenate([[0], np.cumsum(np.bincount(bags, minlength=peers))[:-1]])
        bags_of = torch.from_numpy(columns).to(self._device), torch.from_numpy(ends).to(self._device)
        return Edges(senders, receivers, weights, *bags_of, chosen)

    def values(self, edges: Edges, arrives: NDArray[np.bool_] | None = None) -> torch.Tensor:
        """Of the sparse matrix, where not everything arrives. A peer's own is what its row gives away, so that every row sums
        to 0."""
        given = edges.weights if arrives is None else edges.weights * arrives
        own = np.bincount(self._place[edges.receivers], given, len(self._order))
        return torch.from_numpy(np.concatenate([given, -own])[edges.chosen].astype(np.float32)).to(self._device)

    def apply(self, stacks: Stacks, edges: Edges, values: torch.Tensor, round: int, workers: Workers) -> None:
        """One mix, in place."""

        def mix_tile(tile: torch.Tensor) -> None:
            # embedding_bag is torch's fastest sparse-times-dense product on a CPU: bag i is the weighted sum of its rows.
            sent = self._sent(tile.contiguous(), round)
            tile += torch.nn.functional.embedding_bag(edges.columns, sent, edges.ends, mode="sum", per_sample_weights=values)

        workers.each(lambda model, tile: mix_tile(tile), list(tiles(stacks)))

    def _sent(self, rows: torch.Tensor, round: int) -> torch.Tensor:
        """Q of every row. The codecs work value by value, so that one tile of all peers is one vector to them."""
        try:
            sent = round_trip(self._codec, rows.cpu().numpy().reshape(-1), {})
        except Unencodable as error:
            place = int(rows.abs().amax(dim=1).argmax())
            raise diverged(self._order[place], round, str(error)) from error
        return torch.from_numpy(sent).view_as(rows).to(rows.device)


class Mixing:
    """Mixes peers by the weights of the round."""

    def __init__(self, weights: Rows | WeightSchedule, product: Product, masks: Masks, seed: int) -> None:
        self._product, self._masks, self._seed = product, masks, seed
        self._period = 1 if isinstance(weights, Sequence) else weights.period
        kept = min(KEPT, self._period or 1)
        self._edges = lru_cache(kept)(lambda number: product.edges(*links_of(rows_of(weights, number))))
        self._unmasked = lru_cache(kept)(lambda number: product.values(self._edges(number)))

    def mix(self, stacks: Stacks, round: int, workers: Workers) -> None:
        """One mix, in place."""
        number = round % self._period if self._period else round
        edges = self._edges(number)
        if self._masks.is_empty:
            values = self._unmasked(number)
        else:
            arrives = self._masks.arrives(round, edges.senders, edges.receivers, self._product.peers, self._seed)
            values = self._product.values(edges, arrives)
        self._product.apply(stacks, edges, values, round, workers)

    def state(self) -> dict[str, torch.Tensor]:
        """A W has nothing to remember."""
        return {}


def tiles(stacks: Stacks) -> Iterator[torch.Tensor]:
    """All columns of all layers, as views [peers, columns] of a size that a cache holds."""
    for stack in stacks.values():
        rows = stack.view(len(stack), -1)
        yield from torch.split(rows, max(TILE_COLUMNS_MIN, TILE_BYTES // (rows.element_size() * len(rows))), dim=1)


def rows_of(weights: Rows | WeightSchedule, round: int) -> Rows:
    """Of peer i: {j: W_ij} in this round."""
    return weights if isinstance(weights, Sequence) else weights.rows(round)


def diverged(peer: int, round: int, why: str) -> Failure:
    """What ends a run whose training goes out of bounds."""
    return Failure("diverged", f"Peer {peer} diverged in round {round}: {why}.", "Lower training.learning_rate.")


def links_of(rows: Rows) -> tuple[Whole, Whole, NDArray[np.float64]]:
    """(senders, receivers, weights) of all directed links of a W, each [links]."""
    count = sum(map(len, rows))
    receivers = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    senders = np.fromiter(chain.from_iterable(rows), np.int64, count)
    weights = np.fromiter(chain.from_iterable(row.values() for row in rows), np.float64, count)
    others = senders != receivers
    return senders[others], receivers[others], weights[others]
