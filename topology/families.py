"""Graphs that are the same each time: one function a family, on nodes 0..n-1.

All are simple: where a formula would join a peer to itself, or two peers twice, there is nothing, or one edge. So a ring of
two is one edge, and a torus with a side of one is a ring.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, combinations, product
from math import gcd
from typing import TypeAlias

import networkx as nx

from topology.errors import TopologyError

Graph: TypeAlias = "nx.Graph[int]"  # quoted: only the type stubs know that graphs are generic


def ring(n: int) -> Graph:
    """Each peer is joined to the next, and the last to the first."""
    at_least(1, n=n)
    return simple(n, ((i, (i + 1) % n) for i in range(n)))


def path(n: int) -> Graph:
    """Each peer is joined to the next."""
    at_least(1, n=n)
    return simple(n, ((i, i + 1) for i in range(n - 1)))


def circulant(n: int, offsets: Sequence[int]) -> Graph:
    """Each peer is joined to those so many places before and after it. Connected where n and the offsets share no divisor."""
    at_least(1, n=n)
    if n > 1 and gcd(n, *offsets) != 1:
        asked = f"circulant({n}, {list(offsets)})"
        raise TopologyError(f"{asked}: n and the offsets are multiples of {gcd(n, *offsets)}.", "Add an offset of 1.")
    return simple(n, ((i, (i + offset) % n) for i, offset in product(range(n), offsets)))


def torus(rows: int, columns: int) -> Graph:
    """A grid whose sides are joined. The peer of row r and column c is r * columns + c."""
    at_least(1, rows=rows, columns=columns)
    cells = list(product(range(rows), range(columns)))
    right = ((r * columns + c, r * columns + (c + 1) % columns) for r, c in cells)
    down = ((r * columns + c, (r + 1) % rows * columns + c) for r, c in cells)
    return simple(rows * columns, chain(right, down))


def grid(rows: int, columns: int) -> Graph:
    """Peers in rows and columns, joined to those beside them. The peer of row r and column c is r * columns + c."""
    at_least(1, rows=rows, columns=columns)
    right = ((r * columns + c, r * columns + c + 1) for r, c in product(range(rows), range(columns - 1)))
    down = ((r * columns + c, (r + 1) * columns + c) for r, c in product(range(rows - 1), range(columns)))
    return simple(rows * columns, chain(right, down))


def complete(n: int) -> Graph:
    """Everyone is joined to everyone."""
    at_least(1, n=n)
    return simple(n, combinations(range(n), 2))


def star(n: int) -> Graph:
    """Peer 0 is joined to the n - 1 others: a server in all but name, to compare with."""
    at_least(1, n=n)
    return simple(n, ((0, i) for i in range(1, n)))


def hypercube(dimension: int) -> Graph:
    """2**dimension peers; two are joined if their numbers differ in one bit."""
    at_least(0, dimension=dimension)
    n = 2**dimension
    return simple(n, ((i, i ^ 1 << bit) for i, bit in product(range(n), range(dimension))))


def exponential(n: int) -> "nx.DiGraph[int]":
    """Peer i sends to i + 2**k mod n, for every 2**k < n. Directed (Ying et al., NeurIPS 2021, section 3)."""
    at_least(1, n=n)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((i, (i + (1 << k)) % n) for i, k in product(range(n), range((n - 1).bit_length())))
    return graph


def dumbbell(m: int) -> Graph:
    """Two complete graphs of m peers joined by the one edge (m - 1, m): the narrowest bottleneck."""
    at_least(1, m=m)
    left, right = combinations(range(m), 2), combinations(range(m, 2 * m), 2)
    return simple(2 * m, chain(left, right, [(m - 1, m)]))


def simple(n: int, edges: Iterable[tuple[int, int]]) -> Graph:
    """The undirected graph on 0..n-1 with these edges, without the loops among them."""
    graph: Graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((i, j) for i, j in edges if i != j)
    return graph


def at_least(least: int, **sizes: int) -> None:
    """Refuse sizes below `least`, by name."""
    for name, size in sizes.items():
        if size < least:
            raise TopologyError(f"{name} is {size}.", f"It must be at least {least}.")
