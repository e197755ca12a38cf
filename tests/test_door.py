"""The join door over real sockets: who may ask, how often, what a stranger can do to it, and whom a joiner asks next."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import zmq

from node.admission import door as doors
from node.admission.asking import ask_first
from node.admission.asking import asked as ask_one
from node.admission.door import JoinDoor
from node.admission.inquiry import ask_at_once
from node.admission.papers import Papers
from node.transport.address import Address
from node.transport.sockets import Context, TransportKeys
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.join import REQUEST_BYTES, REQUEST_MAX, Door, Visit, question
from p2pfl.protocol.admission.joiner import Joined, understand
from p2pfl.protocol.admission.signed_charter import Charters
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId
from tests.admission import NOW, Network, Person
from tests.loopback import CALM, on_loop
from tests.test_join import charter
from tests.test_join import door as door_of

pytestmark = pytest.mark.net
ANN, BOB, CAT, EVE = (Person(name) for name in ("ann", "bob", "cat", "eve"))
NET = Network()
PATIENCE_S = 0.4


def keys(person: Person) -> TransportKeys:
    return TransportKeys(person.identity.transport_key, person.identity.transport_secret)


@dataclass
class Stage:
    """A door of ann's, and what it told."""

    open: JoinDoor = field(init=False)
    address: Address = field(init=False)
    admitted: list[PeerId] = field(default_factory=list)
    is_disk_full: bool = False
    said: list[str] = field(default_factory=list)
    questions: int = 0
    answer: Callable[[bytes, bytes], Visit] = field(init=False)

    @property
    def place(self) -> list[tuple[str, bytes]]:
        return [(str(self.address), ANN.identity.transport_key)]

    def _keep(self, peer: PeerId) -> bool:
        self.admitted += [] if self.is_disk_full else [peer]
        return not self.is_disk_full

    def _answer(self, frame: bytes, key: bytes) -> Visit:
        self.questions += 1
        return self.answer(frame, key)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    roster = NET.roster(ANN)
    door: Door = door_of(ANN, roster)
    made.answer = lambda frame, key: door.answer(frame, key, NOW)
    loop = asyncio.get_running_loop()
    made.open = JoinDoor(loop, keys(ANN), NET.id, made._answer, made._keep, made.said.append, CALM)
    made.address = await made.open.open(Address("127.0.0.1", 0))
    try:
        yield made
    finally:
        await made.open.close()


async def asked(at: Stage, person: Person, frame: bytes | None = None, patience_s: float = 5.0) -> Joined:
    """What `person` makes of the answer; in a thread, because a joiner blocks."""
    credential = NET.invite().redeem(person.id, person.name, NOW)
    record = person.record(NET.id)
    ask = frame if frame is not None else question(credential, record)
    return await asyncio.to_thread(
        ask_first,
        at.place,
        keys(person),
        ask,
        lambda answer: understand(answer, credential, record, NET.root.key, NOW),
        patience_s,
    )


async def refusal(at: Stage, person: Person, frame: bytes | None = None, patience_s: float = 5.0) -> Failure:
    with pytest.raises(Failure) as failed:
        await asked(at, person, frame, patience_s)
    assert "\n" not in str(failed.value) and failed.value.hint
    return failed.value


# ---- honest ---------------------------------------------------------------------------------------------------------------


@on_loop
async def test_whoever_has_an_invite_is_let_in_and_kept_before_it_hears_of_it() -> None:
    async with stage() as at:
        joined = await asked(at, BOB)
        assert joined.credential.receipt is not None and BOB.id in joined.roster.members
        assert (at.admitted, at.open.admitted) == ([BOB.id], 1)
        assert at.said == [f"let in {BOB.id.hex()[:16]}"]


@pytest.mark.fault("full disk")
@on_loop
async def test_who_cannot_be_kept_is_told_to_try_another_member_and_may_ask_here_again() -> None:
    async with stage() as at:
        at.is_disk_full = True
        assert (await refusal(at, BOB)).code == Reason.NO_RECEIPT
        assert (at.open.admitted, at.open.refused[Reason.NO_RECEIPT]) == (0, 1)
        at.is_disk_full = False
        assert (await asked(at, BOB)).credential.identity == BOB.id
        assert (at.admitted, at.open.admitted) == ([BOB.id], 1)


@pytest.mark.fault("stranger", "invites")
@on_loop
async def test_a_refusal_says_why_and_the_next_honest_one_gets_in() -> None:
    async with stage() as at:
        strangers = Network(seed=9).invite().redeem(EVE.id, "eve", NOW)
        failure = await refusal(at, EVE, question(strangers, EVE.record(strangers.certificate.network)))
        assert (failure.code, failure.exit_code) == ("wrong_net", ExitCode.IDENTITY)
        assert (at.open.refused["wrong_net"], at.admitted) == (1, [])
        assert (await asked(at, BOB)).credential.identity == BOB.id


@pytest.mark.fault("stranger")
@on_loop
async def test_papers_seen_elsewhere_open_no_door_from_another_key() -> None:
    async with stage() as at:
        bobs = question(NET.invite().redeem(BOB.id, "bob", NOW), BOB.record(NET.id))
        assert (await refusal(at, EVE, bobs)).code == "hop_mismatch"
        assert at.admitted == []


@on_loop
async def test_a_door_of_another_version_is_told_from_a_refusal() -> None:
    async with stage() as at:
        at.answer = lambda _frame, _key: Visit(bytes([0x93, 2, 66]) + bytes(64))
        failure = await refusal(at, BOB)
        assert (failure.code, failure.exit_code) == ("protocol_version", ExitCode.VERSION)


# ---- hostile --------------------------------------------------------------------------------------------------------------


@on_loop
async def test_whoever_does_not_know_the_doors_key_gets_no_word_in() -> None:
    async with stage() as at:
        mistaken = [(str(at.address), os.urandom(32))]
        with pytest.raises(Failure) as failed:
            await asyncio.to_thread(ask_first, mistaken, keys(EVE), b"x" * REQUEST_BYTES, bytes, PATIENCE_S)
        assert (failed.value.code, failed.value.exit_code) == ("nobody_answers", ExitCode.NETWORK)
        assert at.questions == 0
        assert (await asked(at, BOB)).credential.identity == BOB.id


@pytest.mark.fault("junk")
@on_loop
async def test_noise_of_every_length_is_answered_with_a_refusal_or_nothing() -> None:
    async with stage() as at:
        for size, code in ((0, "nobody_answers"), (63, "nobody_answers"), (64, "bad_header"), (REQUEST_MAX, "bad_header")):
            person = Person(f"noise-{size}")
            assert (await refusal(at, person, random.Random(7).randbytes(size), PATIENCE_S)).code == code
        assert at.admitted == []
        assert (await asked(at, BOB)).credential.identity == BOB.id


@pytest.mark.fault("oversize frame")
@on_loop
async def test_a_frame_over_the_limit_ends_its_connection_before_we_see_it() -> None:
    async with stage() as at:
        assert (await refusal(at, EVE, bytes(REQUEST_MAX + 200), PATIENCE_S)).code == "nobody_answers"
        assert at.questions == 0
        assert (await asked(at, BOB)).credential.identity == BOB.id


@on_loop
async def test_a_question_of_several_frames_is_none() -> None:
    async with stage() as at:
        with Visitor(at, EVE) as socket_:
            await sent(socket_, [b"x" * 100, b"y" * 100])
            await until(lambda: at.open.refused["bad_frames"] == 1)
        assert at.questions == 0


@pytest.mark.fault("flood")
@on_loop
async def test_who_asks_too_often_hears_nothing_and_others_are_heard() -> None:
    async with stage() as at:
        with Visitor(at, EVE) as socket_:
            for _ in range(20):
                await sent(socket_, [os.urandom(REQUEST_BYTES)])
            await until(lambda: at.questions + at.open.refused["rate_limited"] == 20)
        assert doors.PER_KEY[1] <= at.questions <= doors.PER_KEY[1] + 2  # what came back meanwhile, one in 5 s
        assert len(at.said) == 1  # and the log has one line of it
    async with stage() as at:
        for number in range(20):  # with a key for each question
            with Visitor(at, Person(f"sybil-{number}")) as socket_:
                await sent(socket_, [os.urandom(REQUEST_BYTES)])
                await until(lambda: sum(at.open.refused.values()) == number + 1)  # noqa: B023
        assert at.questions <= doors.PER_PLACE[1] + 4  # what came back meanwhile, at 2 a second
        assert at.open.refused["rate_limited"] > 0


@pytest.mark.fault("silent strangers")
@on_loop
async def test_those_who_never_hang_up_are_all_hung_up_on_and_the_door_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "VISITORS_MAX", 3)
    monkeypatch.setattr(doors, "LOG_EVERY_S", 0.05)
    async with stage() as at:
        idle = [Visitor(at, Person(f"idle-{number}")) for number in range(4)]
        try:
            for socket_ in idle:
                await sent(socket_, [b"x" * 100])
            await until(lambda: sum(at.open.refused.values()) == len(idle))
            await until(lambda: connections_to(at.address.port) == 0)
            assert (await asked(at, BOB)).credential.identity == BOB.id
        finally:
            for socket_ in idle:
                socket_.close()


@on_loop
async def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        loop = asyncio.get_running_loop()
        door = JoinDoor(loop, keys(ANN), NET.id, lambda _frame, _key: Visit(None), lambda _peer: True, lambda _text: None, CALM)
        with pytest.raises(Failure) as failed:
            await door.open(Address("127.0.0.1", busy.getsockname()[1]))
    assert (failed.value.exit_code, "in use" in failed.value.message) == (ExitCode.NETWORK, True)


# ---- whom a joiner asks ---------------------------------------------------------------------------------------------------


@on_loop
async def test_a_joiner_asks_the_next_member_when_one_is_gone_or_cannot_let_it_in() -> None:
    async with stage() as unable, stage() as able:
        unable.answer = lambda frame, key: door_of(EVE, NET.roster(ANN)).answer(frame, key, NOW)  # eve is no member
        gone = [("127.0.0.1:9", ANN.identity.transport_key), ("no.such.host.invalid:1", ANN.identity.transport_key)]
        credential, record = NET.invite().redeem(BOB.id, "bob", NOW), BOB.record(NET.id)

        def joined(places: list[tuple[str, bytes]]) -> Joined:
            ask = question(credential, record)
            return ask_first(places, keys(BOB), ask, lambda got: understand(got, credential, record, NET.root.key, NOW), 2.0)

        assert (await asyncio.to_thread(joined, [*gone, *unable.place, *able.place])).credential.identity == BOB.id
        with pytest.raises(Failure) as failed:
            await asyncio.to_thread(joined, [*gone, *unable.place])
        assert failed.value.code == Reason.NO_RECEIPT


@on_loop
async def test_a_plain_refusal_is_not_carried_to_the_next_member() -> None:
    async with stage() as first, stage() as second:
        spent = NET.invite()
        roster = NET.roster(ANN)
        roster.learn(NET.admitted(spent, CAT, ANN).data, CAT.record(NET.id).data, NOW + 100)
        first.answer = lambda frame, key: door_of(ANN, roster).answer(frame, key, NOW + 100)
        first_then_second = [*first.place, *second.place]
        credential, record = spent.redeem(BOB.id, "bob", NOW), BOB.record(NET.id)
        with pytest.raises(Failure) as failed:
            await asyncio.to_thread(
                ask_first,
                first_then_second,
                keys(BOB),
                question(credential, record),
                lambda got: understand(got, credential, record, NET.root.key, NOW),
                2.0,
            )
        assert (failed.value.code, second.questions) == (Reason.INVITE_SPENT, 0)


@on_loop
async def test_a_record_has_nobody_ask_services_of_its_own_machine() -> None:
    async with stage() as at:
        record = ANN.record(NET.id, 1, addresses=(str(at.address),), door=at.address.port)
        roster = NET.roster(ANN, BOB)
        roster.learn_record(record, NOW)
        papers = Papers(Charters(NET.root.key, charter()), roster)
        assert not await asyncio.to_thread(ask_at_once, papers, BOB.id, keys(BOB), dials_loopback=False)
        assert at.questions == 0
        await asyncio.to_thread(ask_at_once, papers, BOB.id, keys(BOB), dials_loopback=True)
        assert at.questions == 1
        for host in ("0.0.0.0", "[::]", "[::ffff:127.0.0.1]"):  # 0.0.0.0 is this machine, too
            place = Address.parse(f"{host}:{at.address.port}")
            answer, trouble = await asyncio.to_thread(
                ask_one, place, ANN.identity.transport_key, keys(BOB), b"x" * REQUEST_BYTES, PATIENCE_S, False
            )
            assert answer is None and trouble.startswith("that"), (place, trouble)
        assert at.questions == 1


# ---- inside ---------------------------------------------------------------------------------------------------------------


class Visitor:
    """Somebody who stays after asking, in a context of its own."""

    def __init__(self, at: Stage, person: Person) -> None:
        self._context = Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.curve_serverkey = ANN.identity.transport_key
        self._socket.curve_publickey, self._socket.curve_secretkey = keys(person).public, keys(person).secret
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.connect(f"tcp://{at.address}")

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def send(self, frames: list[bytes]) -> None:
        self._socket.send_multipart(frames)


async def sent(who: Visitor, frames: list[bytes]) -> None:
    await asyncio.to_thread(who.send, frames)


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)


def connections_to(port: int) -> int:
    """How many connections to our door this machine has, by the kernel."""
    import psutil

    with suppress(psutil.AccessDenied):
        return sum(
            one.status == psutil.CONN_ESTABLISHED and bool(one.laddr) and one.laddr.port == port
            for one in psutil.Process().net_connections("tcp")
        )
    return 0
