"""Which rows each peer gets: exact properties, and the limits and moments that the distributions have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl.failure import Failure
from p2pfl.learning.data.partition import (
    DIVISIONS,
    FEWEST_ROWS,
    MIXTURES,
    Partition,
    dirichlet,
    divide,
    draw,
    parse,
    quantity,
)
from p2pfl.learning.streams import philox

TEN_CLASSES = np.arange(2000) % 10
NUMBER = {"iid": 0.0, "dirichlet": 0.3, "shards": 2.0, "quantity": 0.5}


def labels_of(targets, rows):
    return np.bincount(targets[rows], minlength=10)


@pytest.mark.parametrize("kind", DIVISIONS)
@settings(max_examples=40, deadline=None)
@given(
    targets=st.lists(st.integers(0, 6), min_size=60, max_size=200), peers=st.integers(1, 30), seed=st.integers(-(2**63), 2**63)
)
def test_every_row_goes_to_exactly_one_peer(kind, targets, peers, seed):
    parts = divide(Partition(kind, NUMBER[kind]), np.array(targets), peers, seed)
    assert len(parts) == peers
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(targets)))


@pytest.mark.parametrize("kind", DIVISIONS)
def test_the_seed_alone_decides(kind):
    def parts(seed):
        return [rows.tolist() for rows in divide(Partition(kind, NUMBER[kind]), TEN_CLASSES, 9, seed)]

    assert parts(1) == parts(1) != parts(2)


@pytest.mark.parametrize("kind", ["dirichlet", "quantity"])
@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_left_with_fewer_than_the_fewest_rows(kind, seed):
    parts = divide(Partition(kind, 0.01), TEN_CLASSES, 20, seed)
    assert min(len(rows) for rows in parts) >= FEWEST_ROWS


def test_where_rows_are_scarce_the_fewest_are_a_quarter_of_the_mean_share_but_never_none():
    assert min(len(rows) for rows in divide(Partition("quantity", 0.01), TEN_CLASSES, 125, 0)) == 2000 // (4 * 125)
    assert [len(rows) for rows in divide(Partition("quantity", 0.01), TEN_CLASSES[:10], 10, 0)] == [1] * 10


def test_iid_shares_differ_by_at_most_one_row():
    sizes = [len(rows) for rows in divide(Partition("iid"), TEN_CLASSES, 7, 3)]
    assert max(sizes) - min(sizes) <= 1


def test_a_large_alpha_gives_every_peer_the_same_of_every_label():
    for rows in divide(Partition("dirichlet", 1e9), TEN_CLASSES, 8, 0):
        assert np.abs(labels_of(TEN_CLASSES, rows) - 200 / 8).max() <= 1


def test_a_tiny_alpha_gives_every_label_to_one_peer():
    parts = dirichlet(TEN_CLASSES, 40, np.random.Generator(np.random.Philox(key=1)), 1e-12)
    assert all(max(labels_of(TEN_CLASSES, rows)[label] for rows in parts) == 200 for label in range(10))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
def test_a_peers_share_of_a_label_has_the_variance_of_a_dirichlet(alpha):
    # Of one component of a symmetric Dirichlet over n: (1/n)(1 - 1/n) / (n alpha + 1).
    peers, rng = 8, np.random.Generator(np.random.Philox(key=5))
    targets = np.zeros(1000, dtype=np.int64)
    shares = np.array([[len(rows) / 1000 for rows in dirichlet(targets, peers, rng, alpha)] for _ in range(1500)])
    expected = (1 / peers) * (1 - 1 / peers) / (peers * alpha + 1)
    assert shares.var() == pytest.approx(expected, rel=0.08)


def test_quantity_skew_changes_sizes_and_not_labels():
    targets = np.arange(50_000) % 2
    parts = quantity(targets, 6, np.random.Generator(np.random.Philox(key=2)), 1.0)
    sizes = np.array([len(rows) for rows in parts])
    assert sizes.max() > 2 * sizes.min()
    for rows in parts:  # the share of a label in n rows drawn without replacement is within 5 standard deviations of half
        assert abs(targets[rows].mean() - 0.5) < 5 * 0.5 / np.sqrt(len(rows))


def test_shards_that_fit_the_classes_give_a_peer_at_most_k_labels():
    # 10 classes of 200 rows, 20 shards of 100: no shard crosses a class (McMahan et al. 2017, section 3).
    for rows in divide(Partition("shards", 2), TEN_CLASSES, 10, 4):
        assert len(rows) == 200 and np.count_nonzero(labels_of(TEN_CLASSES, rows)) <= 2


def test_n_shards_hold_at_most_n_plus_classes_minus_one_pairs_of_peer_and_label():
    # Cutting a sorted line of C classes into n shards: each of the C - 1 borders adds at most one label to one shard.
    targets = np.random.Generator(np.random.Philox(key=3)).integers(0, 10, size=997)
    parts = divide(Partition("shards", 3), targets, 8, 4)
    assert sum(np.count_nonzero(labels_of(targets, rows)) for rows in parts) <= 8 * 3 + 9


@pytest.mark.parametrize("kind", MIXTURES)
def test_drawing_gives_everyone_the_asked_number_even_where_the_set_is_small(kind):
    parts = draw(Partition(kind, NUMBER[kind]), TEN_CLASSES, peers=1000, samples=32, seed=7)
    assert {len(rows) for rows in parts} == {32}
    assert len(parts) == 1000
    used = np.bincount(np.concatenate(parts), minlength=2000)
    assert used.min() >= 1  # 16 rows are asked for every one there is, and none is dealt twice before all were once
    by_label = used.reshape(-1, 10)
    assert (by_label.max(axis=0) - by_label.min(axis=0)).max() <= 1


def test_drawing_is_disjoint_as_long_as_the_set_lasts():
    parts = draw(Partition("dirichlet", 1.0), TEN_CLASSES, peers=5, samples=20, seed=1)
    assert len(set(np.concatenate(parts).tolist())) == 100


def test_drawn_mixtures_average_to_the_prior_with_the_variance_of_a_dirichlet():
    # q ~ Dir(a C p) has mean p and variance p(1 - p) / (a C + 1).
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    mixtures = MIXTURES["dirichlet"](prior, 20_000, np.random.Generator(np.random.Philox(key=9)), 0.5)
    assert mixtures.mean(axis=0) == pytest.approx(prior, abs=0.01)
    assert mixtures.var(axis=0) == pytest.approx(prior * (1 - prior) / (0.5 * 4 + 1), rel=0.05)


@pytest.mark.parametrize("kind", ["iid", "shards"])
def test_mixtures_of_iid_and_shards_average_to_the_prior_exactly(kind):
    prior = np.array([0.05, 0.15, 0.8])
    mixtures = MIXTURES[kind](prior, 11, np.random.Generator(np.random.Philox(key=0)), 2)
    assert mixtures.mean(axis=0) == pytest.approx(prior, abs=1e-12)
    assert mixtures.sum(axis=1) == pytest.approx(1, abs=1e-12)


def test_names_are_read_with_capitals_and_spaces():
    assert parse("Dirichlet:0.5") == Partition("dirichlet", 0.5)
    assert parse("quantity:1e-3") == Partition("quantity", 0.001)
    assert parse(" shards:2 ") == Partition("shards", 2)
    assert parse("iid") == Partition("iid")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dirichelt:0.5", "Did you mean 'dirichlet'?"),
        ("banana", "iid, dirichlet:ALPHA"),
        ("dirichlet", "needs a number"),
        ("dirichlet:", "needs a number"),
        ("dirichlet:0", "above 0"),
        ("dirichlet:nan", "above 0"),
        ("dirichlet:-1", "above 0"),
        ("quantity:inf", "above 0"),
        ("shards:1.5", "whole number"),
        ("shards:inf", "whole number"),
        ("iid:3", "Write it as iid"),
    ],
)
def test_a_wrong_name_is_one_line_that_says_how_to_mend_it(text, says):
    with pytest.raises(Failure, match=says) as failure:
        parse(text)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda: divide(Partition("iid"), TEN_CLASSES[:5], 6, 0), "samples_per_peer"),
        (lambda: divide(Partition("shards", 300), TEN_CLASSES, 10, 0), "3000 shards"),
        (lambda: draw(Partition("quantity", 1.0), TEN_CLASSES, 10, 5, 0), "Leave one of them out"),
    ],
)
def test_an_impossible_division_is_a_failure(attempt, says):
    with pytest.raises(Failure, match=says):
        attempt()


@pytest.mark.parametrize("kind", ["dirichlet", "quantity"])
def test_who_lacks_rows_gets_just_the_fewest_and_nobody_else_gains(kind):
    drawn = DIVISIONS[kind](TEN_CLASSES, 20, philox(3, -1, "partition", 0), 0.05)
    given_out = divide(Partition(kind, 0.05), TEN_CLASSES, 20, 3)
    for before, after in zip(map(len, drawn), map(len, given_out), strict=True):
        assert after == FEWEST_ROWS if before < FEWEST_ROWS else FEWEST_ROWS <= after <= before
