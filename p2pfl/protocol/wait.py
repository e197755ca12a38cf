"""The wait of a round: whose update can still come, how long that is worth waiting for, and which round comes next.

A round waits for those its plan names whose link is up, until all of them are here or its deadline has come. What a neighbor
does changes only whether this neighbor is awaited; so `look_at` looks at one, however many there are.

Patience follows how late everybody was, those included who came too late to be mixed: else a link that once became slower than
the deadline would exchange nothing for ever.
"""

from collections import deque
from math import inf

from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.neighbors import Neighbor, Neighbors
from p2pfl.protocol.round import Plan, Waits
from p2pfl.protocol.slots import Arriving, Slots

OPINIONS_MIN = 3  # of fewer, one liar would be the lower median
BEGINNINGS = 64  # rounds whose beginning is remembered, to tell how late their updates are


class Wait:
    """One peer's wait for the updates of the round it is in, `slots.round`; begun anew every round."""

    def __init__(
        self, own: PeerId, plan: Plan, rules: GossipRules, neighbors: Neighbors, slots: Slots, is_open: bool = False
    ) -> None:
        """`is_open`: others may come where there are none."""
        self.seconds = 0.0  # that the last one took
        self._is_open = is_open
        self._own = own
        self._plan = plan
        self._rules = rules
        self._neighbors = neighbors
        self._slots = slots
        self._waits = Waits(rules)
        self._began = 0.0
        self._least = 0.0
        # The first of all waits for links as well, for peers start at different times: whom we don't reach yet would go on
        # without our update, and we in the next round without its.
        self._is_gathering = True
        self._named: dict[PeerId, Neighbor] = {}  # whom this round receives from, in canonical order
        self._awaited: set[PeerId] = set()
        self._unreached: set[PeerId] = set()  # to whom the first round waits for a link
        self._coming: set[PeerId] = set()  # who is in a later round, and whose update of that is on its way
        self._beginnings: deque[tuple[int, float]] = deque(maxlen=BEGINNINGS)
        self._too_late: dict[PeerId, float] = {}  # seconds, of those whose older rounds' updates came since the last mix

    def begin(self, now: float, least: float) -> float:
        """Wait for this round's neighbors from now on, at least so many seconds; returns the deadline."""
        self._began, self._least = now, least
        self._look_at_all()
        patience = self._rules.gather_s if self._is_gathering else self._waits.patience()
        if not self._is_gathering:
            self._beginnings.append((self._slots.round, now))
        return now + max(patience, least)

    def begin_period(self, now: float, seconds: float) -> float:
        """Wait exactly so long, whatever comes, as asynchronous gossip does; returns the deadline."""
        self._began, self._least = now, inf
        return now + seconds

    def follow(self, plan: Plan) -> None:
        """From now on this is the plan, in the wait under way too."""
        self._plan = plan
        self._look_at_all()

    def amend(self, rules: GossipRules) -> None:
        """From the next wait on these hold."""
        self._rules = self._waits.rules = rules

    def look_at(self, peer: PeerId) -> None:
        """Something about this neighbor, or about its update, is not what it was."""
        for peers in (self._awaited, self._unreached, self._coming):
            peers.discard(peer)
        neighbor = self._named.get(peer)
        if neighbor is not None:
            self._look_at_named(peer, neighbor)

    def offered(self, peer: PeerId, now: float) -> None:
        """A neighbor signed an update. If it is of a round that is over here, it shows how long that was too short."""
        step = self._neighbors.of(peer).signed_step
        if step < self._slots.round and (began := self._beginning_of(step)) is not None:
            self._too_late[peer] = now - began

    def is_complete(self, now: float) -> bool:
        """Whether nothing that is worth waiting for can still come."""
        if self._awaited or now < self._began + self._least or self._is_cut_off():
            return False
        # Whoever has to join a later round comes to a network that is under way: the others wait for it, and not it for a dead
        # one of whose death it has yet to hear.
        if self._unreached and self.round_to_join() == self._slots.round:
            return False
        # Whoever has nothing of this round to mix will join a later one, and there it needs what is on its way.
        return not self._coming or self._has_this_round()

    def end(self, now: float) -> None:
        """The wait is over. Remember how late everybody was of whom anything came: once a round, however many updates somebody
        sends. Of whom nothing came there is nothing to learn."""
        self.seconds = now - self._began
        if not self._is_gathering:
            for peer in self._named:
                if (late := self._lateness(peer, now)) is not None:
                    self._waits.observe(min(late, self._rules.ceiling_s))
        self._is_gathering = False
        self._too_late.clear()

    def _lateness(self, peer: PeerId, now: float) -> float | None:
        """Seconds after our own update. Who is further was not late. Of who is cut short it is a guess, as long again, so that
        after a few rounds a transfer that is longer than the deadline has enough."""
        update = self._slots.current(peer)
        if self._slots.later(peer) is not None and (update is None or update.header.step < self._slots.round):
            return 0.0
        began = None if update is None else self._beginning_of(update.header.step)
        if update is None or began is None:
            return self._too_late.get(peer)
        if update.is_whole:
            return update.whole_at - began
        return 2 * (now - began) if self._neighbors.of(peer).is_ready else None

    def _beginning_of(self, round: int) -> float | None:
        """When this round's wait began here, or that of the first one after it."""
        found = None
        for other, began in reversed(self._beginnings):
            if other < round:
                break
            found = began
        return found

    def round_to_join(self, is_new: bool = False) -> int:
        """The round to mix in: a peer that was slow or away, and has nothing to mix in its own round while most neighbors are
        two or more ahead, joins theirs. Who is a single round behind does not: to train for the next is to be there, while two
        who joined each other would go past one another for ever.

        The lower median of what neighbors signed decides, so that fewer than half of them can't exile it with a lie. Whom only
        another round names has an opinion once it has signed something; then there must be a few. It takes a few as well to go
        further than the charter's window at once, but for a newcomer, who has no place of its own to be carried away from.
        """
        round, named = self._slots.round, self._named
        if self._has_this_round():
            return round
        ready = [(peer, one) for peer in self._plan.senders if (one := self._neighbors.of(peer)).is_ready]
        steps = sorted(one.signed_step for peer, one in ready if peer in named or one.signed_step)
        is_scheduled = len(self._plan.senders) > len(named)
        if not steps or (is_scheduled and len(steps) < min(OPINIONS_MIN, len(self._plan.senders))):
            return round
        found = steps[(len(steps) - 1) // 2]
        if found <= round + 1:
            return round
        return found if is_new or len(steps) >= OPINIONS_MIN else min(found, round + self._rules.step_window)

    def _look_at_all(self) -> None:
        senders = (peer for peer in self._plan(self._slots.round).weights if peer != self._own)
        self._named = {peer: self._neighbors.of(peer) for peer in senders}
        for peers in (self._awaited, self._unreached, self._coming):
            peers.clear()
        for peer, neighbor in self._named.items():
            self._look_at_named(peer, neighbor)

    def _look_at_named(self, peer: PeerId, neighbor: Neighbor) -> None:
        if self._is_gathering and not neighbor.is_ready and not neighbor.is_parted:
            self._unreached.add(peer)
        if self._is_awaited(peer, neighbor):
            self._awaited.add(peer)
        elif neighbor.is_ready and self._is_coming(self._slots.later(peer)):
            self._coming.add(peer)

    @staticmethod
    def _is_coming(later: Arriving | None) -> bool:
        """Whether an update of a later round is on its way; one that waits for a place is not."""
        return later is not None and not later.is_whole and bool(later.credited)

    def _has_this_round(self) -> bool:
        """Whether anybody's update of this very round is here, or on its way."""
        round = self._slots.round
        return any((update := self._slots.current(peer)) is not None and update.header.step == round for peer in self._named)

    def _is_awaited(self, peer: PeerId, neighbor: Neighbor) -> bool:
        """Whether this round's update of a neighbor can still come, and is not here."""
        if self._slots.is_settled(peer):
            return False
        update = self._slots.current(peer)
        if update is not None and update.header.step == self._slots.round:
            return not update.is_whole and (update.is_here or neighbor.is_ready)
        return neighbor.is_ready and not neighbor.is_parted and self._slots.later(peer) is None

    def _is_cut_off(self) -> bool:
        """Whether no neighbor that has not parted can be reached. Links come back, and members; a peer that did not wait for
        that would train alone through all its rounds within seconds."""
        remaining = [one for one in self._named.values() if not one.is_parted]
        return (self._is_open or bool(remaining)) and not any(one.is_ready for one in remaining)
