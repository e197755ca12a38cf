"""All that is said on loopback, as an eavesdropper has it: packets, put together to TCP streams, cut into ZMTP frames."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

_ALL = 0x0003  # ETH_P_ALL
_BUFFER_FORCE = 33  # SO_RCVBUFFORCE
_SYN = 0x02
_GREETING = 64

End = tuple[str, int]


@dataclass
class Stream:
    """One direction of one connection. `data` is whole from its first byte on."""

    source: End
    target: End
    first: int = 0
    pieces: dict[int, bytes] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        found = bytearray()
        for begin in sorted(self.pieces):
            piece = self.pieces[begin]
            assert begin <= len(found), f"{begin - len(found)} bytes from {self.source} were not captured"
            found += piece[len(found) - begin :]
        return bytes(found)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(flags, body) of each whole frame after the greeting."""
        data, at = self.data, _GREETING
        while at + 9 <= len(data):
            flags = data[at]
            head, length = (9, int.from_bytes(data[at + 1 : at + 9], "big")) if flags & 2 else (2, data[at + 1])
            if at + head + length > len(data):
                return
            yield flags, data[at + head : at + head + length]
            at += head + length


class Capture:
    """`with Capture() as capture:` hears every packet on the loopback of this thread's network from then on."""

    def __enter__(self) -> "Capture":
        self._streams: dict[tuple[End, End], list[Stream]] = defaultdict(list)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, 256 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._is_over = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def streams(self) -> list[Stream]:
        return [stream for streams in self._streams.values() for stream in streams]

    def _listen(self) -> None:
        while True:
            try:
                packet, (_, _, kind, *_) = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                if self._is_over:
                    return
                continue
            if kind != socket.PACKET_OUTGOING:  # every packet on loopback goes out and comes in
                self._take(packet)

    def _take(self, packet: bytes) -> None:
        if packet[12:14] != b"\x08\x00" or packet[23] != socket.IPPROTO_TCP:
            return
        ip = packet[14:]
        header = (ip[0] & 15) * 4
        (length,) = struct.unpack_from("!H", ip, 2)
        tcp = ip[header : length or len(ip)]
        source_port, target_port, seq = struct.unpack_from("!HHI", tcp)
        source = socket.inet_ntoa(ip[12:16]), source_port
        target = socket.inet_ntoa(ip[16:20]), target_port
        streams = self._streams[source, target]
        if tcp[13] & _SYN and not (streams and streams[-1].first == seq + 1):
            streams.append(Stream(source, target, seq + 1))
        payload = tcp[(tcp[12] >> 4) * 4 :]
        if payload and streams:
            begin = (seq - streams[-1].first) % (1 << 32)
            if len(payload) > len(streams[-1].pieces.get(begin, b"")):
                streams[-1].pieces[begin] = payload
