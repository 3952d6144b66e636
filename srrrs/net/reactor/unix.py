"""UNIX connections: Twisted's own until they have read once, then the loop's.

Descriptors that a peer passes arrive only where each read asks for them, and the loop's
transports do not.  A connection whose protocol takes descriptors, or that has been passed one,
stays Twisted's; any other becomes the loop's with its first bytes.  It can still pass descriptors
itself.
"""

# Twisted does not annotate the classes that this derives from.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import error, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.python import sendmsg
from twisted.python.failure import Failure

from srrrs.net.reactor.tcp import LoopTimeout
from srrrs.net.reactor.transport import StreamTransport

if TYPE_CHECKING:
    from srrrs.net.reactor.reactor import LoopReactor

# Seconds until a descriptor is tried again that the kernel had no room for.
RETRY = 0.01


class LoopUNIX(StreamTransport):
    """A UNIX connection on the loop's transport."""

    # Descriptors to pass, each with one of the bytes in _after, which are to follow what waits.
    _sendmsgQueue: list[int]
    _after = b""

    def sendFileDescriptor(self, fileno: int) -> None:
        self._sendmsgQueue.append(fileno)
        self._send = self._send_many = None
        if len(self._sendmsgQueue) > unix._SendmsgMixin._fileDescriptorBufferSize:
            self._pause_producer()
        self.startWriting()

    def _route(self) -> None:
        StreamTransport._route(self)
        if self._sendmsgQueue or self._after:
            self._send = self._send_many = None

    def _write_slowly(self, chunks: Iterable[bytes]) -> None:
        if not self._sendmsgQueue and not self._after:
            StreamTransport._write_slowly(self, chunks)
        elif self.connected and not self._writeDisconnected and not self._aborting:
            self._after = b"".join((self._after, *chunks))
            if len(self._after) > self.bufferSize:
                self._pause_producer()
            self.startWriting()

    def _flushed(self) -> None:
        if (self._sendmsgQueue or self._after) and not self.disconnected:
            if len(self._sendmsgQueue) > len(self._after):
                self.connectionLost(Failure(error.FileDescriptorOverrun()))
                return
            if not self._pass_descriptors():
                self.reactor.callLater(RETRY, self.startWriting)
                return
            after, self._after = self._after, b""
            self._route()
            if after and self._stream is not None:
                self._stream.write(after)
                if self._blocked:
                    self._flush_due = True
                    return
        StreamTransport._flushed(self)

    def _pass_descriptors(self) -> bool:
        while self._sendmsgQueue:
            passed = unix._ancillaryDescriptor(self._sendmsgQueue[0])
            try:
                sendmsg.sendmsg(self.socket, self._after[:1], passed)
            except BlockingIOError:
                return False
            except OSError:
                # A broken connection shows when the rest is written.
                self._sendmsgQueue.clear()
                return True
            del self._sendmsgQueue[0]
            self._after = self._after[1:]
        return True


class _Becoming(FileDescriptor):
    """What a UNIX connection of Twisted's does to become the loop's."""

    reactor: LoopReactor
    _loop_class: type[LoopUNIX]

    def _become(self: Any) -> None:
        if (
            not self.connected
            or self.disconnecting
            or self._writeDisconnecting
            or self._aborting
            or self.TLS
            or self._sendmsgQueue
            or IFileDescriptorReceiver.providedBy(self.protocol)
        ):
            return
        reading = self.reactor.polls(self)
        FileDescriptor.stopReading(self)
        FileDescriptor.stopWriting(self)
        waiting = [self.dataBuffer[self.offset :], *self._tempDataBuffer]
        self.dataBuffer, self.offset = b"", 0
        self._tempDataBuffer, self._tempDataLen = [], 0
        protocol = self.__dict__.pop("protocol")
        del self.fileno
        self.__class__ = self._loop_class
        if any(waiting):
            self._gathered = waiting
            self._flush_due = True
        self._reading = reading
        self._start(None)
        self.protocol = protocol

    def _ancillaryLevelSOLSOCKETTypeSCMRIGHTS(self: Any, data: bytes) -> None:
        self._was_passed = True
        unix._SendmsgMixin._ancillaryLevelSOLSOCKETTypeSCMRIGHTS(self, data)

    _was_passed = False

    def _read_once(self: Any, result: Any) -> Any:
        if result is None and not self._was_passed:
            self._become()
        return result


class LoopUNIXServer(LoopUNIX, unix.Server):
    """An accepted UNIX connection, on the loop."""


class LoopUNIXClient(LoopUNIX, unix.Client):
    """A UNIX connection that this side opened, on the loop."""

    _commonConnection = LoopUNIX

    def connectionLost(self, reason: Failure) -> None:
        unix.Client.connectionLost(self, reason)


class UNIXServer(_Becoming, unix.Server):
    """An accepted or adopted UNIX connection."""

    _loop_class = LoopUNIXServer

    def doRead(self) -> Any:
        return self._read_once(unix.Server.doRead(self))


class UNIXClient(_Becoming, unix.Client):
    """A UNIX connection that this side opens."""

    _loop_class = LoopUNIXClient

    def doRead(self) -> Any:
        return self._read_once(unix.Client.doRead(self))


class UNIXConnector(LoopTimeout, unix.Connector):
    """What `connectUNIX` returns."""

    def _makeTransport(self) -> Any:
        return UNIXClient(self.address, self, self.reactor, self.checkPID)
