"""Stream sockets whose family and type are plain attributes.

`socket.socket` makes an enumeration member each time that it is asked for either, and the loop
asks several times for each connection: a tenth of what accepting and connecting costs.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

_RESET = struct.pack("ii", 1, 0)


class _IPv4Socket(socket.socket):
    family = socket.AF_INET
    type = socket.SOCK_STREAM


class _IPv6Socket(socket.socket):
    family = socket.AF_INET6
    type = socket.SOCK_STREAM


class _UNIXSocket(socket.socket):
    family = socket.AF_UNIX
    type = socket.SOCK_STREAM


_CLASSES = {
    socket.AF_INET: _IPv4Socket,
    socket.AF_INET6: _IPv6Socket,
    socket.AF_UNIX: _UNIXSocket,
}


def stream_socket(family: socket.AddressFamily) -> socket.socket:
    """A new stream socket that does not block.

    :raises OSError: as `socket.socket` does.
    """
    sock = _CLASSES[family](family, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def accept(listener: socket.socket, family: socket.AddressFamily) -> tuple[socket.socket, Any]:
    """As `listener.accept()`.

    :raises OSError: as `socket.socket.accept` does.
    """
    fd, address = listener._accept()  # type: ignore[attr-defined]
    return _CLASSES[family](family, socket.SOCK_STREAM, 0, fd), address


def end_socket(sock: socket.socket, orderly: bool, closed: bool = False) -> None:
    """End a connection whose descriptor the loop is going to close.

    :param orderly: send FIN; else closing resets the connection.
    :param closed: FIN was sent, and the peer's received.
    """
    try:
        if not orderly:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif not closed:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
