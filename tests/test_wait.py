"""Which round a peer joins, and whom a wait is for."""

from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import Payload, PeerId
from p2pfl.protocol.neighbors import Neighbors
from p2pfl.protocol.round import Plan, RoundPlan, static_plan
from p2pfl.protocol.slots import Arriving, Slots
from p2pfl.protocol.wait import Wait
from p2pfl.protocol.wire import Header

OWN, *OTHERS = (PeerId(bytes([i]) * 32) for i in range(8))
RULES = GossipRules(floor_s=1.0, ceiling_s=5.0, gather_s=9.0)


class Stage:
    """A wait of a peer whose neighbors are all linked and heard, and have signed these steps."""

    def __init__(self, plan: Plan, signed: dict[PeerId, int]) -> None:
        self.neighbors, self.slots = Neighbors(), Slots(staleness=1)
        self.wait = Wait(OWN, plan, RULES, self.neighbors, self.slots)
        for peer in OTHERS:
            self.neighbors.link_up(peer)
            self.neighbors.of(peer).greeted(b"boot")
        for peer, step in signed.items():
            self.neighbors.of(peer).signed(step)
        self.wait.begin(0.0, least=0.0)


def coming(sender: PeerId, step: int) -> Arriving:
    """An update that was offered and credited, and of which nothing is here yet."""
    digest = b"d" * 32
    header = Header(b"n" * 16, digest, digest, sender, b"b" * 16, 1, step + 1, step, 0, 0, 1, 1, digest, digest, digest)
    return Arriving(step, header, 1, (digest,), digest, credited=1)


def one_a_round(count: int) -> Plan:
    """Round r receives from neighbor r modulo `count`, and from nobody else."""
    everybody = tuple(OTHERS[:count])

    def of(round: int) -> RoundPlan:
        sender = everybody[round % count]
        return RoundPlan((sender,), {OWN: 0.5, sender: 0.5})

    return Plan(of, everybody, everybody)


def test_only_those_that_the_round_names_are_awaited() -> None:
    stage = Stage(one_a_round(4), {})
    assert not stage.wait.is_complete(0.0)
    for peer in OTHERS[1:]:
        stage.neighbors.of(peer).link_down()
        stage.wait.look_at(peer)
    assert not stage.wait.is_complete(0.0)
    stage.neighbors.of(OTHERS[0]).is_parted = True
    stage.wait.look_at(OTHERS[0])
    assert stage.wait.is_complete(0.0)


def test_whoever_has_nothing_of_its_round_waits_for_what_a_neighbor_ahead_is_sending() -> None:
    """Else two peers pass each other for ever: each joins the other's round just before the update of that is there."""
    pair = static_plan(OWN, OTHERS[:1], {OWN: 0.5, OTHERS[0]: 0.5})
    stage = Stage(pair, {OTHERS[0]: 2})
    update = coming(OTHERS[0], step=2)
    stage.slots.place(update)
    stage.wait.look_at(OTHERS[0])
    assert not stage.wait.is_complete(0.0)
    update.payload = Payload(1, b"", None)
    stage.wait.look_at(OTHERS[0])
    assert stage.wait.is_complete(0.0) and stage.wait.round_to_join() == 2


def test_whoever_is_a_single_round_behind_stays_to_train_for_the_next() -> None:
    """Else two peers go past each other for ever: where one joins, the other waits for what was never made."""
    pair = static_plan(OWN, OTHERS[:1], {OWN: 0.5, OTHERS[0]: 0.5})
    stage = Stage(pair, {OTHERS[0]: 1})
    stage.slots.place(coming(OTHERS[0], step=1))
    stage.wait.look_at(OTHERS[0])
    assert stage.wait.round_to_join() == 0


def test_whoever_has_this_rounds_update_waits_for_nothing_of_a_later_round() -> None:
    stage = Stage(static_plan(OWN, OTHERS[:2], dict.fromkeys([OWN, *OTHERS[:2]], 1 / 3)), dict.fromkeys(OTHERS[:2], 1))
    here = coming(OTHERS[1], step=0)
    here.payload = Payload(1, b"", None)
    for update in (coming(OTHERS[0], step=1), here):
        stage.slots.place(update)
        stage.wait.look_at(update.sender)
    assert stage.wait.is_complete(0.0) and stage.wait.round_to_join() == 0


def test_a_round_that_names_nobody_is_over_at_once() -> None:
    assert Stage(Plan(lambda round: RoundPlan((), {OWN: 1.0}), (OTHERS[0],), (OTHERS[0],)), {}).wait.is_complete(0.0)


def test_of_all_neighbors_of_a_graph_the_lower_median_says_which_round_it_is() -> None:
    plan = static_plan(OWN, OTHERS[:4], dict.fromkeys([OWN, *OTHERS[:4]], 0.2))
    assert Stage(plan, dict.fromkeys(OTHERS[:2], 50)).wait.round_to_join() == 0  # the two who are silent may be in round 0
    assert Stage(plan, dict(zip(OTHERS[:3], (50, 60, 70), strict=True))).wait.round_to_join() == 50


def test_under_a_schedule_whoever_has_signed_has_an_opinion_and_three_are_the_least() -> None:
    """The neighbor of this round has one too, also where it was not heard of: that it may be here still."""
    assert Stage(one_a_round(6), {OTHERS[1]: 900}).wait.round_to_join() == 0
    assert Stage(one_a_round(6), dict.fromkeys(OTHERS[1:3], 20)).wait.round_to_join() == 20
    assert Stage(one_a_round(6), {OTHERS[0]: 900, OTHERS[1]: 21, OTHERS[2]: 20}).wait.round_to_join() == 21
    assert Stage(one_a_round(2), {OTHERS[0]: 20}).wait.round_to_join() == 0


def test_whoever_was_never_heard_has_no_opinion() -> None:
    stage = Stage(one_a_round(6), dict.fromkeys(OTHERS[:3], 20))
    for peer in OTHERS[:3]:
        stage.neighbors.of(peer).link_down()
    assert stage.wait.round_to_join() == 0


def test_an_update_that_is_here_is_waited_for_until_it_is_open_though_no_link_is_up() -> None:
    """A neighbor that has dialled us may send before our own link to it is up, and opening an update is our own work."""
    stage = Stage(static_plan(OWN, OTHERS[:2], {OWN: 0.5, OTHERS[0]: 0.25, OTHERS[1]: 0.25}), {})
    stage.wait.end(0.0)  # the first of all waits for everybody; the next does not
    stage.wait.begin(0.0, least=0.0)
    update = coming(OTHERS[0], 0)
    stage.slots.place(update)
    stage.neighbors.of(OTHERS[0]).link_down()
    stage.neighbors.of(OTHERS[1]).is_parted = True
    for peer in OTHERS[:2]:
        stage.wait.look_at(peer)
    assert stage.wait.is_complete(0.0) is False  # cut off: nobody is linked
    stage.neighbors.of(OTHERS[1]).is_parted = False
    stage.slots.place(opened := coming(OTHERS[1], 0))
    opened.received, opened.payload = 1, Payload(1, b"", b"v")
    stage.wait.look_at(OTHERS[1])
    assert stage.wait.is_complete(0.0)
    update.received = 1
    stage.wait.look_at(OTHERS[0])
    assert not stage.wait.is_complete(0.0)
    update.payload = Payload(1, b"", b"v")
    stage.wait.look_at(OTHERS[0])
    assert stage.wait.is_complete(0.0)


def test_the_first_round_waits_for_our_link_to_whoever_has_reached_us_and_sent_its_update() -> None:
    """Else the next round would go on without a neighbor who is there, and can be reached one moment later."""
    pair = static_plan(OWN, OTHERS[:1], {OWN: 0.5, OTHERS[0]: 0.5})
    stage = Stage(pair, {})
    stage.neighbors.of(OTHERS[0]).link_down()
    update = coming(OTHERS[0], step=0)
    update.payload = Payload(1, b"", None)
    stage.slots.place(update)
    stage.wait.look_at(OTHERS[0])
    assert not stage.wait.is_complete(0.0)
    stage.neighbors.link_up(OTHERS[0])
    stage.neighbors.of(OTHERS[0]).greeted(b"boot")
    stage.wait.look_at(OTHERS[0])
    assert stage.wait.is_complete(0.0)


def test_whoever_comes_to_a_network_that_is_under_way_waits_for_no_link_to_a_dead_neighbor() -> None:
    """It hears of the death only after a suspicion; meanwhile all others would wait for it in every round."""
    stage = Stage(static_plan(OWN, OTHERS[:3], dict.fromkeys([OWN, *OTHERS[:3]], 0.25)), dict.fromkeys(OTHERS[:2], 0))
    stage.neighbors.of(OTHERS[2]).link_down()
    stage.wait.look_at(OTHERS[2])
    for peer, step in zip(OTHERS[:2], (30, 31), strict=True):
        assert not stage.wait.is_complete(0.0)
        stage.neighbors.of(peer).signed(step)
        update = coming(peer, step)
        update.received, update.payload = 1, Payload(1, b"", None)
        stage.slots.place(update)
        stage.wait.look_at(peer)
    assert stage.wait.is_complete(0.0) and stage.wait.round_to_join() == 30
