"""The control socket: the node's own user asks and is answered; nobody and nothing else gets anywhere, or holds up the loop."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.upkeep import control
from node.upkeep.control import CALLERS_MAX, REQUEST_MAX, Caller, Control
from p2pfl.failure import ExitCode, Failure
from tests.loopback import LIMIT_S, on_loop

pytestmark = pytest.mark.net


def refuse(_request: Any) -> Any:
    raise Failure("no_such_member", "There is no such member.", "Look at the list.", ExitCode.IDENTITY)


ANSWERS: dict[str, Callable[[Any], Any]] = {"echo": lambda request: request, "refuse": refuse}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Deeper than the address of a unix socket is long."""
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    return folder / "control.sock"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Control]:
    opened_one = Control(path, ANSWERS)
    await opened_one.start()
    try:
        yield opened_one
    finally:
        opened_one.close()
        await asyncio.sleep(0)  # those who listened hear the end


async def asked(path: Path, name: str, **arguments: Any) -> Any:
    """A caller is another process in life; here it is another thread."""

    def ask() -> Any:
        with Caller(path, LIMIT_S) as caller:
            return caller.ask(name, **arguments)

    return await asyncio.to_thread(ask)


def connected(path: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(LIMIT_S)
    control._at(path, caller.connect)
    return caller


async def said(path: Path, words: bytes) -> bytes:
    """What it says to these bytes until it hangs up."""

    def say() -> bytes:
        with connected(path) as caller:
            try:
                caller.sendall(words)
                caller.shutdown(socket.SHUT_WR)
                heard = b""
                while data := caller.recv(1 << 16):
                    heard += data
            except ConnectionError:
                return b""
            return heard

    return await asyncio.to_thread(say)


@on_loop
async def test_the_owner_asks_and_is_answered_also_in_a_very_deep_folder(path: Path) -> None:
    async with opened(path):
        assert await asked(path, "echo", round=3) == {"ask": "echo", "round": 3}
        assert await asked(path, "echo") == {"ask": "echo"}


@on_loop
async def test_a_refusal_arrives_as_it_was_raised(path: Path) -> None:
    async with opened(path):
        with pytest.raises(Failure) as refused:
            await asked(path, "refuse")
    assert (refused.value.code, refused.value.exit_code) == ("no_such_member", ExitCode.IDENTITY)
    assert str(refused.value) == "There is no such member. Look at the list."


NONSENSE = {
    "not JSON": b"status\n",
    "not an object": b"[1, 2]\n",
    "no question": b"{}\n",
    "a question that is no text": b'{"ask": ["echo"]}\n',
    "not UTF-8": b"\xff\xfe\n",
    "nested without end": b"[" * 60_000 + b"\n",
    "another question": b'{"ask": "__class__"}\n',
}


@pytest.mark.fault("junk")
@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_answered_with_what_the_node_knows(path: Path, words: bytes) -> None:
    @on_loop
    async def run() -> None:
        async with opened(path):
            error = json.loads(await said(path, words))["error"]
            assert (error["code"], error["hint"]) == ("unknown_request", "It knows: echo, refuse.")
            assert await asked(path, "echo") == {"ask": "echo"}

    run()


@on_loop
async def test_a_request_that_is_too_long_or_has_no_end_is_not_read(path: Path) -> None:
    async with opened(path):
        assert await said(path, b"x" * (2 * REQUEST_MAX)) == b""
        assert await said(path, b'{"ask": "echo"}') == b""
        assert await asked(path, "echo") == {"ask": "echo"}


@pytest.mark.fault("silent strangers")
@on_loop
async def test_callers_who_say_nothing_hold_up_nobody_for_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.2)
    async with opened(path):
        silent = [connected(path) for _ in range(CALLERS_MAX)]
        try:
            for caller in silent:  # each is hung up on in its time
                assert await asyncio.to_thread(caller.recv, 1) == b""
            assert await asked(path, "echo") == {"ask": "echo"}
        finally:
            for caller in silent:
                caller.close()


@on_loop
async def test_another_user_is_hung_up_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_user_of", lambda _caller: os.geteuid() + 1)
    async with opened(path):
        assert await said(path, b'{"ask": "echo"}\n') == b""


def test_the_kernel_says_who_calls() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert control._user_of(ours) == os.geteuid()


@on_loop
async def test_the_socket_is_the_owners_only_and_replaces_one_that_a_dead_node_left(path: Path) -> None:
    path.touch()
    mask = os.umask(0)
    try:
        async with opened(path):
            assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)
    assert not path.exists()


@on_loop
async def test_who_keeps_the_line_hears_the_end_of_the_node(path: Path) -> None:
    async with opened(path) as opened_one:
        caller = Caller(path, LIMIT_S)
        with caller:
            assert await asyncio.to_thread(caller.ask, "echo") == {"ask": "echo"}
            assert not await asyncio.to_thread(caller.wait_for_end, 0.05)
            waiting = asyncio.create_task(asyncio.to_thread(caller.wait_for_end, LIMIT_S))
            opened_one.close()
            assert await waiting


@pytest.mark.parametrize("left", ["nothing", "a dead socket", "a file"])
def test_where_no_node_runs_one_line_says_so(path: Path, left: str) -> None:
    if left == "a dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            control._at(path, dead.bind)
    elif left == "a file":
        path.touch()
    with pytest.raises(Failure, match="no node is running here") as refused:
        Caller(path)
    assert refused.value.exit_code is ExitCode.NETWORK


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="there is no such folder"):
        Caller(tmp_path / "no" / "control.sock")
