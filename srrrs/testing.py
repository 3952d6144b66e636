"""Fakes for tests of protocols that run on srrrs, or on anything that looks like TCP.

No sockets, no reactor, no real time: the test says when bytes move, how many, and when the other
side closes. :class:`FakeTransport` behaves as Twisted's TCP (or TLS) transport does, its sharp
edges included; :func:`connect` joins two protocols by a pair of them. :class:`MemoryCarrier`
carries a tunnel as a WebSocket would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from srrrs.net.carrier import ICarrier, ICarrierHandler
from srrrs.protocol.mux import MAX_FRAME

BUFFER: Final = 64 * 1024
"""Bytes above which a transport pauses its producer, as Twisted's."""
MAX_TURNS: Final = 1_000_000
"""Turns after which :meth:`Connection.flush` gives up: the two ends never fall silent."""

CARRIER_BUFFER: Final = 64 * 1024
"""Bytes under way above which a :class:`MemoryCarrier` pauses its tunnel."""

_HERE: Final = IPv4Address("TCP", "127.0.0.1", 8000)
_THERE: Final = IPv4Address("TCP", "192.0.2.1", 50000)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class FakeTransport:
    """A TCP connection whose other end is the test.

    Like Twisted's, it calls ``pauseProducing`` on *every* write that leaves more than
    ``buffer_size`` bytes unsent, resumes once all are gone, does not close while a paused or a
    pull producer is registered, takes writes after ``loseConnection``, and tells of the peer's
    half-close again each time reading is resumed.

    Nothing happens by itself: :meth:`receive`, :meth:`peer_half_close` and :meth:`peer_reset` are
    the peer's doing, :meth:`drain` the network's.

    :param buffer_size: bytes.
    :param tls: behave as Twisted's TLS does where that differs: no half-close either way, no close
        while any producer is registered, no writes after ``loseConnection`` without one.
    """

    _log = Logger()

    def __init__(
        self,
        peer: IAddress = _THERE,
        host: IAddress = _HERE,
        buffer_size: int = BUFFER,
        tls: bool = False,
    ) -> None:
        self.tls = tls
        if tls:
            alsoProvides(self, ISSLTransport)
        self.protocol: IProtocol | None = None
        self.buffer_size = buffer_size
        self.connected = True
        self.disconnecting = False
        self.aborted = False
        self.write_closed = False
        self.reading = True
        self.no_delay = False
        self.keep_alive = False
        self.lost: Failure | None = None
        self.sent = bytearray()
        self.producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._half_closing = False
        self._buffer = bytearray()
        self._inbound: deque[bytes] = deque()
        self._eof = False
        self._peer = peer
        self._host = host

    def attach(self, protocol: IProtocol) -> None:
        """Make the connection to ``protocol``."""
        self.protocol = protocol
        protocol.makeConnection(self)

    # --- what the test sees and does ----------------------------------------------------

    @property
    def buffered(self) -> int:
        """Bytes written and not yet drained."""
        return len(self._buffer)

    @property
    def held(self) -> int:
        """Bytes received while reading was paused."""
        return sum(map(len, self._inbound))

    def receive(self, data: bytes) -> None:
        """The peer's bytes arrive; they are held while reading is paused."""
        if self.connected and data:
            self._inbound.append(data)
            self._read()

    def peer_half_close(self) -> None:
        """The peer sends no more."""
        self._eof = True
        self._read()

    def peer_reset(self) -> None:
        """The connection breaks."""
        self._lose(Failure(ConnectionLost()))

    def drain(self, limit: int | None = None) -> bytes:
        """A turn of the reactor: at most ``limit`` bytes leave, and what is due happens.

        Due may be: a pending abort, held data (where reading was resumed), the producer's
        resumption, a half-close, the connection's end.

        :returns: the bytes that left; they are also added to ``sent``.
        """
        if self.aborted:
            self._lose(Failure(ConnectionAborted()))
        self._read()
        if self._over():
            return b""
        size = len(self._buffer) if limit is None else min(limit, len(self._buffer))
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.sent += data
        if not self._buffer:
            self._emptied()
        return data

    def _emptied(self) -> None:
        if self.producer is not None and (not self._streaming or self._producer_paused):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            if self.producer is None or not self.tls:
                self._lose(Failure(ConnectionDone()))
        elif self._half_closing and not self.write_closed:
            self.write_closed = True
            self._tell("writeConnectionLost")

    def _over(self) -> bool:
        return not self.connected or self.aborted

    def _read(self) -> None:
        while self._inbound and self.reading and not self._over():
            data = self._inbound.popleft()
            assert self.protocol is not None
            try:
                self.protocol.dataReceived(data)
            except Exception:
                self._fault("dataReceived")
        if self._eof and not self._inbound and self.reading and not self._over():
            self.reading = False
            if self.tls or not self._tell("readConnectionLost"):
                self._lose(Failure(ConnectionDone()))

    def _tell(self, name: str) -> bool:
        """Tell of a half-close; whether the protocol wants to know."""
        protocol: Any = self.protocol
        if not IHalfCloseableProtocol.providedBy(protocol):
            return False
        try:
            getattr(protocol, name)()
        except Exception:
            self._fault(name)
        return True

    def _fault(self, name: str) -> None:
        self._log.failure("a protocol's {name} failed", name=name)
        self._lose(Failure())

    def _lose(self, reason: Failure) -> None:
        if not self.connected:
            return
        self.connected = self.reading = False
        self.lost = reason
        self._inbound.clear()
        self._buffer.clear()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(reason)

    # --- ITransport ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"data to write must be bytes, not {type(data).__name__}")
        if self._over() or self.write_closed or not data:
            return
        if self.tls and self.disconnecting and self.producer is None:
            return
        self._buffer += data
        if self.producer is not None and self._streaming and len(self._buffer) > self.buffer_size:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.connected or self.disconnecting:
            return
        self.reading = False
        self.disconnecting = True

    def loseWriteConnection(self) -> None:
        if self.tls:
            # Twisted would pass it to the TCP connection below, and cut TLS off.
            raise RuntimeError("TLS has no half-close")
        self._half_closing = True

    def abortConnection(self) -> None:
        self.reading = False
        self.aborted = True

    def getPeer(self) -> IAddress:  # type: ignore[override]
        return self._peer

    def getHost(self) -> IAddress:  # type: ignore[override]
        return self._host

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return self.keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = bool(enabled)

    # --- IConsumer ----------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("a producer is already registered")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    # --- IPushProducer ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        # What is held comes with the next turn, not from within this call.
        if not self._over() and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()


class Connection:
    """Two fake transports, joined: what leaves one arrives at the other when pumped.

    :param capacity: bytes that the network and the receiver's kernel hold while the receiver
        does not read; beyond that, the sender's buffer fills.
    """

    def __init__(self, a: FakeTransport, b: FakeTransport, capacity: int = BUFFER) -> None:
        self.a = a
        self.b = b
        self.capacity = capacity
        self._ended: set[FakeTransport] = set()

    def pump(self, size: int | None = None) -> bool:
        """Move at most ``size`` bytes each way; whether anything happened."""
        before = self._state()
        there = self._move(self.a, self.b, size)
        back = self._move(self.b, self.a, size)
        return there or back or before != self._state()

    def flush(self, size: int | None = None) -> None:
        """Pump until nothing happens any more, ``size`` bytes at a time.

        :raises RuntimeError: the two never fall silent.
        """
        for _ in range(MAX_TURNS):
            if not self.pump(size):
                return
        raise RuntimeError("the connection never falls silent")

    def _state(self) -> tuple[object, ...]:
        return tuple(
            (t.connected, t.write_closed, t.buffered, t.held, t.reading) for t in (self.a, self.b)
        )

    def _move(self, source: FakeTransport, sink: FakeTransport, size: int | None) -> bool:
        room = max(0, self.capacity - sink.held) if sink.connected else self.capacity
        data = source.drain(room if size is None else min(size, room))
        if data and not sink.connected:
            # The peer is gone: its kernel answers with a reset.
            source.peer_reset()
        sink.receive(data)
        if source.lost is not None and not source.lost.check(ConnectionDone):
            told = sink.connected
            sink.peer_reset()
            return told or bool(data)
        if (source.lost is None and not source.write_closed) or source in self._ended:
            return bool(data)
        self._ended.add(source)
        sink.peer_half_close()
        return True


def connect(
    a: IProtocol, b: IProtocol, buffer_size: int = BUFFER, capacity: int = BUFFER
) -> Connection:
    """Join two protocols; ``a`` is connected first."""
    connection = Connection(
        FakeTransport(_THERE, _HERE, buffer_size),
        FakeTransport(_HERE, _THERE, buffer_size),
        capacity,
    )
    connection.a.attach(a)
    connection.b.attach(b)
    return connection


class Recorder(Protocol):
    """Writes down what happens to it.

    :ivar events: names of callbacks, and the bytes received, in order; adjoining bytes joined.
    :ivar lost: why the connection ended.
    """

    def __init__(self) -> None:
        self.events: list[str | bytes] = []
        self.lost: Failure | None = None

    @property
    def data(self) -> bytes:
        """All bytes received."""
        return b"".join(event for event in self.events if isinstance(event, bytes))

    def connectionMade(self) -> None:
        self.events.append("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        last = self.events[-1]
        if isinstance(last, bytes):
            self.events[-1] = last + data
        else:
            self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("connectionLost")
        self.lost = reason


@implementer(IHalfCloseableProtocol)
class HalfCloseRecorder(Recorder):
    """A :class:`Recorder` that outlives a half-close."""

    def readConnectionLost(self) -> None:
        self.events.append("readConnectionLost")

    def writeConnectionLost(self) -> None:
        self.events.append("writeConnectionLost")


@implementer(ICarrier)
class MemoryCarrier:
    """One end of a carrier in memory; make both with :func:`carriers`.

    What is sent waits in ``outbox`` until :meth:`deliver`. Pings are answered as they are
    delivered, as a WebSocket does.

    :ivar outbox: what is under way to the other end: kind (``data``, ``ack``, ``ping``, ``pong``,
        ``close``) and payload.
    :ivar answers_pings: set it to False for an end that has fallen silent.
    :ivar aborted: this end was aborted.
    :ivar lost: the end was told to the handler.
    :ivar stranded: set it to True for an end whose machine has lost its address.
    """

    other: MemoryCarrier

    def __init__(self, clock: IReactorTime, peer: IAddress, buffer_size: int) -> None:
        self.peer = peer
        self.heard_at = clock.seconds()
        self.peer_frame = MAX_FRAME
        self.outbox: deque[tuple[str, Any]] = deque()
        self.answers_pings = True
        self.aborted = False
        self.lost = False
        self.stranded = False
        self.closing: tuple[int, str] | None = None
        self._clock = clock
        self._buffer_size = buffer_size
        self._buffered = 0
        self._paused = False
        self._handler: ICarrierHandler | None = None

    # --- what the test does -------------------------------------------------------------

    def deliver(self, count: int | None = None) -> int:
        """Let the other end have the next ``count`` messages (all, where None); their number.

        Nothing moves before the other end was started, or after the end.
        """
        other, moved = self.other, 0
        while self.outbox and other._handler is not None and not other.lost:
            if count is not None and moved >= count:
                break
            kind, payload = self.outbox.popleft()
            moved += 1
            if kind == "data":
                self._buffered -= len(payload)
            other._take(kind, payload)
        if self._paused and not self._buffered and not self.lost and self._handler is not None:
            self._paused = False
            self._handler.resume_writing()
        return moved

    def deliver_part(self, size: int) -> None:
        """Let the other end have the first ``size`` bytes of the next message, if that carries
        session bytes; the rest is lost, as in a cut, which is to follow."""
        other = self.other
        if self.outbox and other._handler is not None and not other.lost:
            kind, payload = self.outbox.popleft()
            if kind == "data" and payload[:size]:
                other._take(kind, payload[:size])

    def cut(self, reason: str = "the connection was cut") -> None:
        """The connection breaks: both ends are told, and what is under way is lost."""
        for end in (self, self.other):
            end.outbox.clear()
            end._lose(None, reason)

    def _take(self, kind: str, payload: Any) -> None:
        handler = self._handler
        assert handler is not None
        self.heard_at = self._clock.seconds()
        if kind == "close":
            self._lose(*payload)
            self.other._lose(None, payload[1])
        elif kind == "ping":
            if self.answers_pings and self.closing is None:
                self.outbox.append(("pong", payload))
        elif self.closing is not None:
            return
        elif kind == "pong":
            handler.ponged(payload)
        elif kind == "ack":
            handler.ack_received(payload)
        else:
            handler.session_data(payload)

    def _lose(self, code: int | None, reason: str) -> None:
        if not self.lost:
            self.lost = True
            if self._handler is not None:
                self._handler.carrier_lost(code, reason)

    # --- ICarrier -----------------------------------------------------------------------

    def detach(self) -> None:
        self._handler = None

    def start(self, handler: ICarrierHandler) -> None:
        self._handler = handler
        if self.lost:
            handler.carrier_lost(None, "the connection was lost")

    def notice_silence(self, interval: float) -> None:
        """Memory has no such notion."""

    def is_stranded(self) -> bool:
        return self.stranded

    def _put(self, kind: str, payload: Any) -> bool:
        if self.lost or self.aborted or self.closing is not None:
            return False
        self.outbox.append((kind, payload))
        return True

    def send(self, chunks: Sequence[bytes], size: int, ack: int | None = None) -> None:
        if ack is not None:
            self.send_ack(ack)
        data = b"".join(chunks)
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes, said to be {size}")
        if self._put("data", data):
            self._buffered += size
            if self._buffered > self._buffer_size and self._handler is not None:
                self._paused = True
                self._handler.pause_writing()

    def send_ack(self, count: int) -> None:
        self._put("ack", count)

    def ping(self, payload: bytes) -> None:
        self._put("ping", payload)

    def close(self, code: int, reason: str) -> None:
        if self._put("close", (code, reason)):
            self.closing = (code, reason)

    def abort(self) -> None:
        """Both ends are told a turn later."""
        if not self.aborted and not self.lost:
            self.aborted = True
            self._clock.callLater(0, self.cut, "the connection was aborted")


def carriers(
    clock: IReactorTime, buffer_size: int = CARRIER_BUFFER
) -> tuple[MemoryCarrier, MemoryCarrier]:
    """Two joined carriers; what is sent moves by :meth:`MemoryCarrier.deliver`."""
    a = MemoryCarrier(clock, _THERE, buffer_size)
    b = MemoryCarrier(clock, _HERE, buffer_size)
    a.other, b.other = b, a
    return a, b
