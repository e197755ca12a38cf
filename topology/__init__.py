"""Graphs of peers, the mixing weights on them, and what both imply for gossip.

An edge i → j means that peer i sends to peer j; an undirected edge is both. Nodes are the peers 0..n-1.

    from topology import contraction, metropolis_weights, random_regular

    contraction(metropolis_weights(random_regular(4, 100, seed=7)))  # what a round leaves of the disagreement

Names are loaded when they are first used, so that the `p2pfl` command can mount `topology.cli` without paying for networkx.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topology.comparison import Candidate, compared
    from topology.consensus import rounds_to_consensus, updates_sent
    from topology.drawing import svg
    from topology.errors import TopologyError
    from topology.families import Graph, circulant, complete, dumbbell, exponential, grid, hypercube, path, ring, star, torus
    from topology.finite_time import base_k
    from topology.interchange import FORMATS, decode_graph, encode_graph, from_networkx
    from topology.random_families import erdos_renyi, random_regular, scale_free, small_world
    from topology.random_schedules import epidemic, equitopo, random_matching, random_pair, relabelled, sequential_pair
    from topology.reach import diameter
    from topology.robustness import r_robustness, robustness_bounds
    from topology.schedules import Schedule, links, one_peer_exponential, one_peer_hypercube, static
    from topology.specification import FAMILIES, SCHEDULES, from_specification, is_schedule, schedule_from_specification
    from topology.spectrum import algebraic_connectivity, contraction, noise_floor, relabelled_contraction, spectral_gap
    from topology.weights import (
        WEIGHTS,
        best_constant_weights,
        fastest_weights,
        lazy,
        max_degree_weights,
        metropolis_weights,
        neighbor_weights,
        uniform_weights,
    )
else:
    import importlib

    _NAMES = {
        "comparison": "Candidate compared",
        "consensus": "rounds_to_consensus updates_sent",
        "drawing": "svg",
        "errors": "TopologyError",
        "families": "Graph circulant complete dumbbell exponential grid hypercube path ring star torus",
        "finite_time": "base_k",
        "interchange": "FORMATS decode_graph encode_graph from_networkx",
        "random_families": "erdos_renyi random_regular scale_free small_world",
        "random_schedules": "epidemic equitopo random_matching random_pair relabelled sequential_pair",
        "reach": "diameter",
        "robustness": "r_robustness robustness_bounds",
        "schedules": "Schedule links one_peer_exponential one_peer_hypercube static",
        "specification": "FAMILIES SCHEDULES from_specification is_schedule schedule_from_specification",
        "spectrum": "algebraic_connectivity contraction noise_floor relabelled_contraction spectral_gap",
        "weights": "WEIGHTS best_constant_weights fastest_weights lazy max_degree_weights metropolis_weights "
        "neighbor_weights uniform_weights",
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
    "FORMATS",
    "SCHEDULES",
    "WEIGHTS",
    "Candidate",
    "Graph",
    "Schedule",
    "TopologyError",
    "algebraic_connectivity",
    "base_k",
    "best_constant_weights",
    "circulant",
    "compared",
    "complete",
    "contraction",
    "decode_graph",
    "diameter",
    "dumbbell",
    "encode_graph",
    "epidemic",
    "equitopo",
    "erdos_renyi",
    "exponential",
    "fastest_weights",
    "from_networkx",
    "from_specification",
    "grid",
    "hypercube",
    "is_schedule",
    "lazy",
    "links",
    "max_degree_weights",
    "metropolis_weights",
    "neighbor_weights",
    "noise_floor",
    "one_peer_exponential",
    "one_peer_hypercube",
    "path",
    "r_robustness",
    "random_matching",
    "random_pair",
    "random_regular",
    "relabelled",
    "relabelled_contraction",
    "ring",
    "robustness_bounds",
    "rounds_to_consensus",
    "scale_free",
    "schedule_from_specification",
    "sequential_pair",
    "small_world",
    "spectral_gap",
    "star",
    "static",
    "svg",
    "torus",
    "uniform_weights",
    "updates_sent",
]
