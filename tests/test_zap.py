"""The gate: who is let in, and what it takes to keep asking it."""

import asyncio

import pytest
import zmq

from node.transport.sockets import Context
from node.transport.zap import Gate, user_id
from tests.loopback import LIMIT_S, on_loop, readable

pytestmark = pytest.mark.net

DOMAIN = b"p2pfl/00112233445566778899aabbccddeeff"
MEMBER, STRANGER = b"m" * 32, b"s" * 32


def is_member(key: bytes) -> bool:
    return key == MEMBER


def unheard(text: str) -> None:
    """Where what is said of strangers does not matter."""


def request(key: bytes = MEMBER, domain: bytes = DOMAIN, mechanism: bytes = b"CURVE", version: bytes = b"1.0") -> list[bytes]:
    """What libzmq asks (RFC 27)."""
    return [version, b"7", domain, b"203.0.113.9", b"", mechanism, key]


async def answer(context: Context, question: list[bytes]) -> list[bytes]:
    with context.socket(zmq.REQ) as libzmq:
        libzmq.linger = 0
        libzmq.connect("inproc://zeromq.zap.01")
        libzmq.send_multipart(question)
        await readable(libzmq)
        return libzmq.recv_multipart()


@on_loop
async def test_a_member_is_admitted_under_its_key() -> None:
    with Context() as context:
        gate = Gate(context, asyncio.get_running_loop(), DOMAIN, is_member, unheard)
        try:
            assert await answer(context, request()) == [b"1.0", b"7", b"200", b"", user_id(MEMBER).encode(), b""]
            assert gate.refused == 0
        finally:
            gate.close()


@on_loop
@pytest.mark.parametrize(
    "question",
    [
        request(STRANGER),
        request(MEMBER[:31]),
        request(MEMBER + b"m"),
        request(b""),
        request(domain=b"p2pfl/another network"),
        request(domain=b""),
        request(mechanism=b"NULL"),
        request(mechanism=b"PLAIN"),
        [*request(mechanism=b"PLAIN"), b"password"],
        [*request(), b"more"],
        request(version=b"2.0"),
    ],
)
async def test_whoever_is_not_admitted_is_refused_without_a_word(question: list[bytes]) -> None:
    """ "300" and not "400": after that one, an honest client of libzmq never tries again."""
    with Context() as context:
        gate = Gate(context, asyncio.get_running_loop(), DOMAIN, is_member, unheard)
        try:
            assert await answer(context, question) == [b"1.0", b"7", b"300", b"", b"", b""]
            assert gate.refused == 1
        finally:
            gate.close()


@on_loop
async def test_a_look_up_that_raises_refuses_that_one_and_is_reported() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reported.append(c["exception"]))
    error = LookupError("of our own making")

    def admits(key: bytes) -> bool:
        if key == STRANGER:
            raise error
        return True

    with Context() as context:
        gate = Gate(context, asyncio.get_running_loop(), DOMAIN, admits, unheard)
        try:
            for _ in range(3):
                assert (await answer(context, request(STRANGER)))[2] == b"300"
                assert (await answer(context, request(MEMBER)))[2] == b"200"
        finally:
            gate.close()
    assert reported == [error] * 3


@pytest.mark.fault("other protocols")
@on_loop
async def test_refusals_are_counted_and_seldom_told() -> None:
    told: list[str] = []
    with Context() as context:
        gate = Gate(context, asyncio.get_running_loop(), DOMAIN, is_member, told.append)
        try:
            for _ in range(10):
                await answer(context, request(STRANGER))
        finally:
            gate.close()
    assert gate.refused == 10
    assert told == ["refused 1 connection(s) from strangers, the last from 203.0.113.9"]


@on_loop
async def test_an_expected_refusal_is_a_test_and_no_stranger() -> None:
    told: list[str] = []
    with Context() as context:
        gate = Gate(context, asyncio.get_running_loop(), DOMAIN, is_member, told.append)
        try:
            refusal = gate.expect_refusal(STRANGER)
            await answer(context, request(STRANGER))
            await asyncio.wait_for(refusal, LIMIT_S)
        finally:
            gate.close()
    assert (gate.refused, told) == (0, [])


@on_loop
async def test_a_second_gate_in_one_context_is_our_own_mistake() -> None:
    with Context() as context:
        gate = Gate(context, asyncio.get_running_loop(), DOMAIN, is_member, unheard)
        with pytest.raises(zmq.ZMQError), context.socket(zmq.REP) as second:
            second.bind("inproc://zeromq.zap.01")
        gate.close()
