"""What a round is: whom to send to, with which weights to mix, how long to wait, and how ages merge."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median_low

from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import PeerId


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """`send_to` are this round's readers; `weights` are over those one receives from, oneself included, and sum to 1."""

    send_to: tuple[PeerId, ...]
    weights: Mapping[PeerId, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom a peer gossips with: called with a round, from 0, it gives that round's plan.

    of: a pure function of the round; whoever makes it knows the members and the graph. readers, senders: everyone that any
    round sends to, or receives from, oneself excluded and in canonical order.
    """

    of: Callable[[int], RoundPlan]
    readers: tuple[PeerId, ...]
    senders: tuple[PeerId, ...]
    near: tuple[PeerId, ...] = field(init=False)  # both: whom to keep links to

    def __post_init__(self) -> None:
        object.__setattr__(self, "near", tuple(sorted({*self.readers, *self.senders})))

    def __call__(self, round: int) -> RoundPlan:
        return self.of(round)


def static_plan(own: PeerId, send_to: Iterable[PeerId], weights: Mapping[PeerId, float]) -> Plan:
    """The same neighbors and weights every round. `weights` must name `own` and sum to 1."""
    plan = round_plan(own, send_to, weights)
    return Plan(lambda _round: plan, plan.send_to, tuple(peer for peer in plan.weights if peer != own))


def round_plan(own: PeerId, send_to: Iterable[PeerId], weights: Mapping[PeerId, float]) -> RoundPlan:
    """One round's, in canonical order. `weights` must name `own` and sum to 1."""
    if own not in weights or abs(sum(weights.values()) - 1.0) > 1e-9:
        raise ValueError("the weights of a plan include the peer itself and sum to 1")
    return RoundPlan(tuple(sorted(send_to)), dict(sorted(weights.items())))


class Waits:
    """How late neighbors were, and the deadline that follows: clamp(floor, median + k * MAD, ceiling).

    MAD is the median absolute deviation. Both medians ignore what fewer than half of the observations say, so that a few slow
    or stalling neighbors can't stretch the deadline; of two middle ones they take the lower.
    """

    REMEMBERED = 64  # observations; enough for a median, few enough to follow a change of pace
    ENOUGH = 4  # below this the ceiling holds

    def __init__(self, rules: GossipRules) -> None:
        self.rules = rules
        self._seen: deque[float] = deque(maxlen=self.REMEMBERED)

    def observe(self, seconds: float) -> None:
        """A neighbor's update came this long after one's own was trained; negative where it came before."""
        self._seen.append(seconds)

    def patience(self) -> float:
        """Seconds to wait for those who are missing."""
        if len(self._seen) < self.ENOUGH:
            return self.rules.ceiling_s
        middle = median_low(self._seen)
        deviation = median_low(abs(seconds - middle) for seconds in self._seen)
        return min(max(self.rules.floor_s, middle + self.rules.deviations * deviation), self.rules.ceiling_s)


def age_weights(own: PeerId, own_age: int, arrived: Mapping[PeerId, int], cap: int) -> tuple[dict[PeerId, float], int]:
    """Weights of merging one arrived vector after the other, each by its share of the ages, and the age that results.

    Per arrival, in canonical order: a = age_r / (age_r + age), x <- (1 - a) x + a x_r, age <- max(age, age_r) (Hegedus,
    Danner, Jelasity 2019, algorithm 1). An age is believed up to one's own + `cap`, in the weight and in the age that
    results, so that a lie moves a peer by a bounded amount and does not spread.
    """
    weights, age = {own: 1.0}, own_age
    for sender, claimed in sorted(arrived.items()):
        believed = min(claimed, own_age + cap)
        share = believed / (believed + age) if believed + age else 0.5
        weights = {peer: weight * (1 - share) for peer, weight in weights.items()} | {sender: share}
        age = max(age, believed)
    return weights, age


def newcomer_weights(own: PeerId, weights: Mapping[PeerId, float], arrived: Iterable[PeerId]) -> dict[PeerId, float]:
    """A newcomer's own vector has learned next to nothing: whose updates arrived share its weight."""
    present = {peer: weights[peer] for peer in arrived}
    total = sum(present.values())
    return {own: 0.0} | {peer: weight / total for peer, weight in present.items()}
