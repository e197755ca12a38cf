"""Messages between processes of one machine."""

import asyncio
import os
import socket
import struct
from typing import Any

import pytest

from node.training.channel import MESSAGE_MAX, Channel, ChannelClosed, LoopChannel
from node.training.orders import LearnOrder, order_from, to_message


def test_a_message_arrives_as_it_was_sent() -> None:
    a, b = map(Channel, socket.socketpair())
    a.send(("order", 1, {"x": 1.5}, b"\0"))
    assert b.receive() == ("order", 1, {"x": 1.5}, b"\0")
    a.close(), b.close()


def test_messages_sent_together_arrive_one_by_one() -> None:
    a, b = map(Channel, socket.socketpair())
    for number in range(100):
        a.send(number)
    assert [b.receive() for _ in range(100)] == list(range(100))
    a.close(), b.close()


def test_a_message_longer_than_any_buffer_arrives_whole() -> None:
    async def scene() -> bytes:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        sender = LoopChannel(loop, ours, lambda _: None, lambda: None)
        sender.send(b"x" * 3_000_000)
        received: bytes = await loop.run_in_executor(None, Channel(theirs).receive)
        sender.close(), theirs.close()
        return received

    assert len(asyncio.run(scene())) == 3_000_000


def test_the_end_of_one_process_is_read_by_the_other() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(ChannelClosed):
        Channel(theirs).receive()
    with pytest.raises(ChannelClosed):
        Channel(theirs).send(1)
    theirs.close()


def test_a_loop_hears_every_message_and_then_the_end_once() -> None:
    async def scene() -> list[Any]:
        ours, theirs = socket.socketpair()
        heard: list[Any] = []
        ended = asyncio.Event()
        LoopChannel(asyncio.get_running_loop(), ours, heard.append, ended.set)
        other = Channel(theirs)
        other.send("one"), other.send("two"), other.close()
        await ended.wait()
        return heard

    assert asyncio.run(scene()) == ["one", "two"]


def test_a_descriptor_travels_with_its_message() -> None:
    async def scene() -> bytes:
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        sender = LoopChannel(asyncio.get_running_loop(), ours, lambda _: None, lambda: None)
        sender.send("here", write_end)
        receiver = Channel(theirs)
        assert receiver.receive() == "here"
        os.write(received := receiver.received_fd(), b"through")
        for fd in (received, write_end):
            os.close(fd)
        with os.fdopen(read_end, "rb") as pipe:
            sent = pipe.read()
        sender.close(), receiver.close()
        return sent

    assert asyncio.run(scene()) == b"through"


def test_a_length_over_the_bound_is_our_own_bug_and_allocates_nothing() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(struct.pack("!I", MESSAGE_MAX + 1))
    with pytest.raises(AssertionError, match="limit"):
        Channel(theirs).receive()
    ours.close(), theirs.close()


def test_an_order_is_the_same_after_the_channel() -> None:
    order = LearnOrder(3, ((b"a" * 32, 2, 7, 1, 100),), ((b"a" * 32, 0.25),), 4, True, 0)
    a, b = map(Channel, socket.socketpair())
    a.send(to_message(order))
    assert order_from(b.receive()) == order
    a.close(), b.close()
