"""Whether a clock is wrong is told by records that were signed just now, and never by old ones alone."""

import pytest

from node.upkeep.clock_watch import LINKED_S, ClockWatch
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.events import Instant, PeerId
from tests.admission import NOW, Network, Person

NET = Network()
OTHERS = [Person(name) for name in ("ann", "bob", "cat")]
IDS: list[PeerId] = [other.id for other in OTHERS]
HOUR = 3600.0


def said(incarnation: int, wall: float) -> dict[PeerId, Record]:
    """What all of them say of themselves."""
    return {other.id: other.record(NET.id, incarnation=incarnation, wall=wall) for other in OTHERS}


def watch() -> ClockWatch:
    clocks = ClockWatch()
    for peer in IDS:
        clocks.linked(peer, 0.0)
    return clocks


@pytest.mark.fault("clocks")
def test_records_that_came_over_a_link_that_stood_tell_in_both_directions_that_a_clock_is_off() -> None:
    for offset, is_off in ((0.0, False), (0.9 * HOUR, False), (1.1 * HOUR, True), (-1.1 * HOUR, True)):
        clocks = watch()
        clocks.look(said(0, NOW), IDS, Instant(LINKED_S, NOW))
        clocks.look(said(1, NOW + 100), IDS, Instant(LINKED_S + 100, NOW + 100 + offset))
        assert clocks.is_off(NOW + 100 + offset) is is_off, offset


def test_an_old_record_shows_that_a_clock_is_behind_and_can_not_show_that_it_is_ahead() -> None:
    for offset, is_off in ((5 * HOUR, False), (-5 * HOUR, True)):
        clocks = ClockWatch()
        clocks.look(said(0, NOW), IDS, Instant(1.0, NOW + offset))
        assert clocks.is_off(NOW + offset) is is_off, offset


@pytest.mark.fault("clocks")
def test_one_of_three_can_not_make_a_clock_seem_off() -> None:
    clocks = watch()
    clocks.look(said(0, NOW), IDS, Instant(LINKED_S, NOW))
    liar = {**said(1, NOW), IDS[0]: OTHERS[0].record(NET.id, incarnation=1, wall=int(NOW + 99 * HOUR))}
    clocks.look(liar, IDS, Instant(2 * LINKED_S, NOW))
    assert not clocks.is_off(NOW)


def test_who_is_no_neighbor_any_more_is_forgotten() -> None:
    clocks = watch()
    clocks.look(said(0, NOW + 9 * HOUR), IDS, Instant(1.0, NOW))
    assert clocks.is_off(NOW)
    clocks.look({}, [], Instant(2.0, NOW))
    assert not clocks.is_off(NOW)


# ---- what neighbors have signed, as a lower bound of the time --------------------------------------------------------------


def witnessed(walls: dict[PeerId, float], own: float, is_behind: bool = False, later: float = 0.0) -> float | None:
    """Of neighbors whose records, which came at the monotonic time 1, hold these times."""
    clocks = ClockWatch()
    people = {other.id: other for other in OTHERS}
    records = {peer: people[peer].record(NET.id, wall=int(wall)) for peer, wall in walls.items()}
    clocks.look(records, list(walls), Instant(1.0, own))
    return clocks.witnessed(Instant(1.0 + later, own + later), is_behind)


@pytest.mark.fault("clocks")
def test_a_machine_without_a_clock_learns_the_time_from_what_its_neighbors_sign() -> None:
    """An hour is taken off, which an honest clock may be ahead; from then on its own seconds count."""
    assert witnessed(dict.fromkeys(IDS, NOW), own=0.0, is_behind=True) == NOW - HOUR
    assert witnessed(dict.fromkeys(IDS, NOW), own=0.0, is_behind=True, later=500.0) == NOW - HOUR + 500.0


@pytest.mark.fault("clocks")
@pytest.mark.parametrize("liar", IDS)
def test_one_liar_of_three_pushes_nobodys_time(liar: PeerId) -> None:
    walls = dict.fromkeys(IDS, NOW) | {liar: NOW + 1e9}
    assert witnessed(walls, own=0.0, is_behind=True) == NOW - HOUR
    assert witnessed({**walls, liar: 0.0}, own=0.0, is_behind=True) == NOW - HOUR


@pytest.mark.fault("clocks")
def test_of_fewer_than_three_neighbors_nothing_is_believed() -> None:
    assert witnessed(dict.fromkeys(IDS[:2], NOW), own=0.0, is_behind=True) is None


@pytest.mark.fault("clocks")
def test_neighbors_that_all_lie_push_the_time_of_nobody_whose_clock_is_not_known_to_be_behind() -> None:
    assert witnessed(dict.fromkeys(IDS, NOW + 1e9), own=NOW) == NOW - HOUR


def test_who_was_gone_says_nothing_of_the_time_any_more() -> None:
    clocks = ClockWatch()
    clocks.look(said(0, NOW), IDS, Instant(1.0, NOW))
    clocks.look(said(0, NOW), IDS[:2], Instant(2.0, NOW))
    assert clocks.witnessed(Instant(2.0, NOW), is_behind=True) is None
