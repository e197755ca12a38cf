"""What a service tells systemd: that it is ready, that it lives, how it is. One datagram each (sd_notify(3))."""

import os
import socket


class Notifier:
    """Silent where nobody listens."""

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if path else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def tell(self, **states: str | int) -> None:
        """For example `READY=1, STATUS="round 7"`. Nothing is said if systemd does not take it now: this comes again."""
        if self._socket is None:
            return
        lines = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in states.items())
        try:
            self._socket.sendto(lines.encode(), self._address)
        except OSError:
            return

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
