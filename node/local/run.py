"""Several real peers on this machine: each its own network process with its own sockets and keys, and its own trainer, forked
from one zygote. What the demo shows, and what tests compare with the simulators.

Nothing outlives it: children end when their channel to us does, and before `run_local` returns they are gone.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from node import processes, setup
from node.gossiping import preparation
from node.local.network import LocalNetwork
from node.network import STOP
from node.setup import Setup
from node.training.channel import LoopChannel
from node.training.orders import to_message
from node.training.zygote import ALONE
from p2pfl.failure import ExitCode, Failure

STOP_S = 3.0  # what peers get to save and say good-bye before they are ended
RECORD_BYTES_MAX = 1 << 30  # mixed vectors of all rounds and peers; above, only the newest are kept

State = Literal["starting", "up", "done", "killed", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to both processes of a peer, this long after all peers were ready."""

    peer: int
    after_s: float


@dataclass(slots=True)
class LocalPeer:
    """One peer as its launcher sees it. `rounds` are its lines of metrics, one a Learn."""

    name: str
    address: str
    state: State = "starting"
    ready: Mapping[str, Any] = field(default_factory=dict)
    rounds: list[Mapping[str, Any]] = field(default_factory=list)
    counters: Mapping[str, Any] = field(default_factory=dict)
    alone: Sequence[float] = ()
    record: Path = Path()

    @property
    def step(self) -> int:
        """Of its last finished Learn; -1 before."""
        return int(self.rounds[-1]["step"]) if self.rounds else -1


@dataclass(slots=True)
class LocalRun:
    """Of the whole run. `kills` are those that found their peer still running, with the step that it had reached."""

    network: LocalNetwork
    edges: tuple[tuple[int, int], ...]
    directed: bool
    peers: list[LocalPeer]
    seconds: float = 0.0
    kills: list[tuple[Kill, int]] = field(default_factory=list)
    incidents: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)


def run_local(
    network: LocalNetwork,
    directory: Path,
    *,
    kills: Sequence[Kill] = (),
    alone: bool = False,
    pace_s: float = 0.0,
    watch: Callable[[LocalRun], None] = lambda _run: None,
) -> LocalRun:
    """Run every peer of `network` to its end. `directory` gets a folder for each. `watch` hears of every change.

    Raises `Failure` if a peer can't start, and, with exit code 130 or 143, on SIGINT or SIGTERM.
    """
    return asyncio.run(_Launcher(network, directory, kills, pace_s, watch).run(alone))


class _Launcher:
    """Starts the processes, hears what they say, and ends them."""

    def __init__(
        self,
        network: LocalNetwork,
        directory: Path,
        kills: Sequence[Kill],
        pace_s: float,
        watch: Callable[[LocalRun], None],
    ) -> None:
        self._directory = directory
        self._kills = kills
        self._pace_s = pace_s
        self._watch = watch
        edges, directed = _edges([near.send_to for near in network.neighborhoods], [m.id for m in network.members])
        peers = [LocalPeer(member.name, member.address) for member in network.members]
        self._run = LocalRun(network, edges, directed, peers)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[LoopChannel] = []
        self._setups: list[Setup] = []
        self._began = 0.0

    async def run(self, alone: bool) -> LocalRun:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._alone_over: asyncio.Future[None] = self._loop.create_future()
        for number, code in ((signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)):
            self._loop.add_signal_handler(number, self._interrupt, code)
        requests, theirs = socket.socketpair()
        zygote = processes.start("node.training.zygote", theirs.fileno(), own_group=True)
        theirs.close()
        alone_channel = None
        try:
            for index in range(len(self._run.peers)):
                self._start(index, requests)
            if alone:
                alone_channel = self._start_alone(requests)
            else:
                self._alone_over.set_result(None)
            await self._over
            self._run.seconds = monotonic() - self._began
            await self._alone_over
        finally:
            await self._end(zygote, requests, alone_channel)
        return self._run

    def _start(self, index: int, requests: socket.socket) -> None:
        network, peer, folder = self._run.network, self._run.peers[index], self._directory / str(index)
        peer.record = folder / "mixed.f32"
        ours, theirs = socket.socketpair()
        told = network.setup(
            index,
            folder,
            record=str(peer.record),
            record_row_max=RECORD_BYTES_MAX // (len(network.members) * (network.terms.rounds + 1)),
            pace_s=self._pace_s,
            parent_fd=theirs.fileno(),
            zygote_fd=requests.fileno(),
        )
        fd = setup.to_fd(told)
        with theirs:
            keep = (told.secrets_fd, theirs.fileno(), requests.fileno())
            self._processes.append(processes.start("node.network", fd, keep, own_group=True))
        os.close(fd)
        os.close(told.secrets_fd)
        self._setups.append(told)
        self._channels.append(LoopChannel(self._loop, ours, lambda said: self._said(index, said), lambda: self._ended(index)))

    def _start_alone(self, requests: socket.socket) -> LoopChannel:
        ours, theirs = socket.socketpair()

        def said(message: Any) -> None:
            index, accuracies = message
            self._run.peers[index].alone = accuracies
            if all(peer.alone for peer in self._run.peers):
                over()

        def over() -> None:
            if not self._alone_over.done():
                self._alone_over.set_result(None)

        channel = LoopChannel(self._loop, ours, said, over)
        with theirs:
            socket.send_fds(requests, [ALONE], [theirs.fileno()])
        preparations = [to_message(preparation(told)) for told in self._setups]
        channel.send((self._run.network.terms.rounds, preparations))
        return channel

    def _said(self, index: int, message: Any) -> None:
        peer = self._run.peers[index]
        match message:
            case ["ready", ready]:
                if not peer.ready:
                    peer.state = "up"
                peer.ready = ready
                self._begin_if_all_are_up()
            case ["round", line]:
                peer.rounds.append(line)
                peer.counters = line
            case ["incident", line]:
                self._run.incidents.append((index, line))
            case ["finished", counters]:
                peer.counters = counters
                peer.state = "done"
            case ["failed", code, text, hint, exit_code]:
                peer.state = "failed"
                if not self._began and not self._over.done():
                    self._over.set_exception(Failure(code, text, hint, ExitCode(exit_code)))
        self._watch(self._run)

    def _ended(self, index: int) -> None:
        """Its process is gone, or about to be."""
        peer = self._run.peers[index]
        if peer.state in ("starting", "up"):
            peer.state = "failed"
        if peer.state == "failed" and not self._began and not self._over.done():
            message = f"{peer.name} ended before it was ready."
            self._over.set_exception(Failure("peer_failed", message, "What it said is above.", ExitCode.BUG))
        if all(peer.state in ("done", "killed", "failed") for peer in self._run.peers) and not self._over.done():
            self._over.set_result(None)
        self._watch(self._run)

    def _begin_if_all_are_up(self) -> None:
        if self._began or any(peer.state == "starting" for peer in self._run.peers):
            return
        self._began = monotonic()
        for kill in self._kills:
            self._loop.call_later(kill.after_s, self._kill, kill)

    def _kill(self, kill: Kill) -> None:
        peer = self._run.peers[kill.peer]
        if peer.state != "up":
            return
        peer.state = "killed"
        self._run.kills.append((kill, peer.step))
        os.kill(self._processes[kill.peer].pid, signal.SIGKILL)
        _kill_if_there(peer.ready["pid"])

    def _interrupt(self, code: ExitCode) -> None:
        ending = self._over if not self._over.done() else self._alone_over
        if ending.done():
            return
        for peer in self._run.peers:
            if peer.state == "up":
                peer.state = "stopped"
        what = "Interrupted." if code is ExitCode.INTERRUPTED else "Terminated."
        ending.set_exception(Failure("interrupted", what, f"Checkpoints are in {self._directory}.", code))

    async def _end(self, zygote: "subprocess.Popen[bytes]", requests: socket.socket, alone: LoopChannel | None) -> None:
        """Let them save, then make sure. A second Ctrl-C is not waited for: it ends what is left at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)
        for channel in self._channels:
            channel.send(STOP)
        try:
            async with asyncio.timeout(STOP_S):
                for process in self._processes:
                    await self._loop.run_in_executor(None, process.wait)
        except TimeoutError:
            pass
        finally:
            for process, peer in zip(self._processes, self._run.peers, strict=False):
                if process.poll() is None:
                    process.kill()
                    process.wait()
                    if peer.ready:
                        _kill_if_there(peer.ready["pid"])
            for channel in [*self._channels, *([alone] if alone else [])]:
                channel.close()
            requests.close()
            await self._loop.run_in_executor(None, zygote.wait)


def _edges(send_to: Sequence[Sequence[Any]], ids: Sequence[Any]) -> tuple[tuple[tuple[int, int], ...], bool]:
    """(i, j) where i sends to j, each undirected one once; and whether any has no way back."""
    place = {peer: i for i, peer in enumerate(ids)}
    arcs = {(i, place[peer]) for i, peers in enumerate(send_to) for peer in peers}
    directed = any((j, i) not in arcs for i, j in arcs)
    return tuple(sorted(arc for arc in arcs if directed or arc[0] < arc[1])), directed


def _kill_if_there(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
