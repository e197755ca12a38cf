"""Which charter a peer goes by, and which one beside it others may still name."""

from p2pfl.protocol.charter import Charter


class Agreement:
    """Shared by all parts of one peer, since the root may amend the charter while it runs. `charter` is the one that holds."""

    def __init__(self, charter: Charter) -> None:
        self.charter = charter
        self._before = b""
        self._until = 0.0

    def amend(self, charter: Charter, before: bytes, until: float) -> None:
        """This one holds from now on; what names the digest `before` is good until that wall time."""
        self.charter, self._before, self._until = charter, before, until

    def accepts(self, digest: bytes, wall: float) -> bool:
        """Whether one may talk to who goes by the charter with this digest."""
        return digest == self.charter.digest or (digest == self._before and wall < self._until)
