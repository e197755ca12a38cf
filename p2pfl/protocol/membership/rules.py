"""How long membership waits before it asks, doubts and gives up: every timer and bound of it, in one place.

The shape is Lifeguard's (Dadgar, Phillips and Currey 2017) as HashiCorp's memberlist runs it; where ours differ the comment
says why.
"""

from dataclasses import dataclass
from math import ceil, log10


@dataclass(frozen=True, slots=True)
class MembershipRules:
    """All durations in seconds. The defaults are for one machine room; `EDGE` is for members far apart."""

    probe_interval_s: float = 1.0  # every watched neighbor is asked once per interval
    probe_timeout_s: float = 0.5  # without an answer after this, others are asked to ask
    rtt_factor: float = 0.0  # the timeout is at least so many smoothed round trips; 0: it never stretches
    helpers: int = 3  # asked to ask, per probe
    suspicion_mult: int = 4  # the shortest suspicion is this * max(1, log10 members) * probe_interval_s
    suspicion_max_mult: int = 6  # the longest is this many of the shortest
    health_max: int = 8  # own slowness stretches a probe up to this many times
    retransmit_mult: int = 4  # a rumor is sent this * ceil(log10(members + 1)) times
    push_pull_s: float = 30.0  # between comparisons with a random neighbor, +- 50 %, so that nobody keeps step
    reconnect_s: float = 30.0  # between dials to the dead, +- 50 %
    reconnect_max_s: float = 600.0  # to one and the same
    reconnect_patience_s: float = 10.0  # an unanswered dial is given up after this
    alone_s: float = 1.0  # the first dial of a peer without any link; doubles up to reconnect_s
    restate_s: float = 2.0  # a record whose neighbors changed is signed anew at most this often: a join moves several at once
    tombstone_s: float = 24 * 3600.0  # who is gone is kept whole for this long, then as a stub
    tombstones_min: int = 1024  # the cap on the gone is the larger of this and
    tombstones_per_member: int = 4  # so many per live member
    lag_s: float = 0.25  # being woken this late is a sign of one's own slowness
    served_bytes: int = 1 << 20  # what one neighbor may pull at once; refilled once per push_pull_s

    def suspicion_s(self, members: int) -> tuple[float, float]:
        """(shortest, longest) suspicion in a network of so many."""
        shortest = self.suspicion_mult * max(1.0, log10(max(1, members))) * self.probe_interval_s
        return shortest, shortest * self.suspicion_max_mult

    def retransmissions(self, members: int) -> int:
        """How often one peer sends a rumor, all neighbors together."""
        return self.retransmit_mult * ceil(log10(members + 1))

    def tombstones(self, members: int) -> int:
        """How many of the gone are remembered."""
        return max(self.tombstones_min, self.tombstones_per_member * members)

    @property
    def fresh_s(self) -> float:
        """A link over which something came within this is live, and overrides what others say."""
        return 2 * self.probe_interval_s

    @property
    def suspend_s(self) -> float:
        """A gap in one's own time as long as this means that one was asleep, not that the others died."""
        return 3 * self.probe_interval_s


LAN = MembershipRules()
EDGE = MembershipRules(probe_interval_s=3.0, probe_timeout_s=1.0, rtt_factor=4.0, suspicion_mult=5, restate_s=6.0)
"""Members far apart, on lines that lose and stall: slower, and a probe waits as long as the line has shown it takes."""
