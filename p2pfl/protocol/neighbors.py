"""What a peer knows of each neighbor: whether it can be reached, how far it is, whether it has said good-bye."""

from collections.abc import Iterable
from dataclasses import dataclass

from p2pfl.protocol.events import PeerId


@dataclass(slots=True)
class Neighbor:
    """`signed_step` is the furthest step that it signed in this life of its process; nothing else that it says of its steps
    counts."""

    has_link: bool = False
    is_heard: bool = False
    boot_id: bytes | None = None
    signed_step: int = 0
    is_parted: bool = False

    @property
    def is_ready(self) -> bool:
        """Both ways are open: ours is linked, and it was heard over theirs."""
        return self.has_link and self.is_heard

    def greeted(self, boot_id: bytes) -> None:
        """A hello came. A new boot id is a new life: what the old one said of itself is void."""
        self.is_heard = True
        if boot_id != self.boot_id:
            self.boot_id, self.signed_step, self.is_parted = boot_id, 0, False

    def signed(self, step: int) -> None:
        """It offered an update. That is as good as a hello, which may have been lost; and who offers has not parted, whatever
        a good-bye of an earlier life said late."""
        self.is_heard, self.is_parted = True, False
        self.signed_step = max(self.signed_step, step)

    def link_down(self) -> None:
        """Until it is heard again, nothing is expected of it."""
        self.has_link = self.is_heard = False


class Neighbors:
    """All of them, each made at first mention, until it is forgotten."""

    def __init__(self) -> None:
        self._neighbors: dict[PeerId, Neighbor] = {}
        self._told: set[PeerId] = set()

    def __len__(self) -> int:
        return len(self._neighbors)

    @property
    def peers(self) -> set[PeerId]:
        return set(self._neighbors)

    def forget(self, gone: Iterable[PeerId]) -> None:
        """They are no members any more. Nobody may hold a `Neighbor` of theirs."""
        for peer in gone:
            self._neighbors.pop(peer, None)
            self._told.discard(peer)

    def of(self, peer: PeerId) -> Neighbor:
        neighbor = self._neighbors.get(peer)
        if neighbor is None:
            neighbor = self._neighbors[peer] = Neighbor()
        return neighbor

    def silent(self, among: Iterable[PeerId]) -> list[PeerId]:
        """Who is linked and was not heard yet."""
        known = self._neighbors
        return [peer for peer in among if (one := known.get(peer)) is not None and one.has_link and not one.is_heard]

    def listening(self, among: Iterable[PeerId]) -> list[PeerId]:
        """Who can be reached and has not said good-bye."""
        known = self._neighbors
        return [
            peer
            for peer in among
            if (one := known.get(peer)) is not None and one.has_link and one.is_heard and not one.is_parted
        ]

    def link_up(self, peer: PeerId) -> None:
        self.of(peer).has_link = True
        self._told.discard(peer)

    def should_tell_version(self, peer: PeerId) -> bool:
        """True once per link: a peer of another protocol version is told ours, and not again."""
        if peer in self._told:
            return False
        self._told.add(peer)
        return True
