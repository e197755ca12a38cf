"""The fault bench: real nodes behind proxies, each two processes with its own sockets, keys, folder and history.

Every node's address, as the others know it, is its proxy, which tells callers apart by the process that owns their port. A
test says what breaks; nothing here sleeps for luck: waits are for something that a node said, and have a limit. Whatever
happens, the processes are ended by their numbers and the mounts undone.
"""

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec

from node import processes, setup
from node.local.network import local_network
from node.network import STOP
from node.setup import Setup
from node.training.channel import LoopChannel
from node.transport.sockets import Patience
from p2pfl.failure import ExitCode
from p2pfl.protocol.identity import Identity
from tests import history
from tests.callers import owner_of
from tests.proxy import Proxy

LIMIT_S = 40.0
BRISK = Patience(handshake_s=1.0, heartbeat_s=0.4, backoff_min_s=0.05, backoff_max_s=0.5)
"""A silent link is given up after 1.2 s."""
GOSSIP = {"floor_s": 0.2, "ceiling_s": 2.0, "gather_s": 5.0, "checkpoint_s": 0.2}
TINY = {"name": "digits", "model": "softmax"}

P = ParamSpec("P")


def benched(seconds: float = 90.0) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Callable[P, None]]:
    """Run an async test, bounded in time."""

    def decorate(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            async def bounded() -> None:
                async with asyncio.timeout(seconds):
                    await test(*args, **kwargs)

            asyncio.run(bounded())

        return run

    return decorate


@dataclass
class Node:
    """One node as the bench sees it. `rounds`, `incidents` and what it said of itself are of all its lives."""

    index: int
    identity: Identity
    folder: Path
    history: Path
    listens: str
    proxy: Proxy
    address: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    channel: LoopChannel | None = None
    ready: Mapping[str, Any] = field(default_factory=dict)
    rounds: list[Mapping[str, Any]] = field(default_factory=list)
    incidents: list[Mapping[str, Any]] = field(default_factory=list)
    counters: Mapping[str, Any] = field(default_factory=dict)
    failure: tuple[Any, ...] = ()
    is_finished: bool = False
    lives_before: int = 0
    """Of its life now, or its last."""
    _lines: list[history.Line] = field(default_factory=list)
    _read: int = 0

    @property
    def name(self) -> str:
        return self.identity.peer_id.hex()[:16]

    @property
    def step(self) -> int:
        return int(self.rounds[-1]["step"]) if self.rounds else -1

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def lives(self) -> int:
        """How often it got as far as being somebody."""
        return sum(line["what"] == "life" for line in self.lines())

    @property
    def is_up(self) -> bool:
        """Its trainer is ready, and its peer is there."""
        return bool(self.ready) and self.lives > self.lives_before

    @property
    def has_crashed(self) -> bool:
        """Ended by a bug of ours, which is nothing to wait for."""
        return self.process is not None and self.process.poll() == ExitCode.BUG

    @property
    def pids(self) -> list[int]:
        """Of its network process and its trainer."""
        assert self.process is not None
        return [self.process.pid, *([int(self.ready["pid"])] if self.ready else [])]

    def lines(self) -> list[history.Line]:
        """Its history so far."""
        if self.history.exists():
            self._read = history.read_on(self.history, self._read, self._lines)
        return self._lines


class Cluster:
    """`async with Cluster(4, tmp_path) as cluster:` has four nodes up."""

    def __init__(
        self,
        count: int,
        directory: Path,
        *,
        topology: str = "ring",
        rounds: int = 100_000,
        pace_s: float = 0.05,
        patience: Patience = BRISK,
        gossip: Mapping[str, Any] = GOSSIP,
        task: Mapping[str, Any] = TINY,
        updates: bool = False,
        open_links: bool = False,
        folds: bool = False,
        differs: Mapping[int, Mapping[str, Any]] | None = None,
        **sections: Any,
    ) -> None:
        """`differs` is what a node is told otherwise than the rest: sections of its trainer. `updates`, `open_links`, `folds`:
        as the options of `watched`."""
        self.directory = directory
        self._options = json.dumps({"patience": _fields(patience), "updates": updates, "open": open_links, "folds": folds})
        self._differs = differs or {}
        self._pace_s = pace_s
        self.network = local_network(
            [f"node-{i}" for i in range(count)],
            name="fault bench",
            rounds=rounds,
            topology={"kind": topology},
            gossip=dict(gossip),
            task=dict(task),
            **{"training": {"local_steps": 2, "batch_size": 16}, **sections},
        )
        self.nodes = [
            Node(
                i,
                identity,
                directory / str(i),
                directory / f"history-{i}.jsonl",
                member.address,
                Proxy(member.address, self._who),
            )
            for i, (identity, member) in enumerate(zip(self.network.identities, self.network.members, strict=True))
        ]
        self._mounts: list[Path] = []
        self._changed = asyncio.Event()
        self._errors = directory / "stderr.txt"

    async def __aenter__(self) -> "Cluster":
        self._loop = asyncio.get_running_loop()
        self._requests, theirs = socket.socketpair()
        self._zygote = processes.start("node.training.zygote", theirs.fileno(), own_group=True)
        theirs.close()
        try:
            for node in self.nodes:
                node.address = await node.proxy.start()
            members = zip(self.network.members, self.nodes, strict=True)
            self.network = replace(self.network, members=tuple(replace(m, address=node.address) for m, node in members))
            for node in self.nodes:
                self.start(node)
            await self.until(lambda: all(node.is_up for node in self.nodes))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- lives -------------------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """A new life of this node, in the same folder."""
        assert not node.is_running
        ours, theirs = socket.socketpair()
        told = self._setup(node, theirs.fileno())
        fd = setup.to_fd(told)
        node.ready, node.failure, node.is_finished, node.lives_before = {}, (), False, node.lives
        with theirs, self._errors.open("ab") as errors:
            node.process = subprocess.Popen(
                processes.command("tests.watched", str(fd), str(node.history), self._options),
                pass_fds=(fd, told.secrets_fd, theirs.fileno(), self._requests.fileno()),
                env=processes.environment(),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                process_group=0,
            )
        os.close(fd)
        os.close(told.secrets_fd)
        node.channel = LoopChannel(self._loop, ours, lambda said: self._said(node, said), self._pulse)

    def _setup(self, node: Node, parent_fd: int) -> Setup:
        """The one place that knows how a node comes to be."""
        differs = self._differs.get(node.index, {})
        told = self.network.setup(
            node.index,
            node.folder,
            listen=node.listens,
            pace_s=self._pace_s,
            parent_fd=parent_fd,
            zygote_fd=self._requests.fileno(),
        )
        return replace(told, learning={**told.learning, **differs})

    def kill(self, node: Node) -> None:
        """SIGKILL to both of its processes; returns when the kernel has them no more."""
        assert node.process is not None
        for pid in reversed(node.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.process.wait()
        self._hang_up(node)

    def pause(self, node: Node) -> None:
        """As when a laptop is closed."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: Node) -> None:
        self._signal(node, signal.SIGCONT)

    async def restart(self, node: Node) -> None:
        """Another life; returns when it is up."""
        self.start(node)
        await self.until(lambda: node.is_up)

    async def stop(self, *nodes: Node) -> None:
        """Ask them to end, and wait until they have: with a checkpoint and a model, and exit code 0."""
        for node in nodes:
            assert node.channel is not None
            node.channel.send(STOP)
        await self.until(lambda: not any(node.is_running for node in nodes))
        await self.until(lambda: all(node.is_finished for node in nodes))
        for node in nodes:
            assert node.process is not None and node.process.returncode == 0, (node.index, node.process)
            self._hang_up(node)

    # ---- what breaks between them -------------------------------------------------------------------------------------------

    def cut(self, one: Node, other: Node) -> None:
        """What `one` says to `other` does not arrive any more: not over its links, and not as answers of its sockets."""
        other.proxy.toward(one.name).cut()
        one.proxy.back(other.name).cut()

    def split(self, *sides: Sequence[Node]) -> None:
        """Nobody hears anybody of another side."""
        for side in sides:
            for one in side:
                for other in (node for others in sides if others is not side for node in others):
                    self.cut(one, other)

    def heal(self) -> None:
        """All links are as they were."""
        for node in self.nodes:
            node.proxy.heal()

    def _who(self, port: int, proxy_port: int) -> str:
        running = {n.process.pid: n.name for n in self.nodes if n.process is not None and n.is_running}
        return running.get(owner_of(port, proxy_port, running), "")

    # ---- its disk -----------------------------------------------------------------------------------------------------------

    def give_small_disk(self, node: Node, kib: int = 64) -> None:
        """Its folder becomes a file system of this size, before its first life. Needs root."""
        node.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "bench", str(node.folder)], check=True)
        self._mounts.append(node.folder)

    def fill_disk(self, node: Node) -> None:
        """Not a byte more fits."""
        with (node.folder / "filler").open("ab", buffering=0) as filler, suppress(OSError):
            for size in (1 << 16, 1 << 12, 1 << 6, 1):
                with suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def free_disk(self, node: Node) -> None:
        (node.folder / "filler").unlink()

    async def remount(self, node: Node, how: str) -> None:
        """Its small disk becomes "ro" or "rw"; not in the middle of a write, so that it may take a moment."""
        async with asyncio.timeout(LIMIT_S):
            while subprocess.run(["mount", "-o", f"remount,{how}", str(node.folder)], capture_output=True).returncode:
                await asyncio.sleep(0.01)

    # ---- what they say ------------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait for what follows from something that a node says."""
        try:
            async with asyncio.timeout(limit_s):
                while not holds():
                    assert not any(node.has_crashed for node in self.nodes), self._account()
                    with suppress(TimeoutError):  # the end of a process is no word of its own
                        await asyncio.wait_for(self._changed.wait(), 0.2)
                    self._changed.clear()
        except TimeoutError:
            raise AssertionError(f"it never came to this within {limit_s} s:\n{self._account()}") from None

    async def reach(self, further: int, *nodes: Node, limit_s: float = LIMIT_S) -> None:
        """Until each of these, or all, has ended so many rounds more."""
        goals = [(node, len(node.rounds) + further) for node in nodes or self.nodes]
        await self.until(lambda: all(len(node.rounds) >= goal for node, goal in goals), limit_s)

    async def hear_each_other(self, *nodes: Node, limit_s: float = LIMIT_S) -> None:
        """Until each of these, or all, has had a round with an update of every neighbor."""
        waiting = {node.index: len(node.rounds) for node in nodes or self.nodes}
        await self.until(
            lambda: all(any(not line["missing"] for line in self.nodes[i].rounds[begin:]) for i, begin in waiting.items()),
            limit_s,
        )

    def histories(self) -> dict[str, list[history.Line]]:
        return {node.name: node.lines() for node in self.nodes}

    def _said(self, node: Node, message: Any) -> None:
        match message:
            case ["ready", ready]:
                node.ready = ready
            case ["round", line]:
                node.rounds.append(line)
            case ["incident", line]:
                node.incidents.append(line)
            case ["finished", counters]:
                node.counters, node.is_finished = counters, True
            case ["failed", *failure]:
                node.failure = tuple(failure)
        self._pulse()

    def _pulse(self) -> None:
        self._changed.set()

    def _account(self) -> str:
        nodes = [
            f"{n.index} {n.name} running={n.is_running} step={n.step} failure={n.failure} incidents={n.incidents[-4:]}"
            for n in self.nodes
        ]
        said = self._errors.read_text(errors="replace")[-2000:] if self._errors.exists() else ""
        return "\n".join([*nodes, said])

    # ---- the end ------------------------------------------------------------------------------------------------------------

    def _signal(self, node: Node, number: signal.Signals) -> None:
        for pid in node.pids:
            os.kill(pid, number)

    def _hang_up(self, node: Node) -> None:
        if node.channel is not None:
            node.channel.close()
            node.channel = None

    async def close(self) -> None:
        """Ends what is left at once."""
        for node in self.nodes:
            if node.is_running:
                with suppress(ProcessLookupError):
                    self.resume(node)
                self.kill(node)
            self._hang_up(node)
        self._requests.close()
        await self._loop.run_in_executor(None, self._zygote.wait)
        for node in self.nodes:
            if node.address:
                await node.proxy.stop()
        for mount in self._mounts:
            subprocess.run(["umount", str(mount)], check=True)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def can_mount() -> bool:
    return os.geteuid() == 0 and Path("/proc/self/status").read_text().find("CapEff:\t0000000000000000") < 0
