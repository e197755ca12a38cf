"""What strangers and hostile members say of others: rows 37 and 38 of the fault table, and what is like them."""

import pytest

from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Dial, IdentityConflict, Instant, MembershipEffect, PeerId, Rejected, Send
from p2pfl.protocol.membership import gossip_wire, push_pull
from p2pfl.protocol.membership.gossip_wire import (
    Ack,
    Digests,
    Entry,
    Introduction,
    Nack,
    Ping,
    PingRequest,
    Records,
    Summary,
    Wanted,
)
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import LAN
from p2pfl.protocol.membership.standing import SWIM_CONTEXT, Accusation, Version, accusation_digest, answer_digest
from p2pfl.protocol.membership.view import bucket_of
from p2pfl.protocol.randomness import Choices
from tests.village import NETWORK, WALL, FakeOath, FakeRegistry, Village, id_of, record_of, signature
from topology.overlay import watched

OWN = id_of(0)
OTHERS = [id_of(k) for k in range(1, 8)]
SUBJECT, ACCUSER, STRANGER = OTHERS[0], OTHERS[1], id_of(1000)
NOW = Instant(1000.0, WALL)
FIRST = Version(1, 0)


class Alone:
    """One real membership that knows seven members, linked to all, and a test that speaks for them."""

    def __init__(self) -> None:
        self.registry = FakeRegistry()
        for peer in (OWN, *OTHERS):
            near = [other for other in (SUBJECT, ACCUSER) if other != peer] if peer in (SUBJECT, ACCUSER) else []
            self.registry.learn(b"member" + peer, record_of(peer, neighbors=near, epoch=int(peer != OWN)).data, WALL)
        boot = Boot(5, record_of(OWN, epoch=5).boot_id)

        def author(incarnation: int, neighbors: tuple[PeerId, ...], has_left: bool, _wall: float) -> Record:
            return record_of(OWN, incarnation, neighbors, 5, has_left)

        watch = lambda live, own: watched(live, own, 1)[:2]  # noqa: E731  so that few are neighbors by the overlay's rule
        self.life = Membership(OWN, NETWORK, LAN, self.registry, FakeOath(OWN), boot, author, watch, Choices(0, b"alone"), NOW)
        self.life.tick(NOW)
        for peer in OTHERS:
            self.life.link_up(NOW, peer)

    def hear(self, hop: PeerId, *items: Introduction | Accusation, now: Instant = NOW) -> list[MembershipEffect]:
        return self.life.receive(now, hop, Records(b"".join(map(gossip_wire.encode_item, items))))


def accusation(accuser: PeerId, subject: PeerId, version: Version = FIRST, signer: PeerId | None = None) -> Accusation:
    digest = accusation_digest(NETWORK, accuser, subject, version)
    return Accusation(accuser, subject, version, FakeOath(signer or accuser).sign(SWIM_CONTEXT, digest))


def ticket_of(asker: PeerId, k: int) -> bytes:
    return record_of(asker).boot_id + k.to_bytes(8, "big")


def reasons(effects: list[MembershipEffect]) -> list[Reason]:
    return [effect.reason for effect in effects if isinstance(effect, Rejected)]


def sent(effects: list[MembershipEffect], to: PeerId) -> list[gossip_wire.MembershipMessage]:
    return [gossip_wire.decode(bytes(e.frames[0])) for e in effects if isinstance(e, Send) and e.to == to]  # type: ignore[call-overload]


LATER = Instant(NOW.monotonic + LAN.fresh_s + 0.1, WALL)
"""No link is fresh any more."""


@pytest.mark.fault("rumors")
def test_a_forged_record_of_another_changes_nothing() -> None:
    alone = Alone()
    genuine = record_of(SUBJECT, incarnation=9)
    forged = genuine.data[:-64] + signature(ACCUSER, b"p2pfl/addr/v1\0", genuine.data[:-64])
    before = alone.life.view.digests
    assert reasons(alone.hear(ACCUSER, Introduction(forged))) == [Reason.BAD_SIGNATURE]
    assert alone.life.view.digests == before


@pytest.mark.fault("rumors")
def test_nobody_sends_another_away() -> None:
    alone = Alone()
    left = record_of(SUBJECT, incarnation=1, has_left=True)
    forged = left.data[:-64] + signature(ACCUSER, b"p2pfl/addr/v1\0", left.data[:-64])
    assert reasons(alone.hear(ACCUSER, Introduction(forged))) == [Reason.BAD_SIGNATURE]
    assert SUBJECT in alone.life.view
    assert not reasons(alone.hear(ACCUSER, Introduction(left.data)))
    assert SUBJECT not in alone.life.view


@pytest.mark.fault("rumors")
def test_an_accusation_by_who_is_no_neighbor_of_its_subject_is_refused() -> None:
    alone = Alone()
    far = next(peer for peer in OTHERS[2:] if peer not in watched(alone.life.view.live, SUBJECT, 1)[:2])
    assert reasons(alone.hear(far, accusation(far, SUBJECT), now=LATER)) == [Reason.NOT_NEIGHBOR]
    assert not alone.life.view.suspects


@pytest.mark.fault("rumors")
def test_an_accusation_in_somebody_elses_name_is_refused() -> None:
    alone = Alone()
    effects = alone.hear(OTHERS[3], accusation(ACCUSER, SUBJECT, signer=OTHERS[3]), now=LATER)
    assert reasons(effects) == [Reason.BAD_SIGNATURE]
    assert not alone.life.view.suspects


def test_a_live_link_overrides_an_accusation_and_the_accused_hears_of_it() -> None:
    alone = Alone()
    said = accusation(ACCUSER, SUBJECT)
    effects = alone.hear(ACCUSER, said)
    assert not alone.life.view.suspects
    assert Records(gossip_wire.encode_item(said)) in sent(effects, SUBJECT)


def test_an_accusation_is_believed_when_the_link_has_been_silent_and_ends_at_a_word_of_the_accused() -> None:
    alone = Alone()
    alone.hear(ACCUSER, accusation(ACCUSER, SUBJECT), now=LATER)
    assert alone.life.view.suspects == {SUBJECT}
    alone.life.receive(LATER, SUBJECT, Nack(bytes(24)))
    assert not alone.life.view.suspects


@pytest.mark.fault("rumors")
def test_any_frame_of_a_member_over_its_own_link_overrides_what_is_said_of_it() -> None:
    """Updates and greetings too, whoever they are for: they show that it lives."""
    alone = Alone()
    now = Instant(LATER.monotonic + 10.0, WALL)
    assert not alone.life.heard(now, SUBJECT)  # nothing to say where nobody doubts it
    said = accusation(ACCUSER, SUBJECT)
    effects = alone.hear(ACCUSER, said, now=now)
    assert not alone.life.view.suspects
    assert Records(gossip_wire.encode_item(said)) in sent(effects, SUBJECT)


def test_a_suspect_is_alive_again_with_any_frame_of_its_own_and_hears_what_it_is_accused_of() -> None:
    alone = Alone()
    said = accusation(ACCUSER, SUBJECT)
    alone.hear(ACCUSER, said, now=LATER)
    assert alone.life.view.suspects == {SUBJECT}
    effects = alone.life.heard(LATER, SUBJECT)
    assert not alone.life.view.suspects
    assert Records(gossip_wire.encode_item(said)) in sent(effects, SUBJECT)


@pytest.mark.fault("stranger")
def test_frames_of_strangers_and_of_those_who_left_bring_nobody_back() -> None:
    alone = Alone()
    alone.hear(ACCUSER, Introduction(record_of(SUBJECT, incarnation=1, has_left=True).data))
    for peer in (STRANGER, SUBJECT):
        assert not alone.life.heard(NOW, peer) and peer not in alone.life.view
    assert not alone.life._census._heard.keys() & {STRANGER, SUBJECT}


def test_a_suspect_hears_first_what_it_is_accused_of() -> None:
    alone = Alone()
    said = accusation(ACCUSER, SUBJECT)
    alone.hear(ACCUSER, said, now=LATER)
    known = alone.life.view.get(SUBJECT)
    assert known is not None and known.suspicion is not None
    ping = next(m for m in sent(alone.life.receive(LATER, SUBJECT, Ping(bytes(24))), SUBJECT) if isinstance(m, Ack))
    assert ping.rumors.startswith(gossip_wire.encode_item(said))


def test_an_accused_refutes_with_a_higher_incarnation_but_not_more_often_than_once_per_probe() -> None:
    alone = Alone()
    version = Version(5, alone.life.record.incarnation)
    now = LATER
    for _ in range(100):
        now = Instant(now.monotonic + 0.01, WALL)
        alone.hear(ACCUSER, accusation(ACCUSER, OWN, Version(5, alone.life.record.incarnation)), now=now)
    assert version.incarnation < alone.life.record.incarnation <= version.incarnation + 3
    assert alone.life.snapshot().health <= LAN.health_max - 1


@pytest.mark.fault("rumors")
def test_an_accusation_at_a_version_that_is_yet_to_come_does_not_move_the_incarnation() -> None:
    alone = Alone()
    before = alone.life.record
    alone.hear(ACCUSER, accusation(ACCUSER, OWN, Version(5, 2**63 - 1)), now=LATER)
    alone.life.tick(Instant(LATER.monotonic + 2, WALL))
    assert alone.life.record.incarnation <= before.incarnation + 1


@pytest.mark.fault("stranger")
def test_a_stranger_is_not_heard() -> None:
    alone = Alone()
    assert reasons(alone.life.receive(NOW, STRANGER, Ping(bytes(24)))) == [Reason.NOT_MEMBER]
    assert not sent(alone.life.receive(NOW, STRANGER, Digests((bytes(8),) * 64, bytes(32))), STRANGER)


@pytest.mark.fault("stranger")
def test_a_record_of_a_stranger_is_asked_about_and_refused_without_a_credential() -> None:
    alone = Alone()
    told = record_of(STRANGER)
    assert Wanted((STRANGER,)) in sent(alone.hear(ACCUSER, Introduction(told.data)), ACCUSER)
    assert reasons(alone.hear(ACCUSER, Introduction(told.data, b"guest!" + STRANGER))) == [Reason.NOT_MEMBER]
    assert STRANGER not in alone.life.view
    alone.hear(ACCUSER, Introduction(told.data, b"member" + STRANGER))
    assert STRANGER in alone.life.view


@pytest.mark.fault("rumors")
def test_one_forged_item_costs_one_signature_for_the_rest_of_its_message_is_not_read() -> None:
    alone = Alone()
    forged = accusation(ACCUSER, SUBJECT, signer=OTHERS[3])
    effects = alone.hear(ACCUSER, *[forged] * 100, now=LATER)
    assert len(reasons(effects)) == 1


@pytest.mark.fault("rumors")
def test_a_helper_cannot_answer_for_the_dead() -> None:
    village = Village(10)
    village.run(10.0)
    victim, liar, *_ = village.living
    village.kill(victim, silently=True)
    for _ in range(60):
        village.run(0.5)
        for peer in village.living:
            for probe in village.life(peer)._watching.probes._open.values():
                lie = Ack(probe.ticket, signature(liar, SWIM_CONTEXT, answer_digest(NETWORK, victim, peer, probe.ticket)))
                if probe.target == victim and peer != liar:
                    village.call(peer, lambda life, peer=peer, lie=lie: life.receive(village.instant(peer), liar, lie))  # type: ignore[misc]
    assert all(victim not in village.life(peer).view for peer in village.living)
    assert Reason.BAD_SIGNATURE in village.rejections()


@pytest.mark.fault("rumors")
def test_a_storm_of_accusations_by_a_member_kills_nobody() -> None:
    """One hostile member accuses everybody of everything, as fast as it hears of new records, to everybody."""
    village = Village(16)
    village.run(10.0)
    liar, *honest = village.living
    for _ in range(120):
        for hop in honest:
            items = [accusation(liar, peer, Version(*_version(village, peer))) for peer in honest if peer != hop]
            storm = Records(b"".join(map(gossip_wire.encode_item, items)))
            village.call(hop, lambda life, hop=hop, storm=storm: life.receive(village.instant(hop), liar, storm))  # type: ignore[misc]
        village.run(0.5)
        assert village.agree()
    assert Reason.NOT_NEIGHBOR in village.rejections()


def _version(village: Village, peer: PeerId) -> Version:
    told = village.life(peer).record
    return Version(told.boot_epoch, told.incarnation)


@pytest.mark.fault("crowds")
def test_a_hundred_thousand_invented_members_are_refused_and_honest_ones_still_join() -> None:
    alone = Alone()
    for k in range(200):
        invented = [Introduction(record_of(id_of(10_000 + 500 * k)).data, b"guest!" + bytes(32))] * 500
        alone.hear(ACCUSER, *invented)
    assert len(alone.life.view) == 8 and len(alone.life._census.tombstones) == 0
    newcomer = id_of(77)
    alone.hear(OTHERS[4], Introduction(record_of(newcomer).data, b"member" + newcomer))
    assert newcomer in alone.life.view


def cycled(count: int) -> tuple[Membership, int]:
    """A membership after so many members came and left, and its longest message meanwhile."""
    alone = Alone()
    longest = 0
    for k in range(count):
        peer = id_of(100 + k)
        joined = Introduction(record_of(peer).data, b"member" + peer)
        left = Introduction(record_of(peer, incarnation=1, has_left=True).data)
        now = Instant(NOW.monotonic + k / 100, WALL)
        for item in (joined, left):
            for effect in alone.hear(OTHERS[k % 7], item, now=now):
                if isinstance(effect, Send):
                    longest = max(longest, len(effect.frames[0]))
        alone.registry.members.pop(peer)  # of a real registry it is its own business to forget
        alone.registry.records.pop(peer)
    return alone.life, longest


@pytest.mark.fault("crowds")
@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_joins_and_leaves_without_end_leave_memory_and_messages_bounded(count: int) -> None:
    life, longest = cycled(count)
    assert len(life._census.tombstones) == LAN.tombstones_min
    assert len(life._hearing._doubles) <= 8
    assert len(life._census.rumors) <= 4096 and longest <= 8192
    assert len(life._census._heard) <= 8
    newcomer = id_of(77)
    life.receive(
        Instant(1e6, WALL),
        OTHERS[0],
        Records(gossip_wire.encode_item(Introduction(record_of(newcomer).data, b"member" + newcomer))),
    )
    assert newcomer in life.view


@pytest.mark.fault("crowds")
def test_one_hop_can_pull_only_so_much() -> None:
    alone = Alone()
    everyone = Wanted(tuple(OTHERS))
    refused = [reasons(alone.life.receive(NOW, ACCUSER, everyone)) for _ in range(1000)]
    assert [] in refused and refused[-1] == [Reason.RATE_LIMITED]
    assert not reasons(alone.life.receive(NOW, OTHERS[4], everyone))


def test_a_request_to_ask_for_somebody_costs_one_message_and_is_bounded() -> None:
    alone = Alone()
    answers = [
        m
        for k in range(100)
        for m in sent(alone.life.receive(NOW, ACCUSER, PingRequest(ticket_of(ACCUSER, k), SUBJECT)), SUBJECT)
        if isinstance(m, Ping)
    ]
    assert len(answers) == 16


def test_nobody_takes_the_ticket_of_another_before_it_asks() -> None:
    """Tickets can be foretold: they are a boot id, which records state, and a count."""
    alone = Alone()
    honest, thief = ACCUSER, OTHERS[5]
    effects = alone.life.receive(NOW, thief, PingRequest(ticket_of(honest, 1), SUBJECT))
    assert isinstance(sent(effects, thief)[0], Nack) and not sent(effects, SUBJECT)
    asked = sent(alone.life.receive(NOW, honest, PingRequest(ticket_of(honest, 1), SUBJECT)), SUBJECT)
    assert [m.origin for m in asked if isinstance(m, Ping)] == [honest]


@pytest.mark.fault("rumors")
def test_one_member_that_leaves_and_comes_back_without_end_is_believed_once_an_interval() -> None:
    """Whoever tells it, and though all of it is really signed: each change would cost everybody a new overlay."""
    alone = Alone()
    versions = alone.life.view.version
    for k in range(2_000):  # a hundred a second
        now = Instant(NOW.monotonic + k / 100, WALL)
        alone.hear(OTHERS[k % 4], Introduction(record_of(OTHERS[5], epoch=2 + k, has_left=bool(k % 2)).data), now=now)
    assert alone.life.view.version - versions <= 16 + 20 / LAN.probe_interval_s + 1
    later = Instant(NOW.monotonic + 100.0, WALL)
    alone.hear(ACCUSER, Introduction(record_of(OTHERS[5], epoch=10_000).data), now=later)
    assert OTHERS[5] in alone.life.view


@pytest.mark.fault("rumors")
def test_forged_records_of_a_member_do_not_use_up_what_it_may_say() -> None:
    alone = Alone()
    for k in range(100):
        genuine = record_of(SUBJECT, incarnation=50 + k)
        forged = genuine.data[:-64] + signature(ACCUSER, b"p2pfl/addr/v1\0", genuine.data[:-64])
        alone.hear(ACCUSER, Introduction(forged))
    alone.hear(OTHERS[4], Introduction(record_of(SUBJECT, incarnation=1).data))
    known = alone.life.view.get(SUBJECT)
    assert known is not None and known.standing.version == Version(1, 1)


@pytest.mark.fault("rumors")
def test_old_news_without_end_from_one_hop_are_not_read_and_another_hop_is_heard() -> None:
    """Records that everybody knows cost their hop nothing, and us a look at each."""
    alone = Alone()
    known = [Introduction(record_of(peer).data) for peer in OTHERS]
    refused = 0
    for _ in range(2_000):
        refused += Reason.RATE_LIMITED in reasons(alone.hear(ACCUSER, *known))
    assert refused >= 2_000 - 4096 / len(known) - 1
    assert not reasons(alone.hear(OTHERS[4], Introduction(record_of(id_of(77)).data, b"member" + id_of(77))))
    assert id_of(77) in alone.life.view


@pytest.mark.fault("crowds")
def test_questions_that_nothing_answers_are_not_free() -> None:
    """To compare two views costs as much whether they differ or not."""
    alone = Alone()
    same = push_pull.digests(alone.life._census)
    for question in (same, Summary(0, ()), Wanted((STRANGER,))):
        hop = OTHERS[[Digests, Summary, Wanted].index(type(question))]
        refused = [Reason.RATE_LIMITED in reasons(alone.life.receive(NOW, hop, question)) for _ in range(1000)]
        assert not refused[0] and 700 < sum(refused) < 1000


@pytest.mark.fault("crowds")
def test_a_short_question_about_a_large_network_looks_up_only_what_one_answer_carries() -> None:
    alone = Alone()
    for k in range(2_000):
        peer = id_of(10_000 + k)
        now = Instant(NOW.monotonic + k / 100, WALL)
        alone.hear(OTHERS[k % 7], Introduction(record_of(peer).data, b"member" + peer), now=now)
    looked = 0
    entry = alone.registry.entry

    def counted(peer: PeerId) -> tuple[bytes, bytes]:
        nonlocal looked
        looked += 1
        return entry(peer)

    alone.registry.entry = counted  # type: ignore[method-assign]
    said = sent(alone.life.receive(now, ACCUSER, Summary((1 << 64) - 1, ())), ACCUSER)
    assert sum(isinstance(m, Records) for m in said) == 1 and looked <= 512 + 1


@pytest.mark.fault("flood")
def test_a_flood_of_pings_is_answered_and_the_rumors_are_looked_through_a_few_times_only() -> None:
    alone = Alone()
    looked = 0
    take = alone.life._census.rumors.take

    def counted(*args: object) -> bytes:
        nonlocal looked
        looked += 1
        return take(*args)  # type: ignore[arg-type]

    alone.life._census.rumors.take = counted  # type: ignore[assignment, method-assign]
    for k in range(2_000):
        now = Instant(NOW.monotonic + k / 2_000, WALL)
        assert any(isinstance(m, Ack) for m in sent(alone.life.receive(now, ACCUSER, Ping(bytes(24))), ACCUSER))
    assert looked <= 64 + 16 + 8 * 2  # and those of our own pings


@pytest.mark.fault("rumors")
def test_one_liar_that_is_nobodys_neighbor_does_not_make_everybody_talk_to_everybody() -> None:
    """Each accusation, of 147 bytes, would have its subject make a record that goes to all. Nobody else believes it."""
    alone = Alone()
    far = next(peer for peer in OTHERS if peer not in watched(alone.life.view.live, OWN, 1)[:2])
    before, health = alone.life.record.incarnation, alone.life.snapshot().health
    shortest, _ = LAN.suspicion_s(8)
    seconds = 60
    for k in range(10 * seconds):
        now = Instant(LATER.monotonic + k / 10, WALL)
        for peer in OTHERS:
            alone.life.heard(now, peer)
        alone.hear(far, accusation(far, OWN, Version(5, alone.life.record.incarnation)), now=now)
    said = alone.life.record.incarnation - before
    assert 2 <= said <= seconds / (shortest / 2) + 2
    assert alone.life.snapshot().health <= max(health, LAN.health_max - 1)


@pytest.mark.fault("rumors")
def test_a_neighbor_that_goes_on_accusing_us_makes_us_slower_once_per_longest_suspicion() -> None:
    alone = Alone()
    near = watched(alone.life.view.live, OWN, 1)[0]
    worse = 0
    health = alone.life._hearing._health
    with pytest.MonkeyPatch.context() as patch:

        def counted(by: int = 1) -> None:
            nonlocal worse
            worse += by

        patch.setattr(health, "worse", counted)
        for k in range(300):
            now = Instant(LATER.monotonic + k / 10, WALL)
            alone.life._last = now  # the loop is in time
            alone.life._watching.probes._open.clear()
            alone.hear(near, accusation(near, OWN, Version(5, alone.life.record.incarnation)), now=now)
    _, longest = LAN.suspicion_s(8)
    assert 1 <= worse <= 30.0 / longest + 1


@pytest.mark.fault("rumors")
def test_a_silent_member_that_names_a_victim_as_its_helper_has_it_dialled_once_and_not_every_interval() -> None:
    village = Village(24)
    village.run(10.0)
    hostile = village.living[0]
    watchers = [peer for peer in village.living if hostile in village.life(peer).snapshot().watched]
    strangers = (peer for peer in village.living if peer != hostile and peer not in watchers)
    victim = next(peer for peer in strangers if not set(village.life(peer).snapshot().watched) & set(watchers))
    told = record_of(hostile, incarnation=100, neighbors=[victim])
    for peer in watchers:
        item = Records(gossip_wire.encode_item(Introduction(told.data)))
        village.call(peer, lambda life, peer=peer, item=item: life.receive(village.instant(peer), peer, item))  # type: ignore[misc]
    asked: list[PeerId] = []
    carry_out = village._carry_out

    def watch_dials(house: object, effect: MembershipEffect) -> None:
        if isinstance(effect, Dial) and effect.peer == victim:
            asked.append(house.peer)  # type: ignore[attr-defined]
        carry_out(house, effect)  # type: ignore[arg-type]

    village._carry_out = watch_dials  # type: ignore[method-assign, assignment]
    village.kill(hostile, silently=True)
    village.run(20.0)
    assert asked and all(asked.count(peer) <= 2 for peer in watchers)


def test_who_finds_another_machine_under_its_identity_is_the_later_life_when_it_starts_again() -> None:
    """Else a disk that was restored from an old copy would meet its own last life at every start, and stop for ever."""
    alone = Alone()
    alone.hear(ACCUSER, Introduction(record_of(OWN, epoch=9, boot=1).data))
    assert alone.registry.records[OWN].boot_epoch == 9


def test_a_summary_that_invents_members_gets_a_bounded_question() -> None:
    alone = Alone()
    invented = sorted(Entry(id_of(5_000 + k), Version(1, 0), False) for k in range(512))
    mask = 0
    for entry in invented:
        mask |= 1 << bucket_of(entry.peer)
    (question, *_), effects = sent(e := alone.life.receive(NOW, ACCUSER, Summary(mask, tuple(invented))), ACCUSER), e
    assert isinstance(question, Wanted) and len(question.peers) == 512
    assert len(alone.life.view) == 8 and not reasons(effects)


# ---- revocation ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("revoked")
def test_a_revoked_member_is_out_of_every_view_within_seconds_and_stays_out() -> None:
    village = Village(16)
    village.run(10.0)
    issuer, outcast, *rest = village.living
    village.call(issuer, lambda life: life.revoke(village.instant(issuer), b"revoke" + outcast))
    village.until(lambda: all(outcast not in village.life(peer).view for peer in (issuer, *rest)), within=5.0)
    village.run(60.0)
    assert all(village.life(peer).view.live == tuple(sorted((issuer, *rest))) for peer in rest)
    assert Reason.NOT_MEMBER in village.rejections()


@pytest.mark.fault("revoked")
def test_a_revocation_crosses_a_healed_split_within_two_comparisons() -> None:
    village = Village(16)
    village.run(10.0)
    halves = village.living[:8], village.living[8:]
    village.split(*halves)
    village.run(60.0)
    village.call(halves[0][0], lambda life: life.revoke(village.instant(halves[0][0]), b"revoke" + halves[1][0]))
    village.run(60.0)
    village.heal()
    outcast = halves[1][0]  # nobody talks to it any more
    knowing = [house.registry for peer, house in village.houses.items() if peer != outcast]
    village.until(lambda: all(registry.revocations for registry in knowing), within=180.0)


@pytest.mark.fault("revocations")
def test_a_forged_revocation_ends_its_message() -> None:
    alone = Alone()
    item = gossip_wire.encode_item(gossip_wire.Revoked(b"forged" + SUBJECT))
    assert reasons(alone.life.receive(NOW, ACCUSER, Records(item * 10))) == [Reason.BAD_CHAIN]
    assert SUBJECT in alone.life.view


# ---- two machines, one identity -----------------------------------------------------------------------------------------


@pytest.mark.fault("doubles")
def test_our_own_id_with_a_foreign_boot_id_is_a_conflict_that_names_both_addresses() -> None:
    alone = Alone()
    twin = record_of(OWN, epoch=5, boot=1)
    (conflict,) = [e for e in alone.hear(ACCUSER, Introduction(twin.data)) if isinstance(e, IdentityConflict)]
    assert conflict.peer == OWN and set(conflict.addresses) == {*twin.addresses, *alone.life.record.addresses}


def test_an_earlier_life_of_our_own_is_none_and_a_forged_twin_neither() -> None:
    alone = Alone()
    earlier = record_of(OWN, incarnation=40, epoch=4, boot=1)
    twin = record_of(OWN, epoch=6, boot=1)
    forged = twin.data[:-64] + signature(ACCUSER, b"p2pfl/addr/v1\0", twin.data[:-64])
    assert not [e for e in alone.hear(ACCUSER, Introduction(earlier.data)) if isinstance(e, IdentityConflict)]
    effects = alone.hear(ACCUSER, Introduction(forged))
    assert reasons(effects) == [Reason.BAD_SIGNATURE]
    assert not [e for e in effects if isinstance(e, IdentityConflict)]


def test_two_boot_ids_of_another_in_one_epoch_are_an_alarm_once() -> None:
    alone = Alone()
    told = [record_of(SUBJECT, k, epoch=1, boot=k % 2) for k in range(1, 7)]
    alarms = [e for one in told for e in alone.hear(ACCUSER, Introduction(one.data)) if isinstance(e, IdentityConflict)]
    assert [alarm.peer for alarm in alarms] == [SUBJECT]
    assert SUBJECT in alone.life.view


def test_an_earlier_life_that_goes_on_speaking_is_an_alarm_but_a_late_word_of_it_is_not() -> None:
    alone = Alone()

    def alarms(incarnation: int, epoch: int) -> int:
        told = record_of(SUBJECT, incarnation, epoch=epoch)
        return sum(isinstance(e, IdentityConflict) for e in alone.hear(ACCUSER, Introduction(told.data)))

    assert [alarms(0, 2), alarms(1, 1), alarms(1, 1), alarms(2, 1), alarms(3, 1)] == [0, 0, 0, 1, 0]


def test_who_starts_again_is_no_alarm() -> None:
    village = Village(8)
    village.run(10.0)
    for _ in range(3):
        village.kill(village.living[0])
        village.run(1.0)
        village.start(sorted(village.houses)[0])
        village.run(10.0)
    assert not any(house.conflicts for house in village.houses.values())


@pytest.mark.fault("doubles")
def test_a_copied_disk_stops_itself_and_the_others_go_on() -> None:
    village = Village(8)
    village.run(10.0)
    original, *others = village.living
    twin = record_of(original, incarnation=50, epoch=1, boot=1)
    for peer in others[:2]:
        item = Records(gossip_wire.encode_item(Introduction(twin.data)))
        village.call(peer, lambda life, peer=peer, item=item: life.receive(village.instant(peer), others[3], item))  # type: ignore[misc]
    village.run(5.0)
    assert any(conflict.peer == original for conflict in village.houses[original].conflicts)
    assert any(village.houses[peer].conflicts for peer in others)
    assert all(original in village.life(peer).view for peer in others)
