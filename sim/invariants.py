"""What must hold in every run, whatever happens to it; looked at from outside, while it runs.

- Nothing is lost unseen. What a peer was told of and did not refuse before it knew the signature, it has applied, rejected,
  superseded, lost, or holds. And between two peers, sent + duplicated = told + lost on the way + in flight; at least that where
  messages also wait inside a machine, for its disk or because it is paused, and end with it.
- At most two updates of a neighbor are held.
- No peer uses a sequence number twice, and none applies an update twice.
- Every model is finite.
- An age grows by one's own steps, and by what the charter lets a neighbor add.

What an event can break is checked at that event; the books of a peer whenever it has learned, which every update ends up in,
with all of whom it was told or held anything since the last time; all books, and those between all pairs, every `EVENTS`
events and at the end. Peers in the hands of an attacker are excused from what they send, their neighbors from nothing. A
violation is a bug of ours and ends the run.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NoReturn, cast

from p2pfl.failure import ExitCode, Failure
from p2pfl.learning.codec import is_within
from p2pfl.protocol import wire
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Effect, Event, FrameReceived, Learn, Learned, LearnFailed, PeerId, Rejected, Send
from p2pfl.protocol.ledger import Ledger, PairCounts
from p2pfl.protocol.peer import Peer

if TYPE_CHECKING:
    from sim.events import Federation
    from sim.host import Host

EVENTS = 10_000  # between two looks at all pairs: less than a microsecond an event with 1,000 peers
HELD_MAX = 2  # updates of one neighbor: this round's, and the newest later one
REMEMBERED = 64  # applied updates of one neighbor; as many as the replay window tells apart

OFFER = next(number for number, kind in wire.KINDS.items() if kind is wire.Offer)
_EARLY = frozenset(list(Reason)[: list(Reason).index(Reason.BAD_SIGNATURE) + 1])  # the reasons stand in the order of the checks
_NOTHING = PairCounts()
_ANSWERS = (Learned, LearnFailed)


class Violation(Failure):
    """An invariant does not hold."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("invariant_violated", message, hint, ExitCode.BUG)

    def repeated_by(self, command: str) -> "Violation":
        """The same, for people who typed a command."""
        return Violation(self.message, f"{self.hint} Or type it again: {command}")


@dataclass(slots=True)
class _Books:
    """One life of one peer, as it is seen from outside."""

    peer: Peer
    offered: tuple[int, int] = (-1, -1)  # (epoch, sequence number) of the last offer
    head: bytes = b""
    age: int = 0
    sent: Counter[PeerId] = field(default_factory=Counter)
    told: Counter[PeerId] = field(default_factory=Counter)  # and not refused early
    learning: list[PeerId] = field(default_factory=list)  # whose updates are in the `Learn` under way
    applied: dict[PeerId, deque[tuple[int, int]]] = field(default_factory=dict)
    moved: set[PeerId] = field(default_factory=set)  # whose books may have changed since they were looked at


class Invariants:
    """Watches a federation."""

    def __init__(self, federation: "Federation") -> None:
        self._federation = federation
        self._books: dict[int, _Books] = {}
        self._told: Counter[tuple[PeerId, int]] = Counter()  # offers, early refusals included: (sender, index of the receiver)
        self._excused: set[int] = set()
        self._next_look = EVENTS
        world = federation.world
        self._is_exact = world.compute.disk_s == 0 and all(one.kind != "pause" for one in world.faults)

    def handled(self, host: "Host", event: Event, effects: list[Effect]) -> None:
        """A peer was told this, and asked for that; nothing of it is carried out yet."""
        books = self._books.get(host.index)
        if books is None or books.peer is not host.peer:
            books = self._books[host.index] = _Books(host.peer, age=host.peer.age)
        if host.is_hostile:
            self._excused.add(host.index)
        is_refused = False
        if isinstance(event, _ANSWERS):
            books.learning = []
        for effect in effects:
            if isinstance(effect, Send):
                if _is_offer(effect.frames):
                    self._check_offer(host, books, effect)
            elif isinstance(effect, Learn):
                books.learning = [update.sender for update in effect.mixes]
            elif isinstance(effect, Rejected):
                is_refused = effect.reason in _EARLY
        if isinstance(event, FrameReceived):
            if _is_offer(event.frames):
                self._told[event.hop, host.index] += 1
                books.told[event.hop] += not is_refused
                books.moved.add(event.hop)
        elif isinstance(event, Learned):
            self._check_learned(host, books, event)
            self._check_books(host, books, books.moved)

    def stepped(self) -> None:
        """One event is over, and all that came of it was carried out."""
        if self._federation.agenda.steps >= self._next_look:
            self._next_look += EVENTS
            self.check_all()

    def check_all(self) -> None:
        """All books, of every peer and between all pairs."""
        hosts = self._federation.hosts
        for index, books in self._books.items():
            self._check_books(hosts[index], books, {*books.told, *books.sent})
        for host in hosts:
            if host.index not in self._excused:
                self._check_links(host)

    def _check_offer(self, host: "Host", books: _Books, send: Send) -> None:
        books.sent[send.to] += 1
        books.moved.add(send.to)
        head = cast(bytes, send.frames[0])
        if head is books.head:
            return  # the same offer to another of its readers
        reader = self._federation.reader
        header = reader.decode_header(cast(wire.Offer, reader.decode(head)).header)
        number = header.boot_epoch, header.seq
        if number <= books.offered:
            self._violated(host, f"uses sequence number {header.seq} again")
        books.offered, books.head = number, head

    def _check_learned(self, host: "Host", books: _Books, event: Learned) -> None:
        for verdict in event.verdicts:
            if verdict.reason is None:
                seen = books.applied.setdefault(verdict.sender, deque(maxlen=REMEMBERED))
                number = verdict.epoch, verdict.seq
                if number in seen:
                    self._violated(host, f"applies update {number} of {self._name(verdict.sender)} again")
                seen.append(number)
        if not is_within(host.state.vector, inf):
            self._violated(host, "has a model that is not finite")
        age, grown = host.peer.age, host.peer.age - books.age
        gossip = self._federation.world.gossip
        most = host.learner.local_steps + (gossip.age_cap if gossip.mode == "async" and event.verdicts else 0)
        if not 0 <= grown <= most:
            self._violated(host, f"grows by {grown} steps in one Learn, from age {books.age} to {age}")
        books.age = age

    def _check_books(self, host: "Host", books: _Books, among: Iterable[PeerId]) -> None:
        """The books with these peers. What is held or learned now may have moved at the next look."""
        ledger, held = books.peer.ledger, [update.sender for update in books.peer.inbox.slots]
        for peer in among:
            if (count := held.count(peer)) > HELD_MAX:
                self._violated(host, f"holds {count} updates of {self._name(peer)}")
            counts, told, sent = ledger.pairs.get(peer, _NOTHING), books.told.get(peer, 0), books.sent.get(peer, 0)
            known = counts.applied + counts.rejected + counts.superseded + counts.lost
            there = count + books.learning.count(peer)
            if told != known + there:
                accounts = f"accounts for {known + there}: {counts}, {there} held"
                self._violated(host, f"was told of {told} updates of {self._name(peer)} and {accounts}")
            if sent != counts.sent:
                self._violated(host, f"sent {sent} updates to {self._name(peer)} and counted {counts.sent}")
        books.moved = {*held, *books.learning}

    def _check_links(self, sender: "Host") -> None:
        links = self._federation.links
        for peer, sent in _sent(sender.ledgers).items():
            receiver = self._federation.host_of(peer)
            pair = sender.index, receiver.index
            told = self._told[sender.id, receiver.index]
            missing = sent + links.duplicated[pair] - told - links.lost[pair] - links.flying[pair]
            if missing < 0 or (missing > 0 and self._is_exact):
                self._violated(
                    sender,
                    f"sent {sent} updates to {receiver.name}; {links.duplicated[pair]} were doubled, {links.lost[pair]} lost, "
                    f"{links.flying[pair]} are under way, and {told} arrived",
                )

    def _name(self, peer: PeerId) -> str:
        return self._federation.host_of(peer).name

    def _violated(self, host: "Host", what: str) -> NoReturn:
        agenda, seed = self._federation.agenda, self._federation.world.seed
        raise Violation(
            f"{host.name} {what} (at {agenda.now:g} s, event {agenda.steps}, seed {seed}).",
            f"It is a bug of p2pfl: please report it. The same scenario with seed {seed} repeats it.",
        )


def _is_offer(frames: tuple[object, ...]) -> bool:
    head = cast(bytes, frames[0])
    return len(head) > 2 and head[2] == OFFER


def _sent(lives: Iterable[Ledger]) -> Counter[PeerId]:
    total: Counter[PeerId] = Counter()
    for ledger in lives:
        for peer, counts in ledger.pairs.items():
            total[peer] += counts.sent
    return total
