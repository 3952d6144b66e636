"""The writing half of a connection on the loop's transport, with producers and half-close.

`tcp.Connection` queues what is written, waits for writability, and sends.  The loop's transport
sends inside `write`, and keeps what the kernel refuses.  What follows a write in Twisted (asking
a producer for more, half-closing, closing) happened when the queue was empty; here it happens in
the next turn, or when the loop's buffer is empty: `_flushed` is the end of
`twisted.internet.abstract.FileDescriptor.doWrite`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import error, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IHalfCloseableProtocol, IProducer, IProtocol
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from srrrs.net.reactor.direct import DirectSet
    from srrrs.net.reactor.reactor import LoopReactor

# Bytes in one write that pause a streaming producer even when the kernel takes them all.  The loop
# reads at most 256,000 bytes at a time, so that passing on what was read does not reach it.
BUFFER_SIZE = 256 * 1024

# Below TLS, writes of up to so many bytes wait for the end of the turn.  TLS says farewell just
# before it aborts a connection; sent at once, that would have the peer take the abort for a clean
# end.  A farewell may come with the end of a handshake: an alert is at most 85 bytes (RFC 5246
# section 6.2.3.2, with CBC and SHA-384), the session tickets before it a kilobyte or two.
FAREWELL = 4096

CONNECTION_DONE = Failure(error.ConnectionDone())


class WritingStream(tcp.Connection):
    """Writes to `_stream`; `RawStream` provides the rest.

    There is no `_stream` while a client connects, while the connection is new (see `direct`), and
    for the turn that the loop takes to hand its transport over.
    """

    reactor: LoopReactor
    bufferSize = BUFFER_SIZE
    # Tells whoever has a bytearray that write and writeSequence take one, as it is and for good.
    takes_buffers = True

    _stream: asyncio.Transport | None = None
    # What watches the socket while it is written to, and read, without the loop's transport.
    _direct: DirectSet | None = None
    # The stream's write and writelines, while nothing has to be done but calling them.
    _send: Any = None
    _send_many: Any = None
    # Whether bytes wait in the loop's buffer, or for the loop's transport.
    _blocked = True
    # Whether _flushed is to be called in the next turn, or once nothing waits any more.
    _flush_due = False
    # Whether small writes wait for the end of the turn; see FAREWELL.
    _gathers = False
    # What waits here: for the end of the turn, or for the loop's transport.
    _gathered: list[bytes] | None = None

    # -- provided by RawStream ------------------------------------------------------------------

    _protocol: IProtocol
    _reading = False

    def _fail(self) -> None:
        raise NotImplementedError

    def _call(self, function: Any, *args: Any) -> None:
        raise NotImplementedError

    def stopReading(self) -> None:
        raise NotImplementedError

    def _hand_over(self) -> None:
        raise NotImplementedError

    # -- writing --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        send = self._send
        if send is not None and type(data) is bytes and len(data) <= self.bufferSize:
            send(data)
        else:
            self._write_slowly((data,))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        chunks = iovec if type(iovec) in (list, tuple) else list(iovec)
        send = self._send_many
        size = 0
        for chunk in chunks:
            if type(chunk) not in (bytes, bytearray):
                break
            size += len(chunk)
        else:
            if send is not None and size <= self.bufferSize:
                send(chunks)
                return
        self._write_slowly(chunks)

    def _write_slowly(self, chunks: Iterable[bytes]) -> None:
        """Write whatever the state of the connection is."""
        size = 0
        for chunk in chunks:
            if not isinstance(chunk, bytes | bytearray):
                raise TypeError("Data must be bytes")
            size += len(chunk)
        if not size or not self.connected or self._writeDisconnected or self._aborting:
            return
        if self._gathers and size <= FAREWELL:
            if self._gathered is None:
                self._gathered = []
                self.reactor.loop.call_soon(self._send_gathered)
            self._gathered.extend(chunks)
        elif self._stream is not None:
            if self._gathered is not None:
                self._send_gathered()
            self._stream.writelines(chunks)
        else:
            self._write_early(b"".join(chunks))
            if self._gathered is None and size <= self.bufferSize:
                return  # There is no telling of room, where there was no want of it.
        if self.producer is not None:
            if self._blocked or size > self.bufferSize:
                self._pause_producer()
            if not self.streamingProducer or self.producerPaused:
                self.startWriting()

    def _send_early(self, data: bytes) -> None:
        # While nothing else has to be done, and the loop has no transport.
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._send = None
            self._write_slowly((data[sent:],))

    def _write_early(self, data: bytes) -> None:
        if self._gathered is None:
            try:
                sent = self.socket.send(data)
            except OSError:
                # A broken connection shows when the loop writes what is kept here.
                sent = 0
            if sent == len(data):
                return
            self._gathered = [data[sent:]]
            self._hand_over()
        else:
            self._gathered.append(data)

    def _send_gathered(self) -> None:
        if self._gathered is not None and self._stream is not None and not self._aborting:
            gathered, self._gathered = self._gathered, None
            self._stream.writelines(gathered)

    def _route(self) -> None:
        """Choose the short way for writes, or the long one."""
        stream = self._stream
        if (
            (stream is None and self._direct is None)
            or self._blocked
            or self._gathers
            or self._writeDisconnected
            or self._aborting
            or (self.producer is not None and not self.streamingProducer)
        ):
            self._send = self._send_many = None
        elif stream is None:
            self._send, self._send_many = self._send_early, None
        else:
            self._send, self._send_many = stream.write, stream.writelines

    # -- asyncio's flow control -----------------------------------------------------------------

    def pause_writing(self) -> None:
        self._blocked = True
        self._send = self._send_many = None
        if self.producer is not None:
            self._call(self._pause_producer)

    def resume_writing(self) -> None:
        self._blocked = False
        self._flush_due = False
        self._route()
        self._call(self._flushed)

    # -- Twisted's ------------------------------------------------------------------------------

    def startWriting(self) -> None:
        """Have `_flushed` called when no bytes wait, but not before the next turn."""
        if not self._flush_due:
            self._flush_due = True
            if not self._blocked:
                self.reactor.loop.call_soon(self._on_flush_due)

    def stopWriting(self) -> None:
        self._flush_due = False

    def _on_flush_due(self) -> None:
        if self._flush_due and not self._blocked:
            self._flush_due = False
            contexts = self.reactor.contexts
            contexts.append(self)
            try:
                self._flushed()
            except Exception:
                self._fail()
            finally:
                contexts.pop()

    def _flushed(self) -> None:
        if self.disconnected:
            return
        if self._gathered is not None:
            self._send_gathered()
            if self._blocked:
                return  # resume_writing comes
        producer = self.producer
        if producer is not None and (not self.streamingProducer or self.producerPaused):
            self.producerPaused = False
            producer.resumeProducing()  # type: ignore[attr-defined]
        elif self.disconnecting:
            self.connectionLost(CONNECTION_DONE)
        elif self._writeDisconnecting and not self._writeDisconnected:
            self._writeDisconnected = True
            self._send = self._send_many = None
            self._closeWriteConnection()

    def _pause_producer(self) -> None:
        if self.producer is not None and self.streamingProducer and not self.producerPaused:
            self.producerPaused = True
            self.producer.pauseProducing()  # type: ignore[attr-defined]

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if not streaming:
            self._send = self._send_many = None
            self._hand_over()
        if self.producer is not None or self.disconnected or not streaming:
            FileDescriptor.registerProducer(self, producer, streaming)
        else:
            self.producer = producer
            self.streamingProducer = True
        self.producerPaused = False
        if not streaming and self.connected:
            # In Twisted, what was written before is still queued, and its end asks the producer
            # for more.
            self.startWriting()

    def unregisterProducer(self) -> None:
        self.producer = None
        if not self.streamingProducer:
            self._route()
        if self.connected and self.disconnecting:
            self.startWriting()

    def loseWriteConnection(self) -> None:
        self._writeDisconnecting = True
        if not self._flush_due:
            self._flush_due = True
            if not self._blocked:
                self.reactor.loop.call_soon(self._on_flush_due)

    def _closeWriteConnection(self) -> None:
        # tcp.Connection's, in fewer steps.
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        protocol: Any = self._protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            protocol.writeConnectionLost()

    @property
    def drained(self) -> bool:
        """Whether nothing waits to be sent, so that `loseConnection` needs one turn only."""
        return not self._blocked and self._gathered is None and not self._gathers

    def loseConnection(self) -> None:
        # FileDescriptor's, in fewer steps.
        if not self.connected or self.disconnecting:
            return
        if self._reading:
            self.stopReading()
        if self._writeDisconnected:
            self._flush_due = False
            self.reactor.loop.call_soon(self._call, self.connectionLost, CONNECTION_DONE)
        else:
            self.disconnecting = True
            if not self._flush_due:
                self._flush_due = True
                if not self._blocked:
                    self.reactor.loop.call_soon(self._on_flush_due)
