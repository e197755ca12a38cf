"""How long a suspected member has to speak up (Lifeguard, L2: a suspicion that begins long and shrinks as others confirm it).

A peer whose own link is broken suspects everybody and nobody agrees with it; a dead member is suspected by all its neighbors
within a probe. So the time is long with one accuser and short with several.
"""

from dataclasses import dataclass
from math import log


def suspicion_s(confirmations: int, expected: int, shortest: float, longest: float) -> float:
    """longest - (longest - shortest) * ln(confirmations + 1) / ln(expected + 1), at least `shortest`.

    `confirmations` do not count the first accuser; with none `expected`, it is the shortest at once.
    """
    if expected < 1:
        return shortest
    share = log(confirmations + 1) / log(expected + 1)
    return max(shortest, longest - share * (longest - shortest))


@dataclass(slots=True)
class Suspicion:
    """A member that may be dead. `refusals` counts its machine's refusal to let us dial: nobody listens there any more."""

    began: float
    shortest: float
    longest: float
    refusals: int = 0

    def ends(self, accusers: int, expected: int) -> float:
        """When the verdict falls, given how many accuse it by now and how many could confirm."""
        confirmations = max(0, accusers - 1) + self.refusals
        return self.began + suspicion_s(confirmations, expected, self.shortest, self.longest)
