"""Who may open a connection: our answer to libzmq's question (ZAP, RFC 27), once per handshake.

Not pyzmq's authenticator: one exception in its callback ends it, and then nobody gets in; and it can only say "400", after
which libzmq's client never tries again. Ours says "300": the stranger hears nothing, its connection ends with the handshake
interval, and whoever is admitted later gets in by trying again.
"""

import asyncio
from collections.abc import Callable

import zmq

from node.transport.readiness import Reading
from p2pfl.report.plain import plain

_ENDPOINT = "inproc://zeromq.zap.01"
_ADMITTED, _REFUSED = b"200", b"300"
_LOG_EVERY_S = 10.0


class Gate:
    """Answers for every CURVE listener of one context; there is one handler per context. Denies by default.

    `admits(key)` is a look-up, never work: it runs in the loop for whoever knocks. Should it raise, this one is refused,
    the loop's exception handler hears of it, and the next is asked about as ever. `on_stranger` hears, in words and seldom,
    of who was refused.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        loop: asyncio.AbstractEventLoop,
        domain: bytes,
        admits: Callable[[bytes], bool],
        on_stranger: Callable[[str], None],
    ) -> None:
        self.refused = 0
        self.admitted: set[str] = set()
        """The User-Ids that were let in; whoever ends all connections clears it."""
        self._expected: dict[bytes, asyncio.Future[None]] = {}
        self._loop = loop
        self._domain = domain
        self._admits = admits
        self._on_stranger = on_stranger
        self._log_after = loop.time()
        self._refused_when_logged = 0
        self._socket = context.socket(zmq.REP)
        self._socket.bind(_ENDPOINT)
        self._reading = Reading(loop, self._socket, self._take)

    def expect_refusal(self, key: bytes) -> asyncio.Future[None]:
        """Done when the holder of this key has knocked and been refused, which then counts as a test and not as a stranger."""
        refusal = self._expected[key] = self._loop.create_future()
        return refusal

    def close(self) -> None:
        self._reading.close()

    def _take(self) -> bool:
        try:
            request = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        status, user = _REFUSED, b""
        try:
            match request:
                case [b"1.0", _, domain, _, _, b"CURVE", key] if (
                    domain == self._domain and len(key) == 32 and self._admits(key)
                ):
                    status, user = _ADMITTED, user_id(key).encode()
                    self.admitted.add(user_id(key))
        finally:
            self._socket.send_multipart([b"1.0", request[1], status, b"", user, b""])
            if status == _REFUSED:
                self._note(request)
        return True

    def _note(self, request: list[bytes]) -> None:
        """Anybody can knock as often as they like, so a refusal is always counted and seldom logged."""
        refusal = self._expected.pop(request[-1], None)
        if refusal is not None and not refusal.done():
            refusal.set_result(None)
            return
        self.refused += 1
        if self._loop.time() >= self._log_after:
            count = self.refused - self._refused_when_logged
            place = plain(request[3].decode(errors="replace"))
            self._on_stranger(f"refused {count} connection(s) from strangers, the last from {place}")
            self._log_after = self._loop.time() + _LOG_EVERY_S
            self._refused_when_logged = self.refused


def user_id(key: bytes) -> str:
    """The User-Id that libzmq puts on every frame from the holder of this transport key."""
    return key.hex()
