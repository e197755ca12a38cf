"""One tunnel: what a link is between two who can dial each other, for two who can't.

                  want                    Knock / Wake over a relay           Answer, or a first piece
    (nothing) ───────────> seeking ────────────────────────────> knocking ─────────────────────────────> open
                              ^      no answer: the next relay       │                                     │
                              └──────────────────────────────────────┴──── silence, gap, relay lost ───────┘

The member with the lower id is the caller: it knocks, the other asks it to (`Wake`). Each session is another tunnel to the
peer: `LinkDown`, then `LinkUp`, because what the last one carried may be lost. An open one stays until its new one is proved,
so that a stranger's old knock, played again, ends nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import assert_never

from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Dial, FrameReceived, HangUp, LinkDown, LinkUp, PeerId, Rejected, Send
from p2pfl.protocol.identity import Oath
from p2pfl.protocol.randomness import Choices, Entropy
from p2pfl.protocol.relay.handshake import TUNNEL_CONTEXT, Ephemeral, answer_digest, knock_digest, session_keys
from p2pfl.protocol.relay.relay_wire import Answer, Carried, Knock, Taken, Wake, encode
from p2pfl.protocol.relay.session import Piece, Session, Sort, Unwrapped

HANDSHAKE_S = 5.0  # until a knock without an answer counts as failed, and an answer without a piece is forgotten
KEEP_S = 5.0  # something is said at least this often while a tunnel is open
SILENCE_S = 15.0  # nothing was heard for so long: it is broken
STALL_S = 30.0  # and so it is if bulk pieces are under way for so long and none is taken
STEADY_S = 10.0  # who carried for so long is tried again first; who did not, last
RETRY_MIN_S, RETRY_MAX_S = 1.0, 30.0  # between two rounds over all relays; doubles
SESSIONS_REMEMBERED = 4  # pieces of these may still be under way
WAKE_S = 1.0  # nobody makes us knock more often
ASK_S = 2.0  # until an open tunnel in which nobody answers is given up, where somebody says that the other end has none

Outcome = LinkUp | LinkDown | FrameReceived | Dial | HangUp | Send | Rejected
"""What follows. The first three are for the peer, the others for whoever carries out effects."""


@dataclass(frozen=True, slots=True)
class Party:
    """Who we are, and what we draw from."""

    own: PeerId
    network: bytes
    oath: Oath
    entropy: Entropy
    choices: Choices


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A knock, or a wish for one (`ephemeral` None), that waits for what it leads to."""

    relay: PeerId
    ends: float
    ephemeral: Ephemeral | None


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A wake came over this relay while the tunnel was open: either the other end began anew, or the relay made it up."""

    relay: PeerId
    ends: float


@dataclass(frozen=True, slots=True)
class _HalfOpen:
    """We answered. Whether the caller is there, or somebody played its knock again, its first piece tells."""

    session: Session
    ends: float


class Tunnel:
    """Our end of the one with `peer`. `relay` carries it while it is open."""

    def __init__(self, party: Party, peer: PeerId, ways: Callable[[], Sequence[PeerId]], now: float) -> None:
        """`ways` are the relays that we have links with, in the order in which they are tried."""
        self.peer, self.is_wanted = peer, False
        self.relay: PeerId | None = None
        self.tried: set[PeerId] = set()
        self.dropped = 0
        self._party, self._ways = party, ways
        self._is_caller = party.own < peer
        self._session: Session | None = None
        self._attempt: _Attempt | None = None
        self._doubt: _Doubt | None = None
        self._half_open: dict[PeerId, _HalfOpen] = {}
        self._past: deque[bytes] = deque(maxlen=SESSIONS_REMEMBERED)
        self._is_told: bool | None = None  # whether the peer believes it up; None: it was told nothing yet
        self._is_needed_there = False
        self._failures = 0
        self._woken_at = float("-inf")
        self._due = self._opened_at = self._heard_at = self._said_at = self._moved_at = now

    @property
    def is_open(self) -> bool:
        return self._session is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return not (self.is_wanted or self._session or self._attempt or self._half_open)

    @property
    def over(self) -> set[PeerId]:
        """The relays that it is carried by, or may be soon."""
        return {relay for relay in (self.relay, self._attempt.relay if self._attempt else None, *self._half_open) if relay}

    @property
    def deadline(self) -> float:
        """When `tick` has something to do."""
        due = [half.ends for half in self._half_open.values()]
        due += [waited.ends for waited in (self._attempt, self._doubt) if waited is not None]
        if self._session is not None:
            due += [self._said_at + KEEP_S, self._heard_at + SILENCE_S]
            if self._session.is_waiting:
                due.append(self._moved_at + STALL_S)
        elif self.is_wanted and self._attempt is None:
            due.append(self._due)
        return min(due, default=float("inf"))

    # ---- what our peer asks for -----------------------------------------------------------------------------------------

    def want(self, now: float) -> list[Outcome]:
        """Keep it open from now on."""
        if self.is_wanted:
            return []
        self.is_wanted, self._is_told, self._due = True, None, now
        if self._session is None:
            return self._seek(now)
        self._is_told = True
        return [LinkUp(self.peer), self._word(self._session, now)]

    def unwant(self, now: float) -> list[Outcome]:
        """We need it no more. The other end may."""
        if not self.is_wanted:
            return []
        self.is_wanted, self._attempt = False, None
        outcomes = self._tell_down()
        if self._session is not None:
            outcomes.append(self._word(self._session, now))
            self._close_if_useless()
        return outcomes

    def send(self, frames: Sequence[Sized], bulk: bool, now: float) -> list[Outcome]:
        """A message for the other end; dropped and counted where there is no way to it."""
        session = self._session
        if session is None:
            self.dropped += 1
            return []
        was_waiting, dropped = session.is_waiting, session.dropped
        pieces = session.put(frames, bulk)
        self.dropped += session.dropped - dropped
        if session.is_waiting and not was_waiting:
            self._moved_at = now
        return self._sent(session, pieces, now)

    # ---- what comes over a relay ----------------------------------------------------------------------------------------

    def woken(self, relay: PeerId, now: float) -> list[Outcome]:
        """The other end asks us to knock, or the relay says so. Raises `RejectedFrame`."""
        if not self._is_caller:
            raise RejectedFrame(Reason.NO_TUNNEL)
        if now < self._woken_at + WAKE_S or self._attempt is not None:
            return []
        self._woken_at = now
        if self._session is None:
            return self._try(relay, now)
        self._doubt = _Doubt(relay, now + ASK_S)
        return self._sent(self._session, [self._session.say(Sort.ASK)], now)

    def knocked(self, relay: PeerId, knock: Knock, now: float) -> list[Outcome]:
        """Answer. Raises `RejectedFrame`: NO_TUNNEL where the other is not the caller, BAD_SIGNATURE."""
        if self._is_caller:
            raise RejectedFrame(Reason.NO_TUNNEL)
        party, caller = self._party, self.peer
        digest = knock_digest(party.network, caller, party.own, knock.ephemeral)
        if not party.oath.verify(caller, TUNNEL_CONTEXT, digest, knock.signature):
            raise RejectedFrame(Reason.BAD_SIGNATURE)
        ephemeral = Ephemeral.generate(party.entropy)
        digest = answer_digest(party.network, caller, party.own, knock.ephemeral, ephemeral.public)
        keys = session_keys(ephemeral.secret, knock.ephemeral, digest, is_caller=False)
        self._half_open[relay] = _HalfOpen(Session(keys), now + HANDSHAKE_S)
        signature = party.oath.sign(TUNNEL_CONTEXT, digest)
        return [Send(relay, (encode(Answer(caller, knock.ephemeral, ephemeral.public, signature)),))]

    def answered(self, relay: PeerId, answer: Answer, now: float) -> list[Outcome]:
        """Our knock was answered. Raises `RejectedFrame`: NO_TUNNEL for an answer to another, BAD_SIGNATURE."""
        attempt, party = self._attempt, self._party
        if attempt is None or attempt.ephemeral is None or (attempt.relay, attempt.ephemeral.public) != (relay, answer.knock):
            raise RejectedFrame(Reason.NO_TUNNEL)
        digest = answer_digest(party.network, party.own, self.peer, answer.knock, answer.ephemeral)
        if not party.oath.verify(self.peer, TUNNEL_CONTEXT, digest, answer.signature):
            raise RejectedFrame(Reason.BAD_SIGNATURE)
        keys = session_keys(attempt.ephemeral.secret, answer.ephemeral, digest, is_caller=True)
        return self._open(Session(keys), relay, now)

    def carried(self, relay: PeerId, carried: Carried, sealed: memoryview, now: float) -> list[Outcome]:
        """A sealed piece. Raises `RejectedFrame` where nothing else follows."""
        session = self._of(relay, carried.session)
        if session is None:
            return []
        try:
            unwrapped = session.opened(carried.bulk, carried.count, sealed)
        except RejectedFrame as refusal:
            if refusal.reason not in (Reason.GAP, Reason.BAD_FRAMES):
                raise
            return [Rejected(refusal.reason, relay if refusal.reason is Reason.GAP else self.peer), *self._lost(session, now)]
        outcomes = self._open(session, relay, now) if session is not self._session else []
        self._heard_at, self._doubt = now, None
        if unwrapped is not None:
            outcomes += self._came(session, unwrapped, now)
        if self._session is not None and carried.bulk and (count := session.taken_now()) is not None:
            outcomes.append(Send(relay, (encode(Taken(self.peer, session.id, count)),)))
        return outcomes

    def taken(self, relay: PeerId, taken: Taken, now: float) -> list[Outcome]:
        """The other end has so many of our pieces, says the relay. Raises `RejectedFrame`."""
        session = self._of(relay, taken.session)
        if session is None:
            return []
        before = session.taken
        pieces = session.told_taken(taken.count)
        if session.taken > before:
            self._moved_at = now
        return self._sent(session, pieces, now)

    def not_reachable(self, relay: PeerId, now: float) -> list[Outcome]:
        """This relay does not carry any more, by its own word or because our link to it ended."""
        self._half_open.pop(relay, None)
        self.tried.add(relay)
        if self._attempt is not None and self._attempt.relay == relay:
            self._attempt = None
        return self._break(now) if self.relay == relay else self._seek(now)

    def way_opened(self, relay: PeerId, now: float) -> list[Outcome]:
        """We have a link with this relay now."""
        self.tried.discard(relay)
        self._due = min(self._due, now)
        return self._seek(now)

    def tick(self, now: float) -> list[Outcome]:
        """Do what is due."""
        self._half_open = {relay: half for relay, half in self._half_open.items() if half.ends > now}
        if self._attempt is not None and self._attempt.ends <= now:
            self.tried.add(self._attempt.relay)
            self._attempt = None
        session = self._session
        if session is None:
            return self._seek(now)
        is_stalled = session.is_waiting and now >= self._moved_at + STALL_S
        if is_stalled or now >= self._heard_at + SILENCE_S:
            assert self.relay is not None
            self.tried.add(self.relay)
            return self._break(now)
        doubt, outcomes = self._doubt, list[Outcome]()
        if doubt is not None and doubt.ends <= now:
            self._doubt = None
            outcomes = self._try(doubt.relay, now)
        return [*outcomes, self._word(session, now)] if now >= self._said_at + KEEP_S else outcomes

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def _seek(self, now: float) -> list[Outcome]:
        """Try the next relay; after the last one begin again, later."""
        if not self.is_wanted or self._session is not None or self._attempt is not None or now < self._due:
            return []
        way = next((relay for relay in self._ways() if relay not in self.tried), None)
        if way is not None:
            return self._try(way, now)
        self.tried.clear()
        pause = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(self._failures, 16))
        self._failures += 1
        self._due = now + pause * self._party.choices.uniform(0.5, 1.5)
        return [] if self._is_told is False else self._down()

    def _try(self, relay: PeerId, now: float) -> list[Outcome]:
        party = self._party
        if not self._is_caller:
            self._attempt = _Attempt(relay, now + HANDSHAKE_S, None)
            return [Send(relay, (encode(Wake(self.peer)),))]
        ephemeral = Ephemeral.generate(party.entropy)
        self._attempt = _Attempt(relay, now + HANDSHAKE_S, ephemeral)
        digest = knock_digest(party.network, party.own, self.peer, ephemeral.public)
        signature = party.oath.sign(TUNNEL_CONTEXT, digest)
        return [Send(relay, (encode(Knock(self.peer, ephemeral.public, signature)),))]

    def _open(self, session: Session, relay: PeerId, now: float) -> list[Outcome]:
        """Both ends are proved: from here on this is the tunnel."""
        outcomes = self._tell_down()
        self._end_session()
        self._session, self.relay, self._attempt = session, relay, None
        self._half_open.clear()
        self._opened_at = self._heard_at = self._moved_at = now
        self._is_needed_there = True
        outcomes.append(self._word(session, now))
        if self.is_wanted:
            self._is_told = True
            outcomes.append(LinkUp(self.peer))
        return outcomes

    def _lost(self, session: Session, now: float) -> list[Outcome]:
        """Pieces of this session are missing, or make no sense: it brings nothing whole any more."""
        if session is self._session:
            return self._break(now)
        self._half_open = {relay: half for relay, half in self._half_open.items() if half.session is not session}
        return []

    def _break(self, now: float) -> list[Outcome]:
        """The session is over; go on by the same relay if that carried for a while, and by the next one otherwise."""
        assert self.relay is not None
        if now >= self._opened_at + STEADY_S:
            self._failures = 0
            self.tried &= {self.relay}
        else:
            self.tried.add(self.relay)
        self._end_session()
        self._due = now
        return [*self._tell_down(), *self._seek(now)]

    def _came(self, session: Session, unwrapped: Unwrapped, now: float) -> list[Outcome]:
        match unwrapped.sort:
            case Sort.MESSAGE:
                return [FrameReceived(self.peer, unwrapped.frames)]
            case Sort.ASK:
                return [self._word(session, now)]
            case Sort.NEEDED | Sort.NOT_NEEDED:
                self._is_needed_there = unwrapped.sort is Sort.NEEDED
                self._close_if_useless()
                return []
            case _:
                assert_never(unwrapped.sort)

    def _close_if_useless(self) -> None:
        if not self.is_wanted and not self._is_needed_there:
            self._end_session()

    def _end_session(self) -> None:
        if self._session is not None:
            self._past.append(self._session.id)
        self._session = self.relay = self._doubt = None

    def _of(self, relay: PeerId, session: bytes) -> Session | None:
        """None: one that is over here, of which something was still under way. Raises `RejectedFrame`."""
        if session in self._past:
            return None
        if self._session is not None and (self.relay, self._session.id) == (relay, session):
            return self._session
        half = self._half_open.get(relay)
        if half is None or half.session.id != session:
            raise RejectedFrame(Reason.NO_TUNNEL)
        return half.session

    def _word(self, session: Session, now: float) -> Outcome:
        """Show that we are there, and whether we need the tunnel."""
        (word,) = self._sent(session, [session.say(Sort.NEEDED if self.is_wanted else Sort.NOT_NEEDED)], now)
        return word

    def _sent(self, session: Session, pieces: Sequence[Piece], now: float) -> list[Outcome]:
        if self.relay is None or not pieces:
            return []
        self._said_at = now
        heads = [encode(Carried(self.peer, session.id, piece.bulk, piece.count)) for piece in pieces]
        return [Send(self.relay, (head, one.sealed), one.bulk) for head, one in zip(heads, pieces, strict=True)]

    def _tell_down(self) -> list[Outcome]:
        return self._down() if self._is_told else []

    def _down(self) -> list[Outcome]:
        self._is_told = False
        return [LinkDown(self.peer)]
