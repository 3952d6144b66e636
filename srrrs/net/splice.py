"""A local connection and a stream, joined: bytes, half-closes, resets, backpressure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mypy_extensions import mypyc_attr
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from srrrs.net.channel import LINGER
from srrrs.protocol.errors import ResetCode

if TYPE_CHECKING:
    from srrrs.net.channel import Channel

CLOSE_TIMEOUT: Final = 120.0
"""Seconds that a closed local connection has to take its last bytes before it is aborted."""


# Declared a StreamHandler by its methods only: where mypyc compiles a class that has a Protocol as
# its base, weak references to Python's subclasses of it go astray.
@mypyc_attr(allow_interpreted_subclasses=True)
class Splice:
    """The protocol of the local connection, and the handler of the stream, both in one.

    Each side is the other's producer, so that whichever is slow pauses the other alone. What
    arrives before the connection is there, or while it takes no more, is held here, bounded by the
    stream's window; it is credited to the peer once the connection has taken it.

    :param channel: the stream, which from now on is the splice's.
    """

    _log: ClassVar = Logger()

    __slots__ = (
        "_can_half_close",
        "_clock",
        "_closing",
        "_deadline",
        "_ended",
        "_fin_sent",
        "_fin_waits",
        "_gone",
        "_held",
        "_linger",
        "_paused",
        "_producing",
        "_read_done",
        "_reset",
        "_stream",
        "_uncredited",
        "_write_done",
        "dataReceived",
        "delivered",
        "transport",
    )

    def __init__(self, channel: Channel) -> None:
        stream = channel.stream
        self._stream = stream
        self._clock = channel.clock
        self.transport: Any = None
        # From the local connection straight to the stream, which takes nothing once finished.
        self.dataReceived = stream.pass_on
        # Whether the connection was given bytes of the stream.
        self.delivered = False
        # The stream: its FIN came, ours went out, it is over (with a reset's code, or None).
        self._fin_waits = self._fin_sent = self._ended = False
        self._reset: int | None = None
        # The connection: it sends no more, it is sent no more, it is to end, it has.
        self._read_done = self._write_done = self._closing = self._gone = False
        # TLS transports have no half-close; Twisted's would pass it to the TCP below.
        self._can_half_close = False
        self._producing = False
        # Whether the connection takes no bytes now: not yet, or not for the moment, or no longer.
        self._paused = True
        self._held: deque[bytes] | None = None
        self._uncredited = 0
        self._deadline: IDelayedCall | None = None
        self._linger: IDelayedCall | None = None
        channel.hand_over(self)

    # --- from the local connection ------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        transport = self.transport
        if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
            try:
                transport.setTcpNoDelay(True)
            except (OSError, AttributeError):
                pass
        self._can_half_close = not ISSLTransport.providedBy(transport) and hasattr(
            transport, "loseWriteConnection"
        )
        self._producing = True
        transport.registerProducer(self, True)
        if self._stream.held_back:
            transport.pauseProducing()
        self._paused = False
        if self._held or self._fin_waits or self._ended:
            self._deliver_held()

    def readConnectionLost(self) -> None:
        self._read_done = True
        self._stream.finish()
        if self._write_done:
            self.close()

    def writeConnectionLost(self) -> None:
        """Our own half-close went out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = self._closing = self._paused = True
        self._producing = False
        self.transport = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._held or self._uncredited:
            self._drop_held()
        if self._ended or (self._read_done and self._write_done):
            return
        if not isinstance(reason.value, ConnectionDone):
            self._stream.reset(ResetCode.CANCEL, "the connection was lost")
        elif self._fin_sent:
            self.fin_sent()
        else:
            self._stream.finish()

    # --- producer, for the local transport ----------------------------------------------

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        if not self._paused or self._gone:
            return
        self._paused = False
        if self._uncredited:
            size, self._uncredited = self._uncredited, 0
            self._stream.consumed(size, self._clock.seconds())
        if self._held:
            self._deliver_held()

    def stopProducing(self) -> None:
        """Comes right before ``connectionLost``, which knows why."""

    # --- from the stream (StreamHandler) ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        waits = self._paused or self._held
        if waits:
            if self._held is None:
                self._held = deque()
            self._held.append(data)
            if self._gone and self._fin_sent:
                self._refuse_rest()
            return
        # As `_deliver`, which this would be called for each time.
        self.delivered = True
        try:
            self.transport.write(data)
        except Exception:
            self._fault()
        if self._paused and not self._gone:
            self._uncredited += len(data)
        else:
            self._stream.consumed(len(data))

    def fin_received(self) -> None:
        self._fin_waits = True
        # Also while paused: that is only for want of room.
        if not self._held and self.transport is not None:
            try:
                self.finish()
            except Exception:
                self._fault()

    def fin_sent(self) -> None:
        self._fin_sent = True
        if not self._gone or self._ended:
            return
        if self._held:
            self._refuse_rest()
        elif not self._fin_waits:
            self._linger = self._clock.callLater(LINGER, self._linger_over)

    def stream_closed(self, code: int | None, reason: str) -> None:
        self._ended = True
        self._reset = code
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        # With the peer's FIN here, what it sent is whole: a reset that follows ends only the other
        # direction.
        if self._held:
            if self._gone or (code is not None and not self._fin_waits):
                self._drop_held()
        elif self._uncredited:
            self._drop_held()
        # They lead to each other.
        self._stream.handler = None
        if self._held or self._closing:
            return
        try:
            if self.transport is not None:
                self._end()
            elif not self._fin_waits:
                self.abandon()
        except Exception:
            self._log.failure("a connection could not be ended with its stream")

    def pause_sending(self) -> None:
        if self.transport is not None and not self._closing:
            self.transport.pauseProducing()

    def resume_sending(self) -> None:
        if self.transport is not None and not self._closing and not self._read_done:
            self.transport.resumeProducing()

    # --- what becomes of the local connection -------------------------------------------

    def abandon(self) -> None:
        """The stream is over before there is a connection."""

    def finish(self) -> None:
        """The far side sends no more."""
        if self._write_done or self._gone:
            return
        self._write_done = True
        if self._read_done or not self._can_half_close:
            self.close()
        else:
            self._unregister()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close the local connection once it has taken what was written."""
        if self._closing:
            return
        self._closing = self._write_done = True
        transport = self.transport
        self._unregister()
        # Where nothing waits to be sent, nothing has to be waited for; TLS waits for its peer's
        # farewell, whatever the transport below says of itself.
        waits = not (self._can_half_close and getattr(transport, "drained", False))
        transport.loseConnection()
        if waits and not self._gone:
            self._deadline = self._clock.callLater(CLOSE_TIMEOUT, self._expired)

    def lost(self, code: int) -> None:
        """The stream was reset: so is the local connection, unless all was said before."""
        if self._write_done:
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """End the local connection at once: to its peer, a reset."""
        if self._gone:
            return
        self._closing = self._write_done = True
        transport = self.transport
        self._unregister()
        abort = getattr(transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            transport.loseConnection()

    def let_go(self, code: ResetCode = ResetCode.CANCEL, reason: str = "aborted") -> None:
        """End the stream, and leave the connection, if there is one, to somebody else."""
        self._unregister()
        self._gone = self._closing = self._paused = True
        self.transport = None
        self._drop_held()
        self._stream.reset(code, reason)

    # --- within -------------------------------------------------------------------------

    def _deliver(self, data: bytes) -> None:
        self.delivered = True
        try:
            self.transport.write(data)
        except Exception:
            self._fault()
        if self._paused and not self._gone:
            self._uncredited += len(data)
        else:
            self._stream.consumed(len(data), self._clock.seconds())

    def _deliver_held(self) -> None:
        while self._held and not self._paused:
            self._deliver(self._held.popleft())
        if self._held or self._gone:
            return
        if self._fin_waits:
            self.finish()
        if self._ended:
            self._end()

    def _drop_held(self) -> None:
        size, self._uncredited = self._uncredited, 0
        if self._held is not None:
            size += sum(map(len, self._held))
            self._held = None
        if size:
            self._stream.consumed(size, self._clock.seconds())

    def _end(self) -> None:
        """All that the stream had was delivered, and it is over."""
        if self._reset is None:
            self.close()
        else:
            self.lost(self._reset)

    def _refuse_rest(self) -> None:
        # As TCP answers data for a closed socket.
        self._drop_held()
        self._stream.reset(ResetCode.CANCEL, "closed")

    def _linger_over(self) -> None:
        self._linger = None
        self._stream.reset(ResetCode.CANCEL, "closed")

    def _expired(self) -> None:
        self._deadline = None
        self.abort()

    def _unregister(self) -> None:
        # A TLS transport with a registered producer does not close.
        if self._producing:
            self._producing = False
            self.transport.unregisterProducer()

    def _fault(self) -> None:
        self._log.failure("a transport failed under a stream")
        self._stream.reset(ResetCode.INTERNAL)


classImplements(Splice, IProtocol, IHalfCloseableProtocol, IPushProducer)
