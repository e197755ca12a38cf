"""Whom to look for: the dead, and the members one began with, for as long as they are members.

A network that was cut in two heals because both halves go on dialling each other, however long it takes (memberlist forgets
the dead after 30 s, and then never meets them again). A dial every half a minute, with a chance of dead / live, makes one dial
per dead member and half minute from all of them together, however many they are; a target that does not answer is dialled less
and less often.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.rules import MembershipRules
from p2pfl.protocol.randomness import Choices


@dataclass(frozen=True, slots=True)
class _Target:
    due: float
    backoff_s: float


class Healing:
    """Which member to dial, and when."""

    def __init__(self, rules: MembershipRules, choices: Choices, now: float) -> None:
        self._rules, self._choices = rules, choices
        self._targets: dict[PeerId, _Target] = {}
        self._hoped: set[PeerId] = set()
        self._alone_s = rules.alone_s
        self.due = now + self._jittered(rules.alone_s)

    def target(self, now: float, dead: Sequence[PeerId], live: int, is_alone: bool) -> PeerId | None:
        """Whom to dial now, if anybody. `live` are the others in the view. Sets when to ask again.

        Without any link everybody is worth a dial, at once and then less and less often, up to the usual pace.
        """
        self._forget_all_but(dead)
        self.due = now + self._jittered(self._pace(is_alone))
        awaited = [peer for peer in dead if peer not in self._targets or self._targets[peer].due <= now]
        hoped = [peer for peer in awaited if peer in self._hoped]
        if not awaited:
            return None
        chance = 1.0 if is_alone or live == 0 or hoped else min(1.0, len(dead) / live)
        if self._choices.uniform(0.0, 1.0) >= chance:
            return None
        pool = hoped or awaited
        chosen = pool[self._choices.below(len(pool))]
        self._hoped.discard(chosen)
        if len(hoped) > 1:
            self.due = min(self.due, now + self._jittered(self._rules.alone_s))
        self._targets[chosen] = self._later(chosen, now, len(dead))
        return chosen

    def hope(self, peer: PeerId, now: float) -> None:
        """A neighbor sees a dead member alive. Its word brings nobody back, but a dial may, and is due soon."""
        target = self._targets.get(peer)
        if target is None or target.due <= now:
            self._hoped.add(peer)
            self.due = min(self.due, now + self._jittered(self._rules.alone_s))

    def met(self, now: float) -> None:
        """Somebody who was gone is back: whatever kept us apart may be over, so all are worth a dial again."""
        self._targets.clear()
        self._alone_s = self._rules.alone_s
        self.due = min(self.due, now + self._jittered(self._rules.alone_s))

    def alone(self, now: float) -> None:
        """The last link is gone: look for others at once, and then less and less often."""
        self._alone_s = self._rules.alone_s
        self.due = min(self.due, now + self._jittered(self._rules.alone_s))

    def _pace(self, is_alone: bool) -> float:
        if not is_alone:
            self._alone_s = self._rules.alone_s
            return self._rules.reconnect_s
        pace = self._alone_s
        self._alone_s = min(2 * pace, self._rules.reconnect_s)
        return pace

    def _later(self, peer: PeerId, now: float, dead: int) -> _Target:
        """Doubles up to the limit; where few are dead the limit is lower, because there is nobody else to dial meanwhile."""
        old = self._targets.get(peer)
        most = min(self._rules.reconnect_max_s, self._rules.reconnect_s * dead)
        backoff = min(most, 2 * old.backoff_s) if old is not None else min(most, self._rules.reconnect_s)
        return _Target(now + self._jittered(backoff), backoff)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._choices.uniform(0.5, 1.5)

    def _forget_all_but(self, dead: Iterable[PeerId]) -> None:
        kept = set(dead)
        self._hoped &= kept
        self._targets = {peer: target for peer, target in self._targets.items() if peer in kept}
