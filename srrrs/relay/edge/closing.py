"""How a visitor's connection ends, so that the visitor gets to read what was sent last."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol

from srrrs.net.splice import CLOSE_TIMEOUT

LINGER: Final = 5.0
"""Seconds that a visitor has to take an answer and close; what it still sends is read and dropped,
as a reset would make it lose the answer (RFC 9112, 9.6)."""


class Closing(Protocol):
    """A protocol that is its transport's producer, too, and knows how to end.

    ``_ending``: nothing more is served. ``_gone``: the transport has said that it is over.
    """

    transport: Any
    _ending = False
    _gone = False
    _producing = False
    _deadline: IDelayedCall | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def _register(self) -> None:
        self._producing = True
        self.transport.registerProducer(self, True)

    def _unregister(self) -> None:
        # A TLS transport with a registered producer does not close.
        if self._producing:
            self._producing = False
            self.transport.unregisterProducer()

    def _close(self, unread: bool, short: bool) -> None:
        """Close once all that was written was taken, or at a deadline.

        :param unread: the visitor may still be sending: what comes is to be dropped.
        :param short: little was written.
        """
        if self._gone:
            return
        transport = self.transport
        self._unregister()
        drained = getattr(transport, "drained", False)
        wait = LINGER if drained or short else CLOSE_TIMEOUT
        # TLS reads on by itself until the peer has closed, too, and has no half-close.
        tls = ISSLTransport.providedBy(transport)
        if unread and hasattr(transport, "loseWriteConnection") and not tls:
            transport.loseWriteConnection()
            transport.resumeProducing()
        else:
            transport.loseConnection()
            if drained and not tls:
                return  # Nothing waits to be sent, so nothing has to be waited for.
        if not self._gone:
            self._deadline = self._clock.callLater(wait, self._expired)

    def _abort(self) -> None:
        """End at once: to the visitor, a reset."""
        if self._gone:
            return
        self._ending = True
        self._unregister()
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self.transport.loseConnection()

    def _expired(self) -> None:
        self._deadline = None
        self._abort()

    def _disarm(self) -> None:
        self._producing = False
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
