"""TLS for bulk data: Twisted's own, handling a turn's records together instead of one by one.

Twisted's ``TLSMemoryBIOProtocol`` hands each 16 KiB record up, and each encrypted record down, by
itself: on a bulk stream that is a call of every layer above and a system call below for each. Here
up to four records at a time go either way. Everything else is Twisted's: handshake, shutdown,
verification, producers.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

RECORD: Final = 2**14
"""Bytes of plaintext in a TLS record at the most (RFC 8446, 5.1)."""
GROUP: Final = 4 * RECORD
"""Bytes handed up or down together: enough to save calls, few enough to stay in the cache."""
SMALL: Final = 4096
"""Bytes read where there is usually little to send: pyOpenSSL clears a buffer of that size."""


class BatchedTLS(TLSMemoryBIOProtocol):
    """Twisted's TLS transport, with a turn's records handled together."""

    aborts_silently: Final = True
    """Said to the reactor, which need not hold back what may be a farewell."""

    def abortConnection(self) -> None:
        # Twisted's says farewell first, and relies on its reactors to drop that with all else that
        # waits. Where writes go out at once the peer would take the abort for a clean end.
        self._aborted = True
        self.disconnecting = True
        self.transport.abortConnection()  # type: ignore[union-attr]

    def _flushSendBIO(self, expected: int = SMALL) -> None:
        chunks: list[bytes] = []
        while True:
            try:
                chunk = self._tlsConnection.bio_read(expected)
            except WantReadError:
                break
            chunks.append(chunk)
            if len(chunk) < expected:
                break
            expected = GROUP
        if chunks:
            self.transport.write(  # type: ignore[union-attr]
                chunks[0] if len(chunks) == 1 else b"".join(chunks)
            )

    def _flushReceiveBIO(self) -> None:
        chunks: list[bytes] = []
        failure: Failure | None = None
        closed = False
        while not self._lostTLSConnection:
            try:
                chunks.append(self._tlsConnection.recv(RECORD))
            except WantReadError:
                break
            except ZeroReturnError:
                closed = True
                break
            except Error:
                failure = Failure()
                break
            if len(chunks) >= GROUP // RECORD:
                self._hand_up(chunks)
                chunks = []
        self._hand_up(chunks)
        if self._lostTLSConnection:
            return
        if closed:
            self._shutdownTLS()  # type: ignore[no-untyped-call]
            # The protocol gets the reason of the transport below.
            self._tlsShutdownFinished(None)  # type: ignore[no-untyped-call]
        elif failure is not None:
            self._tlsShutdownFinished(failure)  # type: ignore[no-untyped-call]
        else:
            self._flushSendBIO()

    def _hand_up(self, chunks: list[bytes]) -> None:
        if chunks and not self._aborted:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            ProtocolWrapper.dataReceived(self, data)

    def _write(self, data: bytes) -> None:
        if self._lostTLSConnection:
            return
        connection = self._tlsConnection
        view = memoryview(data)
        size, done, flushed = len(data), 0, 0
        while done < size:
            try:
                done += connection.send(view[done : done + RECORD])
            except WantReadError:
                self._bufferedWrite(data[done:])  # type: ignore[no-untyped-call]
                break
            except Error:
                self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
                return
            if done - flushed >= GROUP:
                self._flushSendBIO(done - flushed + SMALL)
                flushed = done
        self._flushSendBIO(done - flushed + SMALL)


def tls_factory(
    context: Any, is_client: bool, wrapped: IProtocolFactory, clock: IReactorTime
) -> TLSMemoryBIOFactory:
    """A factory that adds TLS to ``wrapped``'s connections.

    :param context: a connection creator, as ``TLSMemoryBIOFactory`` takes it.
    """
    factory = TLSMemoryBIOFactory(context, is_client, wrapped, clock)
    factory.protocol = BatchedTLS
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
