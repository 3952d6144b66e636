"""How a stream is flow-controlled: credit, windows and the memory they promise.

Credit is a promise: the peer may send that many bytes, and this end must have room for them. So
every window is reserved in a :class:`Budget` *before* it is granted, and memory stays bounded
whatever the peer does. Each stream has ``BASE_WINDOW`` from its start, so that none ever waits for
another; what is beyond that is elastic, drawn from a part of the budget only, and given back when
memory gets scarce.
"""

from __future__ import annotations

from typing import Final

from srrrs.protocol.errors import ProtocolError

BASE_WINDOW: Final = 16 * 1024
"""Bytes of credit that each direction of a stream starts with, and never has less of."""
OPENING_WINDOW: Final = 256 * 1024
"""Bytes of window given without a measurement, where the budget has room."""
GROWTH: Final = 4
"""A window that limits its stream grows by this factor."""


class Budget:
    """Bytes of memory that may be promised or held; a tunnel's has the process's as its parent.

    Reservations of base windows may use all of it, elastic ones only the first ``ELASTIC`` part:
    the rest is kept for the base windows of streams still to come.
    """

    ELASTIC: Final = 3 / 8

    __slots__ = ("_elastic", "_parent", "limit", "used")

    def __init__(self, limit: int, parent: Budget | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._elastic = int(limit * self.ELASTIC)
        self._parent = parent

    def reserve(self, size: int) -> bool:
        """Take ``size`` bytes if both levels have them."""
        if self.used + size > self.limit:
            return False
        if self._parent is not None and not self._parent.reserve(size):
            return False
        self.used += size
        return True

    def reserve_elastic(self, size: int) -> bool:
        """Take ``size`` bytes if they leave the part kept for base windows alone."""
        if not self._has_elastic(size):
            return False
        return self.reserve(size)

    def _has_elastic(self, size: int) -> bool:
        if self.used + size > self._elastic:
            return False
        return self._parent is None or self._parent._has_elastic(size)

    def charge(self, size: int) -> None:
        """Count bytes that are already here, over the limit if need be."""
        self.used += size
        if self._parent is not None:
            self._parent.charge(size)

    def release(self, size: int) -> None:
        """Give back what was taken."""
        self.used -= size
        if self._parent is not None:
            self._parent.release(size)

    @property
    def exhausted(self) -> bool:
        """No byte is left on this level or above."""
        return self.used >= self.limit or (self._parent is not None and self._parent.exhausted)

    @property
    def scarce(self) -> bool:
        """The elastic part is used up here or above: windows beyond the base should shrink."""
        return self.used > self._elastic or (self._parent is not None and self._parent.scarce)


class ReceiveWindow:
    """What the peer may still send on a stream, and when to grant more.

    Invariant while open: ``credit + held + ungranted == size``, and ``size`` bytes are reserved in
    the budget. After :meth:`close` only what is held stays reserved.

    :param maximum: bytes that the window may grow to.
    """

    __slots__ = (
        "_budget",
        "_closed",
        "_granted_at",
        "credit",
        "held",
        "maximum",
        "size",
        "ungranted",
    )

    def __init__(self, budget: Budget, size: int, maximum: int) -> None:
        self._budget = budget
        self._closed = False
        self._granted_at: float | None = None
        self.size = self.credit = size
        self.held = 0
        self.ungranted = 0
        self.maximum = maximum

    def received(self, size: int) -> int:
        """Count bytes from the peer; returns credit to grant at once (0: none).

        A stream that turns out to be more than a short message gets its opening window here,
        without waiting for the local side to take anything.

        :raises ProtocolError: the peer sent more than it was granted.
        """
        if size > self.credit:
            raise ProtocolError("more data than the stream's window")
        self.credit -= size
        self.held += size
        if self.size < OPENING_WINDOW and self.credit < self.size // 2 and not self._closed:
            return self._grow_to(OPENING_WINDOW)
        return 0

    def consumed(self, size: int, now: float, rtt: float | None) -> int:
        """Count bytes that the local side has taken; returns credit to grant (0: none yet).

        :param now: seconds on a monotonic clock.
        :param rtt: the tunnel's round trip in seconds, where known.
        """
        self.held -= size
        if self._closed:
            self._budget.release(size)
            return 0
        self.ungranted += size
        if self.ungranted < self.size // 2:
            return 0
        extra = 0
        if self.size > BASE_WINDOW and self._budget.scarce:
            surplus = min(self.size - max(self.size // 2, BASE_WINDOW), self.ungranted)
            self.size -= surplus
            self.ungranted -= surplus
            self._budget.release(surplus)
        elif self._granted_at is None or now - self._granted_at < 2 * (rtt or 0.0):
            # Half a window went within two round trips: the window is what limits the stream.
            extra = self._grow_to(self.size * GROWTH)
        self._granted_at = now
        grant = self.ungranted
        self.ungranted = 0
        self.credit += grant
        return grant + extra

    def _grow_to(self, size: int) -> int:
        extra = min(size, self.maximum) - self.size
        if extra <= 0 or not self._budget.reserve_elastic(extra):
            return 0
        self.size += extra
        self.credit += extra
        return extra

    def close(self) -> None:
        """No more data will come: keep reserved only what is still held."""
        if not self._closed:
            self._closed = True
            self._budget.release(self.size - self.held)
            self.size = self.held
            self.credit = self.ungranted = 0
