"""Networks of a test's own, with nothing else in them: one loopback, two hosts with a cable between them, or three. Linux, as
root."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_libc = ctypes.CDLL(None, use_errno=True)


def can_make() -> bool:
    """Whether this machine lets us, which a container may not even to root."""
    if os.geteuid() != 0:
        return False
    try:
        made = subprocess.run(["ip", "netns", "add", f"p2pfl-{os.getpid()}"], capture_output=True)
        return made.returncode == 0
    except FileNotFoundError:
        return False
    finally:
        subprocess.run(["ip", "netns", "del", f"p2pfl-{os.getpid()}"], capture_output=True)


@contextmanager
def own_network() -> Iterator[None]:
    """What this thread opens and starts meanwhile is in a network whose only interface is its own loopback."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_NEW_NETWORK))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        _checked(_libc.setns(here, _NEW_NETWORK))
        os.close(here)


class Host:
    """A network namespace as one machine: `run` is a command in it, `addresses` are those of its end of the cable."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.interface = f"v-{name}"[:15]

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, capture_output=True)

    def reaches(self, address: str) -> bool:
        """Whether packets find their way there and back."""
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(1.0)
            try:
                knocking.connect((address, 9))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        return True

    def add_address(self, address: str) -> None:
        self.run("ip", "address", "add", f"{address}/24", "dev", self.interface)

    def remove_address(self, address: str) -> None:
        self.run("ip", "address", "del", f"{address}/24", "dev", self.interface)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens and starts meanwhile is on that host."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(Path("/var/run/netns") / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(there, _NEW_NETWORK))
            yield
        finally:
            _checked(_libc.setns(here, _NEW_NETWORK))
            os.close(here)
            os.close(there)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """At 10.77.0.1 and 10.77.0.2, and nobody else anywhere."""
    one, other = Host(f"p2a{os.getpid()}"), Host(f"p2b{os.getpid()}")
    with ExitStack() as stack:
        for host in (one, other):
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", host.name], check=True)
        cable = ["ip", "link", "add", one.interface, "netns", one.name, "type", "veth", "peer", "name", other.interface]
        subprocess.run([*cable, "netns", other.name], check=True)
        for number, host in enumerate((one, other), 1):
            host.add_address(f"10.77.0.{number}")
            host.run("ip", "link", "set", host.interface, "up")
            host.run("ip", "link", "set", "lo", "up")
        yield one, other


@contextmanager
def two_behind_one() -> Iterator[tuple[Host, Host, Host]]:
    """One at 10.77.0.1 and 10.78.0.1, with a cable to each of two others at 10.77.0.2 and 10.78.0.2, who reach nobody else: it
    passes no packets on."""
    middle, *others = (Host(f"p2{letter}{os.getpid()}") for letter in "mab")
    with ExitStack() as stack:
        for host in (middle, *others):
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", host.name], check=True)
            host.run("ip", "link", "set", "lo", "up")
        for net, host in zip((77, 78), others, strict=True):
            end = f"w-{host.name}"[:15]
            cable = ["ip", "link", "add", end, "netns", middle.name, "type", "veth", "peer", "name", host.interface]
            subprocess.run([*cable, "netns", host.name], check=True)
            middle.run("ip", "address", "add", f"10.{net}.0.1/24", "dev", end)
            middle.run("ip", "link", "set", end, "up")
            host.add_address(f"10.{net}.0.2")
            host.run("ip", "link", "set", host.interface, "up")
        yield middle, others[0], others[1]


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
