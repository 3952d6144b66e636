"""Ports: Twisted's own listening sockets, which accept connections onto the loop."""

# Twisted does not annotate the classes that this derives from.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import error, tcp, unix
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.net.address import ipv4_address
from srrrs.net.reactor.sockets import accept
from srrrs.net.reactor.tcp import TCPServer
from srrrs.net.reactor.unix import UNIXServer

if TYPE_CHECKING:
    from srrrs.net.reactor.reactor import LoopReactor

log = Logger()

# Connections accepted at most in one turn, so that live connections get their share.
ACCEPT_BATCH = 64

# Seconds for which a port stops accepting when the process or the system has run out of
# descriptors or memory.  Connections wait in the kernel's queue meanwhile.
ACCEPT_PAUSE = 0.25

# accept(2): this connection is lost, others may be waiting.
_SKIPPED = (errno.EPERM, errno.ECONNABORTED, errno.EINTR, errno.EPROTO)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class AcceptingPort(tcp.Port):
    """A port whose accepting can be paused with `stopReading` and `startReading`.

    A pause takes effect at once, also within one batch of accepted connections.
    """

    reactor: LoopReactor

    _accepting = False
    _pause: IDelayedCall | None = None

    def startReading(self) -> None:
        self._accepting = True
        if self._pause is None:
            super().startReading()

    def stopReading(self) -> None:
        self._accepting = False
        super().stopReading()

    def doRead(self) -> None:
        self._accept_some()

    def _accept_some(self) -> list[Any]:
        """Accept what waits; the transports of those that are served."""
        transports: list[Any] = []
        for _ in range(min(ACCEPT_BATCH, self.numberAccepts)):
            if not self._accepting or self._pause is not None:
                break
            try:
                skt, addr = accept(self.socket, self.addressFamily)
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno in _SKIPPED:
                    continue
                if e.errno in _EXHAUSTED:
                    self._pause_accepting(e)
                else:
                    log.failure("Could not accept on {port!r}", port=self)
                break
            try:
                transport = self._serve(skt, addr)
            except Exception:
                log.failure("Unhandled error while accepting on {port!r}", port=self)
            else:
                if transport is not None:
                    transports.append(transport)
        return transports

    def _serve(self, skt: socket.socket, addr: Any) -> Any:
        assert self.factory is not None
        try:
            if self.addressFamily == socket.AF_INET6 and addr[3]:
                # A scoped address: name its interface.
                flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                addr = (socket.getnameinfo(addr, flags)[0], *addr[1:])
            protocol = self.factory.buildProtocol(self._buildAddr(addr))
        except BaseException:
            skt.close()
            raise
        if protocol is None:
            skt.close()
            return None
        session = self.sessionno
        self.sessionno = session + 1
        transport = self.transport(skt, protocol, addr, self, session, self.reactor)
        try:
            protocol.makeConnection(transport)
        except Exception:
            failure = Failure()
            log.failure("Unhandled error in {transport!r}", failure, transport=transport)
            transport.connectionLost(failure)
        return transport

    def _pause_accepting(self, reason: OSError) -> None:
        super().stopReading()
        self._pause = self.reactor.callLater(ACCEPT_PAUSE, self._resume_accepting)
        reserved = tcp._reservedFD
        if reason.errno == errno.EMFILE and reserved.available():
            # Answer the connection that is waiting longest by closing it: its peer learns now.
            with reserved:
                try:
                    self.socket.accept()[0].close()
                except OSError:
                    pass
        log.warn(  # noqa: G010
            "{port!r} pauses accepting for {pause} s: {reason}",
            port=self,
            pause=ACCEPT_PAUSE,
            reason=reason.strerror,
        )

    def _resume_accepting(self) -> None:
        self._pause = None
        if self._accepting and self.connected:
            super().startReading()

    def connectionLost(self, reason: Failure) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        super().connectionLost(reason)


class TCPPort(AcceptingPort):
    """A TCP port."""

    transport = TCPServer  # type: ignore[assignment]

    def doRead(self) -> None:
        # At the end of all: what follows a connection has had time to come then.
        for transport in self._accept_some():
            transport._read_early()

    def _buildAddr(self, addr: Any) -> Any:
        return ipv4_address(*addr) if len(addr) == 2 else super()._buildAddr(addr)


class UNIXPort(AcceptingPort, unix.Port):
    """A UNIX port."""

    transport = UNIXServer

    _made: socket.socket | None = None

    def createInternetSocket(self) -> socket.socket:
        self._made = super().createInternetSocket()
        return self._made

    def startListening(self) -> None:
        try:
            super().startListening()
        except error.CannotListenError:
            # Twisted leaves the socket to the garbage collector, and the lock to nobody.
            if self._made is not None:
                self._made.close()
            if self.lockFile is not None and self.lockFile.locked:
                self.lockFile.unlock()
            raise
        finally:
            self._made = None
