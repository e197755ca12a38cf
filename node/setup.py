"""All that a network process is told before it starts, in plain values: whoever starts it has read the files, drawn the graph
and asked for the passphrase, so that this process needs none of what that takes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import msgpack

from node.training.arena import unnamed_file
from p2pfl.protocol.charter import GossipRules, Member
from p2pfl.protocol.events import PeerId


@dataclass(frozen=True, slots=True)
class ListedOthers:
    """The members were known beforehand: all of them, whom the node sends to, and its row of the mixing weights."""

    members: tuple[Member, ...]
    send_to: tuple[PeerId, ...]
    weights: Mapping[PeerId, float]


@dataclass(frozen=True, slots=True)
class FoundedOthers:
    """Charter, roster and credential are in the directory, and so is what is known of others. `addresses`: where the node says
    it can be dialled, at most three. `door`: HOST:PORT of its join door; "" for none. `topology`: overlay and degree.
    `dials_loopback`: whether it may dial loopback addresses that others state, wherever it listens itself. `door_port`: what
    its record says of the join door; 0 for the port after each address's."""

    addresses: tuple[str, ...]
    door: str
    topology: Mapping[str, Any]
    dials_loopback: bool = False
    door_port: int = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """`index` is which of `parts` of a bundled data set the node has. `learning` are the sections of a trainer: task, data,
    training, codec and limits; none for a relay. `secrets_fd` is where it reads its identity, as `Identity.to_bytes` gives it
    without a passphrase. `parent_fd` is the channel to whoever started it, and `zygote_fd` where to ask for trainers; -1 where
    it is on its own. `pace_s`: a Learn starts at the earliest this long after the one before. `metrics_port`: where on loopback
    Prometheus is answered; 0 for nowhere. `says_json`: how it ended is one JSON object on stdout."""

    network: str
    own: Member
    others: ListedOthers | FoundedOthers
    index: int
    parts: int
    secrets_fd: int
    listen: str
    directory: str
    seed: int
    gossip: GossipRules
    learning: Mapping[str, Mapping[str, Any]]
    data_directory: str = ""
    record: str = ""
    record_row_max: int = 0
    pace_s: float = 0.0
    parent_fd: int = -1
    zygote_fd: int = -1
    metrics_port: int = 0
    is_relay: bool = False
    says_json: bool = False


def to_fd(setup: Setup) -> int:
    """A descriptor that the network process reads it from: of a file without a name, since many members would fill a pipe."""
    fd = unnamed_file()
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(msgpack.packb(_plain(setup)))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def hold(secrets: bytes) -> int:
    """A descriptor that `take` reads them from, once. A pipe: they pass through memory and never through a file."""
    assert len(secrets) <= 512, "what a pipe of any system takes at once"
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as end:
        end.write(secrets)
    return reading


def take(fd: int) -> bytes:
    """What was held there."""
    with os.fdopen(fd, "rb") as end:
        return end.read()


def from_fd(fd: int) -> Setup:
    with os.fdopen(fd, "rb") as file:
        values = msgpack.unpackb(file.read(), use_list=False, strict_map_key=False)
    others = values["others"]
    if "members" in others:
        listed = tuple(Member(**member) for member in others["members"])
        values["others"] = ListedOthers(listed, others["send_to"], others["weights"])
    else:
        values["others"] = FoundedOthers(**others)
    values["own"] = Member(**values["own"])
    values["gossip"] = GossipRules(**values["gossip"])
    return Setup(**values)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
