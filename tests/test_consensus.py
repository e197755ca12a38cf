"""Rounds until peers agree, updates sent until then, and which kind of graph is best for it."""

from math import ceil, cos, log, pi

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import (
    Schedule,
    TopologyError,
    base_k,
    compared,
    complete,
    epidemic,
    equitopo,
    erdos_renyi,
    exponential,
    hypercube,
    one_peer_exponential,
    random_matching,
    ring,
    rounds_to_consensus,
    star,
    static,
    updates_sent,
)


@pytest.mark.parametrize("epsilon", [0.5, 1e-2, 1e-6])
def test_rounds_on_symmetric_weights_are_the_logarithm_over_that_of_the_contraction(epsilon: float) -> None:
    assert rounds_to_consensus(static(ring(8)), epsilon) == ceil(log(epsilon) / log(1 / 3 + 2 / 3 * cos(pi / 4)))
    assert rounds_to_consensus(static(hypercube(4)), epsilon) == ceil(log(epsilon) / log(3 / 5))
    assert rounds_to_consensus(static(complete(9)), epsilon) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 10), st.integers(0, 500), st.sampled_from([0.3, 1e-2, 1e-5]))
def test_rounds_on_any_weights_are_those_of_multiplying_them_one_after_the_other(n: int, seed: int, epsilon: float) -> None:
    graph = nx.gnp_random_graph(n, 0.5, seed=seed, directed=True)
    nx.add_cycle(graph, range(n))
    schedule = static(graph, "uniform")
    left, rounds = np.eye(n) - 1 / n, 0
    while np.linalg.norm(left, 2) > epsilon:
        left = schedule(0) @ left
        left, rounds = left - left.mean(axis=0), rounds + 1
    assert rounds_to_consensus(schedule, epsilon) == rounds
    changing = Schedule(n, None, lambda round: schedule.rows(0))
    assert rounds_to_consensus(changing, epsilon) == rounds


@pytest.mark.parametrize(
    "schedule", [base_k(22, 3), base_k(7, 1), one_peer_exponential(32)], ids=["base_k 22", "base_k 7", "exponential"]
)
def test_what_is_exact_in_a_period_agrees_in_a_period(schedule: Schedule) -> None:
    assert rounds_to_consensus(schedule, 1e-9) == schedule.period


def test_peers_who_never_meet_never_agree() -> None:
    assert rounds_to_consensus(Schedule(4, 1, lambda round: [{i: 1.0} for i in range(4)])) is None
    assert rounds_to_consensus(Schedule(4, 1, lambda round: [{1: 1.0}, {2: 1.0}, {3: 1.0}, {0: 1.0}])) is None


@pytest.mark.parametrize("epsilon", [0, 1, -1, float("nan")])
def test_an_epsilon_that_is_no_share_is_refused(epsilon: float) -> None:
    with pytest.raises(TopologyError, match="between 0 and 1"):
        rounds_to_consensus(static(ring(4)), epsilon)


def test_updates_sent_are_the_links_of_a_round() -> None:
    assert updates_sent(static(ring(9))) == (2, 2)
    assert updates_sent(static(star(9))) == (16 / 9, 8)
    assert updates_sent(static(exponential(12), "uniform")) == (4, 4)
    assert updates_sent(epidemic(20, 3, seed=7)) == (3, 3)
    assert updates_sent(equitopo(20, seed=7)) == (1, 1)
    assert updates_sent(random_matching(9, seed=7)) == (pytest.approx(8 / 9), 1)


def test_for_a_budget_of_one_update_powers_of_two_take_the_exponential_and_others_base_2() -> None:
    assert {one.kind for one in compared(32, 100, 100) if one.rounds == 5} == {
        *("one_peer_exponential", "one_peer_hypercube", "base_k:1"),
    }
    best = compared(25, 100, 100)[0]
    assert (best.kind, best.rounds, best.bytes_per_round_max) == ("base_k:1", base_k(25, 1).period, 100)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 24), st.integers(1, 6))
def test_nothing_compared_costs_more_than_was_asked_and_the_ranking_is_by_rounds(peers: int, updates: int) -> None:
    candidates = compared(peers, updates * 10 + 9, 10)
    assert all(one.bytes_per_round <= one.bytes_per_round_max <= updates * 10 for one in candidates)
    rounds = [one.rounds or 10**9 for one in candidates]
    assert rounds == sorted(rounds)
    for one in candidates:
        if one.rounds is not None:
            assert one.bytes_to_consensus == pytest.approx(one.rounds * one.bytes_per_round)


def test_a_denser_random_graph_takes_fewer_rounds() -> None:
    sparse, dense = (rounds_to_consensus(static(erdos_renyi(40, p, seed=7))) for p in (0.15, 0.6))
    assert sparse is not None and dense is not None and dense < sparse
