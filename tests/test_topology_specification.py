"""Graphs by name, as files and command lines give them."""

import networkx as nx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import topology
from topology import FAMILIES, TopologyError, from_specification
from topology import families as fixed
from topology import random_families as drawn


@pytest.mark.parametrize(
    ("specification", "peers", "graph"),
    [
        ("ring", 8, fixed.ring(8)),
        ("Path", 5, fixed.path(5)),
        ("torus", 8, fixed.torus(2, 4)),
        ("torus", 36, fixed.torus(6, 6)),
        ("torus:2x4", 8, fixed.torus(2, 4)),
        ("torus:4,2", 8, fixed.torus(4, 2)),
        ("torus:4", 8, fixed.torus(4, 2)),
        ("torus:1x7", 7, fixed.ring(7)),
        ("grid", 12, fixed.grid(3, 4)),
        ("grid:2X6", 12, fixed.grid(2, 6)),
        ("circulant:1,3", 9, fixed.circulant(9, [1, 3])),
        ("circulant:1", 9, fixed.ring(9)),
        ("complete", 5, fixed.complete(5)),
        ("star", 5, fixed.star(5)),
        ("hypercube", 16, fixed.hypercube(4)),
        ("hypercube:3", 8, fixed.hypercube(3)),
        ("exponential", 6, fixed.exponential(6)),
        ("dumbbell", 10, fixed.dumbbell(5)),
        ("dumbbell:5", 10, fixed.dumbbell(5)),
        ("random_regular:4", 16, drawn.random_regular(4, 16, seed=7)),
        ("random-regular:4", 16, drawn.random_regular(4, 16, seed=7)),
        ("erdos_renyi:0.3", 16, drawn.erdos_renyi(16, 0.3, seed=7)),
        ("erdos-renyi:1", 6, fixed.complete(6)),
        ("small_world:4,0.1", 16, drawn.small_world(16, 4, 0.1, seed=7)),
        ("scale-free:2", 16, drawn.scale_free(16, 2, seed=7)),
    ],
)
def test_a_command_line_names_a_graph(specification: str, peers: int, graph: fixed.Graph) -> None:
    assert nx.utils.graphs_equal(from_specification(specification, peers, 7), graph)


def test_a_file_gives_the_arguments_by_name_and_none_for_those_it_leaves_out() -> None:
    by_name = from_specification("random_regular", 16, 7, degree=4, rows=None, p=None)
    assert nx.utils.graphs_equal(by_name, from_specification("random_regular:4", 16, 7))
    assert nx.utils.graphs_equal(from_specification("circulant", 9, 7, offsets=[1, 3]), fixed.circulant(9, [1, 3]))
    assert nx.utils.graphs_equal(from_specification("torus", 12, 7, columns=6), fixed.torus(2, 6))
    assert nx.utils.graphs_equal(from_specification("small_world:4", 16, 7, p=0.1), drawn.small_world(16, 4, 0.1, seed=7))


@pytest.mark.parametrize(
    ("specification", "peers", "message"),
    [
        ("rng", 8, "Unknown topology 'rng'. Did you mean 'ring'?"),
        ("random-regulr:4", 8, "Unknown topology 'random_regulr'. Did you mean 'random_regular'?"),
        ("", 8, "Unknown topology ''. There are: ring, path,"),
        ("ring", 0, "ring: 0 peers. Give at least 1."),
        ("ring:4", 8, "ring: too many arguments in '4'. Write ring."),
        ("torus:2x2x2", 8, "torus: too many arguments in '2x2x2'. Write torus[:ROWSxCOLUMNS]."),
        ("torus:2x3", 8, "torus: 2 rows of 3 are not 8 peers. Make rows times columns 8."),
        ("torus:-2x-4", 8, "rows is -2. It must be at least 1."),
        ("torus:0x4", 8, "torus: 0 rows of 4 are not 8 peers."),
        ("torus:0", 8, "torus: 0 rows of 8 are not 8 peers."),
        ("torus", 7, "torus: 7 peers fill only one row. Ask for 8, or write torus:1x7."),
        ("grid:99999999x99999999", 8, "grid: 99999999 rows of 99999999 are not 8 peers."),
        ("hypercube", 12, "hypercube: 12 peers. Ask for a power of two, such as 8 or 16."),
        ("hypercube:4", 8, "hypercube:4 has 2**4 peers, not 8. Write hypercube:3."),
        ("hypercube:9999999999", 8, "hypercube:9999999999 has 2**9999999999 peers, not 8."),
        ("dumbbell", 7, "dumbbell: 7 peers can't be halved. Ask for an even number."),
        ("dumbbell:3", 8, "dumbbell:3 has 2*3 peers, not 8. Write dumbbell:4."),
        ("random_regular", 8, "random_regular needs degree. Write random_regular:DEGREE."),
        ("small_world", 8, "small_world needs k and p. Write small_world:K,P."),
        ("small_world:4", 8, "small_world needs p. Write small_world:K,P."),
        ("random_regular:four", 8, "random_regular: degree is 'four'. It must be a whole number."),
        ("random_regular:2.5", 8, "random_regular: degree is '2.5'. It must be a whole number."),
        ("random_regular:8", 8, "random_regular(8, 8): a peer can't have 8 neighbors among 7 others. Lower the degree."),
        ("erdos_renyi:often", 8, "erdos_renyi: p is 'often'. It must be a number."),
        ("erdos_renyi:inf", 8, "p is inf. It is a probability, from 0 to 1."),
        ("circulant", 8, "circulant needs offsets. Write circulant:OFFSETS,..."),
        ("circulant:2,4", 8, "circulant(8, [2, 4]): n and the offsets are multiples of 2. Add an offset of 1."),
        ("circulant:1,b", 8, "circulant: offsets is 'b'. It must be a whole number."),
        ("base_k:2", 8, "base_k has other links every round, and one graph is asked for. Name one: exponential, say."),
        ("torus:2x", 8, "torus: columns is ''. It must be a whole number."),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(specification: str, peers: int, message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        from_specification(specification, peers, 7)
    assert str(refused.value).startswith(message) and "...." not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("specification", "arguments", "message"),
    [
        ("ring", {"degree": 4}, "ring has no degree. Leave it out, and write ring."),
        ("random_regular:4", {"degree": 4}, "random_regular: degree is given twice."),
        ("random_regular", {"degree": 4.0}, "random_regular: degree is 4.0. It must be a whole number."),
        ("circulant:1", {"offsets": [1, 2]}, "circulant: offsets is given twice."),
        ("circulant", {"offsets": [1, 2.5]}, "circulant: offsets is 2.5. It must be a whole number."),
        ("circulant", {"offsets": 2}, "circulant needs offsets. Write circulant:OFFSETS,..."),
        ("circulant:1", {"degree": 4}, "circulant has no degree. Leave it out, and write circulant:OFFSETS,..."),
        ("random_regular", {"degree": True}, "random_regular: degree is True. It must be a whole number."),
    ],
)
def test_arguments_by_name_are_checked_too(specification: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        from_specification(specification, 8, 7, **arguments)
    assert str(refused.value).startswith(message) and "...." not in str(refused.value)


@given(st.sampled_from(["torus", "grid"]), st.integers(1, 400))
def test_without_sides_a_torus_is_as_square_as_its_peers_allow(kind: str, peers: int) -> None:
    divisors = [d for d in range(1, peers + 1) if peers % d == 0]
    assume(peers < 4 or len(divisors) > 2)
    rows = max(d for d in divisors if d * d <= peers)
    assert nx.utils.graphs_equal(from_specification(kind, peers, 0), getattr(fixed, kind)(rows, peers // rows))


@given(st.text(), st.integers(-3, 30))
def test_no_text_does_anything_but_name_a_graph_or_be_refused(text: str, peers: int) -> None:
    for specification in (text, *(f"{kind}:{text}" for kind in FAMILIES)):
        try:
            graph = from_specification(specification, peers, 7)
        except TopologyError as refused:
            assert len(str(refused).splitlines()) == 1
        else:
            assert list(graph) == list(range(peers))


def test_every_generator_has_a_name() -> None:
    generators = {name for module in (fixed, drawn) for name in vars(module) if name in topology.__all__} - {
        "Graph",
        "TopologyError",
    }
    assert set(FAMILIES) == generators
