"""A connection that is looked at before it is known who goes on with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from srrrs.net.accept import Slot, hung_up
from srrrs.relay.edge.closing import LINGER

TURN_TIMEOUT: Final = 60.0
"""Seconds that a connection may wait for its turn to shake hands."""


class Doorstep(Protocol):
    """Keeps what comes until it is known what it is, then hands the connection over and only
    forwards its end.

    It stays the transport's protocol, so that it works on any transport; ``dataReceived`` becomes
    the other protocol's own.
    """

    transport: Any

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next: Any = None
        self._buffer = bytearray()
        self._deadline: IDelayedCall | None = None
        self._slot: Slot | None = None
        self._released = False
        # It is known what this is, and nothing more is looked at: bytes are kept for whoever
        # comes next, or dropped at the end.
        self._decided = False
        self._ending = False

    def look(self, data: bytes) -> None:
        """Look at what has come, of which ``data`` was not there the last time."""
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        if self._next is not None:  # Where the transport remembers this method.
            self._next.dataReceived(data)
        elif not self._ending:
            self._buffer += data
            if not self._decided:
                self.look(data)

    def readConnectionLost(self) -> None:
        """Called once this has become half-closeable: see :meth:`_outlive_half_close`."""
        if self._next is not None:
            self._next.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """As above."""
        if self._next is not None:
            self._next.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disarm()
        self.release()
        self._decided = self._ending = True
        following, self._next = self._next, None
        if following is not None:
            following.connectionLost(reason)

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()

    def release(self) -> None:
        """The handshake is over: another may begin."""
        self._released = True
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    def _hand_over(self, protocol: Any) -> None:
        """Another protocol goes on, with what is kept; only the end comes by here."""
        self._disarm()
        if IHalfCloseableProtocol.providedBy(protocol):
            self._outlive_half_close()
        self._next = protocol
        protocol.makeConnection(self.transport)
        if self._next is protocol:
            data, self._buffer = bytes(self._buffer), bytearray()
            self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
            if data:
                protocol.dataReceived(data)

    # --- waiting and ending -------------------------------------------------------------

    def _wait_for_turn(
        self,
        ask: Callable[[IAddress, Callable[[], None]], Slot],
        peer: IAddress,
        start: Callable[[], None],
    ) -> None:
        """Unread, and with no clock of the handshake running, until there is a turn."""
        waiting = begun = False

        def begin() -> None:
            nonlocal begun
            begun = True
            if waiting:
                self._disarm()
                if hung_up(self.transport):
                    # It gave up while it waited: nothing more is spent on it.
                    self.abort()
                    return
                self.transport.resumeProducing()
            start()

        self._disarm()
        self._released = False
        slot = ask(peer, begin)
        if self._released:  # It was over before it began.
            slot.release()
            return
        self._slot = slot
        if not begun:
            waiting = True
            self.transport.pauseProducing()
            self._arm(TURN_TIMEOUT, self.abort)

    def _end(self, words: bytes) -> None:
        """Send last words and close, in such a way that the visitor gets to read them."""
        transport = self.transport
        self._decided = self._ending = True
        self._buffer.clear()
        self.release()
        self._outlive_half_close()
        transport.write(words)
        if ISSLTransport.providedBy(transport) or not hasattr(transport, "loseWriteConnection"):
            # TLS reads on by itself until the peer has closed, too.
            transport.loseConnection()
        else:
            transport.loseWriteConnection()
        transport.resumeProducing()
        self._arm(LINGER, self.abort)

    def _outlive_half_close(self) -> None:
        """From now on the visitor may end its sending without ending the connection."""
        directlyProvides(self, IHalfCloseableProtocol)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self._clock.callLater(seconds, self._expired, then)

    def _expired(self, then: Callable[[], None]) -> None:
        self._deadline = None
        then()

    def _disarm(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
