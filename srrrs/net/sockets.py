"""The socket below a transport, and what a carrier asks of it."""

from __future__ import annotations

import errno
import math
import socket
import sys
from array import array
from collections.abc import Callable
from typing import Any, Final

from srrrs.net.heartbeat import SILENCE
from srrrs.net.loopback import is_loopback

USER_TIMEOUT: Final = SILENCE
"""Heartbeat intervals for which bytes may stay unacknowledged (RFC 5482)."""
MIN_USER_TIMEOUT: Final = 10.0
"""Seconds for which they may in any case: the time also runs while the peer acknowledges but has no
room, as a proxy in front of a thin link may have none for seconds."""
KEEPALIVE_PROBES: Final = 3
MAX_KEEPALIVE: Final = 32767
"""Seconds (Linux, ``MAX_TCP_KEEPIDLE``)."""
_DEPTH: Final = 8
_CONGESTION: Final[int | None] = getattr(socket, "TCP_CONGESTION", None)
_NAME_SIZE: Final = 16
"""Bytes of a congestion control's name (Linux, ``TCP_CA_NAME_MAX``)."""
_INET: Final = (socket.AF_INET, socket.AF_INET6)


def socket_below(transport: Any) -> socket.socket | None:
    """The stream socket that a transport of Twisted's or ours ends in, through TLS and other
    wrappers; ``None`` where there is none, or it is closed."""
    for _ in range(_DEPTH):
        if transport is None:
            return None
        found = getattr(transport, "socket", None)
        if isinstance(found, socket.socket):
            return None if found.fileno() < 0 else found
        transport = getattr(transport, "transport", None)
    return None


def notice_silence(transport: Any, interval: float) -> None:
    """Have the system give a TCP connection up whose peer answers nothing any more, as far as it
    can: what is sent must be acknowledged within :data:`USER_TIMEOUT` intervals, and a connection
    on which nothing is sent is asked about after one.

    :param interval: the heartbeat's, seconds.
    """
    sock = socket_below(transport)
    if sock is None or sock.family not in _INET:
        return
    timeout = max(USER_TIMEOUT * interval, MIN_USER_TIMEOUT)
    idle = min(max(1, math.ceil(interval)), MAX_KEEPALIVE)
    again = min(max(1, math.ceil((timeout - idle) / KEEPALIVE_PROBES)), MAX_KEEPALIVE)
    _set(sock, socket.SOL_SOCKET, "SO_KEEPALIVE", 1)
    # macOS calls the first TCP_KEEPALIVE.
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPIDLE", idle) or _set(
        sock, socket.IPPROTO_TCP, "TCP_KEEPALIVE", idle
    )
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPINTVL", again)
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES)
    _set(sock, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", min(round(timeout * 1000), 2**31 - 1))


def unpace(transport: Any) -> None:
    """Have nothing hold back what is sent within this machine, where the system's congestion
    control paces (BBR, draft-ietf-ccwg-bbr): there is no bottleneck on loopback to be spared, and
    each message would wait for a timer."""
    sock = socket_below(transport)
    if sock is None or sock.family not in _INET or _CONGESTION is None:
        return
    try:
        if not is_loopback(sock.getpeername()[0]):
            return
        if sock.getsockopt(socket.IPPROTO_TCP, _CONGESTION, _NAME_SIZE).startswith(b"bbr"):
            # Every Linux has this one, and lets anybody choose it.
            sock.setsockopt(socket.IPPROTO_TCP, _CONGESTION, b"reno")
    except OSError:
        pass


def is_stranded(transport: Any) -> bool:
    """Whether a connection's own address is no longer one of this machine's, so that nothing can
    reach it. ``False`` where that cannot be told."""
    sock = socket_below(transport)
    if sock is None or sock.family not in _INET:
        return False
    try:
        host, _, *rest = sock.getsockname()
        with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0, *rest))
    except OSError as problem:
        return problem.errno == errno.EADDRNOTAVAIL
    return False


def is_taken(transport: Any) -> bool:
    """Whether the peer's system has acknowledged all that was written to a connection, so that the
    path worked and what is waited for is the peer. ``False`` where that cannot be told."""
    sock = socket_below(transport)
    if sock is None or _OUTQ is None or sock.family not in _INET:
        return False
    left = array("i", [1])
    try:
        _OUTQ(sock.fileno(), left)
    except OSError:
        return False
    return left[0] == 0


def _outq() -> Callable[[int, array[int]], object] | None:
    if not sys.platform.startswith("linux"):
        return None
    import fcntl
    import termios

    # tcp(7), SIOCOUTQ: the bytes that are unsent or unacknowledged.
    return lambda number, left: fcntl.ioctl(number, termios.TIOCOUTQ, left)


_OUTQ: Final = _outq()


def _set(sock: socket.socket, level: int, name: str, value: int) -> bool:
    option = getattr(socket, name, None)
    if option is None:
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
