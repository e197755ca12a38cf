"""Graphs of peers, the mixing weights on them, and what both imply for gossip.

An edge i → j means that peer i sends to peer j; an undirected edge is both. Nodes are the peers 0..n-1.

    from topology import contraction, metropolis_weights, random_regular

    contraction(metropolis_weights(random_regular(4, 100, seed=7)))  # what a round leaves of the disagreement

Names are loaded when they are first used, so that the `p2pfl` command can mount `topology.cli` without paying for networkx.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topology.errors import TopologyError
    from topology.families import Graph, complete, dumbbell, exponential, grid, hypercube, path, ring, star, torus
    from topology.random_families import erdos_renyi, random_regular, scale_free, small_world
    from topology.reach import diameter
    from topology.specification import FAMILIES, from_specification
    from topology.spectrum import contraction, spectral_gap
    from topology.weights import WEIGHTS, lazy, metropolis_weights, neighbor_weights, uniform_weights
else:
    import importlib

    _NAMES = {
        "errors": "TopologyError",
        "families": "Graph complete dumbbell exponential grid hypercube path ring star torus",
        "random_families": "erdos_renyi random_regular scale_free small_world",
        "reach": "diameter",
        "specification": "FAMILIES from_specification",
        "spectrum": "contraction spectral_gap",
        "weights": "WEIGHTS lazy metropolis_weights neighbor_weights uniform_weights",
    }
    _HOME = {name: f"topology.{module}" for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'topology' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)

    def __dir__():
        return __all__


__all__ = [
    "FAMILIES",
    "WEIGHTS",
    "Graph",
    "TopologyError",
    "complete",
    "contraction",
    "diameter",
    "dumbbell",
    "erdos_renyi",
    "exponential",
    "from_specification",
    "grid",
    "hypercube",
    "lazy",
    "metropolis_weights",
    "neighbor_weights",
    "path",
    "random_regular",
    "ring",
    "scale_free",
    "small_world",
    "spectral_gap",
    "star",
    "torus",
    "uniform_weights",
]
