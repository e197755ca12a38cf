"""What links are to a peer, and tunnels where no link can be: everything that goes out or comes in passes here.

`tunnels.Tunnels` decides; this carries out, and rings at its deadline.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sized
from typing import Any

from node.transport.links import Links
from node.transport.sockets import Frames
from p2pfl.protocol.events import (
    Dial,
    Event,
    FrameReceived,
    HangUp,
    LinkDown,
    LinkUp,
    PeerId,
    Rejected,
    Send,
)
from p2pfl.protocol.relay.tunnel import Outcome
from p2pfl.protocol.relay.tunnels import Tunnels

UNRELAYED = "neither of us can be dialled, and no relay carries between us yet"


class Ways:
    """Carries out `Dial`, `HangUp` and `Send`, and tells what `Links` tells, in the same manner. Counters are per member, of
    messages and their bytes before they are sealed; what a relay was handed for others is in its own as well."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tunnels: Tunnels,
        on_event: Callable[[Event], None],
    ) -> None:
        """Begins with `over`."""
        self.on_rejected: Callable[[Rejected], None] = lambda _rejected: None
        """Hears what came over a relay and was refused."""
        self._loop = loop
        self._tunnels = tunnels
        self._on_event = on_event
        self._wanted: set[PeerId] = set()
        self._sent: Counter[PeerId] = Counter()
        self._received: Counter[PeerId] = Counter()
        self._muted_until: dict[PeerId, float] = {}
        self._muted = 0
        self._events: deque[Event] = deque()
        self._telling: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def over(self, links: Links) -> None:
        """These are the links, whose events go to `heard`."""
        self._links = links
        self._set_alarm()

    def heard(self, event: Event) -> None:
        """From the links."""
        if isinstance(event, LinkUp | LinkDown | FrameReceived):
            self._carry_out(self._tunnels.heard(event, self._loop.time()))
        else:
            self._events.append(event)
        self._tell()

    # ---- as links -------------------------------------------------------------------------------------------------------

    def dial(self, peer: PeerId) -> None:
        """Keep a way to this member from now on."""
        self._wanted.add(peer)
        self._ask(Dial(peer))

    def hang_up(self, peer: PeerId) -> None:
        """Keep none any more."""
        self._wanted.discard(peer)
        self._ask(HangUp(peer))

    def send(self, to: PeerId, frames: Frames, bulk: bool = False) -> None:
        """Hand a message over; it may be lost. Never waits."""
        if self._tunnels.has(to):
            self._sent[to] += sum(map(len, frames))
        self._ask(Send(to, tuple(frames), bulk))

    def answer(self, to: PeerId, frames: Frames) -> None:
        """See `Links.answer`; nobody dials us through a relay."""
        self._links.answer(to, frames)

    def members_changed(self) -> None:
        """Look again at who is a member, with which keys and at which addresses."""
        self._links.members_changed()
        self.view_changed()

    def view_changed(self) -> None:
        """Look again at which relays are live."""
        self._carry_out(self._tunnels.members_changed(self._loop.time()))
        self._tell_soon()

    def mute(self, peer: PeerId, until: float) -> None:
        """Pass nothing of this member on until this moment of the loop's clock."""
        self._links.mute(peer, until)
        self._muted_until[peer] = until

    def cycle_listener(self) -> None:
        self._links.cycle_listener()

    def close(self) -> None:
        """The links are closed by whoever opened them."""
        for handle in (self._alarm, self._telling):
            if handle is not None:
                handle.cancel()

    @property
    def through(self) -> dict[PeerId, PeerId]:
        """Members at the other end of an open tunnel, and the relay that carries it."""
        return self._tunnels.tunnels

    def account(self) -> dict[str, Any]:
        """For a status."""
        return self._tunnels.account()

    @property
    def dialled(self) -> dict[PeerId, str]:
        """To whom a way is kept, and why there is none now; "" where there is one, or an attempt is under way."""
        linked, through = self._links.dialled, self.through
        apart = {peer: "" if peer in through else UNRELAYED for peer in sorted(self._wanted - linked.keys())}
        return linked | apart

    @property
    def bytes_sent(self) -> Counter[PeerId]:
        return self._links.bytes_sent + self._sent

    @property
    def bytes_received(self) -> Counter[PeerId]:
        return self._links.bytes_received + self._received

    @property
    def bytes_in_all(self) -> tuple[int, int]:
        """Sent and received over links: what goes through a relay counts once."""
        return self._links.bytes_in_all

    @property
    def dropped(self) -> Mapping[PeerId, int]:
        """Messages not sent, because there was no way, or its outbox was full."""
        return self._links.dropped + self._tunnels.dropped

    @property
    def refused(self) -> int:
        return self._links.refused

    @property
    def unknown(self) -> int:
        return self._links.unknown

    @property
    def muted(self) -> int:
        return self._links.muted + self._muted

    @property
    def cycles(self) -> int:
        return self._links.cycles

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def _ask(self, effect: Dial | HangUp | Send) -> None:
        self._carry_out(self._tunnels.asked(effect, self._loop.time()))
        self._tell_soon()

    def _carry_out(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Send(to, frames, bulk):
                    self._links.send(to, frames, bulk)  # type: ignore[arg-type]  # buffers, says whoever made them
                case FrameReceived(hop, frames):
                    if not self._is_muted(hop, frames):
                        self._events.append(outcome)
                case LinkUp() | LinkDown():
                    self._events.append(outcome)
                case Dial(peer):
                    self._links.dial(peer)
                case HangUp(peer):
                    self._links.hang_up(peer)
                case Rejected():
                    self.on_rejected(outcome)
        self._set_alarm()

    def _is_muted(self, hop: PeerId, frames: tuple[Sized, ...]) -> bool:
        """Of who says too much through a relay; who has a link with us is not read there."""
        if not self._tunnels.has(hop):
            return False
        self._received[hop] += sum(map(len, frames))
        if self._muted_until.get(hop, 0.0) <= self._loop.time():
            return False
        self._muted += 1
        return True

    def _tell_soon(self) -> None:
        """From the loop: whoever asked is in the middle of something."""
        if self._events and self._telling is None:
            self._telling = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = None
        while self._events:
            self._on_event(self._events.popleft())

    def _set_alarm(self) -> None:
        deadline, alarm = self._tunnels.deadline, self._alarm
        if alarm is not None and alarm.when() == deadline:
            return
        if alarm is not None:
            alarm.cancel()
        self._alarm = None if deadline == float("inf") else self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._carry_out(self._tunnels.tick(self._loop.time()))
        self._tell()
