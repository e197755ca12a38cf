"""Two hidden members and two relays, with everything that can befall what is under way: lost, doubled, overtaken, damaged, cut
off with its link, or its sender begun anew. Nothing ever comes out that did not go in, nor twice, nor in another order; and
when it is over, the tunnel is there."""

import hashlib
from collections import deque
from collections.abc import Sized

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Dial, FrameReceived, HangUp, LinkDown, LinkUp, PeerId, Rejected, Send
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay.forwarder import Forwarder
from p2pfl.protocol.relay.tunnel import Outcome
from p2pfl.protocol.relay.tunnels import Tunnels
from sim.entropy import SeededEntropy
from tests.relayed import Around

Frames = tuple[Sized, ...]
LENGTHS = [0, 30_000, 300_000]  # of a second frame: none, a piece, three
ENDS, RELAYS = range(2), range(2)
BEFALLS = st.sampled_from(["lose", "double", "overtake", "damage", "hold back"])
Lane = tuple[int, int, bool]  # the relay, the end that it goes to, bulk


class TunnelMachine(RuleBasedStateMachine):
    """What is under way waits in `lanes`, on the second half of its way: the relays are honest, and their links are not."""

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.seed, self.time, self.lives = seed, 0.0, [0, 0]
        made = sorted((Identity.generate(SeededEntropy(seed, b"%d" % k)) for k in ENDS), key=lambda one: one.peer_id)
        self.identities, self.ids = made, [one.peer_id for one in made]
        self.members = {one.peer_id: Member(one.peer_id, "", "", one.transport_key, one.seal_key) for one in made}
        relay_ids = [PeerId(hashlib.blake2b(b"%d %d" % (seed, k), digest_size=32).digest()) for k in RELAYS]
        self.around = Around({*self.ids, *relay_ids}, relay_ids, set(self.ids))
        self.linked: list[set[PeerId]] = [set() for _ in RELAYS]
        self.is_up = [True, True]
        self.forwarders = [Forwarder(self.around.members, linked.__contains__) for linked in self.linked]
        self.lanes: dict[Lane, deque[Frames]] = {(r, e, bulk): deque() for r in RELAYS for e in ENDS for bulk in (False, True)}
        self.said = {(end, bulk): 0 for end in ENDS for bulk in (False, True)}
        self.heard = dict.fromkeys(self.said, -1)
        self.is_link = [False, False]
        self.tunnels = [self.started(end) for end in ENDS]
        for end in ENDS:
            self.want(end)
        self.drain()

    def started(self, end: int) -> Tunnels:
        entropy = SeededEntropy(self.seed, b"life %d %d" % (end, self.lives[end]))
        keyring = Keyring(self.identities[end], self.members)
        return Tunnels(self.ids[end], bytes(16), keyring, entropy, Choices(self.seed, b"%d" % end), self.around)

    def want(self, end: int) -> None:
        self.follow(end, self.tunnels[end].tick(self.time))
        self.follow(end, self.tunnels[end].asked(Dial(self.ids[1 - end]), self.time))

    # ---- what may happen ------------------------------------------------------------------------------------------------

    @rule(end=st.sampled_from(ENDS), bulk=st.booleans(), length=st.sampled_from(LENGTHS))
    def say(self, end: int, bulk: bool, length: int) -> None:
        number = self.said[end, bulk]
        self.said[end, bulk] = number + 1
        self.follow(end, self.tunnels[end].asked(Send(self.ids[1 - end], message(end, bulk, number, length), bulk), self.time))

    def under_way(self) -> list[Lane]:
        return [lane for lane in sorted(self.lanes) if self.lanes[lane]]

    @precondition(under_way)
    @rule(data=st.data(), count=st.integers(1, 5))
    def deliver(self, data: st.DataObject, count: int) -> None:
        lane = data.draw(st.sampled_from(self.under_way()))
        for _ in range(min(count, len(self.lanes[lane]))):
            self.arrive(lane, self.lanes[lane].popleft())

    @rule()
    def deliver_all(self) -> None:
        self.drain()

    @rule(end=st.sampled_from(ENDS), bulk=st.booleans(), what=BEFALLS, data=st.data())
    def say_much_and_have_it_befallen(self, end: int, bulk: bool, what: str, data: st.DataObject) -> None:
        for length in data.draw(st.lists(st.sampled_from(LENGTHS), min_size=2, max_size=5)):
            self.say(end, bulk, length)
        for lane in [lane for lane in self.under_way() if lane[1:] == (1 - end, bulk)]:
            self.befall(self.lanes[lane], what, data)

    @precondition(under_way)
    @rule(what=BEFALLS, data=st.data())
    def have_it_befallen(self, what: str, data: st.DataObject) -> None:
        self.befall(self.lanes[data.draw(st.sampled_from(self.under_way()))], what, data)

    @staticmethod
    def befall(lane: deque[Frames], what: str, data: st.DataObject) -> None:
        k = data.draw(st.integers(0, len(lane) - 1))
        match what:
            case "lose":
                del lane[k]
            case "double":
                lane.insert(data.draw(st.integers(k, len(lane))), lane[k])
            case "overtake":
                lane.appendleft(lane[k])
                del lane[k + 1]
            case "damage":
                frames = list(lane[k])
                part = bytearray(frames[-1])
                part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
                lane[k] = (*frames[:-1], bytes(part))
            case "hold back":
                lane.append(lane[k])
                del lane[k]

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(end=st.sampled_from(ENDS), is_time=st.sampled_from([False, False, True]))
    def begin_anew(self, end: int, is_time: bool) -> None:
        """The process ends without a word, and another begins."""
        if not is_time:
            return
        self.lives[end] += 1
        for relay in RELAYS:
            self.linked[relay].discard(self.ids[end])
            self.forwarders[relay].unlinked(self.ids[end])
            for bulk in (False, True):
                self.lanes[relay, end, bulk].clear()
        self.is_link[end] = False
        self.tunnels[end] = self.started(end)
        self.want(end)

    @rule(relay=st.sampled_from(RELAYS), is_time=st.sampled_from([False, False, True]))
    def toggle(self, relay: int, is_time: bool) -> None:
        if not is_time:
            return
        self.is_up[relay] = not self.is_up[relay]
        for end in ENDS:
            if self.is_up[relay]:
                self.link(end, relay)
            else:
                self.unlink(end, relay)

    @invariant()
    def the_window_holds_whatever_happens(self) -> None:
        assert all(forwarder.held <= 12 << 20 for forwarder in self.forwarders)

    def teardown(self) -> None:
        """The storm is over: within a minute and a half both have the tunnel, and all goes through it."""
        if not hasattr(self, "tunnels"):
            return
        for relay in RELAYS:
            if not self.is_up[relay]:
                self.toggle(relay, is_time=True)
        for _ in range(180):
            self.drain()
            self.pass_time(0.5)
        self.drain()
        assert all(self.tunnels[end].has(self.ids[1 - end]) and self.is_link[end] for end in ENDS)
        for (end, bulk), number in self.said.items():
            self.say(end, bulk, 300_000)
            self.drain()
            assert self.heard[end, bulk] == number

    # ---- the world ------------------------------------------------------------------------------------------------------

    def arrive(self, lane: Lane, frames: Frames) -> None:
        relay, end, _ = lane
        self.follow(end, self.tunnels[end].heard(FrameReceived(self.around.relay_ids[relay], frames), self.time))

    def drain(self) -> None:
        while any(self.lanes.values()):
            for lane in sorted(self.lanes):
                while self.lanes[lane]:
                    self.arrive(lane, self.lanes[lane].popleft())

    def pass_time(self, seconds: float) -> None:
        until = self.time + seconds
        while (due := min(tunnels.deadline for tunnels in self.tunnels)) <= until:
            self.time = max(self.time, due)
            for end in ENDS:
                if self.tunnels[end].deadline <= self.time:
                    self.follow(end, self.tunnels[end].tick(self.time))
        self.time = until

    def follow(self, end: int, outcomes: list[Outcome]) -> None:
        other = self.ids[1 - end]
        for outcome in outcomes:
            match outcome:
                case LinkUp(peer) if peer == other:
                    assert not self.is_link[end], "up twice"
                    self.is_link[end] = True
                case LinkDown(peer) if peer == other:
                    self.is_link[end] = False
                case FrameReceived(hop, frames):
                    assert hop == other
                    self.came(1 - end, frames)
                case Dial(peer):
                    self.link(end, self.around.relay_ids.index(peer))
                case HangUp(peer):
                    self.unlink(end, self.around.relay_ids.index(peer))
                case Send(to, frames):
                    self.pass_on(end, self.around.relay_ids.index(to), frames)
                case LinkUp() | LinkDown() | Rejected():
                    pass

    def came(self, sender: int, frames: Frames) -> None:
        head = frames[0]
        assert isinstance(head, bytes)
        end, bulk, number, length = map(int, head.split())
        assert end == sender and frames == message(end, bool(bulk), number, length), "not what was said"
        assert self.heard[end, bool(bulk)] < number < self.said[end, bool(bulk)], "again, or out of order"
        self.heard[end, bool(bulk)] = number

    def pass_on(self, end: int, relay: int, frames: Frames) -> None:
        if self.ids[end] not in self.linked[relay]:
            return
        for effect in self.forwarders[relay].heard(self.ids[end], frames, self.time):
            if isinstance(effect, Send):
                self.lanes[relay, self.ids.index(effect.to), effect.bulk].append(effect.frames)

    def link(self, end: int, relay: int) -> None:
        is_up = self.is_up[relay]
        if is_up:
            self.linked[relay].add(self.ids[end])
        event = (LinkUp if is_up else LinkDown)(self.around.relay_ids[relay])
        self.follow(end, self.tunnels[end].heard(event, self.time))

    def unlink(self, end: int, relay: int) -> None:
        if self.ids[end] not in self.linked[relay]:
            return
        self.linked[relay].discard(self.ids[end])
        self.forwarders[relay].unlinked(self.ids[end])
        for bulk in (False, True):
            self.lanes[relay, end, bulk].clear()
        self.follow(end, self.tunnels[end].heard(LinkDown(self.around.relay_ids[relay]), self.time))


def message(end: int, bulk: bool, number: int, length: int) -> Frames:
    head = b"%d %d %d %d" % (end, bulk, number, length)
    return (head, head.ljust(length, b".")) if length else (head,)


TestTunnelMachine = TunnelMachine.TestCase
TestTunnelMachine.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
