"""The trainer process of one peer: torch lives here, and nothing that touches a network.

It carries out orders from its network process (`orders`) until their channel ends, and then ends too. It is nobody's parent,
runs on one thread at a lower priority, and leaves Ctrl-C and SIGTERM to the network process, which still needs it to save.
"""

import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from node.disk import write_durably
from node.training.arena import Arena, Slot
from node.training.channel import Channel, ChannelClosed
from node.training.orders import (
    Answer,
    FoldAnswer,
    FoldFailed,
    FoldOrder,
    LearnAnswer,
    LearnOrder,
    LearnRefused,
    Load,
    Loaded,
    ModelWritten,
    Order,
    Prepare,
    Ready,
    Save,
    Saved,
    SaveFailed,
    Unready,
    UseArena,
    WriteModel,
    order_from,
    to_message,
)
from node.upkeep.memory import give_back_freed
from p2pfl.failure import Failure
from p2pfl.protocol.envelope import digest, places
from p2pfl.protocol.events import Arrived, FoldedUpdate, Learn, Payload, PeerId
from p2pfl.protocol.wire import TAG_BYTES

if TYPE_CHECKING:
    from p2pfl.learning.learner import Learner
    from p2pfl.learning.parameters import Model
    from p2pfl.learning.task import Task

NICENESS = 5  # a heartbeat must never wait for a gradient


def serve(end: socket.socket) -> None:
    """Carry out orders until the channel ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    channel = Channel(end)
    trainer = Trainer(channel)
    try:
        while True:
            answer = trainer.carry_out(order_from(channel.receive()))
            if answer is not None:
                channel.send(to_message(answer))
            if isinstance(answer, Ready):
                gc.collect()
                gc.freeze()  # what is there by now stays; no collection need look at it again
                give_back_freed()  # making a model takes several times its memory for a moment
    except ChannelClosed:
        return


class Trainer:
    """What is prepared, the learner's state that counts, and the newer one that counts once the peer has heard of it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._learner: Any = None
        self._arena: Arena | None = None
        self._state: Any = None
        self._undelivered: Any = None
        self._folding: Any = None
        self._spare: Any = None
        """The vector before this one, for the next sum: malloc would often not find its place again, and take another."""
        self._answered = 0
        self._layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
        self._record: Record | None = None

    def carry_out(self, order: Order) -> Answer | None:
        match order:
            case Prepare():
                return self._prepare(order)
            case UseArena(slot_bytes, slots):
                self._arena = Arena(self._channel.received_fd(), slot_bytes, slots)
                return None
            case Load(path):
                return self._load(path)
            case FoldOrder():
                return self._fold(order)
            case LearnOrder():
                return self._learn(order)
            case Save(path, delivered):
                self._adopt(delivered)
                return self._save(path)
            case WriteModel(path, delivered):
                self._adopt(delivered)
                return self._write_model(path)
            case _:
                assert_never(order)

    def _prepare(self, order: Prepare) -> Ready | Unready:
        from p2pfl.task_file import blamed

        try:
            task, model, learner = learner_of(order)
            with blamed(f"the task {order.task['name']}"):
                self._state = learner.first()  # of its own, where asked for: model() is called again
        except Failure as failure:
            return _unready(failure)
        model.forget_first()
        self._learner = learner
        self._layout = tuple((slot.name, slot.shape) for slot in model.layout.slots)
        if order.record:
            self._record = Record(Path(order.record), order.record_row_max)
        return Ready(
            schema=learner.schema,
            update_bytes=learner.update_bytes,
            samples=learner.samples,
            local_steps=learner.local_steps,
            dimension=learner.dimension,
            layout=self._layout,
            labels=tuple(map(str, task.labels)),
            label_counts=tuple(map(float, learner.label_counts())),
            pid=os.getpid(),
            can_fold=learner.can_fold,
        )

    def _fold(self, order: FoldOrder) -> FoldAnswer | FoldFailed:
        from p2pfl.learning.codec import Refused
        from p2pfl.learning.learner import LearningFailed

        assert self._arena is not None
        self._adopt(order.delivered)
        payload = Payload(order.length, b"", self._arena.slot(order.slot).view[: order.length])
        try:
            spare, self._spare = self._spare, None
            self._folding = self._learner.fold(self._state, self._folding, order.sender, payload, order.weight, spare)
        except Refused as refused:
            return FoldAnswer(order.ticket, refused.reason)
        except (LearningFailed, MemoryError) as failure:
            self._folding = None
            return FoldFailed(order.ticket, str(failure) or type(failure).__name__)
        return FoldAnswer(order.ticket, None)

    def _learn(self, order: LearnOrder) -> LearnAnswer | LearnRefused:
        from p2pfl.learning.learner import LearningFailed

        assert self._arena is not None
        self._adopt(order.delivered)
        arrived = tuple(
            Arrived(PeerId(sender), 0, 0, step, age, Payload(length, b"", self._arena.slot(slot).view[:length]))
            for sender, step, age, slot, length in order.arrived
        )
        weights = {PeerId(peer): weight for peer, weight in order.weights}
        folded = tuple(FoldedUpdate(PeerId(sender), 0, 0) for sender in order.folded)
        folding, self._folding, self._spare = self._folding, None, None
        try:
            state, computed = self._learner.learn(
                self._state, Learn(order.step, 0, arrived, weights, order.local_steps, order.evaluate, folded), folding
            )
        except (LearningFailed, MemoryError) as failure:
            return LearnRefused(order.step, str(failure) or type(failure).__name__)
        payload = memoryview(computed.payload).cast("B")
        place_for_sealing(payload, self._arena.slot(order.outgoing_slot))
        if self._record is not None:
            self._record.add(memoryview(computed.mixed).cast("B"))
        self._undelivered = state
        self._answered += 1
        return LearnAnswer(order.step, len(payload), computed.verdicts, dict(computed.metrics))

    def _adopt(self, delivered: int) -> None:
        if self._undelivered is not None and delivered == self._answered:
            before, self._state, self._undelivered = self._state.vector, self._undelivered, None
            is_spare = before is not self._state.vector and before.flags.writeable
            self._spare = before if is_spare else None

    def _save(self, path: str) -> Saved | SaveFailed:
        from safetensors.numpy import save

        from p2pfl.learning.learner import state_to_arrays

        data = save(state_to_arrays(self._state))
        try:
            write_durably(Path(path), data)
        except OSError as error:
            return SaveFailed(path, error.strerror or str(error))
        return Saved(path, digest(data))

    def _write_model(self, path: str) -> ModelWritten:
        from node.model_file import model_file

        try:
            write_durably(Path(path), model_file(self._state.vector, self._layout))
        except OSError as error:
            return ModelWritten(path, error.strerror or str(error))
        return ModelWritten(path, "")

    def _load(self, path: str) -> Loaded | Unready:
        from safetensors.numpy import load_file

        from p2pfl.learning.learner import state_from_arrays

        try:
            self._state = state_from_arrays(load_file(path), like=self._state)
        except Failure as failure:
            return _unready(failure)
        return Loaded()


def place_for_sealing(payload: memoryview, slot: Slot) -> None:
    """Into its slot, chunk by chunk, each with the room behind it that sealing it there will take."""
    start = 0
    for place in places(slot.view, len(payload)):
        end = start + len(place) - TAG_BYTES
        place[: end - start] = payload[start:end]
        start = end


def learner_of(order: Prepare) -> "tuple[Task, Model, Learner]":
    """The task, its model, and this peer's learner of it. Raises `Failure`, also for whatever the user's own code raises."""
    import torch

    from p2pfl.learning.learner import Learner
    from p2pfl.learning.parameters import Model
    from p2pfl.learning.task import TaskPeer
    from p2pfl.learning.tasks import resolve
    from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection, parse
    from p2pfl.task_file import blamed, load

    torch.set_num_threads(1)
    section = parse(TaskSection, order.task, "task")
    with blamed(f"the task {section.name}"):
        task = resolve(section, parse(DataSection, order.data, "data"), order.seed, load)
        model = Model(task, order.seed)
        learner = Learner(
            order.peer,
            task,
            TaskPeer(order.index, order.count, Path(order.data_directory) if order.data_directory else None),
            parse(TrainingSection, order.training, "training"),
            parse(CodecSection, order.codec, "codec"),
            parse(LimitsSection, order.limits, "limits"),
            order.seed,
            model,
        )
    return task, model, learner


class Record:
    """A file of mixed vectors, one row of float32 after the other; of long ones, the newest alone."""

    def __init__(self, path: Path, row_max: int) -> None:
        self._path = path
        self._row_max = row_max
        path.write_bytes(b"")

    def add(self, row: memoryview) -> None:
        with self._path.open("ab" if len(row) <= self._row_max else "wb", buffering=0) as file:
            file.write(row)


def _unready(failure: Failure) -> Unready:
    return Unready(failure.code, failure.message, failure.hint, int(failure.exit_code))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
