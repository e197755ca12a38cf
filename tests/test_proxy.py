"""The proxy does what it says, on plain TCP, where every byte can be looked at; and under CURVE to real links."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pfl.protocol.events import LinkDown, LinkUp
from tests.loopback import LIMIT_S, RESTLESS, End, Imposter, Network, on_loop
from tests.proxy import Proxy

pytestmark = pytest.mark.net


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A proxy before a server that says back what it hears, and a connection through it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    server = Imposter(echo)
    proxy = Proxy(await server.start())
    host, port = (await proxy.start()).rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield proxy, reader, writer
    finally:
        writer.close()
        await proxy.stop()
        await server.stop()


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> float:
    """Seconds until all of it came back unchanged."""
    begin = asyncio.get_running_loop().time()
    writer.write(data)
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readexactly(len(data)) == data
    return asyncio.get_running_loop().time() - begin


@on_loop
async def test_what_is_sliced_and_jittered_arrives_whole_and_in_order() -> None:
    async with echoing() as (proxy, reader, writer):
        proxy.toward().slice_bytes = 3
        proxy.toward().jitter_s = 0.001
        proxy.back().slice_bytes = 1000
        assert await echoed(reader, writer, os.urandom(20_000)) > 0
        assert proxy.toward().passed == proxy.back().passed == 20_000


@on_loop
async def test_a_delay_is_one_way_and_no_limit_on_what_is_under_way() -> None:
    async with echoing() as (proxy, reader, writer):
        proxy.toward().delay_s = 0.3
        begin = asyncio.get_running_loop().time()
        for k in range(10):
            writer.write(b"%d" % k)
            await writer.drain()
            await asyncio.sleep(0.02)
        assert await reader.readexactly(10) == b"0123456789"
        assert 0.3 <= asyncio.get_running_loop().time() - begin < 10 * 0.3


@on_loop
async def test_a_throttled_way_takes_as_long_as_its_rate_says() -> None:
    async with echoing() as (proxy, reader, writer):
        proxy.toward().bytes_per_s = 50_000
        proxy.toward().slice_bytes = 1000
        assert await echoed(reader, writer, bytes(10_000)) >= 10_000 / 50_000


@on_loop
async def test_a_cut_way_is_silent_and_gives_up_what_it_held_when_it_heals() -> None:
    async with echoing() as (proxy, reader, writer):
        await echoed(reader, writer, b"before")
        proxy.back().cut()
        writer.write(b"meanwhile")
        async with asyncio.timeout(LIMIT_S):
            while proxy.toward().passed < len(b"beforemeanwhile"):  # the other way is open
                await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        proxy.heal()
        assert await reader.readexactly(9) == b"meanwhile"


@on_loop
async def test_a_reset_is_an_error_and_not_an_end() -> None:
    async with echoing() as (proxy, reader, writer):
        await echoed(reader, writer, b"before")
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), LIMIT_S)


@on_loop
async def test_limited_data_end_the_connection_and_a_slow_close_ends_it_later() -> None:
    async with echoing() as (proxy, reader, writer):
        proxy.back().limit_bytes = 5
        proxy.back().slice_bytes = 1
        proxy.back().close_delay_s = 0.2
        writer.write(b"too much")
        begin = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(reader.read(), LIMIT_S) == b"too m"
        assert asyncio.get_running_loop().time() - begin >= 0.2


@on_loop
async def test_ways_belong_to_callers() -> None:
    async with echoing() as (proxy, reader, writer):
        port = writer.get_extra_info("sockname")[1]
        proxy._caller_of = lambda caller, _own: "known" if caller != port else "other"
        proxy.cut("known")
        await echoed(reader, writer, b"an older connection, before anybody was known")
        host, proxied = writer.get_extra_info("peername")
        mute_reader, mute_writer = await asyncio.open_connection(host, proxied)
        mute_writer.write(b"?")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(mute_reader.read(1), 0.1)
        proxy.heal("known")
        assert await mute_reader.readexactly(1) == b"?"
        mute_writer.close()


# ---- real links behind it ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[End, End, Proxy]]:
    """a's link to b goes through the proxy and is up."""
    async with Network(2, RESTLESS) as network:
        a, b = await network.start(0), await network.start(1)
        proxy = Proxy(b.address)
        network.place(1, await proxy.start())
        a.links.dial(b.id)
        assert await a.next() == LinkUp(b.id)
        yield a, b, proxy
        await a.links.close()
        await proxy.stop()


async def goes_through(a: End, b: End) -> None:
    """Of what was said before, some may be on its way still."""
    a.links.send(b.id, (b"still here",))
    while (await b.message()).frames != (b"still here",):
        pass


@on_loop
async def test_a_slow_sliced_link_carries_a_chunk_unharmed() -> None:
    async with proxied() as (a, b, proxy):
        proxy.toward().slice_bytes = 4096
        proxy.toward().delay_s = proxy.back().delay_s = 0.05
        chunk = os.urandom(1 << 20)
        a.links.send(b.id, (b"chunk", chunk), bulk=True)
        assert (await b.message()).frames[1] == chunk


@pytest.mark.fault("imposters")
@on_loop
@pytest.mark.parametrize("harm", ["flip", "reset", "cut toward", "cut back", "limit"])
async def test_every_harm_ends_the_link_at_most_and_it_is_back_when_the_harm_is_over(harm: str) -> None:
    async with proxied() as (a, b, proxy):
        match harm:
            case "flip":
                proxy.toward().flips = 1
            case "reset":
                proxy.reset()
            case "cut toward":
                proxy.toward().cut()
            case "cut back":
                proxy.back().cut()
            case "limit":
                proxy.toward().limit_bytes = 100
        for n in range(100):
            a.links.send(b.id, (b"%d" % n, os.urandom(100)))
        assert await a.next() == LinkDown(b.id)
        proxy.heal()
        assert await a.next() == LinkUp(b.id)
        while not b.heard.empty():  # what arrived before was sent so, or not at all
            frames = (await b.message()).frames
            assert len(frames[1]) == 100
        await goes_through(a, b)
