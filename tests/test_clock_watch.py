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
