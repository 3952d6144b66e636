"""New connections, which the loop has no transport for: short ones never need one.

To make and to end the loop's transport is a third of what a short connection costs. So the sockets
of new connections are read and written without, watched by an epoll set of their own that is one
descriptor to the loop. The loop takes a connection over once the kernel does not take all that is
written, or after some reads: it is the better for bulk, and for what lasts.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from srrrs.net.reactor.stream import RawStream

READ: Final = 16 * 1024
"""Bytes of one read; where there are as many, the loop takes over."""
READS: Final = 16
"""Reads after which it does, too."""
BATCH: Final = 64
"""Connections served before the loop gets to look after the others."""

AVAILABLE: Final = hasattr(select, "epoll")
# Each change is told of once, so that pausing takes nothing out of the set.
_EVENTS: Final[int] = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if AVAILABLE else 0
_ENDED: Final[int] = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR if AVAILABLE else 0


class DirectSet:
    """The connections whose sockets are used directly (Linux only)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._poll: Any = self._epoll.poll
        self._streams: dict[int, RawStream] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, stream: RawStream) -> None:
        """Have a connection told what comes.

        :raises OSError: the system watches no more.
        """
        number = stream.socket.fileno()
        if number >= 0:  # Its protocol may have passed the socket on, and closed it.
            self._epoll.register(number, _EVENTS)
            self._streams[number] = stream

    def remove(self, number: int) -> None:
        """The loop takes over the connection with this descriptor."""
        if self._streams.pop(number, None) is not None:
            self._epoll.unregister(number)

    def forget(self, number: int) -> None:
        """The descriptor is closed next, which takes it out of the set."""
        self._streams.pop(number, None)

    def _ready(self) -> None:
        streams = self._streams
        for number, events in self._poll(0, BATCH):
            stream = streams.get(number)
            if stream is not None:
                stream._readable(bool(events & _ENDED))
