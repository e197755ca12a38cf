"""What the event engine measures while its peers are in different rounds, and what it says of it."""

import numpy as np
import pytest

from sim.measure import Measures
from sim.progress import progress

ROUNDS = 6


class Reported:
    """Four peers; notes which row was told of when, and who had ended it by then."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self.measures = Measures(ROUNDS, 4, lambda row, accuracy: self.rows.append((row, int(np.isfinite(accuracy).sum()))))
        for peer in range(4):
            self.measures.came(peer)

    def end(self, peer: int, row: int) -> None:
        vector = np.array([row, peer], dtype=np.float32)
        self.measures.ended(row, peer, vector, {"accuracy": 0.5}, sent=0, received=0)


def test_rows_are_told_of_when_everybody_has_ended_them() -> None:
    told = Reported()
    for row in range(ROUNDS + 1):
        for peer in range(4):
            told.end(peer, row)
    assert told.rows == [(row, 4) for row in range(ROUNDS + 1)]


def test_a_straggler_does_not_hide_how_far_the_others_are() -> None:
    told = Reported()
    for row in range(ROUNDS + 1):
        for peer in range(3):
            told.end(peer, row)
    assert told.rows == [(row, 3) for row in range(ROUNDS)]


def test_who_is_away_is_not_waited_for_and_all_rows_are_told_of_in_the_end() -> None:
    told = Reported()
    for row in range(ROUNDS + 1):
        for peer in range(3):
            told.end(peer, row)
    told.measures.went(3)
    assert [row for row, _ in told.rows] == list(range(ROUNDS + 1))


def test_a_straggler_is_compared_with_the_others_though_its_row_was_told_of() -> None:
    told = Reported()
    for row in range(ROUNDS + 1):
        for peer in range(3):
            told.end(peer, row)
    told.end(3, 2)
    assert told.measures.consensus_distance[2] == pytest.approx(np.std([0, 1, 2, 3]))


def test_equal_vectors_are_exactly_no_distance_apart() -> None:
    measures = Measures(1, 3, None)
    vector = np.random.default_rng(7).normal(0, 100, size=4810).astype(np.float32)
    for peer in range(3):
        measures.came(peer)
        measures.ended(0, peer, vector, {}, sent=0, received=0)
    assert measures.consensus_distance[0] == 0.0


def test_a_line_of_progress_says_how_many_peers_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2) as on_round:
        on_round(0, np.array([0.25, 0.75]))
        on_round(1, np.array([0.25, np.nan]))
        on_round(2, np.array([np.nan, np.nan]))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("  ")[0] for line in lines] == [
        "round 0/2  accuracy 0.500 (min 0.250)",
        "round 1/2  accuracy 0.250 (min 0.250) of 1 peers",
        "round 2/2  ",
    ]
