"""A node that learns: its trainer, what it kept on its disk, and its peer, put together over the ground that it stands on."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from node.checkpoint import Checkpoint, Checkpoints
from node.entropy import SystemEntropy, instant
from node.ground import Ground, Say
from node.live_peer import LivePeer
from node.others import End
from node.sealing import IN_PLACE_MAX, THREADS
from node.setup import Setup
from node.training.arena import Arena
from node.training.orders import Answer, Prepare, Ready
from node.training.trainer_process import TrainerDied, TrainerProcess
from node.transport.links import Links
from node.transport.ways import Ways
from node.upkeep.work import Learning
from p2pfl.protocol.boot import BOOT_ID_BYTES, Boot
from p2pfl.protocol.charter import Charter
from p2pfl.protocol.envelope import sealed_bytes
from p2pfl.protocol.events import Rejected
from p2pfl.protocol.peer import Peer
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.room import Allotment, allotment
from p2pfl.protocol.wire import INLINE_MAX


async def gossiping(ground: Ground, links: Links | Ways, stack: AsyncExitStack, say: Say, end: End) -> LivePeer:
    """Its parts are all there when this returns, and nothing was sent yet. Raises `Failure`."""
    setup, others, journal = ground.setup, ground.others, ground.journal
    work = ground.work
    assert isinstance(work, Learning)
    live: LivePeer | None = None

    def answered(answer: Answer | TrainerDied) -> None:
        if live is not None:
            live.trainer_answered(answer)

    trainer = work.trainer = _trainer(ground, say, answered)
    stack.callback(trainer.close)
    ready = await trainer.start()
    charter = others.agreed(ready.schema, ready.update_bytes)
    checkpoints = Checkpoints(ground.directory.checkpoints, setup.own.id, ground.signer, ready.schema)
    newest = checkpoints.newest(lambda text: journal.incident("damaged_checkpoint", text))
    can_fold = ready.can_fold and setup.gossip.mode == "rounds"
    allotted = allotment(others.neighbors_most, ready.update_bytes, can_fold)
    arena = Arena.create(ready.update_bytes, _slots(allotted.places, others.neighbors_held, ready.update_bytes))
    await trainer.equip(arena, checkpoints)
    peer = _peer(ground, charter, ready, newest, allotted)
    parts = (peer, links, trainer, arena, checkpoints, journal)
    live = LivePeer(ground.loop, *parts, ground.directory.model, setup.pace_s, others.conflicted)
    stack.callback(live.close)
    if isinstance(links, Ways):

        def refused(what: Rejected) -> None:
            peer.ledger.reasons[what.blame, what.reason] += 1
            journal.rejected(what.reason, what.blame)

        links.on_rejected = refused
        live.on_view = links.view_changed
    work.peer, work.checkpoints = peer, checkpoints
    stack.push_async_callback(others.close)
    await others.begin(ground.signer, links, live, journal, end)
    # Beside the slots: what is sealed while a slow reader holds on to all that may be.
    ground.upkeep.gossiping(arena.slot_bytes * (arena.count + 2), others.neighbors_most + 1)
    return live


def preparation(setup: Setup) -> Prepare:
    """The first order to its trainer."""
    return Prepare(
        setup.own.id,
        setup.index,
        setup.parts,
        setup.data_directory,
        seed=setup.seed,
        record=setup.record,
        record_row_max=setup.record_row_max,
        **setup.learning,
    )


def _trainer(ground: Ground, say: Say, on_answer: Callable[[Answer | TrainerDied], None]) -> TrainerProcess:
    def on_ready(ready: Ready) -> None:
        say(("ready", {name: getattr(ready, name) for name in Ready.__slots__}))

    def on_degraded(text: str) -> None:
        ground.journal.incident("degraded", text)

    setup = ground.setup
    return TrainerProcess(ground.loop, preparation(setup), setup.zygote_fd, on_answer, on_ready, on_degraded)


def _peer(ground: Ground, charter: Charter, ready: Ready, newest: Checkpoint | None, allotted: Allotment) -> Peer:
    """Of a new life, which goes on from the newest checkpoint."""
    setup, others = ground.setup, ground.others
    epoch = ground.directory.next_boot_epoch(max(instant().wall, others.epoch_before + 1))
    boot = Boot(epoch, SystemEntropy().draw(BOOT_ID_BYTES))
    plan, liveness = others.planned(ground.signer, boot)
    return Peer(
        setup.own.id,
        ground.signer,
        charter,
        others.members,
        plan,
        ready.local_steps,
        ready.samples,
        boot,
        Choices(setup.seed, setup.own.id),
        SystemEntropy(),
        newest.state if newest is not None else None,
        room=allotted.places,
        liveness=liveness,
        folds=allotted.folds,
    )


def _slots(places: int, neighbors: int, update_bytes: int) -> int:
    """Of others: as many as have places, and those that were abandoned while chunks of theirs were being opened. What rides
    along with its offer has no place; of a short model each neighbor has two updates that wait, two that they displaced while
    these were being opened, and one in the Learn under way. Of one's own: those that hold ciphertext, and the one that is being
    written, or sealed beside its slot."""
    of_short = 5 * neighbors
    of_others = of_short if sealed_bytes(update_bytes) <= INLINE_MAX else min(places + THREADS, of_short)
    return of_others + IN_PLACE_MAX + 6
