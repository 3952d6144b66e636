"""A stream with TLS on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet._newtls import startTLS
from twisted.internet.interfaces import IProducer

from srrrs.net.reactor.stream import RawStream


class StreamTransport(RawStream):
    """`RawStream` with `ITLSTransport`: after `startTLS` the protocol of the stream is TLS, which
    then gets what is asked of the transport."""

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        # On this connection alone: others have no question to answer at each call.
        self.write = self._write_tls  # type: ignore[method-assign]
        self.writeSequence = self._write_sequence_tls  # type: ignore[method-assign]
        self.loseConnection = self._lose_connection_tls  # type: ignore[method-assign]
        self.registerProducer = self._register_producer_tls  # type: ignore[method-assign]
        self.unregisterProducer = self._unregister_producer_tls  # type: ignore[method-assign]
        try:
            startTLS(self, ctx, normal, RawStream)
        except BaseException:
            if not self.TLS:
                self._forget_tls()
            raise
        if producer is not None:
            self.registerProducer(producer, streaming)

    def _forget_tls(self) -> None:
        # They lead back to the connection.
        for name in _TLS_ATTRIBUTES:
            self.__dict__.pop(name, None)

    def _write_tls(self, data: bytes) -> None:
        if self.connected:
            self._protocol.write(data)  # type: ignore[attr-defined]

    def _write_sequence_tls(self, iovec: Iterable[bytes]) -> None:
        if self.connected:
            self._protocol.writeSequence(iovec)  # type: ignore[attr-defined]

    def _lose_connection_tls(self) -> None:
        if self.connected and not self.disconnecting:
            self._protocol.loseConnection()  # type: ignore[attr-defined]

    def _register_producer_tls(self, producer: IProducer, streaming: bool) -> None:
        self._protocol.registerProducer(producer, streaming)  # type: ignore[attr-defined]

    def _unregister_producer_tls(self) -> None:
        self._protocol.unregisterProducer()  # type: ignore[attr-defined]


_TLS_ATTRIBUTES = (
    "write",
    "writeSequence",
    "loseConnection",
    "registerProducer",
    "unregisterProducer",
    "getHandle",
    "getPeerCertificate",
)
