"""Churn against its closed forms, and traces of it."""

from itertools import islice, pairwise, takewhile
from math import exp, gamma, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from p2pfl.failure import Failure
from sim import Scenario
from sim.churn import ChurnSection, away, changes, lengths, read_trace
from sim.world import world_of

COUNT = 200_000
# Sessions in minutes of BitTorrent peers: shape, scale, mean, median, P(> 1 h), P(> 5 h | > 1 h)
# (Stutzbach and Rejaie, Understanding churn in peer-to-peer networks, IMC 2006).
MEASURED = {
    "Debian": (0.38, 42.4, 163.4, 16.2, 0.319, 0.382),
    "RedHat": (0.34, 21.3, 118.8, 7.2, 0.241, 0.355),
    "FlatOut": (0.59, 41.9, 64.5, 22.5, 0.291, 0.141),
}


def drawn(model: str, shape: float | None, mean: float, left: bool = False) -> NDArray[np.float64]:
    family, chance = lengths(model, shape), Generator(Philox(key=1))
    draw = family.left if left else family.whole
    return np.array([draw(chance, mean) for _ in range(COUNT)])


def is_close(share: float, expected: float) -> bool:
    return abs(share - expected) < 4 * sqrt(expected * (1 - expected) / COUNT)


@pytest.mark.parametrize("swarm", MEASURED)
def test_weibull_sessions_are_those_that_stutzbach_and_rejaie_measured(swarm: str) -> None:
    shape, scale, mean, median, over_1h, over_5h = MEASURED[swarm]
    assert scale * gamma(1 + 1 / shape) == pytest.approx(mean, rel=2e-3)
    sessions = drawn("weibull", shape, scale * gamma(1 + 1 / shape))
    assert is_close((sessions > median).mean(), exp(-((median / scale) ** shape)))
    assert is_close((sessions > 60).mean(), exp(-((60 / scale) ** shape)))
    assert (sessions > 60).mean() == pytest.approx(over_1h, abs=0.005)
    assert (sessions > 300).sum() / (sessions > 60).sum() == pytest.approx(over_5h, abs=0.01)


@pytest.mark.parametrize(
    ("model", "shape", "median"),
    [
        ("exponential", None, log(2)),
        ("weibull", 0.59, log(2) ** (1 / 0.59) / gamma(1 + 1 / 0.59)),
        ("pareto", 3.0, 2 * (2 ** (1 / 3) - 1)),
    ],
)
def test_a_family_has_the_mean_it_is_given_and_its_median(model: str, shape: float | None, median: float) -> None:
    sessions = drawn(model, shape, 10.0)
    assert sessions.mean() == pytest.approx(10.0, abs=5 * sessions.std() / sqrt(COUNT))
    assert is_close((sessions > 10 * median).mean(), 0.5)


def test_a_lomax_session_has_the_tail_of_its_shape() -> None:
    """alpha = 2, beta = 1800 s: mean 1800 s, P(X > t) = (1 + t / beta)^-2."""
    sessions = drawn("pareto", 2.0, 1800.0)
    for time in (600.0, 1800.0, 18_000.0):
        assert is_close((sessions > time).mean(), (1 + time / 1800) ** -2)


@pytest.mark.parametrize(
    ("model", "shape", "mean_left"),
    [("exponential", None, 1.0), ("weibull", 0.59, gamma(1 + 2 / 0.59) / 2 / gamma(1 + 1 / 0.59) ** 2), ("pareto", 4.0, 1.5)],
)
def test_what_is_left_of_a_session_that_one_meets_is_half_its_second_moment_over_its_mean(
    model: str, shape: float | None, mean_left: float
) -> None:
    """E[X^2] / (2 E[X]): the inspection paradox. For Lomax of shape 4 and mean 1 it is beta / 2 = 1.5."""
    left = drawn(model, shape, 1.0, left=True)
    assert left.mean() == pytest.approx(mean_left, abs=5 * left.std() / sqrt(COUNT))


@pytest.mark.parametrize("model", ["exponential", "weibull", "pareto", "diurnal"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_the_rate_is_the_share_of_peers_that_is_away_on_average(model: Any, rate: float) -> None:
    """At any moment, the first included: availability = session / (session + absence) = 1 - rate."""
    section, peers = ChurnSection(model=model, rate=rate, mean_session_s=10.0), 4000
    times = np.linspace(0, 10 / (1 - rate), 41)[:-1]  # one day of a diurnal peer
    up = np.empty((peers, len(times)), dtype=bool)
    for peer in range(peers):
        known = list(takewhile(lambda change: change.time <= times[-1], changes(section, peer, seed=1)))
        place = np.searchsorted([change.time for change in known], times, side="right") - 1
        up[peer] = np.array([change.is_up for change in known])[place]
    tolerance = 4.5 * sqrt(rate * (1 - rate) / peers)
    assert abs(up.mean() - (1 - rate)) < tolerance
    if model != "diurnal":
        assert np.abs(up.mean(axis=0) - (1 - rate)).max() < tolerance


def test_diurnal_peers_are_up_once_a_day_and_mostly_together() -> None:
    section = ChurnSection(model="diurnal", rate=0.5, mean_session_s=12.0)
    own = list(islice(changes(section, 3, seed=1), 8))
    gaps = [b.time - a.time for a, b in pairwise(own[1:])]
    assert gaps == pytest.approx([12.0] * 6)
    at_their_hour = [takewhile(lambda change: change.time <= 6.0, changes(section, peer, seed=1)) for peer in range(500)]
    assert np.mean([list(known)[-1].is_up for known in at_their_hour]) > 0.9


def test_sessions_and_absences_alternate_and_are_the_same_for_the_same_seed() -> None:
    section = ChurnSection(rate=0.3, mean_session_s=10.0)
    first, again, other = (list(islice(changes(section, 5, seed), 50)) for seed in (1, 1, 2))
    assert first == again != other
    assert all(a.is_up != b.is_up and a.time < b.time for a, b in pairwise(first))
    assert first[0].time == 0.0


def test_nobody_goes_away_without_churn() -> None:
    assert [change.is_up for change in changes(ChurnSection(), 0, 1)] == [True]


def test_who_is_away_in_which_round_follows_from_a_trace(tmp_path: Path) -> None:
    """A round of 2 steps of 0.5 s lasts 1 s, and who is down in its middle is away in it."""
    (tmp_path / "trace.csv").write_text("peer,time,up|down\n1,0.4,down\n2,1.6,up\n1,2.6,up\n0,3.2,down\n")
    settings = {"peers": 3, "rounds": 4, "topology": "complete", "local_steps": 2, "step_s": 0.5}
    world = world_of(Scenario(churn={"trace": str(tmp_path / "trace.csv")}, **settings))
    assert world.round_s == 1.0
    assert away(world).tolist() == [
        [False, True, True],
        [False, True, True],
        [False, True, False],
        [True, False, False],
    ]


def test_the_share_away_in_rounds_is_the_rate_too() -> None:
    churn = {"rate": 0.3, "mean_session_s": 5.0}
    world = world_of(Scenario(peers=300, rounds=40, samples_per_peer=16, local_steps=1, churn=churn, topology="ring"))
    assert away(world).mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("0,2,down\n1,1,down\n", "line 2: the times are not sorted: 1 after 2"),
        ("0,-1,up\n", "line 1: -1 is no time from 0 on"),
        ("0,nan,up\n", "line 1: nan is no time from 0 on"),
        ("0,-1,down\n", "line 1"),
        ("7,1,down\n", "line 1: there is no peer 7. Peers are 0 to 1."),
        ("0,1,off\n", "'off' is neither up nor down"),
        ("0,1,down\n0,2,down\n", "line 2: peer 0 is down already"),
        ("0,one,down\n", "can't be read"),
        ("0,1\n", "can't be read"),
        ("0,nan,down\n", "line 1"),
        ("0," + "1" * 200_000 + ",down\n", "field larger than"),
        ("", "nobody comes or goes in it"),
        ("peer,time,change\n", "nobody comes or goes in it"),
    ],
)
def test_a_trace_that_cannot_be_is_refused_with_its_line(tmp_path: Path, lines: str, says: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(lines)
    with pytest.raises(Failure) as refusal:
        read_trace(file, 2)
    assert says in str(refusal.value) and "churn.trace" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("churn", "says"),
    [
        ({"rate": -0.1}, "churn.rate"),
        ({"rate": 1.0}, "churn.rate"),
        ({"rate": 1 - 1e-16}, "churn.rate"),
        ({"mean_session_s": 0}, "churn.mean_session_s"),
        ({"rate": 0.5, "mean_session_s": 1e-300}, "churn.mean_session_s"),
        ({"model": "exponental"}, "churn.model"),
        ({"raet": 0.3}, "'rate'"),
        ({"model": "pareto", "shape": 0.9}, "above 1"),
        ({"rate": 0.3, "trace": "a.csv"}, "rate or trace"),
        ({"trace": "nowhere.csv"}, "No such file"),
    ],
)
def test_churn_that_cannot_be_is_one_line_with_its_key(churn: dict[str, Any], says: str) -> None:
    with pytest.raises(Failure) as refusal:
        world_of(Scenario(churn=churn))
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_churn_in_a_scenario_without_time_is_refused() -> None:
    with pytest.raises(Failure, match=r"compute\.step_s: no time passes"):
        world_of(Scenario(churn={"rate": 0.3}, step_s=0))
