"""`p2pfl node start`: reads the files, draws the graph, opens the keys, and then becomes the network process."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from node import network_file, processes, setup
from node.admission import papers
from node.admission.fitting import task_of
from node.admission.joining import refuse_as_relay
from node.admission.terms import of_charter
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.node_settings import NodeSettings, next_port
from node.setup import Setup
from node.transport.address import Address
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.charter import Member
from p2pfl.protocol.identity import Identity
from p2pfl.report.plain import plain

UNREACHED = "127.0.0.1:0"
"""Where a node listens that nobody can reach: at a port of this machine that it tells nobody."""


def prepared(
    directory: NodeDirectory, file: Path, identity: Identity, listen: str | None, data: Path | None, task: str | None
) -> Setup:
    """Everything that the network process is told. Raises `Failure`."""
    network = network_file.load(file)
    sections = network_file.sections_of(network)
    if task is not None:
        sections["task"] = {"name": task}
    elif ":" in network.task.name or network.task.name.endswith(".py"):
        message = f"{file}: task.name is a file, and a network's file never names code."
        raise Failure("task_in_network", message, f"If you trust it, say so yourself: --task {network.task.name}")
    if data is not None and not data.is_dir():
        raise Failure("no_data", f"--data {data}: there is no such folder.", "Give the folder that holds this node's data.")
    index = network_file.index_of(network, identity.peer_id, str(file))
    member = network.members[index]
    if member.transport_key != identity.transport_key or member.seal_key != identity.seal_key:
        message = f"{file}: member {plain(member.name)!r} has this node's identity and other keys."
        raise Failure("other_keys", message, "Copy the [[member]] block of `p2pfl node init` again.", ExitCode.IDENTITY)
    neighborhood = network_file.neighborhoods(network, str(file))[index]
    return Setup(
        network=network.name,
        index=index,
        members=network.members,
        secrets_fd=setup.hold(identity.to_bytes(None, SystemEntropy())),
        listen=str(Address.parse(listen or member.address)),
        directory=str(directory.path),
        seed=network.seed,
        gossip=network.rules,
        send_to=neighborhood.send_to,
        weights=neighborhood.weights,
        **sections,
        data_directory=str(data.absolute()) if data is not None else "",
    )


def prepared_founded(directory: NodeDirectory, identity: Identity, settings: NodeSettings) -> Setup:
    """The same for a member of a founded network, whose folder says everything. Raises `Failure`."""
    known = papers.read(directory)
    own = identity.peer_id
    papers.check_standing(known, own)
    charter = known.charters.current
    terms = of_charter(charter)
    credential = known.roster.credential(own)
    assert credential is not None, "its standing is good"
    certificate = credential.certificate
    is_relay = certificate.role is Role.RELAY
    if is_relay:
        refuse_as_relay(settings)
    addresses = settings.advertised()
    address = next(iter(addresses), "")
    return Setup(
        network=charter.name,
        index=terms.part_of(own),
        members=(Member(own, certificate.name, address, identity.transport_key, identity.seal_key),),
        secrets_fd=setup.hold(identity.to_bytes(None, SystemEntropy())),
        listen=UNREACHED if settings.outbound_only else settings.listen,
        directory=str(directory.path),
        seed=terms.seed,
        gossip=terms.rules,
        send_to=(),
        weights={},
        task={} if is_relay else task_of(terms, settings),
        data={} if is_relay else terms.data.model_dump(),
        training={} if is_relay else terms.training.model_dump(),
        codec={} if is_relay else terms.codec.model_dump(),
        limits={} if is_relay else terms.limits.model_dump(),
        data_directory=settings.data,
        founded=True,
        parts=terms.parts,
        addresses=addresses,
        door="" if settings.outbound_only else next_port(settings.listen),
        is_relay=is_relay,
        dials_loopback=settings.is_on_loopback,
        topology=terms.topology.model_dump(),
    )


def become(told: Setup) -> NoReturn:
    """Replace this process, so that signals and exit codes are the network process's own."""
    print(f"{plain(told.own.name)} {_place(told)}", file=sys.stderr, flush=True)
    fd = setup.to_fd(told)
    for inherited in (fd, told.secrets_fd):
        os.set_inheritable(inherited, True)
    os.execve(sys.executable, processes.command("node.network", str(fd)), processes.environment())


def _place(told: Setup) -> str:
    """Where it can be met, for people."""
    if not told.founded:
        names = {member.id: plain(member.name) for member in told.members}
        return f"listens at {told.listen}; neighbors: {', '.join(names[peer] for peer in told.send_to)}"
    if not told.addresses:
        return "opens no port, and works over the links that it dials"
    return f"{'relays' if told.is_relay else 'listens'} at {told.listen}; join door: {told.door}"
