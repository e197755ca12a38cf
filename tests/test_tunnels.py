"""Members whom nobody can dial, and what lies between them: an honest relay, a dead one, one in the hands of an attacker."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Dial, FrameReceived, HangUp, LinkDown, LinkUp, PeerId, Send
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.relay import relay_wire
from p2pfl.protocol.relay.handshake import TUNNEL_CONTEXT, Ephemeral, knock_digest
from p2pfl.protocol.relay.meeting import homes
from p2pfl.protocol.relay.relay_wire import Answer, Carried, Knock, Taken, Wake
from p2pfl.protocol.relay.tunnel import SILENCE_S, STALL_S
from p2pfl.protocol.relay.tunnels import STRANGE_MAX
from sim.entropy import SeededEntropy
from tests.relayed import Frames, Relay, Relayed
from tests.ring import Ring, books_balance

MIB = 1 << 20
CREDIT = next(number for number, kind in wire.KINDS.items() if kind is wire.Credit)
LONG = GossipRules(mode="async", rounds=0, period_s=2.0)
Passing = Iterable[tuple[PeerId, Frames]]


def met(n: int = 2, relays: int = 2, padding: int = 0, gain: float = 1.0) -> Relayed:
    """Peers that gossip for ever and have found each other."""
    ring = Relayed(n, LONG, relays=relays, padding=padding, gain=gain)
    ring.start()
    ring.pass_time(0.5, learn=False)
    assert all(ring.tunnels[k].has(ring.ids[j]) for k, j in ring.edges)
    return ring


def applied(ring: Ring, k: int, of: int) -> int:
    return ring[k].peer.ledger.of(ring.ids[of]).applied


def message_of(frames: Frames) -> relay_wire.RelayMessage:
    return relay_wire.read(frames)[0]


# ---- an honest relay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 100_000, 3 * MIB])
@pytest.mark.parametrize("n", [2, 5])
def test_hidden_peers_end_with_the_models_that_links_would_have_given_them(n: int, padding: int) -> None:
    direct, relayed = Ring(n, gain=1.0, padding=padding), Relayed(n, gain=1.0, padding=padding)
    for ring in (direct, relayed):
        ring.start()
        ring.settle()
        ring.pass_time(60.0)
    assert relayed.values == direct.values
    assert relayed.refused == [] and books_balance(relayed)
    assert relayed.relays[0].forwarder.held == 0


def test_a_peer_sees_one_link_that_comes_up_and_nothing_of_the_relay() -> None:
    ring = met()
    for k in range(2):
        links = [entry for entry in ring[k].log if isinstance(entry, LinkUp)]
        assert links == [LinkUp(ring.ids[1 - k])]


@pytest.mark.fault("hostile relay")
def test_a_relay_reads_nothing_of_what_it_carries() -> None:
    """Every hello names the charter, every offer the network and its signer; each is 16 bytes or more."""
    told: list[bytes] = []
    direct = Ring(2, gain=1.0)
    direct.tamper = lambda a, b, frames: told.extend(frames) or frames
    direct.start()
    direct.settle()
    ring = Relayed(2, gain=1.0)
    ring.start()
    ring.pass_time(60.0)
    secrets = [ring.charter.digest, ring.charter.network_id, ring.charter.schema]
    passed = b"".join(bytes(frame) for relay in ring.relays for *_, frames in relay.passed for frame in frames)
    assert all(secret in b"".join(told) for secret in secrets), "a link within the house would show them"
    assert passed and not any(secret in passed for secret in secrets)


def test_who_can_be_dialled_is_dialled() -> None:
    ring = met()
    tunnels, peer = ring.tunnels[0], ring.ids[1]
    ring.around.hidden.discard(peer)
    outcomes = tunnels.members_changed(ring.time)
    assert LinkDown(peer) in outcomes and Dial(peer) in outcomes
    ring.around.hidden.add(peer)
    outcomes = tunnels.members_changed(ring.time)
    assert HangUp(peer) in outcomes and LinkUp(peer) in outcomes, "the other end still had the tunnel"


def test_who_is_no_member_any_more_has_no_tunnel() -> None:
    ring = met()
    ring.around.members.discard(ring.ids[1])
    outcomes = ring.tunnels[0].members_changed(ring.time)
    assert LinkDown(ring.ids[1]) in outcomes and not ring.tunnels[0].has(ring.ids[1])
    ring.give(ring.relay(homes(ring.ids[0], ring.around.relay_ids)[0]), ring.ids[1], (relay_wire.encode(Wake(ring.ids[0])),))
    assert not ring.links, "an honest relay does not pass on what strangers say"
    (refused,) = ring.tunnels[0].heard(FrameReceived(ring.relays[0].id, (relay_wire.encode(Wake(ring.ids[1])),)), ring.time)
    assert getattr(refused, "reason", None) is Reason.NOT_MEMBER


@pytest.mark.parametrize("wanting", [0, 1])
def test_who_is_not_looked_for_is_found_at_home_and_answers(wanting: int) -> None:
    """Membership dials whom it has lost, or asks for help, and the other end has no such wish."""
    ring = Relayed(2, LONG, relays=5)
    one, other = ring.ids[wanting], ring.ids[1 - wanting]
    for k in range(2):
        ring._follow(k, ring.tunnels[k].tick(0.0))
    ring._carry_out(wanting, Dial(other))
    ring.pass_time(3.0)
    assert ring.tunnels[wanting].has(other)
    assert LinkUp(other) in ring[wanting].log and LinkUp(one) not in ring[1 - wanting].log
    ring._carry_out(wanting, Send(other, (b"are you there",)))
    ring._carry_out(1 - wanting, Send(one, (b"yes",)))
    ring.settle()
    assert ring[1 - wanting].of(FrameReceived)[-1].frames == (b"are you there",)
    assert ring[wanting].of(FrameReceived)[-1].frames == (b"yes",)
    ring._carry_out(wanting, HangUp(other))
    ring.settle()
    assert not ring.tunnels[0].tunnels and not ring.tunnels[1].tunnels, "nobody needs it any more"
    assert LinkDown(other) in ring[wanting].log


# ---- relays and peers that go -------------------------------------------------------------------------------------------


@pytest.mark.fault("dead relay")
def test_when_a_relay_dies_the_next_one_carries_on() -> None:
    ring = met(relays=3)
    ring.pass_time(10.0)
    first = ring.relay_of(0, 1)
    ring.stop(first)
    ring.settle()
    assert ring.relay_of(0, 1) is not first and ring.relay_of(1, 0) is ring.relay_of(0, 1)
    before = applied(ring, 0, of=1)
    ring.pass_time(5.0)
    assert applied(ring, 0, of=1) > before
    assert ring.refused == [], "and what was under way is no refusal"


@pytest.mark.fault("dead relay")
def test_without_any_relay_each_goes_on_alone_and_they_meet_when_one_comes() -> None:
    ring = met(relays=1)
    ring.stop(ring.relays[0])
    step = ring[0].peer.step
    ring.pass_time(10.0)
    assert ring[0].peer.step > step
    ring.relays[0].is_up = True
    for k in range(2):
        ring._link(k, ring.relays[0])
    before = applied(ring, 0, of=1)
    ring.pass_time(5.0)
    assert ring.relay_of(0, 1) is ring.relays[0] and applied(ring, 0, of=1) > before


@pytest.mark.parametrize("k", [0, 1])
def test_a_member_that_began_anew_has_its_tunnel_again_within_five_seconds(k: int) -> None:
    ring = met()
    ring.pass_time(10.0)
    peer = ring.ids[1 - k]
    for relay in ring.relays:
        ring._unlink(k, relay)
    ring.links.clear()  # nobody tells the new process of the old one's links
    ring.tunnels[k] = ring._tunnels(k, boot=2)
    ring._follow(k, ring.tunnels[k].tick(ring.time))
    ring._carry_out(k, Dial(peer))
    ring.pass_time(5.0, learn=False)
    assert ring.tunnels[k].has(peer)
    assert [type(e) for e in ring[1 - k].log if isinstance(e, LinkUp | LinkDown)][-2:] == [LinkDown, LinkUp]


@pytest.mark.fault("dead relay")
def test_an_update_that_a_dead_relay_cut_off_goes_on_at_the_missing_chunk() -> None:
    direct, ring = Ring(2, gain=1.0, padding=4 * MIB), Relayed(2, gain=1.0, padding=4 * MIB, relays=2)
    passed: list[Frames] = []

    def dies_midway(relay: Relay) -> Callable[[PeerId, PeerId, Frames], Passing]:
        def passes(hop: PeerId, to: PeerId, frames: Frames) -> Passing:
            if len(frames) == 2 and len(frames[1]) > MIB // 10:
                passed.append(frames)
                if len(passed) == 20:
                    ring.stop(relay)
            return [(to, frames)]

        return passes

    for relay in ring.relays:
        relay.passes = dies_midway(relay)
    for one in (direct, ring):
        one.start()
        one.settle()
        one.pass_time(60.0)
    assert [relay.is_up for relay in ring.relays].count(False) == 1
    assert ring.values == direct.values and ring.refused == []
    credits = [wire.decode(bytes(e.frames[0])) for stage in ring for e in stage.of(Send) if e.frames[0][2] == CREDIT]
    assert any(isinstance(credit, wire.Credit) and credit.first > 0 for credit in credits), "which chunk is missing"


@pytest.mark.fault("dead relay")
def test_a_relay_that_falls_silent_is_left() -> None:
    """It takes everything and passes on nothing; its links stay up."""
    ring = met()
    silent = ring.relay_of(0, 1)
    silent.passes = lambda hop, to, frames: []
    ring.pass_time(SILENCE_S + 1.0)
    assert ring.relay_of(0, 1) is not silent


@pytest.mark.fault("dead relay")
def test_a_relay_that_stalls_what_is_long_is_left() -> None:
    """Small messages get through, so that nobody is silent."""
    ring = met(padding=4 * MIB)
    stalling = ring.relay_of(0, 1)
    stalling.passes = lambda hop, to, frames: [] if isinstance(message_of(frames), Taken) else [(to, frames)]
    ring.pass_time(STALL_S + 10.0)
    assert ring.relay_of(0, 1) is not stalling
    before = applied(ring, 0, of=1)
    ring.pass_time(5.0)
    assert applied(ring, 0, of=1) > before


# ---- a relay in the hands of an attacker --------------------------------------------------------------------------------


class Attack:
    """Its relay does this to what it passes on, while `is_on`; `seen` is what it has passed on so far."""

    def __init__(self, ring: Relayed, relay: Relay) -> None:
        self.ring, self.relay, self.is_on = ring, relay, True
        self.seen: deque[tuple[PeerId, PeerId, Frames]] = deque(maxlen=100)
        relay.passes = self

    def __call__(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        passed = list(self.of(hop, to, frames)) if self.is_on else [(to, frames)]
        self.seen.append((hop, to, frames))
        return passed

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        raise NotImplementedError

    def earlier(self, kind: type, hop: PeerId, to: PeerId, bulk: bool = True) -> list[Frames]:
        found = [frames for one, other, frames in self.seen if (one, other) == (hop, to)]
        return [f for f in found if isinstance(m := message_of(f), kind) and getattr(m, "bulk", bulk) == bulk]


class FlipsBits(Attack):
    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        if len(frames) == 1:
            return [(to, frames)]
        sealed = bytearray(frames[1])
        sealed[len(sealed) // 2] ^= 1
        return [(to, (frames[0], bytes(sealed)))]


class SwapsLanes(Attack):
    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        message = message_of(frames)
        if isinstance(message, Carried):
            frames = (relay_wire.encode(replace(message, bulk=not message.bulk)), frames[1])
        return [(to, frames)]


class SwapsHeads(Attack):
    """The sealed half of one piece behind the readable half of another."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        earlier = self.earlier(Carried, hop, to)
        return [(to, (frames[0], earlier[-1][1]) if len(frames) == 2 and earlier else frames)]


class Replays(Attack):
    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        return [(to, frames), *((to, old) for old in self.earlier(Carried, hop, to)[-3:])]


class Reorders(Attack):
    held: Frames | None = None

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        message = message_of(frames)
        if not isinstance(message, Carried) or not message.bulk:
            return [(to, frames)]
        if self.held is None:
            self.held = frames
            return []
        first, self.held = self.held, None
        return [(to, frames), (to, first)]


class Drops(Attack):
    count = 0

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        self.count += len(frames) == 2
        return [] if len(frames) == 2 and self.count % 3 == 0 else [(to, frames)]


class Reflects(Attack):
    """Sends back to each member what it said, as if the other had."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        if len(frames) == 1:
            return [(to, frames)]
        return [(hop, (relay_wire.encode(replace(message_of(frames), peer=to)), frames[1])), (to, frames)]


class Rewraps(Attack):
    """A piece as one of an older session, and as one that never was."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        message = message_of(frames)
        if not isinstance(message, Carried):
            return [(to, frames)]
        return [(to, (relay_wire.encode(replace(message, session=b"another!")), frames[1])), (to, frames)]


class ForwardsAsAnother(Attack):
    """What one member said, to whom it was for, in the name of a third."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        third = next(id for id in self.ring.ids if id not in (hop, to))
        return [(to, (relay_wire.encode(replace(message_of(frames), peer=third)), *frames[1:])), (to, frames)]


class SendsElsewhere(Attack):
    """What one member said, to a third."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        third = next(id for id in self.ring.ids if id not in (hop, to))
        return [(third, frames), (to, frames)]


class AnswersItself(Attack):
    """Makes keys of its own and answers every knock as if it were whom that was for."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        message = message_of(frames)
        if not isinstance(message, Knock):
            return [(to, frames)]
        ours = Ephemeral.generate(SeededEntropy(1, b"attacker"))
        return [(hop, (relay_wire.encode(Answer(to, message.ephemeral, ours.public, bytes(64))),))]


class KnocksItself(Attack):
    """The other way round: it puts its own key into each knock."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        message = message_of(frames)
        if not isinstance(message, Knock):
            return [(to, frames)]
        ours = Ephemeral.generate(SeededEntropy(1, b"attacker"))
        return [(to, (relay_wire.encode(replace(message, ephemeral=ours.public)),))]


class KnocksAgain(Attack):
    """With each message it plays an old knock again, which was signed by whom it says."""

    def of(self, hop: PeerId, to: PeerId, frames: Frames) -> Passing:
        return [*((to, old) for old in self.earlier(Knock, hop, to)[:1]), (to, frames)]


ATTACKS: list[tuple[type[Attack], set[Reason]]] = [
    (FlipsBits, {Reason.BAD_SEAL}),
    (SwapsLanes, {Reason.BAD_SEAL}),
    (SwapsHeads, {Reason.BAD_SEAL}),
    (Replays, {Reason.REPLAYED}),
    (Reorders, {Reason.GAP}),
    (Drops, {Reason.GAP}),
    (Reflects, {Reason.BAD_SEAL}),
    (Rewraps, {Reason.NO_TUNNEL}),
    (ForwardsAsAnother, {Reason.NO_TUNNEL}),
    (SendsElsewhere, {Reason.NO_TUNNEL}),
    (AnswersItself, {Reason.BAD_SIGNATURE}),
    (KnocksItself, {Reason.BAD_SIGNATURE}),
    (KnocksAgain, {Reason.RATE_LIMITED}),
]


@pytest.mark.fault("hostile relay")
@pytest.mark.parametrize(("attack", "reasons"), ATTACKS, ids=lambda given: getattr(given, "__name__", ""))
def test_what_a_hostile_relay_does_is_refused_and_counted_and_the_next_update_is_applied(
    attack: Callable[[Relayed, Relay], Attack], reasons: set[Reason]
) -> None:
    """Every value of every model is one that honest members sent or made of what they were sent; no peer refuses anything in
    the name of another member; and when the attack is over, updates are applied again."""
    ring = Relayed(3, LONG, relays=1, gain=1.0, padding=300_000)
    at_work = attack(ring, ring.relays[0])
    ring.start()
    ring.pass_time(20.0)
    assert reasons <= {refusal.reason for _, refusal in ring.refused}
    assert {refusal.blame for _, refusal in ring.refused} == {ring.relays[0].id}
    assert not any(stage.rejections for stage in ring), "no peer hears of it"
    counted = sum(sum(tunnels.refused.values()) for tunnels in ring.tunnels)
    assert counted == len(ring.refused)
    at_work.is_on = False
    ring.pass_time(40.0)
    before = {(k, j): applied(ring, k, of=j) for k, j in ring.edges}
    ring.pass_time(20.0)
    assert all(applied(ring, k, of=j) > before[k, j] for k, j in ring.edges)


@pytest.mark.fault("hostile relay")
def test_a_model_does_not_change_by_what_a_hostile_relay_sends() -> None:
    ring = met(padding=300_000)
    ring.pass_time(3.0)
    relay, values, steps = ring.relay_of(0, 1), ring.values, [stage.peer.step for stage in ring]
    old = list(relay.passed)
    for _, to, frames in old * 2:
        ring.hand(relay, to, frames)
    ring.settle(learn=False)
    assert ring.values == values and [stage.peer.step for stage in ring] == steps
    assert set(ring.reasons(0)) | set(ring.reasons(1)) <= {"replayed", "no_tunnel", "rate_limited"}
    before = applied(ring, 0, of=1)
    ring.pass_time(60.0)
    assert applied(ring, 0, of=1) > before


@pytest.mark.fault("hostile relay")
def test_another_relay_can_neither_end_a_tunnel_nor_draw_it_to_itself() -> None:
    """It plays old knocks again, asks for new ones, says that the other end can't be reached, and answers for it."""
    ring = met(relays=2)
    ring.pass_time(5.0)
    honest = ring.relay_of(0, 1)
    (hostile,) = (relay for relay in ring.relays if relay is not honest)
    knocks = [(to, frames) for _, to, frames in honest.passed if isinstance(message_of(frames), Knock)]
    ups = len(ring[0].of(LinkUp)), len(ring[1].of(LinkUp))
    for _ in range(40):
        for k, peer in enumerate(reversed(ring.ids)):
            for message in (Wake(peer), relay_wire.NotReachable(peer)):
                ring.hand(hostile, ring.ids[k], (relay_wire.encode(message),))
        for to, frames in knocks:
            ring.hand(hostile, to, frames)
        ring.pass_time(0.5)
    assert ring.relay_of(0, 1) is honest and ring.relay_of(1, 0) is honest
    assert (len(ring[0].of(LinkUp)), len(ring[1].of(LinkUp))) == ups


def test_who_is_no_relay_carries_nothing() -> None:
    ring = met(n=3, relays=1)
    outcomes = ring.tunnels[0].heard(FrameReceived(ring.ids[2], (relay_wire.encode(Wake(ring.ids[1])),)), ring.time)
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == [Reason.NOT_RELAY]


def test_members_who_knock_for_fun_take_no_more_than_so_many_tunnels() -> None:
    """All hidden, all knocking at one, and none of them comes in."""
    ring = Relayed(STRANGE_MAX + 8, LONG, relays=1)
    callee = max(range(len(ring.ids)), key=lambda k: ring.ids[k])
    tunnels = ring.tunnels[callee]
    tunnels.tick(0.0)
    for k, id in enumerate(ring.ids):
        if k != callee:
            ours = Ephemeral.generate(SeededEntropy(k, b"knock"))
            digest = knock_digest(ring.charter.network_id, id, ring.ids[callee], ours.public)
            knock = Knock(id, ours.public, Keyring(ring[k].identity, ring.members).sign(TUNNEL_CONTEXT, digest))
            tunnels.heard(FrameReceived(ring.relays[0].id, (relay_wire.encode(knock),)), 0.0)
    assert tunnels.refused == {(ring.relays[0].id, Reason.FULL): 7}
    tunnels.tick(tunnels.deadline)
    assert tunnels.deadline == float("inf"), "all forgotten, since nothing followed"


def knock_of(ring: Relayed, k: int, callee: int) -> Frames:
    ours = Ephemeral.generate(SeededEntropy(k, b"knock"))
    digest = knock_digest(ring.charter.network_id, ring.ids[k], ring.ids[callee], ours.public)
    return (
        relay_wire.encode(
            Knock(ring.ids[k], ours.public, Keyring(ring[k].identity, ring.members).sign(TUNNEL_CONTEXT, digest))
        ),
    )


@pytest.mark.fault("flood")
def test_one_member_that_knocks_all_the_time_shuts_no_other_out_of_a_relay() -> None:
    ring = Relayed(3, LONG, relays=1)
    one, other, callee = sorted(range(3), key=lambda k: ring.ids[k])
    tunnels, relay = ring.tunnels[callee], ring.relays[0].id
    tunnels.tick(0.0)
    for _ in range(100):
        tunnels.heard(FrameReceived(relay, knock_of(ring, one, callee)), 0.0)
    assert tunnels.refused == {(relay, Reason.RATE_LIMITED): 95}
    outcomes = tunnels.heard(FrameReceived(relay, knock_of(ring, other, callee)), 0.0)
    assert any(isinstance(outcome, Send) and isinstance(message_of(outcome.frames), Answer) for outcome in outcomes)


@pytest.mark.fault("flood")
def test_members_that_flood_do_not_get_the_relay_banned_that_brings_it() -> None:
    """Each says far more than is read of it, and even so the relay is heard, and another member over it."""
    ring = Relayed(5, LONG, relays=1)
    tunnels, relay = ring.tunnels[0], ring.relays[0].id
    tunnels.tick(0.0)
    says = [(relay_wire.encode(Carried(peer, b"session.", True, 0)), bytes(17)) for peer in ring.ids]
    for frames in says[1:4]:
        for _ in range(60_000):
            tunnels.heard(FrameReceived(relay, frames), 0.0)
    assert tunnels.flooded == {(relay, peer): 40_000 for peer in ring.ids[1:4]}
    assert tunnels.account()["flooded"] == 120_000
    assert set(tunnels.refused) == {(relay, Reason.NO_TUNNEL)}, "of what was read"
    (refused,) = tunnels.heard(FrameReceived(relay, says[4]), 0.0)
    assert getattr(refused, "reason", None) is Reason.NO_TUNNEL, "read as well"


@pytest.mark.fault("hostile relay")
def test_what_a_relay_says_in_the_name_of_nobody_it_pays_itself() -> None:
    ring = Relayed(2, LONG, relays=1)
    tunnels, relay = ring.tunnels[0], ring.relays[0].id
    tunnels.tick(0.0)
    frames = (relay_wire.encode(Wake(PeerId(bytes(32)))),)
    for _ in range(170_000):
        tunnels.heard(FrameReceived(relay, frames), 0.0)
    assert tunnels.refused == {(relay, Reason.NOT_MEMBER): 160_001, (relay, Reason.RATE_LIMITED): 9_999}


def test_a_flood_by_way_of_a_relay_is_dropped_unread() -> None:
    ring = met()
    relay = ring.relay_of(0, 1)
    frames = (relay_wire.encode(Carried(ring.ids[1], b"session.", True, 0)), bytes(1000))
    for _ in range(30_000):
        ring.tunnels[0].heard(FrameReceived(relay.id, frames), ring.time)
    assert ring.tunnels[0].refused[relay.id, Reason.NO_TUNNEL] <= 20_000
    assert ring.tunnels[0].flooded[relay.id, ring.ids[1]] >= 10_000
    ring.pass_time(40.0)
    before = applied(ring, 0, of=1)
    ring.pass_time(10.0)
    assert applied(ring, 0, of=1) > before


# ---- what a thief learns ------------------------------------------------------------------------------------------------


def opens(keys: Iterable[bytes], captured: list[Frames]) -> int:
    """How many recorded pieces one of these keys opens."""
    from nacl import bindings
    from nacl.exceptions import CryptoError

    found = 0
    for frames in captured:
        message = message_of(frames)
        if not isinstance(message, Carried):
            continue
        nonce = message.count.to_bytes(8, "big") + bytes([message.bulk]) + bytes(15)
        for key in keys:
            try:
                bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(frames[1]), None, nonce, key)
                found += 1
            except CryptoError:
                continue
    return found


@pytest.mark.fault("hostile relay")
@pytest.mark.parametrize("steals", ["identities", "ephemeral keys"])
def test_with_all_long_term_keys_stolen_afterwards_a_recorded_tunnel_stays_shut(
    steals: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: whoever steals the ephemeral keys, which both ends throw away, opens every piece in the same way."""
    from nacl import bindings

    from p2pfl.protocol.relay.handshake import answer_digest, session_keys

    drawn: list[bytes] = []
    honest = Ephemeral.generate

    def noted(entropy: Any) -> Ephemeral:
        made = honest(entropy)
        drawn.append(made.secret)
        return made

    monkeypatch.setattr(Ephemeral, "generate", noted)
    ring = Relayed(2, gain=1.0)
    ring.start()
    ring.pass_time(60.0)
    captured = [frames for *_, frames in ring.relays[0].passed]
    (knock,) = (m for m in map(message_of, captured) if isinstance(m, Knock))
    (answer,) = (m for m in map(message_of, captured) if isinstance(m, Answer))
    identities = [stage.identity for stage in ring]
    long_term = [
        secret
        for one in identities
        for seed in [one.sign_seed]
        for secret in (
            seed,
            one.transport_secret,
            one.seal_secret,
            bindings.crypto_sign_ed25519_sk_to_curve25519(bindings.crypto_sign_seed_keypair(seed)[1]),
        )
    ]
    public = [*(k for one in identities for k in (one.transport_key, one.seal_key)), knock.ephemeral, answer.ephemeral]
    caller, callee = sorted(ring.ids)
    transcript = answer_digest(ring.charter.network_id, caller, callee, knock.ephemeral, answer.ephemeral)
    stolen = long_term if steals == "identities" else drawn
    keys = [
        key
        for secret in stolen
        for theirs in public
        for made in [session_keys(secret, theirs, transcript, True)]
        for key in (made.outward, made.inward)
    ]
    pieces = sum(isinstance(message_of(frames), Carried) for frames in captured)
    found = opens([*keys, *long_term], captured)
    assert found == 0 if steals == "identities" else found >= pieces > 0
