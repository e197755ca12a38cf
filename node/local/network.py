"""A network whose peers are known before they start, as where all of them run on one machine. It is made in memory and never
read from a file: whoever runs peers on several machines founds a network."""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from node import setup
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.setup import ListedOthers, Setup
from p2pfl.failure import Failure
from p2pfl.protocol.charter import GossipRules, Member
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity
from p2pfl.settings import Agreement, TopologySection, parse


class LocalTerms(Agreement):
    """What is learned, on a graph that stays as it is."""

    rounds: int = Field(default=20, ge=1, le=1_000_000, strict=True)
    topology: TopologySection = TopologySection()

    @property
    def rules(self) -> GossipRules:
        return GossipRules(rounds=self.rounds, **self.gossip.model_dump())


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """Whom one peer sends to, and its row of the mixing weights."""

    send_to: tuple[PeerId, ...]
    weights: Mapping[PeerId, float]


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """Peer i of the graph is the i-th of all three."""

    name: str
    terms: LocalTerms
    identities: tuple[Identity, ...]
    members: tuple[Member, ...]
    neighborhoods: tuple[Neighborhood, ...]

    def setup(self, index: int, folder: Path, **more: Any) -> Setup:
        """All that the network process of this peer is told; its folder is made."""
        NodeDirectory(folder).create()
        own, near, terms = self.members[index], self.neighborhoods[index], self.terms
        told = {
            "network": self.name,
            "own": own,
            "others": ListedOthers(self.members, near.send_to, near.weights),
            "index": index,
            "parts": len(self.members),
            "secrets_fd": setup.hold(self.identities[index].to_bytes(None, SystemEntropy())),
            "listen": own.address,
            "directory": str(folder),
            "seed": terms.seed,
            "gossip": terms.rules,
            "learning": terms.of_a_trainer,
        }
        return Setup(**{**told, **more})


def local_network(names: Sequence[str], name: str, **sections: Any) -> LocalNetwork:
    """Of fresh peers, each on a free port of this machine. Raises `Failure` for terms or a graph that can't be."""
    terms = parse(LocalTerms, sections, name)
    identities = tuple(Identity.generate(SystemEntropy()) for _ in names)
    members = tuple(
        Member(identity.peer_id, called, f"127.0.0.1:{port}", identity.transport_key, identity.seal_key)
        for called, identity, port in zip(names, identities, free_ports(len(names)), strict=True)
    )
    return LocalNetwork(name, terms, identities, members, _neighborhoods(name, terms, [member.id for member in members]))


def free_ports(count: int) -> list[int]:
    """Free a moment ago, and below what systems give to outgoing connections, so that they most likely stay so."""
    first, span = 20_000, 12_000
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = first + int.from_bytes(SystemEntropy().draw(4), "big") % span
            place = stack.enter_context(socket.socket())
            with suppress(OSError):
                place.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def _neighborhoods(source: str, terms: LocalTerms, ids: Sequence[PeerId]) -> tuple[Neighborhood, ...]:
    from topology import TopologyError, from_specification, neighbor_weights

    section = terms.topology
    if section.overlay is not None:
        message = f"{source}: topology.overlay is of members who come and go, and these stay."
        raise Failure("bad_topology", message, "Give topology.kind.")
    arguments = section.model_dump(exclude={"kind", "weights", "seed", "overlay", "timers"})
    seed = terms.seed if section.seed is None else section.seed
    try:
        graph = from_specification(section.kind, len(ids), seed, **arguments)
        rows = neighbor_weights(graph, section.weights)
    except TopologyError as error:
        raise Failure("bad_topology", f"{source}: topology. {error.message}", error.hint) from None
    return tuple(
        Neighborhood(tuple(ids[j] for j in sorted(graph[i]) if j != i), {ids[j]: weight for j, weight in row.items()})
        for i, row in enumerate(rows)
    )
