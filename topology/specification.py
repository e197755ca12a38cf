"""Graphs by name, as scenario files, network files and command lines give them.

from_specification("ring", peers=8, seed=7)
from_specification("random_regular", peers=16, seed=7, degree=4)    # [topology] kind = "random_regular", degree = 4
from_specification("random-regular:4", peers=16, seed=7)            # --topology random-regular:4
from_specification("torus:2x4", peers=8, seed=7)                    # or "torus": as square as 8 peers allow
"""

import difflib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isqrt
from numbers import Integral, Real

from topology.errors import TopologyError
from topology.families import Graph, complete, dumbbell, exponential, grid, hypercube, path, ring, star, torus
from topology.random_families import erdos_renyi, random_regular, scale_free, small_world


def from_specification(kind: str, peers: int, seed: int, **arguments: float | None) -> Graph:
    """The graph of a kind, such as "ring", "random_regular:4" or "torus:2x4", on `peers` nodes.

    Arguments come by name or after the colon; one that is None counts as not given. Hyphens are underscores.
    Raises `TopologyError` on an unknown kind, on arguments that are missing, unknown, given twice or of the wrong type, and
    where they make another number of peers.
    """
    written, _, inline = kind.partition(":")
    name = written.strip().replace("-", "_").lower()
    family = _family(name)
    if peers < 1:
        raise TopologyError(f"{name}: {peers} peers.", "Give at least 1.")
    given = _given(name, family, inline, {key: value for key, value in arguments.items() if value is not None})
    return family.build(peers, seed, **given)


def usage(name: str) -> str:
    """How a kind is written, such as "random_regular:DEGREE" or, where arguments may be left out, "torus[:ROWSxCOLUMNS]"."""
    family = FAMILIES[name]
    if not family.arguments:
        return name
    separator = "x" if "rows" in family.arguments else ","
    arguments = separator.join(argument.upper() for argument in family.arguments)
    return f"{name}[:{arguments}]" if family.sized_by_peers else f"{name}:{arguments}"


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of graph: `build(peers, seed, **arguments)`, given all its arguments, or any where the peers say the rest."""

    summary: str
    build: Callable[..., Graph]
    arguments: tuple[str, ...] = ()  # in the order of a command line
    sized_by_peers: bool = False


def _torus(peers: int, seed: int, rows: int | None = None, columns: int | None = None) -> Graph:
    return torus(*_sides("torus", peers, rows, columns))


def _grid(peers: int, seed: int, rows: int | None = None, columns: int | None = None) -> Graph:
    return grid(*_sides("grid", peers, rows, columns))


def _hypercube(peers: int, seed: int, dimension: int | None = None) -> Graph:
    power = peers.bit_length() - 1
    if peers != 1 << power:
        raise TopologyError(f"hypercube: {peers} peers.", f"Ask for a power of two, such as {1 << power} or {2 << power}.")
    if dimension not in (None, power):
        raise TopologyError(f"hypercube:{dimension} has 2**{dimension} peers, not {peers}.", f"Write hypercube:{power}.")
    return hypercube(power)


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


def _family(name: str) -> Family:
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(name, FAMILIES, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(FAMILIES)}."
    raise TopologyError(f"Unknown topology {name!r}.", hint)


def _given(name: str, family: Family, inline: str, named: dict[str, object]) -> dict[str, float]:
    """The arguments after the colon and those by name, as numbers."""
    after_colon = re.split("[x,]", inline.lower()) if inline else []
    if len(after_colon) > len(family.arguments):
        raise TopologyError(f"{name}: too many arguments in {inline!r}.", f"Write {usage(name)}.")
    positional: dict[str, object] = dict(zip(family.arguments, after_colon, strict=False))
    for argument in named:
        if argument not in family.arguments:
            raise TopologyError(f"{name} has no {argument}.", f"Leave it out, and write {usage(name)}.")
        if argument in positional:
            raise TopologyError(f"{name}: {argument} is given twice.", "Give it by name or after the colon.")
    given = {argument: _number(name, argument, value) for argument, value in (positional | named).items()}
    missing = [argument for argument in family.arguments if argument not in given]
    if missing and not family.sized_by_peers:
        raise TopologyError(f"{name} needs {' and '.join(missing)}.", f"Write {usage(name)}.")
    return given


def _number(name: str, argument: str, value: object) -> float:
    """Text from a command line or a number from a file; whole, but for the probability p."""
    is_probability = argument == "p"
    with suppress(ValueError):
        if is_probability and isinstance(value, str | Real) and not isinstance(value, bool):
            return float(value)
        if not is_probability and isinstance(value, str | Integral) and not isinstance(value, bool):
            return int(value)
    raise TopologyError(f"{name}: {argument} is {value!r}.", f"It must be a {'' if is_probability else 'whole '}number.")


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
