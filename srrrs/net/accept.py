"""Accepting connections no faster than they can be served.

Three caps, none of which refuses anybody who behaves: open files (accept pauses before they run
out), handshakes under way (accept pauses over the limit), and connections of one address.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime
from twisted.logger import Logger

RESERVE: Final = 256
"""Open files kept free for everything but accepting; Twisted accepts up to 100 in one go."""
LOOK_AGAIN: Final = 0.5
"""Seconds after which a pause for open files is reconsidered, should no connection end."""

_log = Logger()


def raise_nofile_limit() -> tuple[int, int] | None:
    """Raise the soft limit of open files to the hard one.

    :return: the soft limit before and after; ``None`` where the system has none.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if hard == resource.RLIM_INFINITY:
        wanted = max(soft, 1 << 20)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft, soft
    return soft, wanted


def _file_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


class Slot:
    """One connection's turn to shake hands; :meth:`release` it once, whatever came of it."""

    __slots__ = ("_gate", "address", "held", "start")

    def __init__(self, gate: AcceptGate, address: str, start: Callable[[], None]) -> None:
        self._gate = gate
        self.address = address
        self.start: Callable[[], None] | None = start
        self.held = False

    def release(self) -> None:
        """The handshake is over, or the connection is."""
        self._gate._release(self)


class AcceptGate:
    """Pauses and resumes the listening ports of a process.

    :param handshakes: handshakes under way at which accept pauses.
    :param per_address: handshakes of one address under way; more of them wait, unread and with no
        clock running, for their turn.
    :param visitors: visitor connections of one address.
    """

    def __init__(
        self,
        clock: IReactorTime,
        handshakes: int = 256,
        per_address: int = 128,
        visitors: int = 4096,
    ) -> None:
        self._clock = clock
        self._handshakes = handshakes
        self._per_address = per_address
        self._visitors = visitors
        self._ports: list[Any] = []
        self._reasons: set[str] = set()
        self._under_way = 0
        self._by_address: Counter[str] = Counter()
        self._queues: dict[str, deque[Slot]] = {}
        self._visitor_count: Counter[str] = Counter()
        self._look_again: IDelayedCall | None = None
        self._told = False

    # --- ports --------------------------------------------------------------------------

    def add(self, port: IListeningPort) -> None:
        """Pause and resume this port, too."""
        if hasattr(port, "stopReading") and hasattr(port, "startReading"):
            self._ports.append(port)
            if self._reasons:
                port.stopReading()

    def remove(self, port: IListeningPort) -> None:
        """The port is being closed."""
        if port in self._ports:
            self._ports.remove(port)

    def stop(self) -> None:
        """No timers after this."""
        self._ports.clear()
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None

    # --- open files ---------------------------------------------------------------------

    def opened(self, transport: Any) -> None:
        """A connection was accepted. The lowest free number is always the next, so a high one
        tells that files are running out."""
        limit = _file_limit()
        handle = getattr(transport, "getHandle", None)
        if limit is None or handle is None:
            return
        try:
            number = handle().fileno()
        except (AttributeError, OSError):
            return
        if number >= limit - min(RESERVE, limit // 4):
            self._pause("open files")
            if not self._told:
                self._told = True
                _log.warn(
                    "nearly all of {limit} open files are in use: accepting pauses until some "
                    "are closed",
                    limit=limit,
                )
            if self._look_again is None:
                self._look_again = self._clock.callLater(LOOK_AGAIN, self._look)

    def closed(self) -> None:
        """A connection ended."""
        if "open files" in self._reasons:
            self._look()

    def _look(self) -> None:
        if self._look_again is not None:
            if self._look_again.active():
                self._look_again.cancel()
            self._look_again = None
        limit = _file_limit()
        try:
            probe = os.dup(0)
        except OSError:
            number = limit or 0
        else:
            os.close(probe)
            number = probe
        if limit is None or number < limit - min(RESERVE, limit // 4):
            self._told = False
            self._resume("open files")
        else:
            self._look_again = self._clock.callLater(LOOK_AGAIN, self._look)

    # --- handshakes ---------------------------------------------------------------------

    def handshake(self, peer: IAddress, start: Callable[[], None]) -> Slot:
        """Ask for a turn; ``start`` is called now or when it comes."""
        slot = Slot(self, _host(peer), start)
        if self._by_address[slot.address] >= self._per_address:
            self._queues.setdefault(slot.address, deque()).append(slot)
        else:
            self._begin(slot)
        return slot

    def _begin(self, slot: Slot) -> None:
        slot.held = True
        self._under_way += 1
        self._by_address[slot.address] += 1
        if self._under_way >= self._handshakes:
            self._pause("handshakes")
        start, slot.start = slot.start, None
        if start is not None:
            start()

    def _release(self, slot: Slot) -> None:
        slot.start = None
        if not slot.held:
            return
        slot.held = False
        self._under_way -= 1
        self._by_address[slot.address] -= 1
        queue = self._queues.get(slot.address)
        while queue:
            waiting = queue.popleft()
            if waiting.start is not None:
                self._begin(waiting)
                break
        if not queue:
            self._queues.pop(slot.address, None)
            if not self._by_address[slot.address]:
                del self._by_address[slot.address]
        if self._under_way < self._handshakes:
            self._resume("handshakes")

    # --- visitors -----------------------------------------------------------------------

    def admit_visitor(self, peer: IAddress) -> bool:
        """Count a visitor's connection, unless its address has too many."""
        host = _host(peer)
        if self._visitor_count[host] >= self._visitors:
            return False
        self._visitor_count[host] += 1
        return True

    def visitor_gone(self, peer: IAddress) -> None:
        """A connection that :meth:`admit_visitor` counted ended."""
        host = _host(peer)
        self._visitor_count[host] -= 1
        if self._visitor_count[host] <= 0:
            del self._visitor_count[host]

    # --- within -------------------------------------------------------------------------

    def _pause(self, reason: str) -> None:
        if not self._reasons:
            for port in self._ports:
                port.stopReading()
        self._reasons.add(reason)

    def _resume(self, reason: str) -> None:
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                for port in self._ports:
                    port.startReading()


def _host(peer: IAddress) -> str:
    return str(getattr(peer, "host", ""))
