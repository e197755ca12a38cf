"""What a peer knows of each neighbor: whether it can be reached, how far it is, whether it has said good-bye."""

from dataclasses import dataclass

from p2pfl.protocol.events import PeerId


@dataclass(slots=True)
class Neighbor:
    """`step` is what it last said, `signed_step` what it last signed; a hello is only as good as the link it came over."""

    has_link: bool = False
    boot_id: bytes | None = None
    step: int = 0
    signed_step: int = 0
    is_parted: bool = False

    @property
    def is_ready(self) -> bool:
        """Both ways are open: ours is linked, and a hello came over theirs."""
        return self.has_link and self.boot_id is not None

    def greet(self, boot_id: bytes, step: int) -> None:
        """A hello came. A new boot id is a new life: what the old one said of itself is void."""
        if boot_id != self.boot_id:
            self.boot_id, self.signed_step, self.is_parted = boot_id, 0, False
        self.step = max(step, self.signed_step)

    def link_down(self) -> None:
        """Until it greets again, nothing is expected of it."""
        self.has_link, self.boot_id = False, None


class Neighbors:
    """All of them, each made at first mention; only members are mentioned, so the table is bounded by the charter."""

    def __init__(self) -> None:
        self._neighbors: dict[PeerId, Neighbor] = {}
        self._told: set[PeerId] = set()

    def of(self, peer: PeerId) -> Neighbor:
        return self._neighbors.setdefault(peer, Neighbor())

    def link_up(self, peer: PeerId) -> None:
        self.of(peer).has_link = True
        self._told.discard(peer)

    def should_tell_version(self, peer: PeerId) -> bool:
        """True once per link: a peer of another protocol version is told ours, and not again."""
        if peer in self._told:
            return False
        self._told.add(peer)
        return True
