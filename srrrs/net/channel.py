"""One stream as a Twisted transport: what protocols written for TCP can be put on."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.protocol.errors import ResetCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srrrs.protocol.stream import Stream, StreamHandler

LINGER: Final = 60.0
"""Seconds that a stream may stay half-open after its local side was closed (as Linux's
``tcp_fin_timeout`` for orphaned sockets)."""

_DONE: Final = Failure(ConnectionDone())


class StreamReset(ConnectionLost):
    """The stream ended by a reset: of the peer, or because its tunnel ended."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason or describe(code))
        self.code = code
        self.reason = reason or describe(code)

    def __str__(self) -> str:
        return self.reason


def describe(code: int) -> str:
    """A reset code in words."""
    try:
        return ResetCode(code).name.lower().replace("_", " ")
    except ValueError:
        return f"reset with code {code}"


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Channel:
    """A stream, to the protocol that is attached to it a TCP transport.

    Bytes are credited to the peer when the protocol has taken them and did not pause: what arrives
    while it is paused, or before one is attached, is held here, bounded by the stream's window.

    :param clock: for the linger deadline and credit.
    :param host: this end's address, as :meth:`getHost` gives it.
    :param visitor: who opened the stream, as :meth:`getPeer` gives it.
    """

    _log = Logger()

    disconnecting = False

    # Of the visitor's connection, for logs; empty where the relay gave none.
    label = ""

    # What most streams never change: many are never attached to a protocol, but handed over.
    protocol: IProtocol | None = None
    _half_closeable = False
    _uncredited = 0
    _paused = False
    _fin_waits = False
    _fin_delivered = False
    _fin_sent = False
    # Set once the stream is over; told to the protocol when all held data is delivered.
    _end: Failure | None = None
    # The end that came before a protocol was attached, to be told to it.
    _missed: Failure | None = None
    _lost = False
    _aborted = False
    _producer: Any = None
    _streaming = False
    _producer_paused = False
    _pull: IDelayedCall | None = None
    _linger: IDelayedCall | None = None

    def __init__(
        self, stream: Stream, clock: IReactorTime, visitor: IAddress, host: IAddress
    ) -> None:
        self.stream = stream
        self.clock = clock
        self.visitor = visitor
        self.host = host
        self._held: deque[bytes] = deque()
        stream.handler = self

    # --- attaching ----------------------------------------------------------------------

    def attach(self, protocol: IProtocol) -> None:
        """Give the stream its protocol; what arrived before comes after ``makeConnection``."""
        self.protocol = protocol
        self._half_closeable = IHalfCloseableProtocol.providedBy(protocol)
        protocol.makeConnection(self)
        self._deliver_held()
        if self._missed is not None:
            self._finish(self._missed)

    def hand_over(self, handler: StreamHandler) -> None:
        """Give the stream away, before it is attached; what arrived is told to ``handler``.

        The channel is of no use afterwards but for its addresses.
        """
        self.stream.handler = handler
        for data in self._held:
            handler.data_received(data)
        if self._fin_waits:
            handler.fin_received()
        if self._end is not None:
            error = self._end.value
            self.stream.handler = None
            if isinstance(error, ConnectionDone):
                handler.stream_closed(None, "")
            else:
                code = getattr(error, "code", ResetCode.CANCEL)
                handler.stream_closed(code, str(error))

    # --- from the stream (StreamHandler) ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.disconnecting and self._fin_sent:
            # As TCP answers data for a closed socket.
            self.stream.consumed(len(data), self.clock.seconds())
            self.stream.reset(ResetCode.CANCEL, "closed")
        elif self._paused or self._held or self.protocol is None or self.disconnecting:
            self._held.append(data)
        else:
            self._deliver(data)

    def fin_received(self) -> None:
        self._fin_waits = True
        self._deliver_held()

    def fin_sent(self) -> None:
        self._fin_sent = True
        if self.disconnecting:
            # Came while what was written before the close went out: nobody reads it.
            unread = bool(self._held)
            self._finish(_DONE)
            if unread:
                self.stream.reset(ResetCode.CANCEL, "closed")
            elif not self._fin_waits and self._end is None:
                self._linger = self.clock.callLater(LINGER, self._linger_over)
        elif self._half_closeable and not self._lost:
            self._call("writeConnectionLost")

    def stream_closed(self, code: int | None, reason: str) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if code is None:
            self._end = _DONE
        elif self._aborted:
            self._end = Failure(ConnectionAborted())
        else:
            self._end = Failure(StreamReset(code, reason))
        if code is not None and not self._fin_waits:
            self._drop_held()
        # With the peer's FIN here, what it sent is whole: a reset that follows ends only the other
        # direction, and the held bytes and the FIN are still delivered.
        fin = self._fin_waits and not self._fin_delivered
        if (self._held or fin) and (self._paused or self.protocol is None):
            self._stop_producer()
            return
        self._deliver_held()
        self._finish(self._end)

    def pause_sending(self) -> None:
        if self._producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def resume_sending(self) -> None:
        if self._producer is None:
            return
        if not self._streaming:
            self._pull_soon()
        elif self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    # --- delivery -----------------------------------------------------------------------

    def _deliver(self, data: bytes) -> None:
        protocol = self.protocol
        assert protocol is not None
        try:
            protocol.dataReceived(data)
        except Exception:
            self._fault("dataReceived")
        if self._paused:
            self._uncredited += len(data)
        else:
            self.stream.consumed(len(data), self.clock.seconds())

    def _deliver_held(self) -> None:
        if self.protocol is None:
            return
        while self._held and not self._paused and not self.disconnecting:
            self._deliver(self._held.popleft())
        if self.disconnecting:
            self._drop_held()
        if self._held or self._lost or self._paused:
            return
        if self._fin_waits and not self._fin_delivered:
            self._fin_delivered = True
            if self._half_closeable:
                self._call("readConnectionLost")
            else:
                self.loseConnection()
        if self._end is not None:
            self._finish(self._end)

    def _drop_held(self) -> None:
        size = self._uncredited + sum(map(len, self._held))
        self._held.clear()
        self._uncredited = 0
        if size:
            self.stream.consumed(size, self.clock.seconds())

    def _call(self, name: str) -> None:
        try:
            getattr(self.protocol, name)()
        except Exception:
            self._fault(name)

    def _fault(self, name: str) -> None:
        self._log.failure("a protocol's {name} failed on a stream", name=name)
        self.stream.reset(ResetCode.INTERNAL)

    def _finish(self, reason: Failure) -> None:
        if self._lost:
            return
        self.disconnecting = True
        self._drop_held()
        if self.protocol is None:
            self._missed = reason
            self._stop_producer()
            return
        self._lost = True
        try:
            self.protocol.connectionLost(reason)
        except Exception:
            self._log.failure("a protocol's connectionLost failed on a stream")
        self._stop_producer()

    def _linger_over(self) -> None:
        self._linger = None
        self.stream.reset(ResetCode.CANCEL, "closed")

    # --- ITransport ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"data to write must be bytes, not {type(data).__name__}")
        if not self.disconnecting:
            self.stream.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once everything written has gone out."""
        if self.disconnecting:
            return
        self.disconnecting = True
        self._drop_held()
        if self._end is not None:
            self._finish(self._end)
        elif self._fin_sent:
            self.fin_sent()
        else:
            self.stream.finish()

    def loseWriteConnection(self) -> None:
        """Half-close, after what was written."""
        if not self.disconnecting:
            self.stream.finish()

    def abortConnection(self) -> None:
        """End both directions now; what is queued is dropped."""
        self.reset(ResetCode.CANCEL, "aborted")

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """As :meth:`abortConnection`, telling the peer why."""
        if self._lost and self._end is not None:
            return
        self._aborted = True
        self.disconnecting = True
        self._fin_waits = False
        if self._end is not None:
            self._finish(Failure(ConnectionAborted()))
        self.stream.reset(code, reason)

    def getPeer(self) -> IAddress:  # type: ignore[override]
        return self.visitor

    def getHost(self) -> IAddress:  # type: ignore[override]
        return self.host

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Streams are never delayed."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """The tunnel's heartbeats keep every stream alive."""

    # --- IConsumer ----------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("a producer is already registered")
        if self._lost or self._end is not None:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._pull_soon()
        elif self.stream.held_back:
            self.pause_sending()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self._pull is not None:
            self._pull.cancel()
            self._pull = None

    def _stop_producer(self) -> None:
        """The end: a producer that is still registered writes in vain."""
        producer = self._producer
        self.unregisterProducer()
        if producer is not None and (self._lost or self._missed is not None):
            producer.stopProducing()

    def _pull_soon(self) -> None:
        if self._pull is None:
            self._pull = self.clock.callLater(0, self._pull_once)

    def _pull_once(self) -> None:
        self._pull = None
        if self._producer is not None:
            self._producer.resumeProducing()
            if self._producer is not None and not self.stream.held_back:
                self._pull_soon()

    # --- IPushProducer ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if self._uncredited:
            size, self._uncredited = self._uncredited, 0
            self.stream.consumed(size, self.clock.seconds())
        self._deliver_held()

    def stopProducing(self) -> None:
        self.loseConnection()
