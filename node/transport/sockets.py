"""The socket options of a link, each with its reason, and how all of them send. `tests/test_libzmq_behaviours.py` shows what
libzmq does without them."""

from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from p2pfl.protocol.wire import CHUNK_BYTES, TAG_BYTES

FRAME_MAX = CHUNK_BYTES + TAG_BYTES + 64 * 1024
"""Bytes of one frame that libzmq lets through: the largest we send is a sealed chunk (a first frame has at most 256 KiB), and
a frame a little over the limit should reach the peer, which counts it, rather than break the link. CURVE's own 33 bytes are
in the rest. Without a limit, a stranger could make us allocate what it claims, before any handshake."""

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]
Frames = Sequence[bytes | bytearray | memoryview]

_COPY_BELOW = 64 * 1024  # bytes; lending a buffer to libzmq costs more than copying a small one
_LAST, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)


@dataclass(frozen=True, slots=True)
class TransportKeys:
    """One's own X25519 pair, raw: 32 bytes each."""

    public: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Patience:
    """How long links wait, in seconds. Whoever has not finished the handshake in `handshake_s`, or has been silent for three
    times `heartbeat_s`, is cut off. Redials wait a random part of a backoff that doubles between the two bounds."""

    handshake_s: float = 5.0
    heartbeat_s: float = 5.0
    backoff_min_s: float = 0.1
    backoff_max_s: float = 5.0


def listening_socket(context: Context, keys: TransportKeys, domain: bytes, patience: Patience) -> Socket:
    """A ROUTER that admits whom the gate of this context admits."""
    socket = context.socket(zmq.ROUTER)
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    socket.zap_domain = domain
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it, a missing gate would mean that everyone gets in
    socket.maxmsgsize = FRAME_MAX
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else what is for a connection that has ended is lost without a word
    socket.backlog = 256
    _tune(socket, patience)
    return socket


def dialling_socket(context: Context, keys: TransportKeys, server_key: bytes, patience: Patience) -> Socket:
    """A DEALER to the one holder of `server_key`, over one connection and never a second."""
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = server_key
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    # libzmq stops redialling after some kinds of failure and does not say so; so it never does, and our supervisor always.
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, _ms(patience.handshake_s))
    socket.immediate = True  # nothing is queued for a connection that is not there
    socket.maxmsgsize = FRAME_MAX
    _tune(socket, patience)
    return socket


OUTBOX_MAX = 256
"""Messages that may wait in one of the two connections of a link, at either end. Credit holds a transfer to 16 chunks and few
transfers overlap, so that what fills an outbox is small messages, of at most 64 KiB, to a neighbor that reads nothing; its
heartbeat ends that soon. What does not fit is dropped and counted."""


def sent(socket: Socket, frames: Frames) -> bool:
    """Hand a message over; False when so much is waiting already that it does not fit. Never waits."""
    last = len(frames) - 1
    try:
        for i, frame in enumerate(frames):
            socket.send(frame, _LAST if i == last else _MORE, copy=len(frame) < _COPY_BELOW or not _is_constant(frame))
    except zmq.Again:  # then nothing of the message has gone
        return False
    return True


def _is_constant(frame: bytes | bytearray | memoryview) -> bool:
    """Whether it can be lent: it will not change before it is sent, and nobody else gets its memory while it is referred to.
    libzmq's references count."""
    return type(frame) is bytes or (type(frame) is memoryview and frame.readonly)


def _tune(socket: Socket, patience: Patience) -> None:
    socket.linger = 0
    socket.sndhwm = OUTBOX_MAX
    socket.rcvhwm = 16  # messages per connection: more would hold memory for a slow reader; fewer cost small messages dearly
    socket.setsockopt(zmq.HANDSHAKE_IVL, _ms(patience.handshake_s))
    socket.setsockopt(zmq.HEARTBEAT_IVL, _ms(patience.heartbeat_s))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _ms(3 * patience.heartbeat_s))
    socket.setsockopt(zmq.HEARTBEAT_TTL, _ms(4 * patience.heartbeat_s))
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
