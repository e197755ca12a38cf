"""A founded network of real nodes on this machine, whose trainers come from one zygote, so that sixteen of them fit.

They are certified where the root key is and have each other's records from the beginning; from there on everything is as in
`p2pfl node start`. Each writes down what it makes of the others (`watched_view`). Behind proxies, they can be split.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from node import node_settings, processes, setup
from node.admission.founding import found, own_record, settle
from node.admission.office import Office
from node.admission.terms import Terms
from node.commands.starting import prepared
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.moment import believed_time
from node.network import STOP
from node.training.channel import LoopChannel
from p2pfl.protocol.admission.certificate import MEMBER_DAYS_MAX
from p2pfl.protocol.identity import Identity
from tests.callers import owner_of
from tests.history import Line, read_on
from tests.proxy import Proxy
from topology.overlay import overlay

READ_S = 0.1  # between two looks at what the nodes wrote down
LIMIT_S = 60.0
STOP_S = 10.0


@dataclass
class FoundedNode:
    """One node; `lines` are of all its lives. `started_at` and `ready_at`, when its trainer was there, are of this one."""

    index: int
    folder: NodeDirectory
    history: Path
    listens: str
    proxy: Proxy
    identity: Identity
    process: "subprocess.Popen[bytes] | None" = None
    channel: LoopChannel | None = None
    trainer: int = 0
    started_at: float = 0.0
    ready_at: float | None = None
    failure: tuple[Any, ...] = ()
    lines: list[Line] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    _read: int = 0
    _seen: int = 0

    @property
    def name(self) -> str:
        """As the others write it."""
        return self.identity.peer_id.hex()[:16]

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def rounds(self) -> list[Line]:
        return [line for line in self.lines if line["what"] == "round"]

    def read(self) -> None:
        """What it wrote since."""
        if self.history.exists():
            self._read = read_on(self.history, self._read, self.lines)
        for line in self.lines[self._seen :]:
            if line["what"] == "life":
                self.states = {}
            elif line["what"] == "state":
                self.states[line["peer"]] = line["state"]
        self._seen = len(self.lines)


class FoundedCluster:
    """`async with FoundedCluster(16, tmp_path, terms) as cluster:` has sixteen nodes up that see each other."""

    def __init__(self, count: int, directory: Path, terms: Terms, *, pace_s: float = 0.0, behind_proxies: bool = False) -> None:
        self.terms = terms
        self._directory = directory
        self._pace_s = pace_s
        self._behind_proxies = behind_proxies
        self.nodes = [self._node(index, f"127.0.0.1:{port}") for index, port in enumerate(_free_ports(count))]
        self._errors = directory / "stderr.txt"

    async def __aenter__(self) -> "FoundedCluster":
        self._loop = asyncio.get_running_loop()
        self._requests, theirs = socket.socketpair()
        self._zygote = processes.start("node.training.zygote", theirs.fileno(), own_group=True)
        theirs.close()
        try:
            addresses = [await node.proxy.start() if self._behind_proxies else node.listens for node in self.nodes]
            self._certify(addresses)
            for node in self.nodes:
                self.start(node)
            await self.until(lambda: all(node.ready_at is not None for node in self.nodes))
            await self.until(self.agree)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    # ---- lives --------------------------------------------------------------------------------------------------------------

    def start(self, node: FoundedNode, with_own_trainer: bool = False) -> None:
        """A life of this node, with a trainer of the zygote or one that imports torch for itself."""
        assert not node.is_running
        ours, theirs = socket.socketpair()
        told = prepared(node.folder, node.identity, node_settings.load(node.folder))
        zygote = -1 if with_own_trainer else self._requests.fileno()
        told = replace(told, pace_s=self._pace_s, parent_fd=theirs.fileno(), zygote_fd=zygote)
        fd = setup.to_fd(told)
        node.started_at, node.ready_at, node.failure = monotonic(), None, ()
        with theirs, self._errors.open("ab") as errors:
            node.process = subprocess.Popen(
                processes.command("tests.watched_view", str(fd), str(node.history)),
                pass_fds=(fd, told.secrets_fd, theirs.fileno(), *([] if with_own_trainer else [zygote])),
                env=processes.environment(),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                process_group=0,
            )
        os.close(fd)
        os.close(told.secrets_fd)
        node.channel = LoopChannel(self._loop, ours, lambda said: self._said(node, said), lambda: None)

    def kill(self, node: FoundedNode) -> None:
        """SIGKILL to both of its processes."""
        assert node.process is not None
        for pid in (node.trainer, node.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.process.wait()
        if node.channel is not None:
            node.channel.close()

    def pause(self, node: FoundedNode) -> None:
        """As when a laptop is closed."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: FoundedNode) -> None:
        self._signal(node, signal.SIGCONT)

    @property
    def running(self) -> list[FoundedNode]:
        return [node for node in self.nodes if node.is_running]

    # ---- between them -------------------------------------------------------------------------------------------------------

    def cut(self, one: FoundedNode, other: FoundedNode) -> None:
        """What `one` says to `other` does not arrive any more."""
        assert self._behind_proxies
        other.proxy.toward(one.name).cut()
        one.proxy.back(other.name).cut()

    def split(self, *sides: Sequence[FoundedNode]) -> None:
        """Nobody hears anybody of another side; nobody is told."""
        assert self._behind_proxies
        for side in sides:
            for one in side:
                for other in (node for others in sides if others is not side for node in others):
                    other.proxy.cut(one.name)

    def heal(self) -> None:
        for node in self.nodes:
            node.proxy.heal()

    def near(self, node: FoundedNode) -> set[str]:
        """With whom it gossips models while all those who run are live."""
        live = [one.identity.peer_id for one in self.running]
        graph = self.terms.topology
        peers = overlay(graph.overlay, live, node.identity.peer_id, self.terms.seed, graph.degree)
        return {peer.hex()[:16] for peer in peers}

    @property
    def network_id(self) -> bytes:
        """Of the charter that the first one made."""
        return self._network_id

    # ---- what they make of each other ---------------------------------------------------------------------------------------

    def agree(self) -> bool:
        """Everybody who runs sees exactly those who run, and suspects nobody."""
        expected = {node.name: "alive" for node in self.running}
        return all({p: s for p, s in node.states.items() if s in ("alive", "suspected")} == expected for node in self.running)

    async def until(self, holds: Callable[[], bool], limit_s: float = LIMIT_S) -> float:
        """Look until it holds; how long it took. Raises `AssertionError` where it never does."""
        began = monotonic()
        while True:
            for node in self.nodes:
                node.read()
                assert not node.failure and (node.process is None or node.process.poll() in (None, -signal.SIGKILL)), self.said(
                    node
                )
            if holds():
                return monotonic() - began
            assert monotonic() - began < limit_s, f"it never came to this within {limit_s} s: {self._account()}"
            await asyncio.sleep(READ_S)

    async def pass_s(self, seconds: float) -> None:
        """Let time pass in which all go on running."""
        until = monotonic() + seconds
        await self.until(lambda: monotonic() >= until, limit_s=seconds + LIMIT_S)

    def said(self, node: FoundedNode) -> str:
        said = self._errors.read_text(errors="replace")[-2000:] if self._errors.exists() else ""
        return f"node {node.index} ended: {node.failure}\n{said}"

    def _account(self) -> str:
        return "; ".join(f"{n.index}: {sorted(n.states.values())} round {len(n.rounds)}" for n in self.nodes)

    # ---- inside -------------------------------------------------------------------------------------------------------------

    def _node(self, index: int, listens: str) -> FoundedNode:
        folder = NodeDirectory(self._directory / str(index))
        history = self._directory / f"history-{index}.jsonl"
        proxy = Proxy(listens, self._who)
        return FoundedNode(index, folder, history, listens, proxy, Identity.generate(SystemEntropy()))

    def _certify(self, addresses: Sequence[str]) -> None:
        """The first founds the network, and its root key makes the others members."""
        first, *others = self.nodes
        settings = [
            node_settings.settings_of("the bench", listen=node.listens, addresses=(address,))
            for node, address in zip(self.nodes, addresses, strict=True)
        ]
        found("bench", "node-0", first.folder, self.terms, settings[0], None)
        first.identity = Identity.from_bytes(first.folder.read_identity(), None)
        office, now = Office.open(first.folder, None, lambda: ""), believed_time()
        known = office.papers
        roster, credentials = known.roster, {}
        self._network_id = roster.network
        for node, own in zip(others, settings[1:], strict=True):
            name, identity = f"node-{node.index}", node.identity
            node.folder.create()
            node.folder.write_identity(identity.to_bytes(None, SystemEntropy()))
            credential = office.authority.vouch(identity.peer_id, name, now, MEMBER_DAYS_MAX, serial=int(now))
            record = own_record(identity, name, roster.network, node.folder, own, now)
            roster.learn(credential.data, record.data, now)
            credentials[node.index] = credential
            node_settings.save(node.folder, own)
        for node in others:
            settle(node.folder, credentials[node.index], known.charters, roster)
        first.folder.write(first.folder.roster, roster.to_bytes())

    def _said(self, node: FoundedNode, message: Any) -> None:
        match message:
            case ["ready", ready]:
                node.ready_at, node.trainer = monotonic(), int(ready["pid"])
            case ["failed", *failure]:
                node.failure = tuple(failure)

    def _signal(self, node: FoundedNode, number: signal.Signals) -> None:
        assert node.process is not None
        for pid in (node.process.pid, node.trainer):
            os.kill(pid, number)

    def _who(self, port: int, proxy_port: int) -> str:
        running = {node.process.pid: node.name for node in self.running if node.process is not None}
        return running.get(owner_of(port, proxy_port, running), "")

    async def _end(self) -> None:
        """Ask all to end, then make sure."""
        for node in self.running:
            assert node.channel is not None
            if node.trainer:
                with suppress(ProcessLookupError):
                    self.resume(node)
            node.channel.send(STOP)
        over = monotonic() + STOP_S
        while self.running and monotonic() < over:
            await asyncio.sleep(READ_S)
        for node in self.nodes:
            if node.is_running:
                self.kill(node)
            elif node.channel is not None:
                node.channel.close()
        self._requests.close()
        await self._loop.run_in_executor(None, self._zygote.wait)
        if self._behind_proxies:
            for node in self.nodes:
                await node.proxy.stop()


def _free_ports(count: int) -> list[int]:
    """Each free a moment ago, and the next one, which is the join door's; and below what systems give to outgoing connections,
    so that they stay so."""
    first, span = 10_000, 9_000  # elsewhere than those of other tests, which may run beside these
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = first + int.from_bytes(SystemEntropy().draw(4), "big") % span
            places = [stack.enter_context(socket.socket()) for _ in range(2)]
            with suppress(OSError):
                places[0].bind(("127.0.0.1", port))
                places[1].bind(("127.0.0.1", port + 1))
                ports.append(port)
        return ports
