"""What a relay costs: MB/s of 1 MiB chunks through one beside a direct link of the same two, and the relay's memory.

python benchmarks/relay.py [CHUNKS]

The relay is a real process, `p2pfl node start` of an invite for a relay. The members that it carries for are hidden ends in
this process, links, tunnels and keys as in a node, without peers: what they say is chunks, 16 of them under way to each reader,
as credit allows in a node. On two cores the ends and the relay share them. Memory is PSS, at rest, while 8 tunnels carry in
both directions at once as fast as they can, and after it. Limit: 60 MB.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from node import node_settings, processes, setup
from node.admission.founding import found, own_record, settle
from node.admission.office import Office
from node.admission.terms import Terms
from node.commands.starting import prepared
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.local.network import free_ports
from node.moment import believed_time
from node.node_settings import settings_of
from node.transport.links import Links
from node.transport.ways import Ways
from node.upkeep.control import Caller
from p2pfl.failure import Failure
from p2pfl.protocol.admission.certificate import MEMBER_DAYS_MAX, Role
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Event, FrameReceived, LinkDown, LinkUp, PeerId
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay.tunnels import Tunnels
from p2pfl.protocol.wire import CHUNK_BYTES, TAG_BYTES

LIMIT_BYTES = 60_000_000
CHUNKS = 400
TUNNELS = 8
AHEAD = 16  # chunks that are on their way to one reader
CHUNK = os.urandom(CHUNK_BYTES + TAG_BYTES)
CREDIT = b"credit"
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.05


@dataclass
class End:
    """A member; `peer` is whom it has a way to. `received` chunks have come, `sent` have gone."""

    links: Links | Ways
    peer: PeerId
    up: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    is_sending: bool = False
    wanted: int = 0
    received: int = 0
    breaks: int = 0

    def expect(self, count: int) -> None:
        """Until so many chunks have come."""
        self.wanted, self.received = count, 0
        self.done.clear()

    def send(self) -> None:
        """As fast as the other takes them, until `is_sending` is False."""
        self.is_sending = True
        for _ in range(AHEAD):
            self._send()

    def heard(self, event: Event) -> None:
        match event:
            case LinkUp(peer) if peer == self.peer:
                self.up.set()
                if self.is_sending:  # what was under way is lost
                    self.send()
            case LinkDown(peer) if peer == self.peer and self.up.is_set():
                self.breaks += 1
            case FrameReceived(hop, (b"chunk", _)) if hop == self.peer:
                self.received += 1
                self.links.send(self.peer, (CREDIT,))
                if self.received >= self.wanted:
                    self.done.set()
            case FrameReceived(hop, (head,)) if hop == self.peer and head == CREDIT:
                self._send()

    def _send(self) -> None:
        if self.is_sending:
            self.links.send(self.peer, (b"chunk", CHUNK), bulk=True)


class Place:
    """A founded network of one relay, which runs, and members who are all here."""

    def __init__(self, directory: Path, members: int) -> None:
        (port,) = free_ports(1)
        terms, founder = Terms(), NodeDirectory(directory / "founder")
        found("bench", "founder", founder, terms, settings_of("a benchmark", listen=f"127.0.0.1:{port}"), None)
        office = Office.open(founder, None, lambda: "")
        self.roster: Roster = office.papers.roster
        self.hidden = [self._certified(office, f"member-{k}", directory, Role.MEMBER, "") for k in range(members)]
        (port,) = free_ports(1)
        self.relay = self._certified(office, "relay", directory, Role.RELAY, f"127.0.0.1:{port}")
        self.folder = NodeDirectory(directory / "relay")
        told = prepared(self.folder, self.relay, node_settings.load(self.folder))
        fd = setup.to_fd(told)
        command = processes.command("node.network", str(fd))
        self.process = subprocess.Popen(command, pass_fds=(fd, told.secrets_fd), env=processes.environment())
        os.close(fd)
        os.close(told.secrets_fd)

    def _certified(self, office: Office, name: str, directory: Path, role: Role, listen: str) -> Identity:
        folder, identity, now = NodeDirectory(directory / name), Identity.generate(SystemEntropy()), believed_time()
        own = settings_of("a benchmark", listen=listen) if listen else settings_of("a benchmark", outbound_only=True)
        folder.create()
        folder.write_identity(identity.to_bytes(None, SystemEntropy()))
        credential = office.authority.vouch(identity.peer_id, name, now, MEMBER_DAYS_MAX, serial=int(now), role=role)
        self.roster.learn(credential.data, own_record(identity, name, self.roster.network, folder, own, now).data, now)
        settle(folder, credential, office.papers.charters, self.roster)
        node_settings.save(folder, own)
        return identity

    async def ready(self) -> None:
        """The relay answers its owner."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    with Caller(self.folder.control) as caller:
                        if caller.ask("status")["state"] == "relaying":
                            return
                except Failure:
                    pass
                await asyncio.sleep(LOOK_EVERY_S)

    @property
    def pss(self) -> int:
        """Bytes of memory that the relay is to blame for."""
        told = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        (kib,) = re.findall(r"^Pss:\s+(\d+) kB$", told, re.MULTILINE)
        return int(kib) * 1024

    # ---- as `tunnels.Surroundings` ----------------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[PeerId, Member]:
        return self.roster.members

    def relays(self) -> list[PeerId]:
        return [self.relay.peer_id]

    def is_hidden(self, peer: PeerId) -> bool:
        return self.roster.is_hidden(peer)


async def hidden_end(there: Place, own: Identity, peer: PeerId, stack: ExitStack, closing: list[Links]) -> End:
    """A member that nobody can dial."""
    loop = asyncio.get_running_loop()
    keyring = Keyring(own, there.members)
    tunnels = Tunnels(own.peer_id, there.roster.network, keyring, SystemEntropy(), Choices(0, own.peer_id), there)
    ways = Ways(loop, tunnels, lambda event: end.heard(event))
    end = End(ways, peer)
    closing.append(await links_of(there, own, ways.heard))
    ways.over(closing[-1])
    stack.callback(ways.close)
    return end


async def links_of(there: Place, own: Identity, heard: Callable[[Event], None]) -> Links:
    def addresses_of(peer: PeerId) -> tuple[str, ...]:
        return there.roster.records[peer].addresses

    links = Links(
        there.roster.network,
        there.members,
        own,
        "127.0.0.1:0",
        heard,
        keys_of=there.roster.transport_keys,
        addresses_of=addresses_of,
        dials_loopback=True,
    )
    await links.start()
    return links


async def through(there: Place, chunks: int) -> None:
    """One tunnel, then all of them at once."""
    closing: list[Links] = []
    rest = there.pss
    with ExitStack() as stack:
        ids = [own.peer_id for own in there.hidden]
        pairs = [(k, k ^ 1) for k in range(len(ids))]
        ends = [await hidden_end(there, there.hidden[one], ids[other], stack, closing) for one, other in pairs]
        for end in ends:
            end.links.dial(end.peer)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(end.up.wait() for end in ends))
        linked = there.pss
        alone = await one_way(ends[0], ends[1], chunks)
        print(f"through a relay   {alone:7.0f} MB/s of 1 MiB chunks, one tunnel, one way")
        most = asyncio.create_task(watched(there))
        begin = perf_counter()
        for end in ends:
            end.expect(chunks // TUNNELS)
        for end in ends:
            end.send()
        await asyncio.gather(*(end.done.wait() for end in ends))
        seconds = perf_counter() - begin
        for end in ends:
            end.is_sending = False
        most.cancel()
        load = await most
        total = len(ends) * (chunks // TUNNELS) * len(CHUNK) / 1e6
        print(f"                  {total / seconds:7.0f} MB/s through {TUNNELS} tunnels, both ways at once")
        print(f"tunnels broken    {sum(end.breaks for end in ends):7d}")
    for links in closing:
        await links.close(0)
    after = there.pss
    print(f"relay's memory    {rest / 1e6:7.1f} MB PSS at rest, {linked / 1e6:.1f} with {len(ends)} members linked")
    limit = f"(limit {LIMIT_BYTES / 1e6:.0f} MB)"
    print(f"                  {load / 1e6:7.1f} MB at most under load, {after / 1e6:.1f} after it   {limit}")
    assert load <= LIMIT_BYTES, "a relay takes more than it may"


async def one_way(sender: End, reader: End, chunks: int) -> float:
    """MB/s."""
    begin = perf_counter()
    reader.expect(chunks)
    sender.send()
    await reader.done.wait()
    sender.is_sending = False
    return chunks * len(CHUNK) / 1e6 / (perf_counter() - begin)


async def watched(there: Place) -> int:
    """The most that it held until this is cancelled."""
    most = 0
    try:
        while True:
            most = max(most, there.pss)
            await asyncio.sleep(LOOK_EVERY_S)
    except asyncio.CancelledError:
        return max(most, there.pss)


async def direct(there: Place, chunks: int) -> None:
    """The same two, as if they could dial each other."""
    (a, b), ends = there.hidden[:2], list[End]()
    made = [await links_of(there, own, lambda event, k=k: ends[k].heard(event)) for k, own in enumerate((a, b))]  # type: ignore[misc]
    ends += [End(made[0], b.peer_id), End(made[1], a.peer_id)]
    places = {own.peer_id: str(links._listens) for own, links in zip((a, b), made, strict=True)}
    for links in made:
        links._stated = lambda peer: (places[peer],)
    for end in ends:
        end.links.dial(end.peer)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(end.up.wait() for end in ends))
    print(f"direct link       {await one_way(ends[0], ends[1], chunks):7.0f} MB/s of 1 MiB chunks, one way")
    for links in made:
        await links.close(0)


async def main(chunks: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        there = Place(Path(directory), 2 * TUNNELS)
        try:
            await there.ready()
            await direct(there, chunks)
            await through(there, chunks)
        finally:
            there.process.terminate()
            there.process.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else CHUNKS))
