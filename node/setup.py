"""All that a network process is told before it starts, in plain values: whoever starts it has read the files, drawn the graph
and asked for the passphrase, so that this process needs none of what that takes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from node.training.arena import unnamed_file
from p2pfl.protocol.charter import GossipRules, Member
from p2pfl.protocol.events import PeerId


@dataclass(frozen=True, slots=True)
class Setup:
    """`index` is the node's place among `members`, in the order of the network's file. `secrets_fd` is where it reads its
    identity, as `Identity.to_bytes` gives it without a passphrase. `parent_fd` is the channel to whoever started it, and
    `zygote_fd` where to ask for trainers; -1 where it is on its own. `pace_s`: a Learn starts at the earliest this long after
    the one before. `metrics_port`: where on loopback Prometheus is answered; 0 for nowhere.

    `founded`: charter, roster and credential are in the directory, and so is what is known of others; `members` is the node
    itself, and `index` which of `parts` of a bundled data set it has. `addresses`: where it says it can be dialled, at most
    three. `door`: HOST:PORT of its join door; "" for none. `topology`: overlay and degree. `is_relay`: it learns nothing, and
    task, data, training, codec and limits are empty. `dials_loopback`: whether it may dial loopback addresses that others
    state, wherever it listens itself.
    """

    network: str
    index: int
    members: tuple[Member, ...]
    secrets_fd: int
    listen: str
    directory: str
    seed: int
    gossip: GossipRules
    send_to: tuple[PeerId, ...]
    weights: Mapping[PeerId, float]
    task: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    codec: Mapping[str, Any]
    limits: Mapping[str, Any]
    data_directory: str = ""
    record: str = ""
    record_row_max: int = 0
    pace_s: float = 0.0
    parent_fd: int = -1
    zygote_fd: int = -1
    metrics_port: int = 0
    founded: bool = False
    parts: int = 0
    addresses: tuple[str, ...] = ()
    door: str = ""
    is_relay: bool = False
    dials_loopback: bool = False
    topology: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own(self) -> Member:
        return self.members[0 if self.founded else self.index]

    @property
    def count(self) -> int:
        """Among how many a bundled data set is divided."""
        return self.parts if self.founded else len(self.members)


def to_fd(setup: Setup) -> int:
    """A descriptor that the network process reads it from: of a file without a name, since many members would fill a pipe."""
    values = {name: getattr(setup, name) for name in setup.__slots__}
    values["members"] = [_fields(member) for member in setup.members]
    values["gossip"] = _fields(setup.gossip)
    fd = unnamed_file()
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(msgpack.packb(values))
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
    values["members"] = tuple(Member(**member) for member in values["members"])
    values["gossip"] = GossipRules(**values["gossip"])
    return Setup(**values)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
