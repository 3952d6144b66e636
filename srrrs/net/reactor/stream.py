"""A connection on the loop's transport: its beginning, reading, errors and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from weakref import ref

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.log import ILogContext

from srrrs.net.reactor.direct import READ, READS, DirectSet
from srrrs.net.reactor.sockets import end_socket
from srrrs.net.reactor.writing import CONNECTION_DONE, WritingStream

log = Logger()

CONNECTION_LOST = Failure(error.ConnectionLost())

# Bytes read at most from a connection on which writing has failed.
READ_REST_LIMIT = 8 * 1024 * 1024


class RawStream(WritingStream):
    """The connection below `ITLSTransport`; also the asyncio protocol of its own `_stream`."""

    _protocol: IProtocol
    _protocol_name: str | None = None
    _read_eof = False
    # Whether TCP may keep small writes back for a while.
    _delays = True
    # What Twisted queues is always empty here.
    _tempDataBuffer: Any = ()
    _tempDataLen = 0
    # The stack of log contexts of the thread that the reactor runs in.
    _contexts: list[Any]
    # Whether there may be more to read than has been told of.
    _unread = False
    # Reads before the loop takes over.
    _reads_left = READS
    # What attaches it to the loop, and what that waits for.
    _attaching: Coroutine[Any, Any, Any] | None = None
    _attached: Any = None

    def fileno(self) -> int:
        try:
            return self.socket.fileno()
        except AttributeError:
            return -1

    @property
    def protocol(self) -> IProtocol:
        """The protocol that receives; it may be replaced at any time."""
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: IProtocol) -> None:
        self._protocol = protocol
        gathers = isinstance(protocol, TLSMemoryBIOProtocol) and not getattr(
            protocol, "aborts_silently", False
        )
        if gathers is not self._gathers:
            if self._stream is not None:
                self._send_gathered()
            self._gathers = gathers
            self._route()
            if gathers:
                self._hand_over()

    @protocol.deleter
    def protocol(self) -> None:
        self._protocol_name = self._protocol.__class__.__name__
        del self._protocol

    # -- without the loop's transport ------------------------------------------------------------

    def _start(self, direct: DirectSet | None) -> None:
        """Begin on the connected socket.

        :param direct: is to watch it, once `_watch` is called; none: the loop takes it at once.
        :raises Exception: the loop cannot take it.
        """
        reactor = self.reactor
        self._contexts = reactor.contexts
        reactor.streams.add(self)
        if direct is None or self._gathers:
            self._attach()
            return
        if self.socket.gettimeout() != 0.0:
            self.socket.setblocking(False)
        try:
            self.setTcpNoDelay(True)
        except OSError:
            pass  # It is broken already, which shows in time.
        self._direct = direct
        self._blocked = False
        self._send = self._send_early

    def _read_early(self) -> None:
        """Read what came with a connection, in the same turn: its request often did, and goes on
        as one message with it then."""
        if self._reading and self._direct is not None:
            self._readable(False)
        self._watch()

    def _watch(self) -> None:
        """Have it told what comes from now on."""
        if self._direct is not None:
            try:
                self._direct.add(self)
            except OSError:
                self._hand_over()

    def _readable(self, ended: bool) -> None:
        """Read what has come.

        :param ended: nothing more is told of: read up to the end, or until there is no more.
        """
        sock = self.socket
        while self._reading:
            try:
                data = sock.recv(READ)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._call(self.connectionLost, CONNECTION_LOST)
                return
            if not data:
                self.eof_received()
                return
            self._reads_left -= 1
            self.data_received(data)
            if self._direct is None:
                return
            if not self._reads_left or len(data) == READ:
                self._hand_over()
                return
            if not ended:
                return
        self._unread = True

    def _read_on(self) -> None:
        if self._unread and self._direct is not None:
            self._unread = False
            self._readable(True)

    def _hand_over(self) -> None:
        """Have the loop take over."""
        direct, self._direct = self._direct, None
        if direct is None:
            return
        self._blocked = True
        self._send = self._send_many = None
        direct.remove(self.socket.fileno())
        try:
            self._attach()
        except Exception:
            self._fail()

    # -- the loop's transport arrives -----------------------------------------------------------

    def _attach(self) -> None:
        """Give the connected socket to the loop.

        :raises Exception: the loop cannot take it.
        """
        loop = self.reactor.loop
        # The coroutine does its work up to its only await at once: a task would put that off by a
        # turn, and cost twice as much.  It never goes on: where it is closed there, it closes the
        # loop's transport, at once, which nothing else does.
        # A weak reference is what gives itself when it is called that costs least.
        attaching = loop.connect_accepted_socket(ref(self), self.socket)  # type: ignore[type-var]
        self._attached = attaching.send(None)
        self._attaching = attaching
        self._delays = False  # The loop has set TCP_NODELAY.
        # In its next turn the loop calls `connection_made`, starts reading, and then, before it
        # polls, calls `_begin`.
        loop.call_soon(self._begin)

    def connection_made(self, stream: asyncio.Transport) -> None:
        """Catch up with what was asked for before the loop's transport was there."""
        if self.disconnected:
            self._detach()
            return
        self._stream = stream
        # With a limit of 0 the loop tells at once that the kernel takes no more, and then when
        # nothing waits any more.
        stream.set_write_buffer_limits(0)
        self._blocked = False
        if self._gathered is not None:
            self._send_gathered()
        if not self._blocked:
            self._route()
            if self._flush_due:
                self._on_flush_due()

    def _detach(self) -> None:
        """Close the loop's transport, and with it the socket."""
        attaching, self._attaching = self._attaching, None
        if attaching is not None:
            # What nobody waits for: otherwise it would be told of this as an error.
            self._attached.cancel()
            attaching.close()

    def _begin(self) -> None:
        """As far as the loop's reading is concerned."""
        if not self._reading and self._stream is not None:
            self._stream.pause_reading()

    def _forget_tls(self) -> None:
        """Undo what `startTLS` did to this connection."""

    # -- reading --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        contexts = self._contexts
        contexts.append(self)
        try:
            self._protocol.dataReceived(data)
        except Exception:
            self._fail()
        finally:
            contexts.pop()

    def eof_received(self) -> bool:
        self._reading = False
        self._read_eof = True
        contexts = self._contexts
        contexts.append(self)
        try:
            protocol: Any = self._protocol
            if IHalfCloseableProtocol.providedBy(protocol):
                protocol.readConnectionLost()
            else:
                self.connectionLost(CONNECTION_DONE)
        except Exception:
            self._fail()
        finally:
            contexts.pop()
        return True

    def startReading(self) -> None:
        if not self._reading and not self._read_eof:
            self._reading = True
            if self._stream is not None:
                self._stream.resume_reading()
            elif self._unread:
                self.reactor.loop.call_soon(self._read_on)

    def stopReading(self) -> None:
        if self._reading:
            self._reading = False
            if self._stream is not None:
                self._stream.pause_reading()

    # -- the end --------------------------------------------------------------------------------

    def abortConnection(self) -> None:
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self.stopReading()
        self.stopWriting()
        self._route()
        aborted = Failure(error.ConnectionAborted())
        self.reactor.loop.call_soon(self._call, self.connectionLost, aborted)

    def connection_lost(self, reason: Exception | None) -> None:
        """The loop's transport failed.  Where we end it, we do not wait to be told."""
        if not self.disconnected:
            self._read_rest()
            self._call(self.connectionLost, CONNECTION_DONE if reason is None else CONNECTION_LOST)

    def _read_rest(self) -> None:
        # Writing to a connection that the peer has reset fails at once, with the peer's last
        # words perhaps unread.  A reactor that polls reads before it writes.
        left = READ_REST_LIMIT
        while self._reading and self.connected and left > 0:
            try:
                data = self.socket.recv(self.bufferSize)
            except OSError:
                return
            if not data:
                return
            left -= len(data)
            self.data_received(data)

    def connectionLost(self, reason: Failure) -> None:
        # tcp.Connection's, in fewer steps.
        try:
            sock = self.socket
        except AttributeError:
            return
        self.disconnected = 1
        self.connected = 0
        direct, self._direct = self._direct, None
        if direct is not None:
            direct.forget(sock.fileno())
        self._reading = self._flush_due = False
        closed = self._read_eof and self._writeDisconnected
        producer, self.producer = self.producer, None
        stream, self._stream = self._stream, None
        protocol = self._protocol
        self._protocol_name = protocol.__class__.__name__
        del self.socket, self._protocol
        self._send = self._send_many = self._gathered = None
        self.reactor.streams.discard(self)
        aborted = reason is not CONNECTION_DONE and isinstance(
            reason.value, error.ConnectionAborted
        )
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            try:
                if aborted or not closed:
                    end_socket(sock, not aborted)
                if stream is not None:
                    self._detach()
                elif self._attaching is None:
                    sock.close()
                # Else the loop still has its transport begin, and would crash without it.
                protocol.connectionLost(reason)
            finally:
                if self.TLS:
                    self._forget_tls()

    # -- calling the application ----------------------------------------------------------------

    def _fail(self) -> None:
        """Log the exception that is handled, and lose the connection because of it."""
        failure = Failure()
        log.failure("Unhandled error in {transport!r}", failure, transport=self)
        if not self.disconnected:
            self._call(self.connectionLost, failure)

    def _call(self, function: Any, *args: Any) -> None:
        """Call into the application as a reactor does: in a log context, its errors logged."""
        contexts = self._contexts
        contexts.append(self)
        try:
            function(*args)
        except Exception:
            self._fail()
        finally:
            contexts.pop()

    def __getitem__(self, key: object) -> dict[str, Any]:
        # On the stack of log contexts a connection stands for itself, so that a call in which
        # nothing is logged costs nothing.
        if key is ILogContext:
            return {"isError": 0, "system": self.logPrefix()}
        raise KeyError(key)

    __iter__ = None
