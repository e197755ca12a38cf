"""Which process is at the other end of a connection on loopback: the kernel knows (sock_diag(7), one question, one answer)."""

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_HEAD = struct.Struct("=IHHII")  # nlmsghdr
_ABOUT = struct.Struct("=BBBxI")  # family, protocol, extensions, states of inet_diag_req_v2
_SOCKET_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid: ports and addresses; then interface and cookie
_BY_FAMILY, _REQUEST, _INODE_AT = 20, 1, _HEAD.size + 4 + 48 + 16


def owner_of(port: int, other_port: int, candidates: Iterable[int]) -> int:
    """Of the connection from `port` to `other_port`, both at 127.0.0.1: the process that has it open, or 0."""
    inode = _inode(port, other_port)
    for pid in candidates if inode else ():
        with suppress(OSError):  # it may end while we look
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                if str(fd.readlink()) == f"socket:[{inode}]":
                    return pid
    return 0


def _inode(port: int, other_port: int) -> int:
    """0 where there is no such connection any more."""
    here = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
    about = _ABOUT.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    question = about + _SOCKET_ID.pack(port, other_port, here, here) + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:  # NETLINK_SOCK_DIAG
        kernel.send(_HEAD.pack(_HEAD.size + len(question), _BY_FAMILY, _REQUEST, 0, 0) + question)
        answer = kernel.recv(4096)
    if _HEAD.unpack_from(answer)[1] != _BY_FAMILY:
        return 0
    inode: int = struct.unpack_from("=I", answer, _INODE_AT)[0]
    return inode
