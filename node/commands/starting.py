"""`p2pfl node start`: reads what the node's folder says, and then becomes the network process."""

import os
import sys
from typing import Any, NoReturn

from node import processes, setup
from node.admission import papers
from node.admission.fitting import task_of
from node.admission.inquiry import ask_at_once
from node.admission.joining import refuse_as_relay
from node.admission.papers import Papers
from node.admission.terms import of_charter
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.node_settings import NodeSettings
from node.setup import FoundedOthers, Setup
from node.transport.sockets import TransportKeys
from p2pfl.answer import answer
from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.charter import Member
from p2pfl.protocol.identity import Identity
from p2pfl.report.plain import plain

UNREACHED = "127.0.0.1:0"
"""Where a node listens that nobody can reach: at a port of this machine that it tells nobody."""


def prepared(directory: NodeDirectory, identity: Identity, settings: NodeSettings) -> Setup:
    """Everything that the network process is told; the folder says it. Raises `Failure`, also where a node runs in it: before
    anything is said or changed for this start."""
    os.close(directory.lock())
    known = papers.read(directory)
    own = identity.peer_id
    if known.roster.standing(own) is not None:
        _ask_others(directory, known, identity, settings.dials_loopback)
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
        own=Member(own, certificate.name, address, identity.transport_key, identity.seal_key),
        others=FoundedOthers(
            addresses,
            "" if settings.outbound_only else settings.listens_at_door,
            terms.topology.model_dump(),
            settings.is_on_loopback,
            settings.door,
        ),
        index=terms.part_of(own),
        parts=terms.parts,
        secrets_fd=setup.hold(identity.to_bytes(None, SystemEntropy())),
        listen=UNREACHED if settings.outbound_only else settings.listen,
        directory=str(directory.path),
        seed=terms.seed,
        gossip=terms.rules,
        learning={} if is_relay else {**terms.of_a_trainer, "task": task_of(terms, settings)},
        data_directory=settings.data,
        is_relay=is_relay,
    )


def _ask_others(directory: NodeDirectory, known: Papers, identity: Identity, dials_loopback: bool) -> None:
    """Whoever is no member as far as it knows may have been certified anew while it was away."""
    keys = TransportKeys(identity.transport_key, identity.transport_secret)
    ask_at_once(known, identity.peer_id, keys, dials_loopback)
    lock = directory.lock()
    try:
        directory.write(directory.roster, known.roster.to_bytes())
        directory.write(directory.charter, known.charters.to_bytes())
    finally:
        os.close(lock)


def become(told: Setup) -> NoReturn:
    """Replace this process, so that signals and exit codes are the network process's own."""
    if told.says_json:
        print(answer(_as_data(told)), flush=True)
    else:
        print(f"{plain(told.own.name)} {_place(told)}", file=sys.stderr, flush=True)
    fd = setup.to_fd(told)
    for inherited in (fd, told.secrets_fd):
        os.set_inheritable(inherited, True)
    os.execve(sys.executable, processes.command("node.network", str(fd)), processes.environment())


def _as_data(told: Setup) -> dict[str, Any]:
    """The same for programs. The process goes on under the same number."""
    assert isinstance(told.others, FoundedOthers), "a node that a person starts"
    return {
        "name": told.own.name,
        "network": told.network,
        "role": "relay" if told.is_relay else "member",
        "directory": told.directory,
        "listen": told.listen if told.others.addresses else "",
        "door": told.others.door,
        "addresses": told.others.addresses,
        "pid": os.getpid(),
    }


def _place(told: Setup) -> str:
    """Where it can be met, for people."""
    assert isinstance(told.others, FoundedOthers), "a node that a person starts"
    if not told.others.addresses:
        return "opens no port, and works over the links that it dials"
    return f"{'relays' if told.is_relay else 'listens'} at {told.listen}; join door: {told.others.door}"
