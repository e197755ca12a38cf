"""Schedules: what a period leaves of the disagreement, exactly, and what a random round leaves of it in expectation."""

import hashlib
from itertools import combinations
from math import e, log, sqrt

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import (
    SCHEDULES,
    Schedule,
    TopologyError,
    base_k,
    complete,
    contraction,
    epidemic,
    equitopo,
    hypercube,
    metropolis_weights,
    one_peer_exponential,
    one_peer_hypercube,
    path,
    random_matching,
    random_pair,
    relabelled,
    relabelled_contraction,
    ring,
    schedule_from_specification,
    sequential_pair,
    star,
    static,
    uniform_weights,
)


def a_period_of(schedule: Schedule) -> np.ndarray:
    """The product of its rounds, the first rightmost, as gossip applies them."""
    assert schedule.period is not None
    product = np.eye(schedule.n)
    for round in range(schedule.period):
        product = schedule(round) @ product
    return product


def is_exact_mean(W: np.ndarray) -> bool:
    return float(np.abs(W - 1 / len(W)).max()) < 1e-14


def most_neighbors(schedule: Schedule, rounds: int) -> int:
    return max(len(row.keys() - {i}) for r in range(rounds) for i, row in enumerate(schedule.rows(r)))


# Base-(k+1): Takezawa et al., Beyond Exponential Graph, NeurIPS 2023


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_base_k_reaches_the_exact_mean_in_a_period_for_every_n_up_to_99_as_takezawa_et_al_prove(k: int) -> None:
    for n in range(1, 100):
        assert is_exact_mean(a_period_of(base_k(n, k))), n


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_base_k_gives_nobody_more_than_k_neighbors_and_takes_no_more_rounds_than_the_bound_of_theorem_1(k: int) -> None:
    for n in range(1, 100):
        schedule = base_k(n, k)
        assert schedule.period is not None
        assert most_neighbors(schedule, schedule.period) <= k
        assert schedule.period <= 2 * log(n, k + 1) + 2


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_weights_of_base_k_are_symmetric_and_doubly_stochastic_in_every_round(k: int) -> None:
    for n in (2, 5, 7, 22, 25, 38):
        schedule = base_k(n, k)
        for round in range(schedule.period or 0):
            W = schedule(round)
            assert np.array_equal(W, W.T) and (W >= 0).all()
            np.testing.assert_allclose(W.sum(axis=0), 1, rtol=0, atol=1e-15)


def test_base_2_has_the_lengths_of_the_papers_figures() -> None:
    """Figures 4 and 5: simple Base-2 of 5 peers in 5 rounds, Base-2 of 6 in 4; powers of two are one-peer hypercubes."""
    assert [base_k(n, 1).period for n in (5, 6)] == [5, 4]
    for dimension in range(1, 6):
        assert base_k(2**dimension, 1).period == dimension


def test_base_k_of_few_peers_is_the_complete_graph_and_of_digits_a_hyper_hypercube() -> None:
    assert base_k(5, 4).period == 1 and np.allclose(base_k(5, 4)(0), 1 / 5)
    assert base_k(25, 4).period == 2 and base_k(24, 3).period == 3  # 5·5 and 4·3·2
    assert base_k(1, 1).period == 1 and np.array_equal(base_k(1, 1)(0), [[1.0]])


# One peer a round: Ying et al., Exponential Graph is Provably Efficient, NeurIPS 2021


@pytest.mark.parametrize("n", range(2, 100))
def test_one_peer_exponential_is_exact_for_powers_of_two_and_not_otherwise_as_ying_et_al_show(n: int) -> None:
    schedule = one_peer_exponential(n)
    assert schedule.period == (n - 1).bit_length()
    assert most_neighbors(schedule, schedule.period) == 1
    assert is_exact_mean(a_period_of(schedule)) == (n & (n - 1) == 0)


def test_one_peer_exponential_sends_1_then_2_then_4_places_on() -> None:
    schedule = one_peer_exponential(8)
    assert [set(schedule.rows(round)[7]) for round in range(4)] == [{6, 7}, {5, 7}, {3, 7}, {6, 7}]
    assert schedule(1)[7, 5] == schedule(1)[7, 7] == 1 / 2


@pytest.mark.parametrize("dimension", range(7))
def test_one_peer_hypercube_is_exact_and_symmetric(dimension: int) -> None:
    schedule = one_peer_hypercube(dimension)
    assert is_exact_mean(a_period_of(schedule))
    assert schedule.period == max(1, dimension)
    assert all(np.array_equal(schedule(r), schedule(r).T) for r in range(schedule.period))
    met = nx.Graph((i, j) for r in range(schedule.period) for i, row in enumerate(schedule.rows(r)) for j in row if i != j)
    assert not met or nx.utils.graphs_equal(nx.Graph(met.edges), nx.Graph(hypercube(dimension).edges))


# Random relabelling: E[WᵀW] over all orders is a + bJ, so its trace says everything


@pytest.mark.parametrize("W", [metropolis_weights(star(6)), metropolis_weights(path(5)), one_peer_exponential(5)(1)])
def test_random_relabelling_contracts_the_variance_by_the_trace_formula(W: np.ndarray) -> None:
    """Exactly: averaged over every transposition-invariant pair of places, not sampled."""
    n = len(W)
    gram = W.T @ W
    diagonal, rest = gram.trace() / n, (gram.sum() - gram.trace()) / (n * (n - 1))
    averaged = diagonal * np.eye(n) + rest * (1 - np.eye(n))  # the mean of PᵀWᵀWP over all permutations P
    left = np.linalg.eigvalsh(averaged - averaged.sum() / n**2)
    assert left[-1] == pytest.approx(relabelled_contraction(W), abs=1e-12)
    assert relabelled_contraction(W) <= contraction(W) ** 2 + 1e-12


def test_a_relabelled_schedule_contracts_in_the_mean_as_the_formula_says() -> None:
    n, draws = 12, 3000
    schedule = relabelled(static(ring(n)), seed=7)
    x = np.arange(n) - (n - 1) / 2
    left = np.mean([np.square(schedule(r) @ x).sum() for r in range(draws)]) / np.square(x).sum()
    assert left == pytest.approx(relabelled_contraction(metropolis_weights(ring(n))), abs=0.01)
    assert relabelled_contraction(metropolis_weights(ring(n))) == pytest.approx((n / 3 - 1) / (n - 1))


# Random pairs: Jelasity, Montresor and Babaoglu, Gossip-based aggregation in large dynamic networks, ACM TOCS 2005


def test_a_random_pair_leaves_n_minus_2_of_n_minus_1_of_the_variance_so_n_of_them_leave_1_in_e() -> None:
    n = 9
    x = np.random.default_rng(7).normal(size=n)
    x -= x.mean()
    left = []
    for i, j in combinations(range(n), 2):
        y = x.copy()
        y[i] = y[j] = (x[i] + x[j]) / 2
        left.append(np.square(y).sum() / np.square(x).sum())
    assert np.mean(left) == pytest.approx((n - 2) / (n - 1))
    assert relabelled_contraction(random_pair(n, seed=7)(0)) == pytest.approx((n - 2) / (n - 1))
    n = 10**6
    assert ((n - 2) / (n - 1)) ** n == pytest.approx(1 / e, abs=1e-6)


def test_a_perfect_matching_leaves_half_the_variance_so_two_of_them_leave_a_quarter() -> None:
    n = 1000
    once = relabelled_contraction(random_matching(n, seed=7)(0))
    assert once == pytest.approx((n / 2 - 1) / (n - 1))
    assert once**2 == pytest.approx(1 / 4, abs=1e-3)


@pytest.mark.parametrize(("kind", "ratio"), [("random_pair", 1 / e), ("sequential_pair", 1 / (2 * sqrt(e)))])
def test_the_variance_ratio_of_a_cycle_of_n_meetings_is_that_of_jelasity_et_al(kind: str, ratio: float) -> None:
    n, cycles = 150, 30
    left = []
    for seed in range(cycles):
        schedule = schedule_from_specification(kind, n, seed)
        x = np.random.default_rng(seed).normal(size=n)
        x -= x.mean()
        before = np.square(x).sum()
        for round in range(n):
            for i, row in enumerate(schedule.rows(round)):
                if len(row) == 2 and i == min(row):
                    x[list(row)] = sum(x[j] for j in row) / 2
        left.append(np.square(x).sum() / before)
    assert np.mean(left) == pytest.approx(ratio, abs=0.03)


# Epidemic Learning: de Vos et al., NeurIPS 2023, lemma 1


@pytest.mark.parametrize(("n", "fanout"), [(16, 1), (16, 3), (15, 2), (12, 10)])
def test_a_round_of_epidemic_oracle_contracts_by_the_papers_formula_whatever_the_graph_drawn(n: int, fanout: int) -> None:
    for round in range(5):
        W = epidemic(n, fanout, seed=7, oracle=True)(round)
        assert relabelled_contraction(W) == pytest.approx(1 / (fanout + 1) * (1 - fanout / (n - 1)))
        np.testing.assert_allclose(W, W.T)
        np.testing.assert_allclose(W.sum(axis=1), 1)
        assert (np.count_nonzero(W, axis=1) == fanout + 1).all()


@pytest.mark.parametrize(("n", "fanout"), [(10, 1), (20, 3), (30, 7)])
def test_epidemic_local_contracts_by_the_papers_formula_in_the_mean(n: int, fanout: int) -> None:
    draws = 2000
    schedule = epidemic(n, fanout, seed=7)
    x = np.random.default_rng(7).normal(size=n)
    x -= x.mean()
    left = np.array([np.square(schedule(r) @ x).sum() for r in range(draws)]) / np.square(x).sum()
    expected = (1 - (1 - fanout / (n - 1)) ** n) / fanout - 1 / (n - 1)
    assert left.mean() == pytest.approx(expected, abs=5 * left.std() / sqrt(draws))


def test_everyone_in_epidemic_local_sends_to_as_many_others_as_the_fanout_and_weighs_all_that_arrives_alike() -> None:
    W = epidemic(40, 5, seed=7)(3)
    np.testing.assert_allclose(W.sum(axis=1), 1)
    sent = np.count_nonzero(W - np.diag(W.diagonal()), axis=0)
    assert (sent == 5).all()
    assert (W.diagonal() > 0).all() and all(len(set(row[row > 0])) == 1 for row in W)
    assert np.array_equal(epidemic(6, 5)(0), uniform_weights(complete(6)))


def test_the_targets_of_epidemic_local_are_uniform() -> None:
    n, rounds = 6, 3000
    heard = sum((np.asarray(epidemic(n, 2, seed=7)(r)) > 0).astype(int) for r in range(rounds))
    off = heard[~np.eye(n, dtype=bool)] / rounds
    np.testing.assert_allclose(off, 2 / (n - 1), atol=0.05)


# EquiTopo: Song et al., Communication-Efficient Topologies with O(1) Consensus Rate, NeurIPS 2022


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40))
def test_one_peer_directed_equitopo_leaves_less_than_half_the_variance_in_expectation_at_any_size(n: int) -> None:
    """Exactly, averaged over all its basis graphs; section 4's bound (1-η)² + η² at η = 1/2 and a perfect basis."""
    share = (n - 1) / (2 * n)
    basis = [(1 - share) * np.eye(n) + share * np.roll(np.eye(n), u, axis=0) for u in range(1, n)]
    drawn = {equitopo(n, seed)(0).tobytes() for seed in range(8)}
    assert drawn <= {np.ascontiguousarray(W).tobytes() for W in basis}
    expected = np.mean([W.T @ W for W in basis], axis=0) - 1 / n
    left = np.linalg.eigvalsh(expected)[-1]
    assert left == pytest.approx((1 - share) ** 2 + share**2 - 2 * share * (1 - share) / (n - 1), abs=1e-12)
    assert left <= 1 / 2


def test_equitopo_draws_every_hop_equally_often() -> None:
    n, rounds = 8, 4000
    schedule = equitopo(n, seed=7)
    hops = [next(-j % n for j in schedule.rows(r)[0] if j) for r in range(rounds)]
    np.testing.assert_allclose(np.bincount(hops, minlength=n)[1:] / rounds, 1 / (n - 1), atol=0.02)


# What all have in common

DRAWN = {
    "random_matching": random_matching(9, seed=7),
    "random_pair": random_pair(9, seed=7),
    "sequential_pair": sequential_pair(9, seed=7),
    "epidemic": epidemic(9, 3, seed=7),
    "epidemic, oracle": epidemic(10, 3, seed=7, oracle=True),
    "epidemic, oracle of one": epidemic(10, 1, seed=7, oracle=True),
    "epidemic, dense oracle": epidemic(10, 7, seed=7, oracle=True),
    "equitopo": equitopo(9, seed=7),
    "relabelled": relabelled(static(path(9)), seed=7),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_random_round_is_a_function_of_the_seed_and_its_number(name: str) -> None:
    schedule = DRAWN[name]
    assert schedule.period is None
    later = [schedule.rows(round) for round in (5, 3, 5)]
    assert later[0] == later[2]
    assert len({repr(schedule.rows(round)) for round in range(20)}) > 5


DIGESTS = {
    "random_matching": "c1ff2f4f59143d76",
    "random_pair": "ba3ecda0e455b7b3",
    "sequential_pair": "249f2b7893e79cae",
    "epidemic": "8e2b3a758135094e",
    "epidemic, oracle": "11dd0f83cd75f450",
    "epidemic, oracle of one": "003be18d9208c977",
    "epidemic, dense oracle": "97d3cc5c44110054",
    "equitopo": "68a5885a0a4f2feb",
    "relabelled": "014cb2efa88da93c",
}


@pytest.mark.parametrize(("name", "digest"), DIGESTS.items())
def test_a_seed_means_the_same_rounds_on_every_machine(name: str, digest: str) -> None:
    rounds = repr([[sorted(row) for row in DRAWN[name].rows(round)] for round in range(5)])
    assert hashlib.blake2b(rounds.encode(), digest_size=8).hexdigest() == digest


@pytest.mark.parametrize("name", DRAWN)
def test_rows_of_every_schedule_sum_to_one_and_are_those_of_the_matrix(name: str) -> None:
    schedule = DRAWN[name]
    for round in range(3):
        W = schedule(round)
        assert W.shape == (schedule.n, schedule.n)
        np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-15)
        assert schedule.rows(round) == [{j: W[i, j] for j in map(int, np.flatnonzero(W[i]))} for i in range(schedule.n)]


@pytest.mark.parametrize(
    ("specification", "schedule"),
    [
        ("base_k:2", base_k(16, 2)),
        ("Base-K:3", base_k(16, 3)),
        ("one-peer-exponential", one_peer_exponential(16)),
        ("one_peer_hypercube", one_peer_hypercube(4)),
        ("one_peer_hypercube:4", one_peer_hypercube(4)),
        ("random_matching", random_matching(16, 7)),
        ("random_pair", random_pair(16, 7)),
        ("sequential_pair", sequential_pair(16, 7)),
        ("epidemic:3", epidemic(16, 3, 7)),
        ("epidemic_oracle:3", epidemic(16, 3, 7, oracle=True)),
        ("equitopo", equitopo(16, 7)),
        ("ring", static(ring(16))),
    ],
)
def test_a_command_line_names_a_schedule_and_a_graph_is_one_too(specification: str, schedule: Schedule) -> None:
    named = schedule_from_specification(specification, 16, 7)
    assert (named.n, named.period) == (schedule.n, schedule.period)
    assert all(named.rows(round) == schedule.rows(round) for round in range(4))


def test_every_schedule_has_a_name() -> None:
    assert set(SCHEDULES) == {
        *("base_k", "one_peer_exponential", "one_peer_hypercube", "random_matching", "random_pair", "sequential_pair"),
        *("epidemic", "epidemic_oracle", "equitopo"),
    }


@pytest.mark.parametrize(
    ("specification", "peers", "message"),
    [
        ("base_k", 8, "base_k needs k. Write base_k:K."),
        ("base_k:0", 8, "k is 0. It must be at least 1."),
        ("one_peer_hypercube", 12, "one_peer_hypercube: 12 peers. Ask for a power of two, such as 8 or 16."),
        ("epidemic:8", 8, "epidemic(8, 8): a peer can't send to 8 of 7 others. Lower the fanout."),
        ("epidemic_oracle:3", 9, "epidemic(9, 3): n times fanout is odd, and every edge has two ends."),
        ("epidemic:0", 9, "fanout is 0. It must be at least 1."),
        ("random_pair", 1, "n is 1. It must be at least 2."),
        ("epidemics:3", 9, "Unknown topology 'epidemics'. Did you mean 'epidemic'?"),
        ("equitopo", 0, "equitopo: 0 peers. Give at least 1."),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_one_line(specification: str, peers: int, message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        schedule_from_specification(specification, peers, 7)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


def test_nobody_has_more_neighbors_than_there_are_others() -> None:
    everybody = base_k(7, 10**15)
    assert everybody.period == 1 and np.allclose(everybody(0), np.full((7, 7), 1 / 7))
