"""Asking neighbors whether they are there: every watched one, every interval, each at a time of its own.

A probe is a ping; without an answer in time, up to three members that the target names as its neighbors are asked to ask for
us; at its end it is answered or it failed. What follows from that is not decided here.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.health import Health
from p2pfl.protocol.membership.rules import MembershipRules
from p2pfl.protocol.randomness import Choices

TICKETS_MAX = 256  # recent probes whose late answers still tell how long the way is
ERRANDS_MAX = 256  # probes that are run for others at a time
ERRANDS_PER_ORIGIN = 16
RTT_MAX_S = 30.0  # beyond it a way is not slow but broken


class Turn(Enum):
    """What a probe needs now."""

    PING = auto()
    ASK_HELPERS = auto()
    END = auto()


@dataclass(slots=True)
class Probe:
    """One neighbor being asked. `wanted` are helpers without a link yet; `silent` those who were asked and owe at least a
    nack."""

    target: PeerId
    ticket: bytes
    began: float
    asks_at: float
    ends: float
    has_asked: bool = False
    is_answered: bool = False
    is_vouched: bool = False
    has_helpers: bool = False
    wanted: set[PeerId] = field(default_factory=set)
    silent: set[PeerId] = field(default_factory=set)


class Probes:
    """The probes of all watched neighbors, one each at a time."""

    def __init__(self, rules: MembershipRules, health: Health, boot_id: bytes, choices: Choices) -> None:
        self._rules, self._health, self._boot_id, self._choices = rules, health, boot_id, choices
        self._count = 0
        self._due: dict[PeerId, float] = {}
        self._open: dict[PeerId, Probe] = {}
        self._sent: dict[bytes, tuple[PeerId, float]] = {}
        self._rtt: dict[PeerId, float] = {}

    @property
    def deadline(self) -> float:
        """When `turns` has something to say."""
        return min(
            (*self._due.values(), *(probe.ends if probe.has_asked else probe.asks_at for probe in self._open.values())),
            default=float("inf"),
        )

    def watch(self, neighbors: Iterable[PeerId], now: float) -> None:
        """From now on these. A new one is asked first within an interval, so that probes spread over time."""
        watched = set(neighbors)
        self._due = {peer: due for peer, due in self._due.items() if peer in watched}
        self._open = {peer: probe for peer, probe in self._open.items() if peer in watched}
        self._rtt = {peer: rtt for peer, rtt in self._rtt.items() if peer in watched}
        for peer in sorted(watched - self._due.keys() - self._open.keys()):
            self._due[peer] = now + self._choices.uniform(0.0, self._rules.probe_interval_s)

    def hurry(self, peer: PeerId, now: float) -> None:
        """Something happened to this neighbor's link: ask now."""
        if peer in self._due:
            self._due[peer] = now

    def restart(self, now: float) -> None:
        """Forget what is open: one was asleep, and no answer can be expected."""
        for peer in sorted(self._open):
            self._due[peer] = now
        self._open.clear()

    def turns(self, now: float, links: Collection[PeerId]) -> Iterator[tuple[Turn, Probe]]:
        """What is to be done by now, in canonical order. Who has no link can't be pinged: others are asked at once."""
        for peer in sorted(peer for peer, due in self._due.items() if due <= now):
            del self._due[peer]
            probe = self._begin(peer, now)
            if peer in links:
                yield Turn.PING, probe
            else:
                probe.asks_at = now
        for peer in sorted(self._open):
            probe = self._open[peer]
            if not probe.has_asked and probe.asks_at <= now:
                probe.has_asked = True
                if not probe.is_answered:
                    yield Turn.ASK_HELPERS, probe
            if probe.ends <= now:
                del self._open[peer]
                # The next one begins where this ended, not where the loop came to it, so that a late loop catches up.
                self._due[peer] = max(probe.ends, now - self._rules.probe_interval_s)
                yield Turn.END, probe

    def wanting(self, helper: PeerId) -> list[Probe]:
        """The open probes that this member was dialled to help with."""
        return [self._open[peer] for peer in sorted(self._open) if helper in self._open[peer].wanted]

    def of(self, ticket: bytes) -> Probe | None:
        """The open probe with this ticket."""
        sent = self._sent.get(ticket)
        probe = self._open.get(sent[0]) if sent is not None else None
        return probe if probe is not None and probe.ticket == ticket else None

    def answered(self, target: PeerId, ticket: bytes, now: float) -> bool:
        """The target itself answered, perhaps late. False where this was never asked of it."""
        if self._sent.get(ticket, (None, 0.0))[0] != target:
            return False
        rtt = min(now - self._sent.pop(ticket)[1], RTT_MAX_S)
        self._rtt[target] = rtt if target not in self._rtt else 0.875 * self._rtt[target] + 0.125 * rtt
        probe = self._open.get(target)
        if probe is not None and probe.ticket == ticket:
            probe.is_answered = True
        return True

    def _begin(self, peer: PeerId, now: float) -> Probe:
        self._count += 1
        ticket = self._boot_id + self._count.to_bytes(8, "big")
        timeout = max(self._rules.probe_timeout_s, self._rules.rtt_factor * self._rtt.get(peer, 0.0))
        timeout = self._health.stretch(timeout)
        lasts = max(self._health.stretch(self._rules.probe_interval_s), 2 * timeout)
        probe = self._open[peer] = Probe(peer, ticket, now, now + timeout, now + lasts)
        self._sent[ticket] = (peer, now)
        if len(self._sent) > TICKETS_MAX:
            del self._sent[next(iter(self._sent))]
        return probe


@dataclass(frozen=True, slots=True)
class Errand:
    """A probe that is run for `origin`."""

    origin: PeerId
    target: PeerId
    nack_at: float


class Errands:
    """The probes that one runs for others. Bounded in all, and per origin, so that nobody can use them up."""

    def __init__(self) -> None:
        self._errands: dict[bytes, Errand] = {}

    @property
    def deadline(self) -> float:
        """When the next nack is owed."""
        return min((errand.nack_at for errand in self._errands.values()), default=float("inf"))

    def add(self, ticket: bytes, errand: Errand) -> bool:
        """False where there is no room for more."""
        mine = sum(other.origin == errand.origin for other in self._errands.values())
        if len(self._errands) >= ERRANDS_MAX or mine >= ERRANDS_PER_ORIGIN or ticket in self._errands:
            return False
        self._errands[ticket] = errand
        return True

    def answered(self, target: PeerId, ticket: bytes) -> Errand | None:
        """Whom to pass this answer on to."""
        errand = self._errands.get(ticket)
        if errand is None or errand.target != target:
            return None
        return self._errands.pop(ticket)

    def overdue(self, now: float) -> list[tuple[bytes, Errand]]:
        """Those whose target was silent."""
        late = [(ticket, errand) for ticket, errand in self._errands.items() if errand.nack_at <= now]
        for ticket, _ in late:
            del self._errands[ticket]
        return late
