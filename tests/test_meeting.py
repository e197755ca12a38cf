"""Over which relay two hidden members meet."""

import hashlib
from collections import Counter

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.relay.meeting import HOMES, homes, meeting_order


def ids(what: bytes, count: int) -> tuple[PeerId, ...]:
    return tuple(sorted(PeerId(hashlib.blake2b(b"%s %d" % (what, k), digest_size=32).digest()) for k in range(count)))


MEMBERS, RELAYS = ids(b"member", 600), ids(b"relay", 6)


def test_all_relays_are_tried_and_those_first_where_the_other_can_be_found() -> None:
    for caller, callee in zip(MEMBERS[::2], MEMBERS[1::2], strict=True):
        order = meeting_order(caller, callee, RELAYS)
        assert sorted(order) == list(RELAYS)
        assert order[:HOMES] == homes(callee, RELAYS)
        assert set(order[: 2 * HOMES]) >= set(homes(caller, RELAYS))


def test_a_relay_that_goes_moves_only_those_that_it_was_a_home_of() -> None:
    gone, left = RELAYS[2], tuple(relay for relay in RELAYS if relay != RELAYS[2])
    for member in MEMBERS:
        before, after = homes(member, RELAYS), homes(member, left)
        assert after == before if gone not in before else set(before) - {gone} < set(after)


def test_each_relay_is_home_to_its_share() -> None:
    """600 members with 2 homes each on 6 relays: 200 a relay, give or take four standard deviations of 12."""
    load = Counter(home for member in MEMBERS for home in homes(member, RELAYS))
    assert all(abs(load[relay] - 200) < 48 for relay in RELAYS)


def test_with_fewer_relays_than_homes_all_of_them_are() -> None:
    assert homes(MEMBERS[0], ()) == () and homes(MEMBERS[0], RELAYS[:1]) == RELAYS[:1]
