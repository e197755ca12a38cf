"""What we lean on in libzmq, and what we guard against. None of this is ours: when a test here fails after an upgrade, read
what it says before changing it, since `sockets.py`, `zap.py` and `supervisor.py` in `node/transport/` build on these answers.

Claims that something does not happen wait `NEVER_S`, thirty times what libzmq would need to do it.
"""

import asyncio
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import zmq
from zmq.utils import z85

from tests.loopback import COMMAND_OF_2_GIB, Answer, Imposter, end_of_connection, greeting, on_loop, readable, says
from tests.proxy import Proxy

pytestmark = pytest.mark.net

NEVER_S = 0.6
AGAIN_MS = 20  # how soon libzmq redials where it does
LIMIT_MS = 5000

Socket = zmq.Socket[bytes]


class Keys:
    def __init__(self) -> None:
        self.public, self.secret = zmq.curve_keypair()

    def on(self, end: Socket) -> None:
        end.curve_publickey, end.curve_secretkey = self.public, self.secret


@pytest.fixture
def context() -> Iterator["zmq.Context[Socket]"]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)
    _open.clear()


_open: list[Socket] = []  # held, so that it is the fixture that closes them


SERVER, CLIENT, OTHER = Keys(), Keys(), Keys()


def server(context: "zmq.Context[Socket]", enforce: bool = True, **options: int) -> tuple[Socket, str]:
    router = context.socket(zmq.ROUTER)
    _open.append(router)
    router.curve_server = True
    SERVER.on(router)
    router.zap_domain = b"test"
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, int(enforce))
    router.setsockopt(zmq.HANDSHAKE_IVL, 200)
    for option, value in options.items():
        router.setsockopt(getattr(zmq, option), value)
    return router, f"127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"


def client(context: "zmq.Context[Socket]", address: str, keys: Keys = CLIENT, **options: int) -> tuple[Socket, Socket]:
    """A DEALER that redials as libzmq does, and its monitor."""
    dealer = context.socket(zmq.DEALER)
    _open.append(dealer)
    dealer.setsockopt(zmq.RECONNECT_IVL, AGAIN_MS)
    dealer.setsockopt(zmq.HANDSHAKE_IVL, 200)
    for option, value in options.items():
        dealer.setsockopt(getattr(zmq, option), value)
    keys.on(dealer)
    dealer.curve_serverkey = SERVER.public
    monitor = dealer.get_monitor_socket()
    dealer.connect(f"tcp://{address}")
    return dealer, monitor


def gate(context: "zmq.Context[Socket]") -> Socket:
    handler = context.socket(zmq.REP)
    _open.append(handler)
    handler.bind("inproc://zeromq.zap.01")
    return handler


def judge(gate: Socket, status: bytes) -> bool:
    """Answer the next question; False when none comes."""
    if not gate.poll(int(1000 * NEVER_S)):
        return False
    question = gate.recv_multipart()
    gate.send_multipart([b"1.0", question[1], status, b"", question[6].hex().encode(), b""])
    return True


def told(monitor: Socket, wanted: int) -> bool:
    """Wait for this event."""
    while monitor.poll(LIMIT_MS):
        if struct.unpack("=hi", monitor.recv_multipart()[0])[0] == wanted:
            return True
    return False


def events_of(monitor: Socket) -> list[int]:
    """All that it has to tell by now."""
    found = []
    while monitor.poll(0):
        found.append(struct.unpack("=hi", monitor.recv_multipart()[0])[0])
    return found


# ---- 1, 2: when a client gives up -----------------------------------------------------------------------------------------


@pytest.mark.fault("imposters")
@on_loop
@pytest.mark.parametrize(
    ("name", "answer", "gives_up"),
    [
        ("HTTP", says(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100), True),
        ("NULL", says(greeting(b"NULL")), True),
        ("ERROR", says(greeting(b"CURVE"), b"\x04\x0a\x05ERROR\x03400"), True),
        ("garbage", says(greeting(b"CURVE"), b"\x04\x08\x07WELCOM_"), True),
        ("huge frame", says(greeting(b"CURVE"), b"\x06" + b"\x7f" * 8), True),
        ("hangs up", says(), False),
    ],
)
async def test_libzmq_stops_redialling_after_one_meeting_with_something_else(
    context: "zmq.Context[Socket]", name: str, answer: Answer, gives_up: bool
) -> None:
    imposter = Imposter(answer)
    client(context, await imposter.start())
    try:
        await imposter.called(1)
        try:
            async with asyncio.timeout(NEVER_S):
                await imposter.called(2)
            is_back = True
        except TimeoutError:
            is_back = False
        assert is_back is not gives_up
    finally:
        await imposter.stop()


@pytest.mark.parametrize(("status", "asks_again"), [(b"300", True), (b"400", False)])
def test_a_client_comes_again_after_300_and_never_after_400(
    context: "zmq.Context[Socket]", status: bytes, asks_again: bool
) -> None:
    asked = gate(context)
    router, address = server(context)
    dealer, _ = client(context, address)
    dealer.send(b"queued")
    assert judge(asked, status)
    assert judge(asked, b"200") is asks_again
    assert bool(router.poll(LIMIT_MS if asks_again else 0)) is asks_again


# ---- 3: without a gate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("enforce", "gets_in"), [(False, True), (True, False)])
def test_without_a_gate_everyone_gets_in_unless_the_domain_is_enforced(
    context: "zmq.Context[Socket]", enforce: bool, gets_in: bool
) -> None:
    router, address = server(context, enforce)
    dealer, monitor = client(context, address, OTHER)
    dealer.send(b"a stranger")
    assert told(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED if gets_in else zmq.EVENT_DISCONNECTED)
    assert bool(router.poll(LIMIT_MS if gets_in else 0)) is gets_in


def test_the_gate_is_asked_once_per_connection_and_never_again(context: "zmq.Context[Socket]") -> None:
    """4: taking a key off the list does not end its connection; hence the look at every frame."""
    asked = gate(context)
    router, address = server(context)
    dealer, _ = client(context, address)
    assert judge(asked, b"200")
    for n in range(3):
        dealer.send(b"%d" % n)
        assert router.poll(LIMIT_MS)
        frames = router.recv_multipart(copy=False)
        assert [f.get("User-Id") for f in frames] == [z85.decode(CLIENT.public).hex()] * 2
    assert not asked.poll(0)


def test_unbinding_and_binding_again_ends_all_connections_and_whoever_is_let_in_comes_back_with_what_it_had_queued(
    context: "zmq.Context[Socket]",
) -> None:
    """4: the only way to be rid of one open connection. The ROUTER and the gate have to be used
    meanwhile: a connection ends when all sockets that knew it have let it go."""
    asked = gate(context)
    router, address = server(context, LINGER=0)
    honest, heard = client(context, address)
    assert judge(asked, b"200")
    revoked, heard_by_revoked = client(context, address, OTHER)
    assert judge(asked, b"200")
    for dealer in (honest, revoked):
        dealer.send(b"before")
        assert router.poll(LIMIT_MS) and router.recv_multipart()[1] == b"before"
    router.unbind(f"tcp://{address}")
    ended = []
    for _ in range(LIMIT_MS // 10):
        assert not router.poll(10) and not asked.poll(0)
        ended += [m for m in (heard, heard_by_revoked) if m not in ended and zmq.EVENT_DISCONNECTED in events_of(m)]
        if len(ended) == 2:
            break
    assert len(ended) == 2
    for dealer in (honest, revoked):
        dealer.send(b"queued")
    router.bind(f"tcp://{address}")
    allowed = z85.decode(CLIENT.public)
    is_back = False
    for _ in range(4):  # the refused one comes again and again
        assert asked.poll(LIMIT_MS)
        question = asked.recv_multipart()
        is_allowed = question[6] == allowed
        is_back |= is_allowed
        asked.send_multipart([b"1.0", question[1], b"200" if is_allowed else b"300", b"", question[6].hex().encode(), b""])
    assert is_back and router.poll(LIMIT_MS)
    frames = router.recv_multipart(copy=False)
    assert (frames[1].bytes, frames[1].get("User-Id")) == (b"queued", allowed.hex())
    assert not router.poll(int(1000 * NEVER_S))


_AUTHENTICATED = """
import asyncio, os, zmq, zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

class Provider:
    asked = 0
    def callback(self, domain, key):
        self.asked += 1
        raise LookupError("of the application's making")

async def main():
    context, provider = zmq.asyncio.Context(), Provider()
    authenticator = AsyncioAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(domain="test", credentials_provider=provider)
    router = context.socket(zmq.ROUTER)
    router.curve_server = True
    key, router.curve_secretkey = zmq.curve_keypair()
    router.curve_publickey = key
    router.zap_domain = b"test"
    port = router.bind_to_random_port("tcp://127.0.0.1")
    clients = []
    for wait in ({limit_s}, {never_s}):
        clients.append(context.socket(zmq.DEALER))
        clients[-1].curve_publickey, clients[-1].curve_secretkey = zmq.curve_keypair()
        clients[-1].curve_serverkey = key
        asked = provider.asked
        clients[-1].connect(f"tcp://127.0.0.1:{{port}}")
        over = asyncio.get_running_loop().time() + wait
        while provider.asked == asked and asyncio.get_running_loop().time() < over:
            await asyncio.sleep(0.01)
    print("asked", provider.asked, flush=True)
    os._exit(0)

asyncio.run(main())
"""


def test_one_exception_in_its_callback_ends_pyzmqs_authenticator_and_nobody_is_asked_about_any_more() -> None:
    script = _AUTHENTICATED.format(limit_s=LIMIT_MS / 1000, never_s=NEVER_S)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert said.stdout == "asked 1\n"


# ---- 5, 6: sizes -----------------------------------------------------------------------------------------------------------


def test_the_size_limit_is_for_each_frame_and_not_for_the_message(context: "zmq.Context[Socket]") -> None:
    router, address = server(context, enforce=False, MAXMSGSIZE=10_000, RCVHWM=1)
    dealer, _ = client(context, address)
    dealer.send_multipart([bytes(9_000)] * 50)
    assert router.poll(LIMIT_MS)
    assert sum(map(len, router.recv_multipart())) > 50 * 9_000


@pytest.mark.fault("oversize frame")
def test_an_oversize_frame_ends_the_connection_without_a_word_to_its_sender(context: "zmq.Context[Socket]") -> None:
    router, address = server(context, enforce=False, MAXMSGSIZE=10_000)
    dealer, monitor = client(context, address)
    assert told(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    dealer.send(bytes(10_000))
    assert told(monitor, zmq.EVENT_DISCONNECTED)
    assert not router.poll(0)


@pytest.mark.fault("oversize frame")
@on_loop
async def test_with_a_size_limit_a_strangers_claim_ends_its_connection_before_any_allocation() -> None:
    with zmq.Context() as context:
        router = context.socket(zmq.ROUTER)
        router.curve_server = True
        SERVER.on(router)
        router.maxmsgsize = 10_000
        router.setsockopt(zmq.HANDSHAKE_IVL, 60_000)
        address = f"127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        memory = psutil.Process().memory_info()
        await end_of_connection(address, greeting(b"CURVE"), COMMAND_OF_2_GIB)
        after = psutil.Process().memory_info()
        assert after.rss - memory.rss < 16 << 20
        assert after.vms - memory.vms < 1 << 30
        router.close(linger=0)


def test_without_a_size_limit_a_stranger_fills_our_memory_before_any_handshake(context: "zmq.Context[Socket]") -> None:
    _, address = server(context, HANDSHAKE_IVL=60_000)
    assert grown_by(address, greeting(b"CURVE") + COMMAND_OF_2_GIB, bytes(1 << 20), 48) > 32 << 20


@pytest.mark.fault("endless message")
def test_a_message_that_never_ends_fills_our_memory_whatever_the_limits_are(context: "zmq.Context[Socket]") -> None:
    """5: the application has received nothing. Under CURVE only a member can do it; hence a watch over memory."""
    router = context.socket(zmq.ROUTER)
    _open.append(router)
    router.maxmsgsize, router.rcvhwm = 1 << 20, 2
    address = f"127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    frame = b"\x03" + struct.pack(">Q", 1_000_000) + bytes(1_000_000)  # more to come, each within the limit
    assert grown_by(address, greeting(b"NULL") + b"\x04" + bytes([len(ready)]) + ready, frame, 48) > 32 << 20
    assert not router.poll(0)


def grown_by(address: str, begin: bytes, piece: bytes, count: int) -> int:
    """What our own memory grew by, at most, while a stranger said this and then `count` times that."""
    host, port = address.rsplit(":", 1)
    process = psutil.Process()
    before = most = process.memory_info().rss
    with socket.create_connection((host, int(port)), timeout=LIMIT_MS / 1000) as stranger:
        stranger.sendall(begin)
        for _ in range(count):
            stranger.sendall(piece)
            most = max(most, process.memory_info().rss)
        deadline = time.monotonic() + LIMIT_MS / 1000
        while most - before < (count * len(piece)) * 3 // 4 and time.monotonic() < deadline:
            most = max(most, process.memory_info().rss)
    return most - before


# ---- 7: identities -----------------------------------------------------------------------------------------------------------


def test_a_routing_id_belongs_to_whoever_takes_it_first_and_the_user_id_to_its_key(context: "zmq.Context[Socket]") -> None:
    """The second one with the same routing id is let in by the gate and never heard: so nobody here sets one, or trusts one."""
    asked = gate(context)
    router, address = server(context)
    squatter = context.socket(zmq.DEALER)
    owner = context.socket(zmq.DEALER)
    _open.extend((squatter, owner))
    for dealer, keys in ((squatter, OTHER), (owner, CLIENT)):
        dealer.identity = b"owner"
        keys.on(dealer)
        dealer.curve_serverkey = SERVER.public
    squatter.connect(f"tcp://{address}")
    assert judge(asked, b"200")
    squatter.send(b"I came first")
    assert router.poll(LIMIT_MS)
    first = router.recv_multipart(copy=False)
    assert (first[0].bytes, first[1].get("User-Id")) == (b"owner", z85.decode(OTHER.public).hex())
    owner.connect(f"tcp://{address}")
    assert judge(asked, b"200")
    owner.send(b"never heard")
    assert not router.poll(int(1000 * NEVER_S))


def test_with_handover_whoever_takes_a_routing_id_gets_the_answers_meant_for_its_owner(context: "zmq.Context[Socket]") -> None:
    """So it is never set here, and nothing is ever answered to a routing id."""
    asked = gate(context)
    router, address = server(context, ROUTER_HANDOVER=1)
    owner, thief = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    _open.extend((owner, thief))
    for dealer, keys in ((owner, CLIENT), (thief, OTHER)):
        dealer.identity = b"owner"
        keys.on(dealer)
        dealer.curve_serverkey = SERVER.public
        dealer.connect(f"tcp://{address}")
        assert judge(asked, b"200")
        dealer.send(b"hello")
        assert router.poll(LIMIT_MS) and router.recv_multipart()[0] == b"owner"
    router.send_multipart([b"owner", b"for the owner's eyes"])
    assert thief.poll(LIMIT_MS) and thief.recv() == b"for the owner's eyes"
    assert not owner.poll(0)


# ---- 8: what is on the way when a link dies ----------------------------------------------------------------------------------


@on_loop
async def test_what_was_on_the_way_when_a_connection_broke_is_lost_without_a_word(context: "zmq.Context[Socket]") -> None:
    """libzmq had taken every one of them; the next arrives as if nothing had been."""
    router, address = server(context, enforce=False)
    proxy = Proxy(address)
    dealer, monitor = client(context, await proxy.start())
    dealer.send(b"first")
    await readable(router)
    assert router.recv_multipart()[1] == b"first"
    proxy.toward().cut()
    for n in range(30):
        dealer.send(b"%d" % n, zmq.NOBLOCK)
    await asyncio.sleep(NEVER_S / 3)
    assert proxy.reset() == 1
    proxy.heal()
    while zmq.EVENT_DISCONNECTED not in events_of(monitor):
        await asyncio.sleep(0.01)
    dealer.send(b"last", zmq.NOBLOCK)
    await readable(router)
    assert router.recv_multipart()[1] == b"last"
    dealer.close()
    await proxy.stop()


# ---- what our links are built of ---------------------------------------------------------------------------------------------


def test_a_socket_told_not_to_redial_dials_once_and_says_that_it_failed(context: "zmq.Context[Socket]") -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    _, monitor = client(context, address, RECONNECT_IVL=-1)
    assert told(monitor, zmq.EVENT_CLOSED)
    router, _ = server(context, enforce=False)
    router.bind(f"tcp://{address}")
    assert not monitor.poll(int(1000 * NEVER_S))


def test_a_client_hears_that_the_handshake_succeeded_only_after_the_gate_has_said_yes(context: "zmq.Context[Socket]") -> None:
    asked = gate(context)
    _, address = server(context)
    dealer, monitor = client(context, address, IMMEDIATE=1)
    assert told(monitor, zmq.EVENT_CONNECTED)
    with pytest.raises(zmq.Again):
        dealer.send(b"too early", zmq.NOBLOCK)
    assert judge(asked, b"200")
    assert told(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    # A send looks at what the I/O thread has told only about once a millisecond; asking for EVENTS does so at once.
    assert dealer.getsockopt(zmq.EVENTS) == zmq.POLLOUT
    dealer.send(b"now", zmq.NOBLOCK)


@on_loop
async def test_the_descriptor_signals_once_and_stays_quiet_while_messages_wait() -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as a, context.socket(zmq.PAIR) as b:
        a.bind("inproc://pair")
        b.connect("inproc://pair")
        for n in range(3):
            a.send(b"%d" % n)
        await readable(b)  # looks at EVENTS, as every receive does now and then
        assert select.select([b.FD], [], [], 0)[0] == []
        assert [b.recv() for _ in range(3)] == [b"0", b"1", b"2"]
        with pytest.raises(zmq.Again):
            b.recv(zmq.NOBLOCK)
