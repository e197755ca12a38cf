"""A node that carries for others, put together over the ground that it stands on: no trainer, no model, no checkpoint."""

from contextlib import AsyncExitStack

from node.entropy import SystemEntropy, instant
from node.ground import Ground
from node.live_relay import LiveRelay
from node.others import End
from node.transport.links import Links
from node.upkeep.work import Relaying
from p2pfl.protocol.boot import BOOT_ID_BYTES, Boot
from p2pfl.protocol.relay.forwarder import Forwarder
from p2pfl.protocol.relay.relay import Relay


async def relaying(ground: Ground, links: Links, stack: AsyncExitStack, end: End) -> LiveRelay:
    """Its parts are all there when this returns, and nothing was sent yet. Raises `Failure`."""
    setup, others, work = ground.setup, ground.others, ground.work
    assert isinstance(work, Relaying)
    epoch = ground.directory.next_boot_epoch(max(instant().wall, others.epoch_before + 1))
    boot = Boot(epoch, SystemEntropy().draw(BOOT_ID_BYTES))
    _, liveness = others.planned(ground.signer, boot)
    assert liveness is not None, "only a founded network has relays"
    forwarder = Forwarder(others.members, links.reaches)
    relay = work.relay = Relay(setup.own.id, others.charter, others.members, boot, liveness, forwarder)
    live = LiveRelay(ground.loop, relay, links, ground.journal, others.conflicted)
    stack.callback(live.close)
    stack.push_async_callback(others.close)
    await others.begin(ground.signer, links, live, ground.journal, end)
    ground.upkeep.relaying()
    return live
