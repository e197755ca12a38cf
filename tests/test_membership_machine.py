"""Any story of loss, cuts, splits, sleeps, deaths, restarts, joins and leaves, step by step, and what must hold all along."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.rules import LAN
from p2pfl.protocol.membership.rumors import RUMORS_MAX
from p2pfl.protocol.membership.standing import ACCUSERS_MAX, Version, version_of
from tests.village import Village

PEERS_MAX = 9
FRAME_MAX = 256 * 1024


class VillageMachine(RuleBasedStateMachine):
    """What the village goes through. After it all faults end, and everybody must see everybody again."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[tuple[PeerId, int], Version] = {}
        self.wrong_since: dict[tuple[PeerId, PeerId], float] = {}

    @initialize(count=st.integers(3, 6), seed=st.integers(0, 1000))
    def settle(self, count: int, seed: int) -> None:
        self.village = Village(count, seed)
        self.village.run(5.0)

    def pick(self, k: int) -> PeerId:
        return self.village.living[k % len(self.village.living)]

    @rule(seconds=st.sampled_from([0.3, 2.0, 7.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds))):
            self.village.run(min(seconds, 1.0))
            self.watch_pairs()

    @rule(loss=st.sampled_from([0.0, 0.1, 0.5]))
    def frames_get_lost(self, loss: float) -> None:
        self.village.loss = loss

    @rule(a=st.integers(0, 99), b=st.integers(0, 99))
    def one_way_is_cut(self, a: int, b: int) -> None:
        if self.pick(a) != self.pick(b):
            self.village.cut(self.pick(a), self.pick(b))

    @rule(k=st.integers(1, 99))
    def the_network_splits(self, k: int) -> None:
        living = self.village.living
        at = k % len(living)
        self.village.split(living[:at], living[at:])

    @rule()
    def paths_heal(self) -> None:
        self.village.heal()

    @precondition(lambda self: len(self.village.living) > 2)
    @rule(k=st.integers(0, 99), silently=st.booleans())
    def one_dies(self, k: int, silently: bool) -> None:
        self.village.kill(self.pick(k), silently)

    @precondition(lambda self: len(self.village.living) < len(self.village.houses))
    @rule()
    def the_dead_start_again(self) -> None:
        for peer in sorted(self.village.houses.keys() - set(self.village.living)):
            self.village.start(peer)

    @rule(k=st.integers(0, 99))
    def one_falls_asleep(self, k: int) -> None:
        self.village.pause(self.pick(k))

    @rule()
    def sleepers_wake(self) -> None:
        for peer in self.village.living:
            if self.village.houses[peer].is_paused:
                self.village.resume(peer)

    @precondition(lambda self: len(self.village.houses) < PEERS_MAX)
    @rule(k=st.integers(0, 99))
    def one_joins(self, k: int) -> None:
        self.village.join(100 + len(self.village.houses), via=self.pick(k))

    @precondition(lambda self: len(self.village.living) > 2)
    @rule(k=st.integers(0, 99))
    def one_leaves(self, k: int) -> None:
        leaver = self.pick(k)
        self.village.resume(leaver)
        self.village.leave(leaver)
        self.village.run(0.1)

    @invariant()
    def nobodys_own_record_grows_older(self) -> None:
        for peer in self.village.living:
            life, epoch = self.village.life(peer), self.village.houses[peer].epoch
            version = version_of(life.record)
            assert version >= self.versions.get((peer, epoch), version)
            self.versions[peer, epoch] = version
            assert peer in life.view

    @invariant()
    def every_cap_holds(self) -> None:
        for peer in self.village.living:
            life = self.village.life(peer)
            census = life._census
            assert self.village.houses[peer].largest <= FRAME_MAX
            assert len(census.rumors) <= RUMORS_MAX
            assert len(life.snapshot().watched) <= 8
            assert set(life.view.live).isdisjoint(census.tombstones.dead)
            for other in life.view.live:
                known = life.view.get(other)
                assert known is not None and len(known.standing.accusations) <= ACCUSERS_MAX

    def watch_pairs(self) -> None:
        """A pair that a clean link connects is not dead to each other for longer than two suspicions."""
        village = self.village
        _, longest = LAN.suspicion_s(PEERS_MAX)
        for one in village.living:
            house = village.houses[one]
            for other in house.links:
                is_clean = (
                    village.loss == 0
                    and not village.cuts
                    and not house.is_paused
                    and not village.houses[other].is_paused
                    and village.houses[other].life is not None
                )
                if not is_clean or other in village.life(one).view:
                    self.wrong_since.pop((one, other), None)
                else:
                    since = self.wrong_since.setdefault((one, other), village.now)
                    assert village.now - since <= 2 * longest

    def teardown(self) -> None:
        if not hasattr(self, "village"):
            return
        self.village.loss = 0.0
        self.village.heal()
        self.sleepers_wake()
        self.the_dead_start_again()  # some know the rest only through them
        self.village.until(self.village.agree, within=400.0, step=1.0)


TestVillage = VillageMachine.TestCase
TestVillage.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
