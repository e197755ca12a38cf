"""What a node's owner decided when it was made, and nobody else need agree with: where it listens, its own task and data."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import psutil
from pydantic import Field, field_validator, model_validator

from node.directory import NodeDirectory
from node.disk import read_whole
from node.transport.address import Address
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.record import ADDRESSES_MAX, door_at
from p2pfl.settings import Section, parse

LISTEN = "0.0.0.0:7780"
FILE_MAX = 1 << 16  # bytes; with every path at its longest it has 9 KiB
ANYWHERE = {"0.0.0.0", "::"}


class NodeSettings(Section):
    """`listen`: of the data door. `door`: the port of the join door, here and wherever it is reached; 0 for the one after the
    data door's. `addresses`: where the others reach the data door; where there are none, this machine's own. `outbound_only`:
    nobody can reach this machine, so that it opens no port and states no address. `task` and `data` are paths, absolute."""

    listen: str = LISTEN
    door: int = Field(default=0, ge=0, le=65535, strict=True)
    addresses: tuple[str, ...] = Field(default=(), max_length=ADDRESSES_MAX)
    outbound_only: bool = False
    task: str = ""
    data: str = ""

    @field_validator("listen")
    @classmethod
    def _listens(cls, value: str) -> str:
        return str(_with_two_ports(value))

    @field_validator("addresses")
    @classmethod
    def _are_reached(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if _with_two_ports(value).host in ANYWHERE:
                raise ValueError(f"{value} is where one listens; name an address that the others can dial")
        return values

    @model_validator(mode="after")
    def _is_reached_or_not(self) -> "NodeSettings":
        if self.door and self.door == Address.parse(self.listen).port:
            raise ValueError(f"port {self.door} is for members already: give the join door another")
        if self.outbound_only and self.addresses:
            raise ValueError(f"whoever is reached at {self.addresses[0]} is not outbound-only: give one of the two")
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """Which ports it opens to others: of the data door and the join door."""
        return () if self.outbound_only else (self.listen, self.listens_at_door)

    @property
    def listens_at_door(self) -> str:
        """HOST:PORT of the join door."""
        return door_at(self.listen, self.door)

    @property
    def is_on_loopback(self) -> bool:
        """Whether its owner means it to be on this machine only, as the others."""
        return Address.parse(self.listen).is_loopback

    @property
    def dials_loopback(self) -> bool:
        """Whether it may dial loopback addresses that others state: its owner put it there, or it is met there."""
        return self.is_on_loopback or any(Address.parse(text).is_loopback for text in self.advertised())

    def advertised(self, before: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Where the others reach the data door, as far as can be known here; `before`, where there is no network now."""
        if self.addresses or self.outbound_only:
            return self.addresses
        listen = Address.parse(self.listen)
        if listen.host not in ANYWHERE:
            return (self.listen,)
        hosts = list(_own_hosts(with_ipv6=listen.is_ipv6))
        if not hosts:
            return before or (str(Address("127.0.0.1", listen.port)),)
        return tuple(str(Address(host, listen.port)) for host in hosts[:ADDRESSES_MAX])


def settings_of(source: str, **values: Any) -> NodeSettings:
    """Raises `Failure` that names `source` for values that can't be."""
    return parse(NodeSettings, {name: value for name, value in values.items() if value}, source)


def load(directory: NodeDirectory) -> NodeSettings:
    """Raises `Failure` where there are none."""
    path = directory.settings
    try:
        values = json.loads(read_whole(path, FILE_MAX))
    except FileNotFoundError:
        hint = "Make one: p2pfl network create NAME, or p2pfl node join INVITE."
        raise Failure("no_network", f"{directory.path}: no member of a network is here.", hint) from None
    except OSError as error:
        raise Failure("bad_settings", f"{path}: {error.strerror}.", "Look at its owner and mode.") from None
    except (ValueError, RecursionError):
        raise Failure("bad_settings", f"{path}: not the settings of a node.", "Restore it from a copy.") from None
    return parse(NodeSettings, values, str(path))


def save(directory: NodeDirectory, settings: NodeSettings) -> None:
    """Raises `Failure`."""
    directory.write(directory.settings, json.dumps(settings.model_dump(), indent=1).encode() + b"\n")


def _with_two_ports(value: str) -> Address:
    try:
        place = Address.parse(value)
    except Failure as failure:
        raise ValueError(f"{failure.message} {failure.hint}".rstrip(".")) from None
    if not 0 < place.port < 65535:
        raise ValueError(f"{value}: name a port from 1 to 65534, since the next one is the join door's")
    return place


def _own_hosts(with_ipv6: bool) -> Iterator[str]:
    """This machine's addresses that others may reach: first the one that leads out, where there is one."""
    first = _leading_out()
    if first is not None:
        yield first
    families = (socket.AF_INET, socket.AF_INET6) if with_ipv6 else (socket.AF_INET,)
    up = psutil.net_if_stats()
    for interface, found in sorted(psutil.net_if_addrs().items()):
        if interface in up and not up[interface].isup:
            continue
        for one in found:
            is_local = one.address.startswith(("127.", "169.254.", "fe80:")) or one.address == "::1"
            if one.family in families and not is_local and one.address != first:
                yield one.address


def _leading_out() -> str | None:
    """The address that this machine would use toward the world; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        try:
            out.connect(("192.0.2.1", 9))  # of a block that belongs to nobody
            return str(out.getsockname()[0])
        except OSError:
            return None


def refuse_busy(*places: str) -> None:
    """Raises `Failure` with exit code NETWORK where one can't listen at one of these places."""
    for text in places:
        place = Address.parse(text)
        with socket.socket(socket.AF_INET6 if place.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind((place.host, place.port))
                door.listen(1)
            except OSError as error:
                message = f"Can't listen at {text}: {error.strerror}."
                hint = "Choose another with --listen HOST:PORT; the port after it is used as well."
                raise Failure("port_busy", message, hint, ExitCode.NETWORK) from None
