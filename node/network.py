"""The network process of one peer: `python -m node.network FD` reads its `Setup` there and runs until the peer is done.

No torch, numpy or networkx here: it is small, and training never delays it. Who is in its network is either a list that it was
given, or what `founded` finds out. It ends with its peer; when its owner says so at the control socket (0); on SIGINT and
SIGTERM, with a checkpoint (130 and 143; the second time at once); when it is no member any more (6); and when whoever started
it is gone.
"""

import asyncio
import hashlib
import os
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.checkpoint import Checkpoints
from node.directory import NodeDirectory
from node.entropy import SystemEntropy, instant
from node.founded import Founded
from node.live_peer import LivePeer
from node.sealing import IN_PLACE_MAX
from node.setup import Setup, from_fd, take
from node.training.arena import Arena
from node.training.channel import LoopChannel
from node.training.orders import Answer, Prepare, Ready
from node.training.trainer_process import TrainerDied, TrainerProcess
from node.transport.links import Links
from node.upkeep.journal import Journal
from node.upkeep.observation import Observation
from node.upkeep.upkeep import Upkeep
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter
from p2pfl.protocol.events import Event, Started, StopRequested
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.peer import Peer
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import static_plan

BOOT_ID_BYTES = 16
ARRIVING_BYTES = 128 << 20  # what updates of others may always take; a large model has room for one of each neighbor besides
STOP = "stop"  # what a parent says to end its node; all that it says


def main(setup: Setup) -> int:
    """Run the peer to its end; returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the secret keys
    return asyncio.run(Network(setup).run())


class Network:
    """What a network process consists of, and the reasons for it to end."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._directory = NodeDirectory(Path(setup.directory))
        self._parent: LoopChannel | None = None
        self._live: LivePeer | None = None
        self._upkeep: Upkeep | None = None
        self._founded: Founded | None = None
        self._early: list[Event] = []
        self._task: asyncio.Task[Any] | None = None
        self._exit_code: ExitCode | None = None
        self._failure: Failure | None = None
        self._bug: BaseException | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self._crash(context))
        self._task = asyncio.current_task()
        for number, code in ((signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)):
            loop.add_signal_handler(number, self._stop, code)
        if self._setup.parent_fd >= 0:
            end = socket.socket(fileno=self._setup.parent_fd)
            self._parent = LoopChannel(loop, end, lambda _stop: self._stop(ExitCode.OK), lambda: os._exit(ExitCode.OK))
        try:
            async with AsyncExitStack() as stack:
                self._live = live = await self._assemble(loop, stack)
                self._tell(Started())
                for event in self._early:
                    self._tell(event)
                step = await live.finished
            if self._failure is not None:
                raise self._failure
            if self._parent is None:
                print(f"ended after round {step}", file=sys.stderr, flush=True)
                if live.has_left_model:
                    print(f"model    {self._directory.model}", flush=True)
            self._say(("finished", live.counters()))
        except asyncio.CancelledError:
            if self._bug is not None:
                raise self._bug from None
            if self._failure is not None:
                return self._failed(self._failure)
        except Failure as failure:
            return self._failed(failure)
        return int(self._exit_code or ExitCode.OK)

    def _failed(self, failure: Failure) -> int:
        if self._parent is None:
            print(f"p2pfl: {failure}", file=sys.stderr)
        self._say(("failed", failure.code, failure.message, failure.hint, int(failure.exit_code)))
        return int(failure.exit_code)

    async def _assemble(self, loop: asyncio.AbstractEventLoop, stack: AsyncExitStack) -> LivePeer:
        """Everything that can fail for an operator's reasons fails here, before anything is sent."""
        setup, own = self._setup, self._setup.own
        stack.callback(os.close, self._directory.lock())
        identity = Identity.from_bytes(take(setup.secrets_fd), None)
        founded = self._founded = Founded(loop, setup, self._directory, identity) if setup.founded else None
        members = founded.members if founded is not None else {member.id: member for member in setup.members}
        signer = Keyring(identity, members)
        journal = Journal(self._directory.metrics, self._directory.log, members, self._say if self._parent else None)
        observation = Observation(setup.network, own, members, journal)
        observation.founded = founded
        self._upkeep = upkeep = Upkeep(loop, observation, journal, lambda: self._stop(ExitCode.OK))
        stack.callback(upkeep.close)
        await upkeep.open(self._directory.control, setup.metrics_port, founded.answers if founded is not None else {})
        charter = founded.charter if founded is not None else _listed(setup)

        def on_stranger(text: str) -> None:
            journal.incident("stranger", text)

        links = Links(
            charter.network_id,
            members,
            identity,
            setup.listen,
            self._hear,
            on_stranger=on_stranger,
            keys_of=founded.keys_of if founded is not None else None,
            addresses_of=founded.addresses_of if founded is not None else None,
            on_dial_refused=founded.refused if founded is not None else None,
            on_called=founded.called if founded is not None else lambda _peer: None,
        )
        observation.listens_at = str(await links.start())
        observation.links = links
        stack.push_async_callback(links.close)

        def on_degraded(text: str) -> None:
            journal.incident("degraded", text)

        def on_ready(ready: Ready) -> None:
            self._say(("ready", {name: getattr(ready, name) for name in Ready.__slots__}))

        trainer = TrainerProcess(loop, preparation(setup), setup.zygote_fd, self._trainer_answered, on_ready, on_degraded)
        stack.callback(trainer.close)
        observation.trainer = trainer
        ready = await trainer.start()
        if founded is not None:
            founded.check_model(ready.schema, ready.update_bytes)
        checkpoints = Checkpoints(self._directory.checkpoints, own.id, signer, ready.schema)
        newest = checkpoints.newest(lambda text: journal.incident("damaged_checkpoint", text))
        neighbors = founded.neighborhood.most if founded is not None else max(1, len(setup.weights) - 1)
        arena = Arena.create(ready.update_bytes, _slots(neighbors, is_stable=founded is None))
        await trainer.equip(arena, checkpoints)
        epoch = self._directory.next_boot_epoch(max(instant().wall, founded.epoch_before + 1 if founded is not None else 0))
        boot = Boot(epoch, SystemEntropy().draw(BOOT_ID_BYTES))
        liveness = founded.liveness(signer, boot) if founded is not None else None
        peer = Peer(
            own.id,
            signer,
            replace(charter, schema=ready.schema, update_bytes=ready.update_bytes),
            members,
            liveness.plan if liveness is not None else static_plan(own.id, setup.send_to, setup.weights),
            ready.local_steps,
            ready.samples,
            boot,
            Choices(setup.seed, own.id),
            SystemEntropy(),
            newest.state if newest is not None else None,
            room=_room(neighbors, ready.update_bytes),
            liveness=liveness,
        )
        on_conflict = founded.conflicted if founded is not None else None
        live = LivePeer(
            loop, peer, links, trainer, arena, checkpoints, journal, self._directory.model, setup.pace_s, on_conflict
        )
        stack.callback(live.close)
        observation.peer, observation.checkpoints = peer, checkpoints
        if founded is not None:
            stack.push_async_callback(founded.close)
            await founded.begin(signer, links, live, peer, journal, self._end)
        # Beside the slots: what is sealed while a slow reader holds on to all that may be.
        upkeep.gossiping(arena.slot_bytes * (arena.count + 2), neighbors + 1)
        return live

    def _hear(self, event: Event) -> None:
        """From the links."""
        if self._founded is None or not self._founded.heard(event):
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if self._live is None:
            self._early.append(event)
        else:
            self._live.tell(event)

    def _trainer_answered(self, answer: Answer | TrainerDied) -> None:
        if self._live is not None:
            self._live.trainer_answered(answer)

    def _say(self, message: tuple[Any, ...]) -> None:
        if self._parent is not None:
            self._parent.send(message)

    def _stop(self, code: ExitCode) -> None:
        if self._exit_code is not None:
            os._exit(code)
        self._exit_code = code
        if self._upkeep is not None:
            self._upkeep.leaving()
        if self._live is not None:
            self._live.tell(StopRequested())
        elif self._task is not None:
            self._task.cancel()

    def _end(self, failure: Failure, may_part: bool) -> None:
        """It can't go on for this reason; where it may part, its checkpoint is kept first, and its good-bye said."""
        if self._failure is not None or self._exit_code is not None:
            return
        self._failure, self._exit_code = failure, failure.exit_code
        if self._upkeep is not None:
            self._upkeep.leaving()
        if may_part and self._live is not None:
            self._live.tell(StopRequested())
        elif self._task is not None:
            self._task.cancel()

    def _crash(self, context: dict[str, Any]) -> None:
        """A broken invariant of ours: better gone, with the last checkpoint kept, than wrong."""
        self._bug = self._bug or context.get("exception") or AssertionError(context["message"])
        if self._task is not None:
            self._task.cancel()


def preparation(setup: Setup) -> Prepare:
    """The first order to its trainer."""
    return Prepare(
        setup.own.id,
        setup.index,
        setup.count,
        setup.data_directory,
        setup.task,
        setup.data,
        setup.training,
        setup.codec,
        setup.limits,
        setup.seed,
        setup.record,
        setup.record_row_max,
    )


def _listed(setup: Setup) -> Charter:
    """The agreement of members who are listed, instead of vouched for by a root key: a digest of who they are stands for that.
    The trainer knows the rest."""
    everyone = b"".join(sorted(member.id for member in setup.members))
    founders = hashlib.blake2b(everyone, digest_size=32, person=b"p2pfl/founders").digest()
    return Charter(setup.network, founders, b"", 0, setup.gossip)


def _room(neighbors: int, update_bytes: int) -> int:
    """How many long updates of others may take memory: one of each neighbor, and more only of a small model."""
    return max(neighbors, ARRIVING_BYTES // update_bytes)


def _slots(neighbors: int, is_stable: bool) -> int:
    """Of each neighbor two updates waiting, two that they displaced while their chunks were being opened, and one in the Learn
    under way; the same of those who were neighbors a moment ago; of one's own those that hold ciphertext, and the one that is
    being written, or sealed beside its slot."""
    return 5 * (neighbors if is_stable else 2 * neighbors) + IN_PLACE_MAX + 6


if __name__ == "__main__":
    sys.exit(main(from_fd(int(sys.argv[1]))))
