"""What stands in for systemd: the socket that a service notifies."""

import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.loopback import LIMIT_S


class Systemd:
    """Hears datagrams, in order. Its path is short, as the address of a unix socket must be."""

    def __enter__(self) -> "Systemd":
        self._folder = TemporaryDirectory(dir="/tmp")
        self.path = Path(self._folder.name) / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(3 * LIMIT_S)
        self._socket.bind(str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._folder.cleanup()

    def next(self) -> list[str]:
        """The lines of the next one."""
        return self._socket.recv(4096).decode().splitlines()

    def wait_for(self, line: str) -> None:
        while line not in self.next():
            pass
