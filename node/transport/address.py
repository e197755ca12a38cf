"""Where a peer listens: HOST:PORT, with an IPv6 host in brackets."""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

from p2pfl.failure import ExitCode, Failure


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_numeric(self) -> bool:
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True

    @property
    def is_loopback(self) -> bool:
        """Numeric, and means whichever machine it is used on."""
        return self.is_numeric and _meant(self.host).is_loopback

    @property
    def is_one_host(self) -> bool:
        """Numeric, and means a port of a machine: not any, none or many."""
        if not self.is_numeric or self.port == 0:
            return False
        place = _meant(self.host)
        return not (place.is_unspecified or place.is_multicast or place == _BROADCAST)

    @property
    def neighborhood(self) -> str:
        """Numeric: what stands for whoever is bothered when this is dialled. In IPv6 one host has a whole /64."""
        place = _meant(self.host)
        return str(ipaddress.ip_network((place, 64), strict=False) if place.version == 6 else place)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises `Failure` unless `text` is HOST:PORT or [IPV6]:PORT; port 0 means any."""
        host, colon, port = text.rpartition(":")
        is_bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if is_bracketed else host
        is_port = port.isascii() and port.isdecimal() and int(port) < 1 << 16
        if not (colon and is_port and _is_host(host) and (":" in host) <= is_bracketed):
            raise Failure(
                "bad_address",
                f"{text!r} is not an address.",
                "Write HOST:PORT, for example 192.168.1.5:9000 or [fe80::1]:9000.",
                ExitCode.CONFIGURATION,
            )
        return cls(host, int(port))

    async def is_reset(self, limit_s: float) -> bool:
        """Numeric. Whether its machine is there, and says that nobody listens: libzmq does not tell that from a way that is
        cut."""
        try:
            async with asyncio.timeout(limit_s):
                _, writer = await asyncio.open_connection(self.host, self.port)
        except ConnectionRefusedError:
            return True
        except OSError:  # TimeoutError is one
            return False
        writer.close()
        return False

    async def resolve(self) -> "list[Address]":
        """The numeric addresses behind the name. libzmq itself would look names up in its only I/O thread and stall every
        link meanwhile. Raises OSError when the name is not known."""
        if self.is_numeric:
            return [self]
        found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [Address(str(place[0]), self.port) for *_, place in found]


_BROADCAST = ipaddress.ip_address("255.255.255.255")


def _meant(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """What a numeric host is, without a zone, and as IPv4 where it is that in disguise."""
    place = ipaddress.ip_address(host.partition("%")[0])
    return place.ipv4_mapped or place if isinstance(place, ipaddress.IPv6Address) else place


def _is_host(text: str) -> bool:
    """Whether it may be looked up: not what Python's look-up would choke on, or what means something else to libzmq."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return bool(text) and text.isprintable() and not any(c in text for c in " /;,@[]*")
