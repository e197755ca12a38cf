"""One question at a join door: a bare CURVE client that blocks, and is gone when it has its answer."""

import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

import zmq

from node.admission.door import CURVE_OVERHEAD
from node.transport.address import Address
from node.transport.dialling import misplaced
from node.transport.sockets import Context, TransportKeys
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.join import WELCOME_MAX

PATIENCE_S = 5.0  # for one door to be reached and to answer
ELSEWHERE = frozenset({"no_receipt", "bad_clock", "full", "bad_welcome", "wrong_net"})
"""What a member says of itself, or says wrongly: another may know better."""

Doors = Sequence[tuple[str, bytes]]
"""HOST:PORT and the transport key of who answers there."""

Answer = TypeVar("Answer")


def ask_first(
    doors: Doors, own: TransportKeys, question: bytes, understand: Callable[[bytes], Answer], patience_s: float = PATIENCE_S
) -> Answer:
    """What the first door says that lets one in. Raises the `Failure` that `understand` raises of a refusal, or one with exit
    code NETWORK where no door answers."""
    refusal: Failure | None = None
    silent = []
    for address, key in doors:
        answer, trouble = asked(Address.parse(address), key, own, question, patience_s)
        if answer is None:
            silent.append(f"{address} ({trouble})")
            continue
        try:
            return understand(answer)
        except Failure as failure:
            if failure.code not in ELSEWHERE:
                raise
            refusal = refusal or failure
    if refusal is not None:
        raise refusal
    message = f"Nobody answered at {', '.join(silent)}."
    hint = "See that a node runs there, and that a firewall lets this port through; then run it again: nothing is lost."
    raise Failure("nobody_answers", message, hint, ExitCode.NETWORK)


def asked(
    address: Address, key: bytes, own: TransportKeys, question: bytes, patience_s: float, to_loopback: bool = True
) -> tuple[bytes | None, str]:
    """The answer, or why there is none. Without `to_loopback` nothing on this machine is asked, whatever the name means."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return None, error.strerror or str(error)
    place = Address(str(found[0][4][0]), address.port)
    if fault := misplaced(place, to_loopback):
        return None, fault
    with Context() as context, context.socket(zmq.DEALER) as asking:
        asking.curve_serverkey = key
        asking.curve_publickey, asking.curve_secretkey = own.public, own.secret
        asking.maxmsgsize = WELCOME_MAX + CURVE_OVERHEAD
        asking.linger = 0
        asking.immediate = True
        asking.ipv6 = place.is_ipv6
        asking.sndtimeo = asking.rcvtimeo = round(patience_s * 1000)
        asking.connect(f"tcp://{place}")
        try:
            asking.send(question)
        except zmq.Again:
            return None, "not reached, or another node than the one that was meant"
        try:
            frames = asking.recv_multipart()
        except zmq.Again:
            return None, "it does not answer; it may have been asked too often"
        return (frames[0], "") if len(frames) == 1 else (None, "it answers in another way")
