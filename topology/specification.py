"""Graphs and schedules by name, as scenario files, network files and command lines give them.

from_specification("ring", peers=8, seed=7)
from_specification("random_regular", peers=16, seed=7, degree=4)    # [topology] kind = "random_regular", degree = 4
from_specification("random-regular:4", peers=16, seed=7)            # --topology random-regular:4
from_specification("torus:2x4", peers=8, seed=7)                    # or "torus": as square as 8 peers allow
schedule_from_specification("base_k:2", peers=25, seed=7)           # or of a graph: the same every round
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isqrt
from numbers import Integral, Real
from typing import Any, TypeAlias

from topology.errors import TopologyError
from topology.families import Graph, circulant, complete, dumbbell, exponential, grid, hypercube, path, ring, star, torus
from topology.finite_time import base_k
from topology.random_families import erdos_renyi, random_regular, scale_free, small_world
from topology.random_schedules import epidemic, equitopo, random_matching, random_pair, sequential_pair
from topology.schedules import Schedule, one_peer_exponential, one_peer_hypercube, static

Given: TypeAlias = float | str | Sequence[int] | None
"""An argument as a file or a command line gives it."""


def from_specification(kind: str, peers: int, seed: int, **arguments: Given) -> Graph:
    """The graph of a kind, such as "ring", "random_regular:4" or "torus:2x4", on `peers` nodes.

    Arguments come by name or after the colon; one that is None counts as not given. Hyphens are underscores.
    Raises `TopologyError` on an unknown kind, on arguments that are missing, unknown, given twice or of the wrong type, and
    where they make another number of peers.
    """
    name, inline = _split(kind)
    if name in SCHEDULES:
        raise TopologyError(f"{name} has other links every round, and one graph is asked for.", "Name one: exponential, say.")
    graph: Graph = _built(FAMILIES, name, inline, peers, seed, arguments)
    return graph


def schedule_from_specification(kind: str, peers: int, seed: int, weights: str = "metropolis", **arguments: Given) -> Schedule:
    """The schedule of a kind, such as "base_k:2"; or of a graph's kind, which has the same weights every round.

    Schedules bring weights of their own, so `weights` is for graphs. Otherwise as `from_specification`.
    """
    name, inline = _split(kind)
    if name in FAMILIES:
        return static(_built(FAMILIES, name, inline, peers, seed, arguments), weights)
    schedule: Schedule = _built({**FAMILIES, **SCHEDULES}, name, inline, peers, seed, arguments)
    return schedule


def is_schedule(kind: str) -> bool:
    """Whether this names a schedule rather than one graph."""
    return _split(kind)[0] in SCHEDULES


def usage(name: str) -> str:
    """How a kind is written, such as "random_regular:DEGREE" or, where arguments may be left out, "torus[:ROWSxCOLUMNS]"."""
    family = {**FAMILIES, **SCHEDULES}[name]
    if not family.arguments:
        return name
    if family.many:
        return f"{name}:{family.arguments[0].upper()},..."
    separator = "x" if "rows" in family.arguments else ","
    arguments = separator.join(argument.upper() for argument in family.arguments)
    return f"{name}[:{arguments}]" if family.sized_by_peers else f"{name}:{arguments}"


def _ended(text: str) -> str:
    """As the end of a sentence: no fourth dot after three."""
    return text if text.endswith("...") else f"{text}."


@dataclass(frozen=True, slots=True)
class Family:
    """A kind: `build(peers, seed, **arguments)`, given all its arguments, or any of them where the peers say the rest."""

    summary: str
    build: Callable[..., Any]  # a Graph, or a Schedule
    arguments: tuple[str, ...] = ()  # in the order of a command line
    sized_by_peers: bool = False
    many: bool = False  # the one argument is several numbers


def _torus(peers: int, seed: int, rows: int | None = None, columns: int | None = None) -> Graph:
    return torus(*_sides("torus", peers, rows, columns))


def _grid(peers: int, seed: int, rows: int | None = None, columns: int | None = None) -> Graph:
    return grid(*_sides("grid", peers, rows, columns))


def _hypercube(peers: int, seed: int, dimension: int | None = None) -> Graph:
    return hypercube(_power("hypercube", peers, dimension))


def _one_peer_hypercube(peers: int, seed: int, dimension: int | None = None) -> Schedule:
    return one_peer_hypercube(_power("one_peer_hypercube", peers, dimension))


def _dumbbell(peers: int, seed: int, m: int | None = None) -> Graph:
    if peers % 2:
        raise TopologyError(f"dumbbell: {peers} peers can't be halved.", "Ask for an even number.")
    if m not in (None, peers // 2):
        raise TopologyError(f"dumbbell:{m} has 2*{m} peers, not {peers}.", f"Write dumbbell:{peers // 2}.")
    return dumbbell(peers // 2)


FAMILIES: Mapping[str, Family] = {
    "ring": Family("each peer joined to the next, the last to the first", lambda peers, seed: ring(peers)),
    "path": Family("each peer joined to the next", lambda peers, seed: path(peers)),
    "torus": Family("a grid whose sides are joined", _torus, ("rows", "columns"), sized_by_peers=True),
    "grid": Family("rows and columns", _grid, ("rows", "columns"), sized_by_peers=True),
    "circulant": Family(
        "joined to those OFFSET places before and after",
        lambda peers, seed, offsets: circulant(peers, offsets),
        ("offsets",),
        many=True,
    ),
    "complete": Family("everyone joined to everyone", lambda peers, seed: complete(peers)),
    "star": Family("peer 0 joined to all others", lambda peers, seed: star(peers)),
    "hypercube": Family("joined where numbers differ in one bit", _hypercube, ("dimension",), sized_by_peers=True),
    "exponential": Family("directed: each sends 1, 2, 4, 8... places on", lambda peers, seed: exponential(peers)),
    "dumbbell": Family("two complete halves and one edge", _dumbbell, ("m",), sized_by_peers=True),
    "random_regular": Family(
        "random, all with DEGREE neighbors", lambda peers, seed, degree: random_regular(degree, peers, seed), ("degree",)
    ),
    "erdos_renyi": Family(
        "random, each pair joined with probability P", lambda peers, seed, p: erdos_renyi(peers, p, seed), ("p",)
    ),
    "small_world": Family(
        "a ring of K nearest, rewired with probability P",
        lambda peers, seed, k, p: small_world(peers, k, p, seed),
        ("k", "p"),
    ),
    "scale_free": Family(
        "grown: each new peer joins M, sooner those with many neighbors",
        lambda peers, seed, m: scale_free(peers, m, seed),
        ("m",),
    ),
}

SCHEDULES: Mapping[str, Family] = {
    "base_k": Family(
        "exact mean of any number in few rounds, each at most K neighbors", lambda peers, seed, k: base_k(peers, k), ("k",)
    ),
    "one_peer_exponential": Family(
        "each sends 1, then 2, 4, 8... places on; exact for powers of two", lambda peers, seed: one_peer_exponential(peers)
    ),
    "one_peer_hypercube": Family("one dimension a round; exact", _one_peer_hypercube, ("dimension",), sized_by_peers=True),
    "random_matching": Family("random pairs, drawn every round", lambda peers, seed: random_matching(peers, seed)),
    "random_pair": Family("one random pair a round", lambda peers, seed: random_pair(peers, seed)),
    "sequential_pair": Family("one after the other meets a random peer", lambda peers, seed: sequential_pair(peers, seed)),
    "epidemic": Family(
        "each sends to FANOUT others, drawn every round",
        lambda peers, seed, fanout: epidemic(peers, fanout, seed),
        ("fanout",),
    ),
    "epidemic_oracle": Family(
        "a random graph of degree FANOUT, drawn every round",
        lambda peers, seed, fanout: epidemic(peers, fanout, seed, oracle=True),
        ("fanout",),
    ),
    "equitopo": Family("all send so many places on, drawn every round", lambda peers, seed: equitopo(peers, seed)),
}


def _split(kind: str) -> tuple[str, str]:
    written, _, inline = kind.partition(":")
    return written.strip().replace("-", "_").lower(), inline


def _built(
    families: Mapping[str, Family], name: str, inline: str, peers: int, seed: int, arguments: Mapping[str, Given]
) -> Any:
    if name not in families:
        near = difflib.get_close_matches(name, families, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(families)}."
        raise TopologyError(f"Unknown topology {name!r}.", hint)
    family = families[name]
    if peers < 1:
        raise TopologyError(f"{name}: {peers} peers.", "Give at least 1.")
    given = _given(name, family, inline, {key: value for key, value in arguments.items() if value is not None})
    return family.build(peers, seed, **given)


def _given(name: str, family: Family, inline: str, named: dict[str, Given]) -> dict[str, Any]:
    """The arguments after the colon and those by name, as numbers."""
    after_colon = re.split("[x,]", inline.lower()) if inline else []
    if family.many:
        return _given_many(name, family.arguments[0], after_colon, named)
    if len(after_colon) > len(family.arguments):
        raise TopologyError(f"{name}: too many arguments in {inline!r}.", f"Write {_ended(usage(name))}")
    positional: dict[str, Given] = dict(zip(family.arguments, after_colon, strict=False))
    for argument in named:
        if argument not in family.arguments:
            raise TopologyError(f"{name} has no {argument}.", f"Leave it out, and write {_ended(usage(name))}")
        if argument in positional:
            raise TopologyError(f"{name}: {argument} is given twice.", "Give it by name or after the colon.")
    given = {argument: _number(name, argument, value) for argument, value in (positional | named).items()}
    missing = [argument for argument in family.arguments if argument not in given]
    if missing and not family.sized_by_peers:
        raise TopologyError(f"{name} needs {' and '.join(missing)}.", f"Write {_ended(usage(name))}")
    return given


def _given_many(name: str, argument: str, after_colon: list[str], named: dict[str, Given]) -> dict[str, Any]:
    for other in named:
        if other != argument:
            raise TopologyError(f"{name} has no {other}.", f"Leave it out, and write {_ended(usage(name))}")
    if after_colon and named:
        raise TopologyError(f"{name}: {argument} is given twice.", "Give it by name or after the colon.")
    values = named.get(argument, after_colon)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise TopologyError(f"{name} needs {argument}.", f"Write {_ended(usage(name))}")
    return {argument: [_number(name, argument, value) for value in values]}


def _number(name: str, argument: str, value: object) -> float:
    """Text from a command line or a number from a file; whole, but for the probability p."""
    is_probability = argument == "p"
    with suppress(ValueError):
        if is_probability and isinstance(value, str | Real) and not isinstance(value, bool):
            return float(value)
        if not is_probability and isinstance(value, str | Integral) and not isinstance(value, bool):
            return int(value)
    raise TopologyError(f"{name}: {argument} is {value!r}.", f"It must be a {'' if is_probability else 'whole '}number.")


def _power(name: str, peers: int, dimension: int | None) -> int:
    power = peers.bit_length() - 1
    if peers != 1 << power:
        raise TopologyError(f"{name}: {peers} peers.", f"Ask for a power of two, such as {1 << power} or {2 << power}.")
    if dimension not in (None, power):
        raise TopologyError(f"{name}:{dimension} has 2**{dimension} peers, not {peers}.", f"Write {name}:{power}.")
    return power


def _sides(name: str, peers: int, rows: int | None, columns: int | None) -> tuple[int, int]:
    """The sides that were given, and what they leave for the other; with neither, as square as can be."""
    if rows is None and columns is None:
        rows = max(divisor for divisor in range(1, isqrt(peers) + 1) if peers % divisor == 0)
        if rows == 1 and peers > 3:
            raise TopologyError(f"{name}: {peers} peers fill only one row.", f"Ask for {peers + 1}, or write {name}:1x{peers}.")
    rows = peers // max(columns or 1, 1) if rows is None else rows
    columns = peers // max(rows, 1) if columns is None else columns
    if rows * columns != peers:
        raise TopologyError(f"{name}: {rows} rows of {columns} are not {peers} peers.", f"Make rows times columns {peers}.")
    return rows, columns
