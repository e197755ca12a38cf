"""The virtual network: when a message that is sent over a link arrives, whether it does, and what its ends know of the link.

Every ordered pair of peers has two lanes, like the two connections of a live link: one for small messages, one for bulk.
A message is transmitted after those before it in its lane, which takes size / bandwidth, and then travels for the latency.
Order in a lane is kept, as TCP keeps it, but for messages that the scenario reorders.
"""

from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cache, partial
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.protocol import wire
from p2pfl.protocol.events import DialRefused, LinkDown, LinkUp
from p2pfl.protocol.randomness import Choices
from sim.network import FILES, NetworkSection, Spread, spread

if TYPE_CHECKING:
    from sim.events import Federation
    from sim.host import Host

Frames = tuple[Sized, ...]
Pair = tuple[int, int]

Block = Callable[[int, int], bool]
"""(sender, receiver) -> whether nothing gets through."""

LATE_S = 0.01  # how much later than due a reordered message comes at most, where the latency is less


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from one peer to another: what the link takes, times a lognormal factor of each message."""

    of: Callable[[int, int], float]
    sigma: float = 0.0


def latency_of(section: NetworkSection, peers: int, seed: int, beside: Callable[[str], str]) -> Latency:
    """What `network.latency` says; `beside` finds a file that a scenario names."""
    given = section.latency
    if isinstance(given, str) and given.endswith(FILES):
        matrix = _matrix(Path(beside(given)), peers)
        return Latency(lambda i, j: float(matrix[i, j]))
    found = spread(given, ("lognormal", "coordinates"))
    if isinstance(given, str) and given.startswith("coordinates"):
        return _on_a_square(found, seed)
    if found.sigma == 0:
        return Latency(lambda i, j: found.median)

    @cache
    def drawn(low: int, high: int) -> float:
        return found.drawn(Choices(seed, b"latency %d %d" % (low, high)))

    return Latency(lambda i, j: drawn(min(i, j), max(i, j)))


def _on_a_square(side: Spread, seed: int) -> Latency:
    @cache
    def place(peer: int) -> tuple[float, float]:
        choices = Choices(seed, b"place %d" % peer)
        return choices.uniform(0.0, side.median), choices.uniform(0.0, side.median)

    def distance(i: int, j: int) -> float:
        (x, y), (u, v) = place(i), place(j)
        return hypot(x - u, y - v)

    return Latency(distance, side.sigma)


def _matrix(path: Path, peers: int) -> NDArray[np.float64]:
    """[peers, peers] seconds."""

    def refuse(what: str) -> Failure:
        return Failure("bad_latency", f"network.latency: {path}: {what}.", f"It takes a matrix of seconds, {peers} by {peers}.")

    try:
        found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
        matrix = np.asarray(found, dtype=np.float64)
    except OSError as error:
        raise refuse("no such file" if not path.is_file() else str(error)) from None
    except (ValueError, TypeError, EOFError) as error:
        raise refuse(str(error).partition("\n")[0].rstrip(".")) from None
    if matrix.shape != (peers, peers):
        raise refuse(f"it is {' by '.join(map(str, matrix.shape))}")
    if not (np.isfinite(matrix) & (matrix >= 0)).all():
        raise refuse("a latency is negative or not finite")
    return matrix


class Links:
    """All links of a federation. `lost`, `duplicated` and `flying` count offers by (sender, receiver): what becomes of an
    update that its reader never hears of. `bytes` counts what was sent, whether it arrived or not."""

    def __init__(self, federation: "Federation") -> None:
        world = federation.world
        self.lost: Counter[Pair] = Counter()
        self.duplicated: Counter[Pair] = Counter()
        self.flying: Counter[Pair] = Counter()
        self.bytes: Counter[Pair] = Counter()
        self.corrupted: dict[int, float] = {}  # share of the updates of a sender that arrive damaged
        self.tells_refusals = False  # that a dial met nobody; only who has a membership makes something of it
        self._federation = federation
        self._network = world.network
        self._latency = world.latency
        self._factor = Spread(1.0, world.latency.sigma)
        self._chance = Choices(world.seed, b"links")
        self._blocks: list[Block] = []
        self._is_up: dict[Pair, bool] = {}  # what a dialer was told of its link
        self._dialled: dict[int, set[int]] = {}
        self._dialers: dict[int, set[int]] = {}
        self._free_at: dict[tuple[int, int, bool], float] = {}
        self._last_at: dict[tuple[int, int, bool], float] = {}

    # ---- messages -------------------------------------------------------------------------------------------------------

    def send(self, sender: "Host", receiver: "Host", frames: Frames, bulk: bool) -> None:
        """Put a message on a link, which may lose it, and may double it."""
        pair, network = (sender.index, receiver.index), self._network
        is_offer = _is_offer(frames)
        if is_offer:
            self.flying[pair] += 1
        size = sum(map(len, frames))
        self.bytes[pair] += size
        arrives = self._arrives_at(pair, size, bulk)
        if not receiver.is_on or self._is_blocked(*pair) or self._happens(network.loss):
            self._lose(pair, is_offer)
            return
        deliver = partial(self._deliver, sender, receiver, receiver.epoch, frames, is_offer)
        self._federation.agenda.at(arrives, deliver)
        if self._happens(network.duplicate):
            if is_offer:
                self.duplicated[pair] += 1
                self.flying[pair] += 1
            self._federation.agenda.at(self._arrives_at(pair, 0, bulk), deliver)

    def _arrives_at(self, pair: Pair, size: int, bulk: bool) -> float:
        """When a message is there that is sent now."""
        network, now = self._network, self._federation.agenda.now
        lane = (*pair, bulk)
        sent = now
        if network.bandwidth is not None:
            sent = self._free_at[lane] = max(now, self._free_at.get(lane, 0.0)) + size / network.bandwidth
        travel = self._latency.of(*pair)
        if self._factor.sigma:
            travel *= self._factor.drawn(self._chance)
        if network.jitter:
            travel = max(0.0, travel + self._chance.uniform(-network.jitter, network.jitter))
        if self._happens(network.reorder):
            return sent + travel + self._chance.uniform(0.0, max(travel, LATE_S))
        arrives = self._last_at[lane] = max(sent + travel, self._last_at.get(lane, 0.0))
        return arrives

    def _deliver(self, sender: "Host", receiver: "Host", epoch: int, frames: Frames, is_offer: bool) -> None:
        pair = sender.index, receiver.index
        if not receiver.is_on or receiver.epoch != epoch or self._is_blocked(*pair):
            self._lose(pair, is_offer)
            return
        if is_offer:
            self.flying[pair] -= 1
        share = self.corrupted.get(sender.index)
        if share is not None and _is_update(frames) and self._happens(share):
            frames = self._damaged(frames)
        receiver.receive(sender.id, frames)

    def _lose(self, pair: Pair, is_offer: bool) -> None:
        if is_offer:
            self.flying[pair] -= 1
            self.lost[pair] += 1

    def _damaged(self, frames: Frames) -> Frames:
        """One bit of one frame is another: of the larger ones more often."""
        place = self._chance.below(sum(len(frame) for frame in frames if isinstance(frame, bytes)))
        damaged: list[Sized] = []
        for frame in frames:
            if isinstance(frame, bytes) and 0 <= place < len(frame):
                flipped = frame[place] ^ 1 << self._chance.below(8)
                frame = frame[:place] + bytes([flipped]) + frame[place + 1 :]
                place = -1
            elif isinstance(frame, bytes):
                place -= len(frame)
            damaged.append(frame)
        return tuple(damaged)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._chance.uniform(0.0, 1.0) < probability

    # ---- the state of links ---------------------------------------------------------------------------------------------

    def dial(self, dialer: "Host", to: "Host") -> None:
        """Keep a link up from now on: it is one latency after this, and whenever both ends are reachable again."""
        pair = dialer.index, to.index
        self._is_up[pair] = False
        self._dialled.setdefault(dialer.index, set()).add(to.index)
        self._dialers.setdefault(to.index, set()).add(dialer.index)
        self._later(self._latency.of(*pair), self._tell_up, pair)

    def hang_up(self, dialer: "Host", to: "Host") -> None:
        """Let a link go that was dialled."""
        pair = dialer.index, to.index
        self._dialled[dialer.index].discard(to.index)
        self._dialers[to.index].discard(dialer.index)
        if self._is_up.pop(pair, False):
            self._later(0.0, dialer.tell, LinkDown(to.id))

    def cut(self, block: Block) -> None:
        """Nothing gets through from now on where `block` says so. Both ends of such a link learn of it: what goes one way is
        acknowledged the other way."""
        self._blocks.append(block)
        self._look_at_all()

    def heal(self, block: Block) -> None:
        """The end of a cut."""
        self._blocks.remove(block)
        self._look_at_all()

    def went_down(self, host: "Host") -> None:
        """The process of a peer has ended, and with it the links that it had dialled. Its machine says so to those who had
        dialled it: no silence has to be waited out."""
        for to in self._dialled.pop(host.index, set()):
            del self._is_up[host.index, to]
        for dialer in self._dialers_of(host):
            self._later(self._latency.of(host.index, dialer), self._tell_down, (dialer, host.index))

    def came_up(self, host: "Host") -> None:
        """A process has begun. Who still thinks to be linked with the one before learns otherwise by its first answer."""
        for dialer in self._dialers_of(host):
            pair = dialer, host.index
            if self._is_up[pair]:
                self._is_up[pair] = False
                self._later(0.0, self._federation.hosts[dialer].tell, LinkDown(host.id))
            self._look_at(pair)

    def _dialers_of(self, host: "Host") -> list[int]:
        return [dialer for dialer in sorted(self._dialers.get(host.index, ())) if (dialer, host.index) in self._is_up]

    def _look_at_all(self) -> None:
        for pair in list(self._is_up):
            self._look_at(pair)

    def _look_at(self, pair: Pair) -> None:
        if self._is_possible(pair) == self._is_up[pair]:
            return
        if self._is_up[pair]:
            self._later(self._network.detection_s, self._tell_down, pair)
        else:  # peers redial at moments of their own
            redial_s = self._chance.uniform(0.0, self._network.detection_s)
            self._later(self._latency.of(*pair) + redial_s, self._tell_up, pair)

    def _tell_up(self, pair: Pair) -> None:
        if self._is_up.get(pair) is not False:
            return
        dialer, to = (self._federation.hosts[index] for index in pair)
        if self._is_possible(pair):
            self._is_up[pair] = True
            dialer.tell(LinkUp(to.id))
        elif self.tells_refusals and not to.is_on and not self._is_blocked(*pair) and not self._is_blocked(*pair[::-1]):
            dialer.tell(DialRefused(to.id))

    def _tell_down(self, pair: Pair) -> None:
        if self._is_up.get(pair) and not self._is_possible(pair):
            dialer, to = (self._federation.hosts[index] for index in pair)
            self._is_up[pair] = False
            dialer.tell(LinkDown(to.id))
            if self.tells_refusals:
                self._later(2 * self._latency.of(*pair), self._tell_up, pair)

    def _is_possible(self, pair: Pair) -> bool:
        i, j = pair
        hosts = self._federation.hosts
        return hosts[i].is_on and hosts[j].is_on and not self._is_blocked(i, j) and not self._is_blocked(j, i)

    def _is_blocked(self, sender: int, receiver: int) -> bool:
        return any(block(sender, receiver) for block in self._blocks)

    def _later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        agenda = self._federation.agenda
        agenda.at(agenda.now + seconds, partial(action, *arguments))


_OFFER, _CHUNK = (number for number, kind in wire.KINDS.items() if kind in (wire.Offer, wire.Chunk))


def _kind(frames: Frames) -> int:
    """The third byte of every first frame (docs/protocol.md, Frames)."""
    return cast(bytes, frames[0])[2]


def _is_offer(frames: Frames) -> bool:
    return _kind(frames) == _OFFER


def _is_update(frames: Frames) -> bool:
    return _kind(frames) in (_OFFER, _CHUNK)
