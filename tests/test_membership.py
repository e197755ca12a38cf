"""Membership under faults, on a virtual network of real `Membership`s: rows 37 to 64 of the fault table."""

from dataclasses import replace

import pytest

from p2pfl.protocol.membership.rules import EDGE, LAN, MembershipRules
from tests.village import WALL, Village, id_of, record_of

HEALED_S = 2 * 1.5 * LAN.reconnect_s + 2 * 1.5 * LAN.push_pull_s  # two dials and two comparisons, at their slowest


def settled(count: int, seed: int = 0, rules: MembershipRules = LAN, **path: object) -> Village:
    """A village whose peers know one another and have been linked for a while."""
    village = Village(count, seed, rules, **path)  # type: ignore[arg-type]
    village.run(10 * rules.probe_interval_s)
    assert village.agree()
    return village


def test_sixteen_peers_see_one_another_and_nobody_dies_of_a_tenth_of_all_frames_lost() -> None:
    village = settled(16, loss=0.1)
    for _ in range(60):
        village.run(2.0)
        assert village.agree()
    assert not village.rejections()


def test_five_killed_of_sixteen_are_known_to_all_within_15_s() -> None:
    for seed in range(3):
        village = settled(16, seed)
        for victim in village.living[::3][:5]:
            village.kill(victim)
        assert village.until(village.agree, within=15.0) > LAN.probe_interval_s


def test_those_who_lost_power_die_too_though_no_link_is_reset() -> None:
    village = settled(16)
    for victim in village.living[:5]:
        village.kill(victim, silently=True)
    _, longest = LAN.suspicion_s(16)
    village.until(village.agree, within=longest + 5)


def test_a_death_is_known_as_late_as_the_formula_says() -> None:
    """Probe: it begins within an interval and lasts one. Suspicion: the shortest, since two neighbors confirm it. Rumor: half
    an interval per hop, for the few hops that twelve peers are apart."""
    shortest, _ = LAN.suspicion_s(12)
    for seed in range(5):
        village = settled(12, seed)
        village.kill(village.living[seed])
        took = village.until(village.agree, within=60.0, step=0.05)
        assert shortest + LAN.fresh_s - LAN.probe_interval_s <= took <= shortest + LAN.fresh_s + 2 * LAN.probe_interval_s


def test_a_restarted_peer_is_a_full_member_within_5_s() -> None:
    village = settled(16)
    victim = village.living[3]
    village.kill(victim)
    village.until(village.agree, within=20.0)
    village.start(victim)
    village.until(village.agree, within=5.0)


def test_who_leaves_is_gone_at_once_and_is_not_looked_for() -> None:
    village = settled(16)
    leaver = village.living[5]
    village.leave(leaver)
    village.until(village.agree, within=3.0)
    village.run(120.0)
    assert not any(village.life(peer).snapshot().dead for peer in village.living)
    village.start(leaver)
    village.until(village.agree, within=5.0)


def test_a_newcomer_that_knows_one_member_knows_all_and_is_known_by_all_within_5_s() -> None:
    village = settled(16)
    village.join(99, via=village.living[0])
    village.until(village.agree, within=5.0)


def test_whom_the_door_of_one_member_let_in_all_know_before_it_says_a_word() -> None:
    """Else it would have to be let in anew by everybody whom it dials."""
    village = settled(24)
    door, newcomer = village.living[0], village.build(24)
    village.houses[door].registry.learn(b"member" + newcomer, record_of(newcomer).data, WALL)
    village.call(door, lambda life: life.registry_changed(village.instant(door)))
    village.until(lambda: all(newcomer in village.houses[peer].registry.members for peer in village.living), within=5.0)
    assert all(newcomer in village.life(peer).view for peer in village.living)


@pytest.mark.fault("slow links")
def test_two_seconds_of_latency_with_one_of_jitter_kill_nobody() -> None:
    village = Village(12, rules=EDGE, delay=(1.0, 3.0))
    village.run(60.0)
    for _ in range(100):
        village.run(6.0)
        assert village.agree()


@pytest.mark.fault("one-way link")
def test_a_link_that_carries_one_way_only_kills_nobody_and_both_ends_dial_again() -> None:
    village = settled(16)
    one = village.living[0]
    other = village.life(one).snapshot().watched[0]
    village.cut(one, other)
    dials = {peer: len(village.houses[peer].dials) for peer in (one, other)}
    for _ in range(60):
        village.run(2.0)
        assert village.agree()
    assert all(len(village.houses[peer].dials) > dials[peer] for peer in (one, other))
    village.heal()
    village.run(10.0)
    assert other in village.houses[one].links


@pytest.mark.fault("split")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_two_halves_go_on_alone_for_ten_minutes_and_are_one_again(seed: int) -> None:
    village = settled(16, seed)
    halves = village.living[:8], village.living[8:]
    village.split(*halves)
    village.run(600.0)
    assert all(village.life(peer).view.live == tuple(half) for half in halves for peer in half)
    village.heal()
    village.until(village.agree, within=HEALED_S)


@pytest.mark.fault("split")
def test_a_split_of_a_minute_is_healed_within_90_s() -> None:
    for seed in range(2):
        village = settled(16, seed)
        village.split(village.living[::2], village.living[1::2])
        village.run(60.0)
        village.heal()
        village.until(village.agree, within=90.0)


@pytest.mark.fault("split")
def test_a_split_in_three_heals_though_another_begins_meanwhile() -> None:
    village = settled(15)
    everyone = village.living
    village.split(everyone[:5], everyone[5:10], everyone[10:])
    village.run(120.0)
    village.heal()
    village.run(0.2)
    village.split(everyone[::2], everyone[1::2])
    village.run(120.0)
    village.heal()
    village.until(village.agree, within=HEALED_S)


@pytest.mark.fault("long split")
def test_a_split_of_more_than_a_day_heals_from_stubs() -> None:
    """Slow timers, so that a day is few events: what counts is that the tombstones are stubs by then."""
    slow = replace(LAN, probe_interval_s=120.0, probe_timeout_s=5.0, restate_s=60.0, push_pull_s=600.0, reconnect_s=600.0)
    slow = replace(slow, reconnect_max_s=3600.0, reconnect_patience_s=120.0)
    village = Village(6, rules=slow)
    village.run(600.0)
    assert village.agree()
    halves = village.living[:3], village.living[3:]
    village.split(*halves)
    village.run(25 * 3600.0)
    stones = village.life(halves[0][0])._census.tombstones
    assert all((stone := stones.get(peer)) is not None and stone.standing is None for peer in halves[1])
    village.heal()
    village.until(village.agree, within=2 * 1.5 * 3600.0 + 2 * 1.5 * 600.0, step=60.0)


@pytest.mark.fault("alone")
def test_who_is_cut_off_from_all_knows_since_when_and_dials_less_and_less() -> None:
    village = settled(8)
    lonely = village.living[0]
    began = village.now
    village.split([lonely], village.living[1:])
    village.run(600.0)
    snapshot = village.life(lonely).snapshot()
    assert snapshot.live == (lonely,) and len(snapshot.dead) == 7
    assert snapshot.alone_since is not None and began <= snapshot.alone_since <= began + 20.0
    dials = [moment for moment in village.houses[lonely].dials if moment > began]
    assert len(dials) <= 60
    village.heal()
    village.until(village.agree, within=HEALED_S)
    assert village.life(lonely).snapshot().alone_since is None


@pytest.mark.fault("alone")
def test_who_loses_its_last_link_looks_for_others_within_two_seconds_though_it_last_looked_just_now() -> None:
    """It knows eight who are dead, and has just had its turn of looking for them."""
    village = Village(17)
    village.run(10.0)
    lonely, *others = village.living
    village.split([lonely, *others[:8]], others[8:])
    village.run(60.0)
    life = village.life(lonely)
    assert len(life.snapshot().dead) == 8
    for _ in range(200):  # its turn has just come: the next is half a minute off
        due = life._healing.due
        village.run(0.25)
        if life._healing.due > due:
            break
    assert life._healing.due > village.now + 10.0
    village.houses[lonely].dials.clear()
    village.heal()
    village.split([lonely], others)
    village.until(lambda: life.snapshot().alone_since is not None, within=20.0, step=0.05)
    assert life._healing.due <= village.now + 1.5 * LAN.alone_s


def test_the_dead_are_looked_for_until_their_credential_is_over_and_no_longer() -> None:
    village = settled(6)
    victim, *others = village.living
    village.kill(victim, silently=True)
    village.until(village.agree, within=60.0)

    def dials(seconds: float) -> int:
        for peer in others:
            village.houses[peer].dials.clear()
        village.run(seconds)
        return sum(len(village.houses[peer].dials) for peer in others)

    assert dials(300.0) >= 5  # everybody else is linked, so that all of them are to it
    for peer in others:
        del village.houses[peer].registry.members[victim]
        village.call(peer, lambda life, peer=peer: life.registry_changed(village.instant(peer)))  # type: ignore[misc]
    village.run(20.0)
    assert dials(300.0) == 0


@pytest.mark.fault("churn")
def test_half_of_all_leave_and_as_many_join_every_minute() -> None:
    village = settled(16)
    for minute in range(3):
        for k, leaver in enumerate(village.living[::2]):
            village.leave(leaver)
            village.run(0.1)
            village.join(100 + 20 * minute + k, via=village.living[0])
            village.run(60.0 / 8)
        village.until(village.agree, within=60.0)


@pytest.mark.fault("churn")
def test_all_restart_at_once() -> None:
    village = settled(32)
    everyone = village.living
    for peer in everyone:
        village.kill(peer)
    village.run(120.0)
    for peer in everyone:
        village.start(peer)
    village.until(village.agree, within=60.0)


@pytest.mark.fault("sleep")
def test_who_was_stopped_for_a_minute_judges_nobody_and_comes_back_as_itself() -> None:
    village = settled(12)
    sleeper = village.living[4]
    version = village.life(sleeper).record.incarnation
    village.pause(sleeper)
    village.run(60.0)
    assert not any(sleeper in village.life(peer).view for peer in village.living if peer != sleeper)
    village.resume(sleeper)
    assert village.life(sleeper).view.live == tuple(village.living)
    assert village.houses[sleeper].greeted
    village.until(village.agree, within=10.0)
    village.run(60.0)
    assert village.agree() and not village.rejections()
    assert village.life(sleeper).record.incarnation > version


@pytest.mark.fault("sleep")
def test_who_slept_an_hour_with_its_monotonic_clock_judges_nobody() -> None:
    """A laptop's lid: links are gone, monotonic time stood still, the wall's did not."""
    village = settled(8)
    sleeper = village.living[0]
    village.kill(village.living[1])  # it will die while the other sleeps
    village.pause(sleeper)
    village.run(3.0)
    village.houses[sleeper].clock_ahead = 3600.0
    village.resume(sleeper)
    _, longest = LAN.suspicion_s(8)
    village.run(longest / 2)
    assert len(village.life(sleeper).view) == 8
    village.until(village.agree, within=2 * longest)


@pytest.mark.fault("sleep")
def test_who_is_told_that_its_machine_slept_greets_all_and_judges_nobody_for_the_longest_suspicion() -> None:
    """Where the monotonic clock stood still and nobody set the wall's, only the engine can know."""
    village = settled(8)
    sleeper = village.living[0]
    silent = village.life(sleeper).snapshot().watched[0]
    village.kill(silent, silently=True)
    village.run(1.0)
    health = village.life(sleeper).snapshot().health
    village.call(sleeper, lambda life: life.suspended(village.instant(sleeper)))
    assert village.life(sleeper).snapshot().health == health + 1
    house = village.houses[sleeper]
    assert set(house.greeted) == house.links
    _, longest = LAN.suspicion_s(8)
    village.run(0.9 * longest)
    assert silent in village.life(sleeper).view
    village.until(village.agree, within=2 * longest)


@pytest.mark.fault("clocks")
@pytest.mark.parametrize("offset", [-3600.0, -5.0, 600.0, -1.8e9])
def test_clocks_that_are_wrong_kill_nobody(offset: float) -> None:
    village = settled(8)
    village.houses[village.living[2]].clock_ahead = offset
    for _ in range(30):
        village.run(2.0)
        assert village.agree()


def test_the_same_seed_is_the_same_story() -> None:
    stories = []
    for _ in range(2):
        village = settled(8, seed=7, loss=0.2)
        village.kill(village.living[0])
        village.run(30.0)
        stories.append({peer: (house.bytes_sent, house.dials) for peer, house in village.houses.items()})
    assert stories[0] == stories[1]


def test_ids_are_as_public_keys_are() -> None:
    assert len({id_of(k)[0] for k in range(512)}) > 200
