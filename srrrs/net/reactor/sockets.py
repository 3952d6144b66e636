"""Stream sockets that cost little to make and to end.

`socket.socket` is Python code around the interpreter's own class, and makes an enumeration member
each time that it is asked for its family or type, which the loop asks several times for each
connection: together a sixth of what accepting and connecting costs.
"""

from __future__ import annotations

import _socket
import socket
import struct
from typing import Any

_RESET = struct.pack("ii", 1, 0)
# Where the system has it, a call less for each socket.
_NONBLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)


class _StreamSocket(socket.socket):
    type = socket.SOCK_STREAM
    # What socket.socket's own __init__ and detach do besides.
    _io_refs = 0
    _closed = False
    __init__ = _socket.socket.__init__
    detach = _socket.socket.detach


class _IPv4Socket(_StreamSocket):
    family = socket.AF_INET


class _IPv6Socket(_StreamSocket):
    family = socket.AF_INET6


class _UNIXSocket(_StreamSocket):
    family = socket.AF_UNIX


_CLASSES: dict[int, type[_StreamSocket]] = {
    socket.AF_INET: _IPv4Socket,
    socket.AF_INET6: _IPv6Socket,
    socket.AF_UNIX: _UNIXSocket,
}


def stream_socket(family: socket.AddressFamily) -> socket.socket:
    """A new stream socket that does not block.

    :raises OSError: as `socket.socket` does.
    """
    sock: socket.socket = _CLASSES[family](family, socket.SOCK_STREAM | _NONBLOCKING)
    if not _NONBLOCKING:
        sock.setblocking(False)
    return sock


def accept(listener: socket.socket, family: socket.AddressFamily) -> tuple[socket.socket, Any]:
    """As `listener.accept()`; whether the socket blocks is left to the loop, which sees to it.

    :raises OSError: as `socket.socket.accept` does.
    """
    fd, address = listener._accept()  # type: ignore[attr-defined]
    sock = _CLASSES[family](family, socket.SOCK_STREAM, 0, fd)
    if sock.gettimeout() is not None:
        sock.setblocking(False)  # There is a default timeout, which would have `send` wait.
    return sock, address


def end_socket(sock: socket.socket, orderly: bool) -> None:
    """Say how a connection ends whose descriptor is closed next.

    :param orderly: send FIN; else closing resets the connection.
    """
    try:
        if not orderly:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
