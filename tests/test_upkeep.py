"""What a network process does beside gossip: asked to leave it leaves once, and it can do without its control socket."""

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from node.upkeep.control import Caller
from node.upkeep.journal import Journal
from node.upkeep.observation import Observation
from node.upkeep.pulse import Pulse
from node.upkeep.upkeep import Upkeep
from node.upkeep.work import Learning
from p2pfl.failure import Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import PeerId
from tests.loopback import LIMIT_S, on_loop

OWN = Member(PeerId(b"o" * 32), "ward-a", "127.0.0.1:1", b"t" * 32, b"s" * 32)


class Alone:
    """No others."""

    members: Mapping[PeerId, Member] = {OWN.id: OWN}

    def account(self) -> None:
        return None


def upkeep(directory: Path, leave: Callable[[], None] = lambda: None) -> tuple[Upkeep, Journal]:
    journal = Journal(directory / "metrics.jsonl", directory / "log.jsonl", {OWN.id: OWN}, lambda _said: None)
    observation = Observation("wards", OWN, Alone(), journal, Learning(journal))
    return Upkeep(asyncio.get_running_loop(), observation, journal, leave), journal


@pytest.mark.net
@on_loop
async def test_a_node_that_only_starts_can_be_asked_and_is_asked_to_leave_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def leave() -> None:
        asked.append("leave")
        keeping.leaving()

    keeping, _ = upkeep(tmp_path, leave)
    await keeping.open(tmp_path / "control.sock", 0, {})

    def ask(name: str) -> object:
        with Caller(tmp_path / "control.sock", LIMIT_S) as caller:
            return caller.ask(name)

    status = await asyncio.to_thread(ask, "status")
    assert isinstance(status, dict) and (status["name"], status["state"], status["neighbors"]) == ("ward-a", "starting", [])
    for _ in range(3):
        assert await asyncio.to_thread(ask, "leave") == {"name": "ward-a", "role": "member", "step": 0}
    assert asked == ["leave"]
    after = await asyncio.to_thread(ask, "status")
    assert isinstance(after, dict) and after["state"] == "leaving"
    keeping.close()


@on_loop
async def test_a_folder_that_takes_no_socket_is_told_of_and_costs_no_more(tmp_path: Path) -> None:
    keeping, journal = upkeep(tmp_path)
    await keeping.open(tmp_path / "no" / "control.sock", 0, {})
    assert journal.incidents["no_control"] == 1
    keeping.close()


@pytest.mark.net
@on_loop
async def test_a_port_for_metrics_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    keeping, _ = upkeep(tmp_path)
    with pytest.raises(Failure, match="--metrics-port"):
        await keeping.open(tmp_path / "control.sock", taken.sockets[0].getsockname()[1], {})
    keeping.close()
    taken.close()


@on_loop
async def test_a_pulse_says_for_how_long_nothing_could_be_done() -> None:
    loop, stalls = asyncio.get_running_loop(), asyncio.Queue[float]()
    pulse = Pulse(loop, 0.01, stalls.put_nowait)
    assert await stalls.get() < LIMIT_S
    began = loop.time()
    while loop.time() - began < 0.1:  # as if the machine slept
        pass
    assert await stalls.get() > 0.08
    pulse.close()


LIMITED = """
import json, resource
from node.upkeep.limits import raise_descriptors
raised = raise_descriptors()
print(json.dumps([raised, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
"""


@pytest.mark.parametrize(("soft", "hard", "wanted"), [(256, 8192, 4096), (256, 1000, 1000), (5000, 8192, 5000)])
def test_as_many_files_can_be_open_as_a_node_wants_or_the_system_allows(soft: int, hard: int, wanted: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < hard:
        pytest.skip(f"the hard limit here is {before[1]}")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    done = subprocess.run([sys.executable, "-c", LIMITED], preexec_fn=limit, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [wanted, wanted]
