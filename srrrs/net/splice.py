"""A local connection and a channel, joined: bytes, half-closes, resets, backpressure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.protocol.errors import ResetCode

if TYPE_CHECKING:
    from srrrs.net.channel import Channel

CLOSE_TIMEOUT: Final = 120.0
"""Seconds that a closed local connection has to take its last bytes before it is aborted."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Splice(Protocol):
    """The protocol of the local connection; it attaches itself to the channel.

    Each side is the other's producer, so that whichever is slow pauses the other alone.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._read_done = False
        self._write_done = False
        self._gone = False
        self._deadline: IDelayedCall | None = None
        # TLS transports have no half-close; Twisted's would pass it to the TCP below.
        self._can_half_close = False

    def connectionMade(self) -> None:
        transport = self.transport
        assert transport is not None
        if ITCPTransport.providedBy(transport):
            try:
                transport.setTcpNoDelay(True)
            except (OSError, AttributeError):
                pass  # A UNIX socket has none.
        self._can_half_close = not ISSLTransport.providedBy(transport) and hasattr(
            transport, "loseWriteConnection"
        )
        transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.channel.eager_fin = True
        # Before attaching: data that waits in the channel may pause us at once.
        self.channel.registerProducer(transport, True)
        self.channel.attach(_FarSide(self))

    # --- from the local connection ------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self.channel.write(data)

    def readConnectionLost(self) -> None:
        self._read_done = True
        self.channel.loseWriteConnection()
        if self._write_done:
            self.close()

    def writeConnectionLost(self) -> None:
        """Our own half-close went out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.channel.unregisterProducer()
        if self._read_done and self._write_done:
            return
        if reason.check(ConnectionDone):
            self.channel.loseConnection()
        else:
            self.channel.reset(ResetCode.CANCEL, "the connection was lost")

    # --- producer, for the local transport ----------------------------------------------

    def pauseProducing(self) -> None:
        self.channel.pauseProducing()

    def resumeProducing(self) -> None:
        self.channel.resumeProducing()

    def stopProducing(self) -> None:
        """Comes right before ``connectionLost``, which knows why."""

    # --- from the channel ---------------------------------------------------------------

    def finish(self) -> None:
        """The far side sends no more."""
        if self._gone or self._write_done:
            return
        self._write_done = True
        self._unregister()
        if self._read_done or not self._can_half_close:
            self.close()
        else:
            self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def close(self) -> None:
        """Close the local connection once it has taken what was written."""
        if self._gone:
            return
        self._write_done = True
        self.channel.unregisterProducer()
        self._unregister()
        self.transport.loseConnection()  # type: ignore[union-attr]
        if self._deadline is None and not self._gone:
            self._deadline = self.channel.clock.callLater(CLOSE_TIMEOUT, self._expired)

    def lost(self, reset: BaseException | None) -> None:
        """The stream was reset: so is the local connection, unless all was said before."""
        if self._write_done:
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """End the local connection at once: to its peer, a reset."""
        if self._gone:
            return
        self._write_done = self._read_done = True
        self.channel.unregisterProducer()
        self._unregister()
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def _expired(self) -> None:
        self._deadline = None
        self.abort()

    def _unregister(self) -> None:
        # A TLS transport with a registered producer does not close.
        self.transport.unregisterProducer()  # type: ignore[union-attr]


@implementer(IHalfCloseableProtocol)
class _FarSide(Protocol):
    """The protocol of the channel."""

    def __init__(self, local: Splice) -> None:
        self._local = local
        assert local.transport is not None
        self.dataReceived = local.transport.write  # type: ignore[method-assign]

    def readConnectionLost(self) -> None:
        self._local.finish()

    def writeConnectionLost(self) -> None:
        """Nothing: the local side knows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ConnectionDone):
            self._local.close()
        else:
            self._local.lost(reason.value)
