"""TLS for bulk data: Twisted's own, handling a turn's records together instead of one by one.

Twisted's ``TLSMemoryBIOProtocol`` hands each 16 KiB record up, and each encrypted record down, by
itself: on a bulk stream that is a call of every layer above and a system call below for each. Here
all that arrived goes up together, and all of a write goes down in full records, many at a time
(:mod:`srrrs.net.openssl`). Everything else is Twisted's: handshake, shutdown, verification,
producers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.openssl import DRAINED, GROUP, INPUT, OUTPUT, RECORD, Records, fastest

TOGETHER: Final = 3
"""Groups that go down in one call: less than the 256 KiB that pause a producer whatever the kernel
takes (:mod:`srrrs.net.reactor.writing`)."""


class BatchedTLS(TLSMemoryBIOProtocol):
    """Twisted's TLS transport, with a turn's records handled together."""

    aborts_silently: Final = True
    """Said to the reactor, which need not hold back what may be a farewell."""

    records_of: Callable[[Connection], Records] = fastest()

    _records: Records | None = None

    def abortConnection(self) -> None:
        # Twisted's says farewell first, and relies on its reactors to drop that with all else that
        # waits. Where writes go out at once the peer would take the abort for a clean end.
        self._aborted = True
        self.disconnecting = True
        self.transport.abortConnection()  # type: ignore[union-attr]

    def makeConnection(self, transport: ITransport) -> None:
        if not self._connectWrapped:
            super().makeConnection(transport)  # type: ignore[no-untyped-call]
            return
        # As Twisted's, which declares the transport's interfaces one by one, and each undoes the
        # one before, ahead of what declares all of them.
        self._tlsConnection = self.factory._creatorCallable(self)
        self._appSendBuffer: list[bytes] = []
        ProtocolWrapper.makeConnection(self, transport)
        self._begin()

    def _begin(self) -> None:
        self._checkHandshakeStatus()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._records = None  # It leads back here.

    def _open(self) -> Records:
        self._records = records = self.records_of(self._tlsConnection)
        return records

    # --- receiving ----------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        records = self._records
        if records is None or not self._handshakeDone or self._appSendBuffer:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
            return
        start, size = 0, len(data)
        while start < size and not self._aborted and not self._lostTLSConnection:
            stop = min(start + INPUT, size)
            self._hand_up(*records.receive(data, start, stop))
            start = stop

    def _flushReceiveBIO(self) -> None:
        if not self._lostTLSConnection:
            self._hand_up(*(self._records or self._open()).read())

    def _hand_up(self, data: bytes, ended: Error | None) -> None:
        if data and not self._aborted:
            self.wrappedProtocol.dataReceived(data)
        if ended is None:
            self._flushReceiveBIO()  # More is there.
            return
        if ended is DRAINED or self._lostTLSConnection:
            return
        if isinstance(ended, WantReadError):
            self._flushSendBIO()
        elif isinstance(ended, ZeroReturnError):
            self._shutdownTLS()  # type: ignore[no-untyped-call]
            # The protocol gets the reason of the transport below.
            self._tlsShutdownFinished(None)  # type: ignore[no-untyped-call]
        else:
            self._tlsShutdownFinished(Failure(ended))  # type: ignore[no-untyped-call]

    # --- sending ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        records = self._records
        if (
            records is not None
            and 0 < len(data) <= RECORD
            and self._handshakeDone
            and not self.disconnecting
            and not self._lostTLSConnection
        ):
            # As below, where there is one record and thus little to do.
            try:
                done = records.write(data, 0, len(data))
            except Error:
                self._send((data,))  # It comes again, and is handled there.
                return
            self.transport.write(records.outgoing())  # type: ignore[union-attr]
            if done == len(data):
                return
            data = data[done:]
        super().write(data)  # type: ignore[no-untyped-call]

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if not self.disconnecting or self._producer is not None:
            self._send(iovec)

    def _write(self, data: bytes) -> None:
        self._send((data,))

    def _send(self, chunks: Iterable[bytes]) -> None:
        if self._lostTLSConnection:
            return
        if not self._handshakeDone:
            data = b"".join(chunks)
            if data:
                self._bufferedWrite(data)  # type: ignore[no-untyped-call]
            return
        records = self._records or self._open()
        parts = _in_records(chunks)
        sealed: list[bytes] = []
        waiting = 0
        for data, start, stop in parts:
            while start < stop:
                try:
                    taken = records.write(data, start, min(stop, start + GROUP - waiting))
                except WantReadError:
                    rest = [data[start:stop], *(each[i:j] for each, i, j in parts)]
                    self._bufferedWrite(b"".join(rest))  # type: ignore[no-untyped-call]
                    break
                except Error:
                    failure = Failure()
                    self.transport.writeSequence(sealed)  # type: ignore[union-attr]
                    self._tlsShutdownFinished(failure)  # type: ignore[no-untyped-call]
                    return
                start += taken
                waiting += taken
                if waiting >= GROUP:
                    waiting = 0
                    sealed.append(records.outgoing())
                    if len(sealed) >= TOGETHER:
                        self.transport.writeSequence(sealed)  # type: ignore[union-attr]
                        sealed = []
        if sealed:
            self.transport.writeSequence(sealed)  # type: ignore[union-attr]
        self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        records = self._records or self._open()
        while data := records.outgoing():
            self.transport.write(data)  # type: ignore[union-attr]
            if len(data) < OUTPUT:
                break


class AnsweringTLS(BatchedTLS):
    """The server's end, which has nothing to do before the client has spoken. Connections may wait
    for their turn in great numbers, and some give up: those cost no handshake's memory and time."""

    def _begin(self) -> None:
        pass


def _in_records(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Cut ``chunks`` into parts, each a start and a stop in bytes, that fill whole records but for
    the last one. Only what is smaller than a record is copied."""
    small: list[bytes] = []
    size = 0
    for chunk in chunks:
        length = len(chunk)
        if size + length < RECORD:
            small.append(chunk)
            size += length
            continue
        start = 0
        if small:
            start = RECORD - size
            small.append(chunk[:start])
            yield b"".join(small), 0, RECORD
            small, size = [], 0
        whole = (length - start) & -RECORD
        if whole:
            yield chunk, start, start + whole
            start += whole
        if start < length:
            small.append(chunk[start:])
            size = length - start
    if small:
        data = small[0] if len(small) == 1 else b"".join(small)
        yield data, 0, len(data)


def tls_factory(
    context: Any, is_client: bool, wrapped: IProtocolFactory, clock: IReactorTime
) -> TLSMemoryBIOFactory:
    """A factory that adds TLS to ``wrapped``'s connections.

    :param context: a connection creator, as ``TLSMemoryBIOFactory`` takes it.
    """
    factory = TLSMemoryBIOFactory(context, is_client, wrapped, clock)
    factory.protocol = BatchedTLS if is_client else AnsweringTLS
    factory.noisy = False
    return factory


@implementer(IStreamClientEndpoint)
class TLSEndpoint:
    """A client endpoint with TLS over another (as ``wrapClientTLS``, with :class:`BatchedTLS`)."""

    def __init__(
        self,
        clock: IReactorTime,
        creator: IOpenSSLClientConnectionCreator,
        endpoint: IStreamClientEndpoint,
    ) -> None:
        self._clock = clock
        self._creator = creator
        self._endpoint = endpoint

    def connect(self, protocol_factory: IProtocolFactory) -> Deferred[IProtocol]:
        """As ``IStreamClientEndpoint`` says; fires before the TLS handshake, as Twisted's does."""
        outer = tls_factory(self._creator, True, protocol_factory, self._clock)
        connecting: Deferred[Any] = self._endpoint.connect(outer)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)
