"""A stream with TLS on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet._newtls import startTLS
from twisted.internet.interfaces import IProducer

from srrrs.net.reactor.stream import RawStream


class StreamTransport(RawStream):
    """`RawStream` with `ITLSTransport`: after `startTLS` the protocol of the stream is TLS."""

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        startTLS(self, ctx, normal, RawStream)

    def write(self, data: bytes) -> None:
        send = self._send
        if self.TLS:
            if self.connected:
                self._protocol.write(data)  # type: ignore[attr-defined]
        elif send is not None and type(data) is bytes and len(data) <= self.bufferSize:
            send(data)
        else:
            self._write_slowly((data,))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if not self.TLS:
            RawStream.writeSequence(self, iovec)
        elif self.connected:
            self._protocol.writeSequence(iovec)  # type: ignore[attr-defined]

    def loseConnection(self) -> None:
        if not self.TLS:
            RawStream.loseConnection(self)
        elif self.connected and not self.disconnecting:
            self._protocol.loseConnection()  # type: ignore[attr-defined]

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if not self.TLS:
            RawStream.registerProducer(self, producer, streaming)
        else:
            self._protocol.registerProducer(producer, streaming)  # type: ignore[attr-defined]

    def unregisterProducer(self) -> None:
        if not self.TLS:
            RawStream.unregisterProducer(self)
        else:
            self._protocol.unregisterProducer()  # type: ignore[attr-defined]
