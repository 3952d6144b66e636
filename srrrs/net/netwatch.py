"""Notices that the machine's network has changed: links, addresses, routes (rtnetlink(7), Linux).

It says that something has changed, not what: whoever is told looks for itself. Where the system
has no rtnetlink, or does not let this process have it, nothing is ever told.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

SETTLE: Final = 0.1
"""Seconds from the first change to the telling: changes come in groups."""
SPACING: Final = 0.25
"""Seconds between two tellings at least, however restless the network is."""
BUFFER: Final = 64 * 1024
"""Bytes read at a time; the kernel's messages are smaller (``NLMSG_GOODSIZE``)."""
READS: Final = 16
"""Reads before the reactor gets to serve others."""

# linux/netlink.h, linux/rtnetlink.h, linux/if.h
NETLINK_ROUTE: Final = 0
RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTM_F_CLONED: Final = 0x200
IFF_LOOPBACK: Final = 0x8
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
GROUPS: Final = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE

_HEAD = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINK_HEAD = Struct("=BxHiII")  # ifinfomsg: family, kind, index, flags, change
_ROUTE_HEAD = Struct("=8BI")  # rtmsg: ..., flags
_ALIGNMENT: Final = 4


def tells_change(data: bytes) -> bool:
    """Whether rtnetlink messages tell of a change that can matter to a connection to elsewhere.

    Whatever is no such message, or is cut off, counts for nothing.
    """
    start, end = 0, len(data)
    while end - start >= _HEAD.size:
        length, kind, *_ = _HEAD.unpack_from(data, start)
        if not _HEAD.size <= length <= end - start:
            return False
        if _matters(kind, data[start + _HEAD.size : start + length]):
            return True
        start += -(-length // _ALIGNMENT) * _ALIGNMENT
    return False


def _matters(kind: int, body: bytes) -> bool:
    if kind in (RTM_NEWLINK, RTM_DELLINK):
        return len(body) >= _LINK_HEAD.size and not _LINK_HEAD.unpack_from(body)[3] & IFF_LOOPBACK
    if kind in (RTM_NEWROUTE, RTM_DELROUTE):
        # Cloned ones are the kernel's memory of single destinations.
        return (
            len(body) >= _ROUTE_HEAD.size and not _ROUTE_HEAD.unpack_from(body)[-1] & RTM_F_CLONED
        )
    return kind in (RTM_NEWADDR, RTM_DELADDR)


@implementer(IReadDescriptor)
class NetWatch:
    """Tells of changes from :meth:`start` to :meth:`stop`.

    :param reactor: one without ``IReactorFDSet`` is never told anything by.
    :param changed: called up to :data:`SETTLE` seconds after a change, and at most once in
        :data:`SPACING` seconds.
    """

    _log = Logger()

    def __init__(self, reactor: Any, changed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._changed = changed
        self._socket: socket.socket | None = None
        self._call: IDelayedCall | None = None
        self._told_at: float | None = None

    def start(self) -> bool:
        """Begin; whether this system tells of changes. Nothing where it has begun already."""
        if self._socket is None and IReactorFDSet.providedBy(self._reactor):
            self._socket = _open()
            if self._socket is not None:
                self._reactor.addReader(self)
        return self._socket is not None

    def stop(self) -> None:
        """End; nothing is told from now on."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    # --- IReadDescriptor ------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "network changes"

    def doRead(self) -> None:
        for _ in range(READS):
            if self._socket is None:
                return
            try:
                data, (port, _groups) = self._socket.recvfrom(BUFFER)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    self._log.warn(
                        "changes of the network are not noticed any more: {problem}",
                        problem=str(problem),
                    )
                    self.stop()
                    return
                self._note()  # More has changed than there was room for.
                continue
            # Other processes can send here too: the kernel's port is 0.
            if port == 0 and tells_change(data):
                self._note()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor watches no more."""
        self.stop()

    # --------------------------------------------------------------------------------------------

    def _note(self) -> None:
        if self._call is None:
            wait = SETTLE
            if self._told_at is not None:
                wait = max(wait, self._told_at + SPACING - self._reactor.seconds())
            self._call = self._reactor.callLater(wait, self._tell)

    def _tell(self) -> None:
        self._call = None
        self._told_at = self._reactor.seconds()
        try:
            self._changed()
        except Exception:
            self._log.failure("a change of the network could not be dealt with")


def _open() -> socket.socket | None:
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    try:
        sock = socket.socket(family, socket.SOCK_RAW, NETLINK_ROUTE)
    except OSError:
        return None
    try:
        sock.setblocking(False)
        sock.bind((0, GROUPS))
    except OSError:
        sock.close()
        return None
    return sock
