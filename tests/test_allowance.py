"""A member that says too much is not looked at, for longer each time; an honest one never notices."""

import pytest

from p2pfl.protocol import allowance
from p2pfl.protocol.allowance import Allowance, Allowances
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import FrameReceived, Instant, PeerId
from tests.ring import Liar, Ring

A, B = PeerId(b"a" * 32), PeerId(b"b" * 32)
SMALL = Allowance(messages_per_s=10.0, messages_burst=20.0, bytes_per_s=1000.0, bytes_burst=5000.0)
CHUNK = (1 << 20) + 16


def test_a_burst_is_granted_and_then_the_rate() -> None:
    allowances = Allowances(SMALL)
    assert all(allowances.admits(A, 1, 0.0) for _ in range(20))
    assert all(allowances.admits(A, 1, 0.125 * k) for k in range(1, 200)), "eight messages a second are fine for ever"


def test_who_says_more_is_not_heard_for_a_second_and_the_others_are() -> None:
    allowances = Allowances(SMALL)
    assert [allowances.admits(A, 1, 0.0) for _ in range(21)] == [True] * 20 + [False]
    assert not allowances.admits(A, 1, 0.999)
    assert allowances.admits(B, 1, 0.5)
    assert allowances.admits(A, 1, 1.0)


@pytest.mark.fault("flood")
def test_bytes_have_an_allowance_of_their_own() -> None:
    allowances = Allowances(SMALL)
    assert allowances.admits(A, 5000, 0.0)
    assert not allowances.admits(A, 1, 0.0)
    assert allowances.admits(A, 1000, 1.0)


@pytest.mark.fault("flood")
def test_bans_double_while_the_flood_goes_on_and_begin_anew_after_it() -> None:
    allowances, now, bans = Allowances(SMALL), 0.0, []
    for _ in range(12):
        while allowances.admits(A, 1, now):
            pass
        bans.append(allowances.banned_until(A) - now)
        now = allowances.banned_until(A)
    assert bans == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0]
    now += SMALL.memory * SMALL.ban_max_s + 1.0
    while allowances.admits(A, 1, now):
        pass
    assert allowances.banned_until(A) - now == SMALL.ban_min_s


@pytest.mark.fault("flood")
def test_of_a_flood_of_50000_messages_a_second_hardly_any_is_looked_at() -> None:
    allowances, rate, seconds = Allowances(Allowance()), 50_000, 60
    looked_at = sum(allowances.admits(A, 100, k / rate) for k in range(rate * seconds))
    # What it began with, and what it was granted in the bans: all that the buckets hold after 63 s of them.
    assert looked_at <= 20_000 + 2_000 * seconds
    assert looked_at / (rate * seconds) < 0.05


@pytest.mark.fault("flood")
def test_an_honest_neighbor_at_full_speed_never_meets_a_limit() -> None:
    allowances = Allowances(Allowance())
    per_s = 900  # chunks, beside as many small messages: what CURVE on one thread lets through, measured
    assert all(allowances.admits(A, size, k / per_s) for k in range(60 * per_s) for size in (CHUNK, 100))


@pytest.mark.fault("flood")
def test_messages_that_are_refused_cost_more() -> None:
    allowances, looked_at = Allowances(SMALL), 0
    while allowances.admits(A, 1, 0.0):
        looked_at += 1
        allowances.refused(A)
    assert looked_at == 2  # of 20, eleven each


def test_an_account_that_is_as_good_as_new_is_forgotten_and_a_ban_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "ACCOUNTS_KEPT", 100)
    allowances = Allowances(SMALL)
    while allowances.admits(A, 1, 0.0):
        pass
    for k in range(1000):
        allowances.admits(PeerId(k.to_bytes(32, "big")), 1, 0.005 * k)
    assert len(allowances) < 200
    while allowances.admits(A, 1, 5.0):
        pass
    assert allowances.banned_until(A) == 7.0, "the second ban, twice the first"


@pytest.mark.fault("flood")
def test_a_flooding_member_is_counted_and_its_neighbors_go_on() -> None:
    ring = Ring(3, GossipRules(rounds=4, floor_s=0.5, ceiling_s=5.0, gather_s=5.0))
    ring.start()
    ring.settle(learn=False)
    liar, peer = Liar(ring, 2, boot_id=ring[2].peer._boot.id), ring[0].peer
    for _ in range(30_000):
        peer.handle(FrameReceived(ring.ids[2], liar.hello()), Instant(ring.time, 0.0))
    counted = peer.ledger.reasons
    assert set(counted) == {(ring.ids[2], Reason.RATE_LIMITED)}
    assert counted[ring.ids[2], Reason.RATE_LIMITED] > 9_000
    ring.settle()
    ring.pass_time(60.0)
    assert peer.step == ring[1].peer.step == 4
    assert peer.ledger.of(ring.ids[1]).applied == 4
    assert peer.ledger.of(ring.ids[2]).applied > 0, "the flooder is heard again when its ban is over"
