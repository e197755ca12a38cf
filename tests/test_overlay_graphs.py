"""The graphs that live members work out for themselves: valid, connected, the same for all, and stable under churn."""

import hashlib
import subprocess
import sys
from itertools import pairwise
from math import log2

import networkx as nx
import pytest

from topology.errors import TopologyError
from topology.overlay import (
    KINDS,
    WATCHED_MAX,
    WATCHED_MIN,
    epidemic_targets,
    graph,
    metropolis,
    overlay,
    round_links,
    watched,
)


def ids(n: int, first: int = 0) -> tuple[bytes, ...]:
    return tuple(sorted(hashlib.blake2b(b"%d" % k, digest_size=32).digest() for k in range(first, first + n)))


def edges(kind: str, members: tuple[bytes, ...], degree: int = 4, seed: int = 1) -> set[frozenset[bytes]]:
    return {frozenset((one, other)) for one, near in graph(kind, members, seed, degree).items() for other in near}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 61])
def test_a_graph_is_symmetric_connected_and_nobody_is_its_own_neighbor(kind: str, n: int) -> None:
    members = ids(n)
    near = {own: overlay(kind, members, own, 1) for own in members}
    assert all(own not in others and list(others) == sorted(set(others)) for own, others in near.items())
    assert all(own in near[other] for own, others in near.items() for other in others)
    assert nx.is_connected(nx.Graph([(a, b) for a, others in near.items() for b in (a, *others)]))


def test_everybody_works_out_the_same_whatever_the_order_and_the_machine() -> None:
    members = ids(20)
    for kind in KINDS:
        assert overlay(kind, members[::-1], members[3], 7) == overlay(kind, members, members[3], 7)
    program = (
        "import hashlib; from topology.overlay import overlay\n"
        "m = [hashlib.blake2b(b'%d' % k, digest_size=32).digest() for k in range(20)]\n"
        f"print([x.hex()[:8] for x in overlay('random_regular', m, bytes.fromhex('{members[3].hex()}'), 7)])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str([near.hex()[:8] for near in overlay("random_regular", members, members[3], 7)])


def test_degrees_are_what_was_asked_for() -> None:
    members = ids(100)
    assert {len(near) for near in graph("ring", members, 1, 4).values()} == {2}
    assert {len(near) for near in graph("complete", members, 1, 4).values()} == {99}
    regular = [len(near) for near in graph("random_regular", members, 1, 6).values()]
    assert max(regular) == 6 and sum(regular) / 100 > 5.6
    # Chord: about log2 n fingers out and as many in; some coincide.
    exponential = [len(near) for near in graph("exponential", members, 1, 4).values()]
    assert log2(100) / 2 < sum(exponential) / 100 < 2 * log2(100) + 3


def test_so_few_that_all_can_be_neighbors_are() -> None:
    for n in (2, 3, 5):
        assert edges("random_regular", ids(n), 4) == edges("complete", ids(n))


@pytest.mark.parametrize("kind,degree", [("ring", 2), ("random_regular", 4), ("random_regular", 8)])
def test_a_join_cuts_one_link_and_makes_two_on_each_ring(kind: str, degree: int) -> None:
    members, newcomers = ids(200), ids(50, first=1000)
    rings = degree // 2
    before = edges(kind, members, degree)
    for newcomer in newcomers:
        after = edges(kind, tuple(sorted((*members, newcomer))), degree)
        made, cut = after - before, before - after
        assert all(newcomer in edge for edge in made) and len(made) <= 2 * rings and len(cut) <= rings


def test_a_leave_mends_each_ring_with_one_link() -> None:
    members = ids(200)
    before = edges("random_regular", members, 4)
    for leaver in members[:50]:
        after = edges("random_regular", tuple(m for m in members if m != leaver), 4)
        assert all(leaver in edge for edge in before - after) and len(after - before) <= 2


def test_a_join_moves_about_log_n_fingers_of_the_exponential_graph() -> None:
    """The newcomer owns 1/n of the ring, so that of n log2 n fingers log2 n come to point to it, and it has log2 n itself."""
    members = ids(256)
    before = edges("exponential", members)
    moved = []
    for newcomer in ids(40, first=1000):
        after = edges("exponential", tuple(sorted((*members, newcomer))))
        moved.append(len(after ^ before))
    assert log2(256) < sum(moved) / len(moved) < 4 * log2(256)


def test_random_regular_mixes_like_a_random_graph_and_not_like_a_ring() -> None:
    """A d-regular random graph of n has a diameter of about log n / log (d - 1); a ring has n / 2."""
    graph_of = nx.Graph([tuple(edge) for edge in edges("random_regular", ids(512), 8)])
    assert nx.diameter(graph_of) <= 6


def test_failure_detection_watches_four_to_eight() -> None:
    for n in (2, 5, 9, 10, 12, 16, 40, 300):
        members = ids(n)
        degrees = [len(watched(members, own, 3)) for own in members]
        assert max(degrees) <= WATCHED_MAX and min(degrees) >= min(n - 1, WATCHED_MIN)


def test_epidemic_targets_differ_by_round_and_are_public_and_uniform() -> None:
    members = ids(21)
    own = members[0]
    rounds = [epidemic_targets(members, own, 5, r, 4) for r in range(2000)]
    assert all(len(set(targets)) == 4 and own not in targets for targets in rounds)
    assert rounds[0] == epidemic_targets(members[::-1], own, 5, 0, 4)
    assert sum(a == b for a, b in pairwise(rounds)) < 5
    # Each of 20 others is drawn in a fifth of the rounds: 400, standard deviation 17.9.
    counts = [sum(other in targets for targets in rounds) for other in members[1:]]
    assert all(abs(count - 400) < 4.5 * 17.9 for count in counts)
    assert epidemic_targets(members[:3], own, 5, 0, 9) == members[1:3]


def test_metropolis_weights_are_symmetric_when_nobody_lies() -> None:
    members = ids(30)
    near = graph("exponential", members, 1, 4)
    weights = {own: metropolis(own, {peer: len(near[peer]) for peer in near[own]}) for own in members}
    for own in members:
        assert sum(weights[own].values()) == pytest.approx(1.0) and min(weights[own].values()) >= 0
        assert all(weights[own][peer] == weights[peer][own] for peer in near[own])


@pytest.mark.parametrize("lie", [0, -5, 1, 10**18, -(10**18)])
def test_no_stated_degree_gets_a_neighbor_more_than_its_share(lie: int) -> None:
    own, liar, *others = ids(5)
    weights = metropolis(own, {liar: lie, **dict.fromkeys(others, 4)})
    assert 0.0 < weights[liar] <= 1 / 5
    assert all(weights[other] == 1 / 5 for other in others) and sum(weights.values()) == pytest.approx(1.0)


def test_a_round_names_whom_one_sends_to_and_weighs_whom_one_hears_from() -> None:
    members = ids(12)
    plans = {own: round_links("epidemic", members, own, 3, 3, {}) for own in members}
    for step in range(20):
        links = {own: plan(step) for own, plan in plans.items()}
        for own, mine in links.items():
            assert set(mine.weights) - {own} == {peer for peer in members if own in links[peer].send_to}
            assert sum(mine.weights.values()) == pytest.approx(1.0)
    steady = round_links("random_regular", members, members[0], 3, 4, {})
    assert steady(0) == steady(9) and set(steady(0).send_to) | {members[0]} == set(steady(0).weights)


@pytest.mark.parametrize("kind,degree", [("torus", 4), ("random_regular", 3), ("random_regular", 0)])
def test_what_cannot_be_says_how_to_mend_it(kind: str, degree: int) -> None:
    with pytest.raises(TopologyError, match="Choose"):
        overlay(kind, ids(5), ids(1)[0], 1, degree)


def test_a_network_process_can_load_it_without_networkx_or_numpy() -> None:
    program = "import sys, topology.overlay; assert not {'networkx', 'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
