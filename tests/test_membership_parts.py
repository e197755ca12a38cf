"""The parts of membership that are arithmetic: suspicion, rumors, tombstones, merging, digests, messages."""

from itertools import pairwise, permutations
from math import log, log10

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import (
    Ack,
    Digests,
    Entry,
    Introduction,
    Nack,
    Ping,
    PingRequest,
    Records,
    Revoked,
    Summary,
    Wanted,
)
from p2pfl.protocol.membership.healing import Healing
from p2pfl.protocol.membership.health import Health
from p2pfl.protocol.membership.rules import EDGE, LAN
from p2pfl.protocol.membership.rumors import RUMORS_MAX, Rumors
from p2pfl.protocol.membership.standing import ACCUSERS_MAX, Accusation, Standing, Version, merge
from p2pfl.protocol.membership.suspicion import Suspicion, suspicion_s
from p2pfl.protocol.membership.tombstones import Tombstones
from p2pfl.protocol.membership.view import Known, View, bucket_of
from p2pfl.protocol.randomness import Choices
from tests.village import id_of, record_of

SUBJECT = id_of(1)


# ---- suspicion ----------------------------------------------------------------------------------------------------------


def test_suspicion_takes_as_long_as_memberlists_own_test_says() -> None:
    """hashicorp/memberlist, suspicion_test.go: k = 3, 2 s to 30 s."""
    assert [round(suspicion_s(c, 3, 2.0, 30.0), 2) for c in range(4)] == [30.0, 16.0, 7.81, 2.0]


@given(st.integers(1, 30), st.integers(0, 40), st.floats(0.1, 60.0), st.floats(1.0, 10.0))
def test_suspicion_is_the_closed_form_of_lifeguard(expected: int, confirmed: int, shortest: float, times: float) -> None:
    longest = shortest * times
    closed = longest - (longest - shortest) * log(confirmed + 1) / log(expected + 1)
    assert suspicion_s(confirmed, expected, shortest, longest) == pytest.approx(max(shortest, closed))


def test_each_confirmation_ends_a_suspicion_sooner_and_a_refused_dial_is_one() -> None:
    suspicion = Suspicion(100.0, 4.0, 24.0)
    alone, confirmed, twice = (suspicion.ends(accusers, 2) for accusers in (1, 2, 3))
    assert alone == 124.0 > confirmed > twice == 104.0
    suspicion.refusals = 1
    assert suspicion.ends(1, 2) == confirmed


def test_timers_are_those_of_the_specification() -> None:
    assert LAN.suspicion_s(100) == (8.0, 48.0)
    assert LAN.suspicion_s(3) == (4.0, 24.0)
    assert EDGE.suspicion_s(1000) == pytest.approx((5 * log10(1000) * 3.0, 6 * 5 * log10(1000) * 3.0))
    assert [LAN.retransmissions(n) for n in (1, 9, 10, 99, 100, 1000)] == [4, 4, 8, 8, 12, 16]
    assert [LAN.tombstones(n) for n in (1, 256, 1000)] == [1024, 1024, 4000]


def test_health_stretches_up_to_eight_times_and_comes_back() -> None:
    health = Health(8)
    for _ in range(20):
        health.worse()
    assert health.stretch(1.0) == 8.0
    for _ in range(20):
        health.better()
    assert health.stretch(1.0) == 1.0


# ---- rumors and tombstones ----------------------------------------------------------------------------------------------


def test_a_rumor_goes_once_to_each_neighbor_but_not_to_those_who_told_it() -> None:
    rumors, links = Rumors(), {id_of(1), id_of(2), id_of(3)}
    rumors.add("a", b"first", heard_from=id_of(1))
    rumors.add("b", b"other")
    rumors.heard("b", b"other", id_of(3))
    assert [rumors.take(id_of(k), links, limit=9) for k in (1, 2, 2, 3)] == [b"other", b"firstother", b"", b"first"]
    assert not rumors.take(id_of(1), links, limit=9) and len(rumors) == 0


def test_a_rumor_is_sent_so_many_times_and_no_more() -> None:
    rumors, links = Rumors(), {id_of(k) for k in range(20)}
    rumors.add("a", b"said")
    assert sum(rumors.take(peer, links, limit=8) == b"said" for peer in sorted(links)) == 8
    assert len(rumors) == 0


def test_a_newer_rumor_replaces_the_older() -> None:
    rumors = Rumors()
    rumors.add("a", b"old")
    rumors.take(id_of(1), {id_of(2)}, limit=9)
    rumors.add("a", b"new")
    assert rumors.take(id_of(1), {id_of(2)}, limit=1) == b"new" and not rumors.take(id_of(2), {id_of(2)}, limit=1)


def test_rumors_are_bounded_in_all_and_per_message() -> None:
    rumors = Rumors()
    for k in range(RUMORS_MAX + 100):
        rumors.add(k, bytes(600))
    assert len(rumors) == RUMORS_MAX
    assert len(rumors.take(id_of(1), {id_of(1)}, limit=9, first=bytes(100))) == 100 + 6 * 600


def test_those_who_left_are_forgotten_before_the_dead_and_the_oldest_first() -> None:
    stones = Tombstones()
    for k in range(4):
        stones.bury(id_of(k), Standing(record_of(id_of(k))), now=k)
    for k in range(4, 8):
        stones.bury(id_of(k), Standing(record_of(id_of(k), has_left=True)), now=k)
    stones.trim(6)
    assert [stones.get(id_of(k)) is None for k in range(8)] == [False] * 4 + [True, True, False, False]
    stones.trim(3)
    assert stones.dead == [id_of(1), id_of(2), id_of(3)]


def test_an_old_tombstone_is_a_stub_that_still_knows_the_version() -> None:
    stones = Tombstones()
    stones.bury(SUBJECT, Standing(record_of(SUBJECT, incarnation=4)), now=10.0)
    stones.shrink(before=10.0)
    assert (stone := stones.get(SUBJECT)) is not None and stone.standing is not None
    stones.shrink(before=10.1)
    assert stone.standing is None and stone.version == Version(1, 4)


# ---- merging ------------------------------------------------------------------------------------------------------------


def standings() -> st.SearchStrategy[Standing]:
    """Of one member: few versions, few accusers, so that they meet; two boots of one epoch, so that records conflict."""

    def build(epoch: int, incarnation: int, has_left: bool, boot: int, accusers: list[tuple[int, int]]) -> Standing:
        record = record_of(SUBJECT, incarnation, epoch=epoch, has_left=has_left, boot=boot)
        version = Version(epoch, incarnation)
        made = [Accusation(id_of(100 + a), SUBJECT, version, bytes([s]) * 64) for a, s in accusers]
        empty = Standing(record)
        for accusation in made:
            empty = merge(empty, Standing(record, (accusation,)))
        return empty

    numbers = st.integers(0, 1)
    accusers = st.lists(st.tuples(st.integers(0, ACCUSERS_MAX + 4), numbers), max_size=ACCUSERS_MAX + 4)
    return st.builds(build, numbers, numbers, st.booleans(), numbers, accusers)


@given(standings(), standings(), standings())
def test_merging_is_idempotent_commutative_and_associative(a: Standing, b: Standing, c: Standing) -> None:
    assert merge(a, a) == a
    assert merge(a, b) == merge(b, a)
    assert merge(a, merge(b, c)) == merge(merge(a, b), c)
    assert len(merge(a, b).accusations) <= ACCUSERS_MAX


def test_whatever_the_order_the_newest_word_holds() -> None:
    said = [
        Standing(record_of(SUBJECT, k, epoch=e, has_left=left)) for e, k, left in ((1, 0, False), (1, 1, True), (2, 0, False))
    ]
    for order in permutations(said):
        whole = order[0]
        for one in order[1:]:
            whole = merge(whole, one)
        assert whole == said[2]


# ---- views --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.booleans()), max_size=60))
def test_digests_are_those_of_the_content_whatever_the_way_there(moves: list[tuple[int, int, bool]]) -> None:
    walked, final = View(), dict[PeerId, Known]()
    for k, incarnation, is_suspect in moves:
        peer = id_of(k)
        if incarnation == 3 and peer in final:
            walked.remove(peer)
            del final[peer]
        else:
            known = Known(Standing(record_of(peer, incarnation)), Suspicion(0.0, 1.0, 2.0) if is_suspect else None)
            walked.put(peer, known)
            final[peer] = known
    straight = View()
    for peer, known in sorted(final.items()):
        straight.put(peer, known)
    assert walked.digests == straight.digests
    assert walked.live == straight.live == tuple(sorted(final))
    assert [e.peer for b in range(64) for e in walked.entries(b)] == sorted(final)


def test_buckets_cover_all_ids_in_their_order() -> None:
    assert [bucket_of(PeerId(bytes([k]) + bytes(31))) for k in (0, 3, 4, 255)] == [0, 0, 1, 63]


# ---- healing ------------------------------------------------------------------------------------------------------------


def test_one_dial_per_dead_member_and_half_minute_from_all_together() -> None:
    """40 live members and 10 dead: each dials with a chance of 1 in 4 every 30 s, until targets become rarer."""
    dials = 0
    for k in range(40):
        healing = Healing(LAN, Choices(k, b"healing"), 0.0)
        for turn in range(10):
            dials += healing.target(30.0 * turn, [id_of(i) for i in range(10)], 40, is_alone=False) is not None
    assert 70 <= dials <= 130  # 40 * 10 / 4 = 100, whose deviation is 8.7


def test_a_target_is_dialled_less_and_less_often_but_for_ever() -> None:
    healing = Healing(LAN, Choices(1, b"healing"), 0.0)
    dead = [id_of(k) for k in range(100)]
    moments: dict[PeerId, list[float]] = {}
    for second in range(0, 40_000, 10):
        if (target := healing.target(float(second), dead, 1, is_alone=False)) is not None:
            moments.setdefault(target, []).append(second)
    gaps = [b - a for times in moments.values() for a, b in pairwise(times)]
    assert len(moments) == 100 and min(gaps) >= LAN.reconnect_s / 2
    assert all(times[-1] > 36_000 for times in moments.values())


# ---- messages -----------------------------------------------------------------------------------------------------------

TICKET = bytes(range(24))
EXAMPLES = [
    Ping(TICKET),
    Ping(TICKET, id_of(1), b"rumors"),
    Ack(TICKET, bytes(64), b"r"),
    PingRequest(TICKET, id_of(2)),
    Nack(TICKET),
    Digests(tuple(bytes([k]) * 8 for k in range(64)), bytes(32)),
    Summary(1 << 63 | 1, tuple(sorted(Entry(id_of(k), Version(k, 2 * k), k % 2 == 1) for k in range(9)))),
    Wanted((id_of(1), id_of(2))),
    Records(b"items"),
]


@pytest.mark.fault("junk")
@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was_and_no_cut_or_flip_raises_anything_else(message: gossip_wire.MembershipMessage) -> None:
    frame = gossip_wire.encode(message)
    assert gossip_wire.decode(frame) == message
    for k in range(len(frame)):
        for mutant in (frame[:k], frame[:k] + bytes([frame[k] ^ 0x55]) + frame[k + 1 :], frame + b"\0"):
            try:
                gossip_wire.decode(mutant)
            except RejectedFrame as refusal:
                assert refusal.reason in (Reason.BAD_HEADER, Reason.VERSION, Reason.KIND)


def test_entries_out_of_order_or_twice_are_refused() -> None:
    entries = tuple(sorted((Entry(id_of(k), Version(0, 0), False) for k in range(3)), reverse=True))
    for wrong in (entries, (entries[0], entries[0])):
        with pytest.raises(RejectedFrame):
            gossip_wire.decode(gossip_wire.encode(Summary(1, wrong)))


def test_items_come_back_and_junk_does_not() -> None:
    items = [Introduction(b"record", b"credential"), Accusation(id_of(1), id_of(2), Version(3, 4), bytes(64)), Revoked(b"r")]
    data = b"".join(map(gossip_wire.encode_item, items))
    assert list(gossip_wire.decode_items(data)) == items
    for junk in (data[:-1], b"\x09\x00\x00", b"\x01\x00\x02\x00\x00", b"\x01\x00\x03\x00\x02a", data + b"\x01"):
        with pytest.raises(RejectedFrame):
            list(gossip_wire.decode_items(junk))


@pytest.mark.fault("junk")
@given(st.binary(max_size=400))
def test_random_items_raise_nothing_but_a_rejection(data: bytes) -> None:
    try:
        list(gossip_wire.decode_items(data))
    except RejectedFrame as refusal:
        assert refusal.reason is Reason.BAD_HEADER
