"""The join door: the one socket at which strangers may speak, one question each.

It has a context of its own, and with it its own gate and its own thread of libzmq, so that whatever happens here, links between
members don't notice. Whoever knows this node's transport key gets through the handshake, as invites tell it; all that can be
said then is one frame of at most 8 KiB, which `admission.join.Door` answers. Who asks too often hears nothing.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable

import zmq

from node.transport.address import Address
from node.transport.listener import cannot_listen
from node.transport.readiness import Reading
from node.transport.sockets import Context, Patience, Socket, TransportKeys
from node.transport.zap import Gate
from p2pfl.protocol.admission.join import REQUEST_MAX, Refused, Visit, encode
from p2pfl.protocol.bucket import Bucket, Buckets
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId

PER_KEY = (0.2, 4.0)  # questions per second in the long run, and at once, of one transport key
PER_PLACE = (2.0, 16.0)  # of one /24 or /48
ALTOGETHER = (20.0, 40.0)  # each costs up to six signatures: half a millisecond
SOURCES_MAX = 4096
CURVE_OVERHEAD = 64  # bytes that CURVE adds to a frame are 33
VISITORS_MAX = 256  # connections that are let in before all of them are ended
LOG_EVERY_S = 10.0

Answer = Callable[[bytes, bytes], Visit]
"""(question, transport key of who asks) to what comes of it."""


class JoinDoor:
    """`on_admitted` is called before the answer leaves: what it keeps on the disk, no crash makes it forget, so that no invite
    is good twice. Where it says that it could not, the visitor is told to try another member. `on_word` hears of visitors in
    words, at most twice in ten seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keys: TransportKeys,
        network_id: bytes,
        answer: Answer,
        on_admitted: Callable[[PeerId], bool],
        on_word: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self.admitted = 0
        self.refused: Counter[str] = Counter()
        """By reason; "rate_limited" are those who heard nothing."""
        self._loop = loop
        self._answer = answer
        self._on_admitted = on_admitted
        self._on_word = on_word
        self._log_after = {True: loop.time(), False: loop.time()}
        self._unsaid = {True: 0, False: 0}
        self._visitors = 0
        self._endpoint = ""
        self._emptying: asyncio.TimerHandle | None = None
        now = loop.time()
        self._keys = Buckets(*PER_KEY, SOURCES_MAX)
        self._places = Buckets(*PER_PLACE, SOURCES_MAX)
        self._all = Bucket(*ALTOGETHER, now)
        domain = b"p2pfl/join/" + network_id.hex().encode()
        self._context = Context()
        self._gate = Gate(self._context, loop, domain, self._lets_in, on_word)
        self._socket = _door_socket(self._context, keys, domain, patience or Patience())
        self._reading = Reading(loop, self._socket, self._take)

    async def open(self, address: Address) -> Address:
        """Where it listens from now on, with the real port where 0 was asked for. Raises `Failure`, and closes, where that is
        impossible."""
        try:
            place = (await address.resolve())[0]
            self._socket.ipv6 = place.is_ipv6
            self._socket.bind(f"tcp://{place}")
        except (OSError, zmq.ZMQError) as error:
            await self.close()
            raise cannot_listen(address, error) from None
        bound = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self._endpoint = bound.rstrip(b"\0").decode()
        return Address.parse(self._endpoint.removeprefix("tcp://"))

    async def close(self) -> None:
        if self._emptying is not None:
            self._emptying.cancel()
        self._reading.close()
        self._gate.close()
        await self._loop.run_in_executor(None, self._context.term)

    # ---- questions ------------------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        question = frames[-1]
        key = _key_of(question)
        if len(frames) != 2 or key is None:
            self._refuse("bad_frames")
        elif not self._may_ask(key, _place_of(question)):
            self._refuse("rate_limited")
        else:
            self._answer_to(frames[0].bytes, question.bytes, key)
        return True

    def _may_ask(self, key: bytes, place: str) -> bool:
        """A place's own bucket first, so that nobody empties the common one alone."""
        now = self._loop.time()
        return self._places.take(place, 1.0, now) and self._keys.take(key, 1.0, now) and self._all.take(1.0, now)

    def _answer_to(self, who: bytes, question: bytes, key: bytes) -> None:
        visit = self._answer(question, key)
        if visit.admitted is not None and not self._on_admitted(visit.admitted):
            visit = Visit(encode(Refused(Reason.NO_RECEIPT)), reason=Reason.NO_RECEIPT)
        if visit.admitted is not None:
            self.admitted += 1
            self._say(True, f"let in {visit.admitted.hex()[:16]}")
        else:
            self._refuse(str(visit.reason))
        if visit.answer is not None:
            try:
                self._socket.send_multipart([who, visit.answer], zmq.NOBLOCK)
            except zmq.ZMQError:
                return  # it hung up, or does not read: it may ask again

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        self._say(False, f"refused at the join door: {reason}")

    def _say(self, is_good: bool, text: str) -> None:
        if self._loop.time() < self._log_after[is_good]:
            self._unsaid[is_good] += 1
            return
        more = f", and {self._unsaid[is_good]} before it" if self._unsaid[is_good] else ""
        self._log_after[is_good], self._unsaid[is_good] = self._loop.time() + LOG_EVERY_S, 0
        self._on_word(text + more)

    # ---- connections ----------------------------------------------------------------------------------------------------

    def _lets_in(self, _key: bytes) -> bool:
        """Anybody; but who has asked does not go by itself, and libzmq can't end one connection. So now and then all are."""
        self._visitors += 1
        if self._visitors > VISITORS_MAX and self._emptying is None:
            self._emptying = self._loop.call_later(LOG_EVERY_S, self._empty)
        return True

    def _empty(self) -> None:
        self._emptying = None
        self._visitors = 0
        if self._endpoint:
            self._socket.unbind(self._endpoint)
            self._rebind()

    def _rebind(self) -> None:
        """As soon as libzmq's other thread has let go of the port."""
        self._emptying = None
        try:
            self._socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            self._emptying = self._loop.call_later(0.02, self._rebind)


def _door_socket(context: Context, keys: TransportKeys, domain: bytes, patience: Patience) -> Socket:
    """A ROUTER that says who asks, and takes little from anybody."""
    door = context.socket(zmq.ROUTER)
    door.curve_server = True
    door.curve_publickey, door.curve_secretkey = keys.public, keys.secret
    door.zap_domain = domain
    door.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    door.maxmsgsize = REQUEST_MAX + CURVE_OVERHEAD
    door.rcvhwm = door.sndhwm = 2
    door.backlog = 64
    door.linger = 0
    door.router_mandatory = True  # an answer to who has gone is an error rather than held
    handshake, heartbeat = round(patience.handshake_s * 1000), round(patience.heartbeat_s * 1000)
    door.setsockopt(zmq.HANDSHAKE_IVL, handshake)
    door.setsockopt(zmq.HEARTBEAT_IVL, heartbeat)
    door.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * heartbeat)
    return door


def _key_of(frame: zmq.Frame) -> bytes | None:
    """The transport key that the handshake proved."""
    try:
        return bytes.fromhex(str(frame.get("User-Id")))
    except (zmq.ZMQError, ValueError):
        return None


def _place_of(frame: zmq.Frame) -> str:
    """The /24 or /48 that it came from, which one household or rack shares."""
    try:
        found = ipaddress.ip_address(str(frame.get("Peer-Address")).partition("%")[0])
    except (zmq.ZMQError, ValueError):
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, 24 if found.version == 4 else 48), strict=False))
