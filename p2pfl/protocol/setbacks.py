"""Learning steps that failed in a row, and what they cost: so that a broken trainer can't spin."""

from dataclasses import dataclass

from p2pfl.protocol.charter import GossipRules

DOUBLINGS_MAX = 6


@dataclass(slots=True)
class Setbacks:
    """`count` of them since a step went well."""

    rules: GossipRules
    count: int = 0

    @property
    def slowdown(self) -> float:
        """By how much a period is longer."""
        return float(2 ** min(self.count, DOUBLINGS_MAX))

    @property
    def penance_s(self) -> float:
        """Seconds to wait at least before the next."""
        if not self.count:
            return 0.0
        return min(max(self.rules.floor_s, 0.1) * self.slowdown, self.rules.ceiling_s)
