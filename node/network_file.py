"""The file of a network: what is learned, how it is gossiped, and who is in it. Every member has the same one.

name = "wards"
rounds = 50
topology = { kind = "ring" }

[[member]]
name = "ward-a"
address = "10.0.0.5:7780"
identity = "..."        # 64 hex digits each, as `p2pfl node init` prints them
transport = "..."
seal = "..."
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from node.transport.address import Address
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.charter import GossipRules, Member
from p2pfl.protocol.events import PeerId
from p2pfl.report.plain import plain
from p2pfl.settings import (
    CodecSection,
    DataSection,
    GossipSection,
    LimitsSection,
    Section,
    TaskSection,
    TopologySection,
    TrainingSection,
    parse,
)

MEMBERS_MAX = 1024  # every node keeps them all in memory, and every one of them may knock
KEY_DIGITS = 64
FILE_MAX = 1 << 20  # bytes; a member's block has about 350


class MemberSection(Section):
    """One [[member]]: its three public keys in hex."""

    name: str = Field(min_length=1, max_length=64)
    address: str
    identity: str
    transport: str
    seal: str

    @field_validator("identity", "transport", "seal")
    @classmethod
    def _hex(cls, value: str) -> str:
        try:
            if len(bytes.fromhex(value)) * 2 == len(value) == KEY_DIGITS:
                return value.lower()
        except ValueError:
            pass
        raise ValueError(f"not {KEY_DIGITS} hex digits")

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        try:
            address = Address.parse(value)
        except Failure as failure:
            raise ValueError(f"{failure.message} {failure.hint}".rstrip(".")) from None
        if not address.port:
            raise ValueError("port 0 is nowhere; name the port that the others shall dial")
        return value


class NetworkFile(Section):
    """Parsed and strict; `load` also checks what concerns several members at once."""

    name: str = Field(min_length=1, max_length=64)
    seed: int = Field(default=7, ge=0, lt=2**32, strict=True)
    rounds: int = Field(default=20, ge=1, le=1_000_000, strict=True)
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    topology: TopologySection = TopologySection()
    gossip: GossipSection = GossipSection()
    codec: CodecSection = CodecSection()
    limits: LimitsSection = LimitsSection()
    member: tuple[MemberSection, ...] = Field(min_length=1, max_length=MEMBERS_MAX)

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(
            Member(PeerId(bytes.fromhex(m.identity)), m.name, m.address, bytes.fromhex(m.transport), bytes.fromhex(m.seal))
            for m in self.member
        )

    @property
    def rules(self) -> GossipRules:
        return GossipRules(rounds=self.rounds, **self.gossip.model_dump())


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """Whom one member sends to, and its row of the mixing weights."""

    send_to: tuple[PeerId, ...]
    weights: Mapping[PeerId, float]


def load(path: Path) -> NetworkFile:
    """Read and check it; every problem is one `Failure` that names the place."""
    try:
        if path.exists() and not path.is_file():
            raise Failure("unreadable_network", f"{path}: not a regular file.", "Give the path of the network's TOML file.")
        with path.open("rb") as file:
            text = file.read(FILE_MAX + 1)
        if len(text) > FILE_MAX:
            raise Failure("bad_network", f"{path}: over {FILE_MAX >> 20} MiB.", "A file of 1024 members has half of that.")
        values = tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise Failure("unreadable_network", f"{path}: {error.strerror}.", _nearest_file(path)) from None
    except UnicodeDecodeError as error:
        raise Failure("bad_network", f"{path}: byte {error.start} is not UTF-8.", "Save the file as UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise Failure("bad_network", f"{path}: {error}.", "Strings are quoted, and every line is key = value.") from None
    network = parse(NetworkFile, values, str(path))
    for key in ("name", "address", "identity", "transport", "seal"):
        _refuse_duplicates(path, key, [getattr(member, key) for member in network.member])
    if network.training.weighting == "samples" and network.training.mean_samples is None:
        message = f'{path}: training.weighting = "samples" has nothing to compare with.'
        raise Failure("bad_configuration", message, "Agree on training.mean_samples, the mean over the members, and add it.")
    return network


def index_of(network: NetworkFile, own: PeerId, source: str) -> int:
    """One's place among the members."""
    for index, member in enumerate(network.members):
        if member.id == own:
            return index
    message = f"{source}: this node ({own.hex()[:16]}...) is not among the {len(network.member)} members."
    raise Failure("not_a_member", message, "Add the [[member]] block that `p2pfl node init` printed.", ExitCode.IDENTITY)


def neighborhoods(network: NetworkFile, source: str) -> tuple[Neighborhood, ...]:
    """Of every member, in the order of the file. Peer i of the graph is the i-th member."""
    from topology import TopologyError, from_specification, neighbor_weights

    section = network.topology
    if section.overlay is not None:
        message = f"{source}: topology.overlay: the members are listed here, and an overlay is of those who are live."
        raise Failure("bad_topology", message, "Give topology.kind, or found a network: p2pfl network create.")
    arguments = section.model_dump(exclude={"kind", "weights", "seed", "overlay", "timers"})
    seed = network.seed if section.seed is None else section.seed
    ids = [member.id for member in network.members]
    if len(ids) == 1:
        raise Failure("alone", f"{source}: there is only one member.", "Add a [[member]] block for each of the others.")
    try:
        graph = from_specification(section.kind, len(ids), seed, **arguments)
        rows = neighbor_weights(graph, section.weights)
    except TopologyError as error:
        raise Failure("bad_topology", f"{source}: topology. {error.message}", error.hint) from None
    return tuple(
        Neighborhood(tuple(ids[j] for j in sorted(graph[i]) if j != i), {ids[j]: weight for j, weight in row.items()})
        for i, row in enumerate(rows)
    )


def sections_of(network: NetworkFile) -> dict[str, Any]:
    """The sections that a trainer needs, as plain tables."""
    return {name: getattr(network, name).model_dump() for name in ("task", "data", "training", "codec", "limits")}


def _refuse_duplicates(path: Path, key: str, values: list[str]) -> None:
    seen: dict[str, int] = {}
    for number, value in enumerate(values, 1):
        if value in seen:
            shown = plain(value) if key in ("name", "address") else f"{value[:16]}..."
            message = f"{path}: members {seen[value]} and {number} have the same {key}, {shown}."
            raise Failure("duplicate_member", message, "Every member is listed once, with keys and an address of its own.")
        seen[value] = number


def _nearest_file(path: Path) -> str:
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Give the path of the network's TOML file."
