"""TCP connections: the server's and the client's, which connects as Twisted's does."""

# Twisted does not annotate the classes that this derives from.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from twisted.internet import address, base, error, tcp
from twisted.internet.abstract import isIPAddress
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from srrrs.net.reactor.sockets import stream_socket
from srrrs.net.reactor.transport import StreamTransport

if TYPE_CHECKING:
    from srrrs.net.reactor.link import TCPLink
    from srrrs.net.reactor.reactor import LoopReactor

log = Logger()

_PENDING = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK)


@lru_cache(maxsize=256)
def literal_family(host: str) -> socket.AddressFamily | None:
    """The family of an address literal in the form that the system gives it; None for anything
    else, among it addresses with a scope."""
    if isIPAddress(host):
        return socket.AF_INET
    try:
        if socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)) == host:
            return socket.AF_INET6
    except (OSError, ValueError):
        pass
    return None


# The same few are connected to again and again, and addresses do not change.
_ipv4_address = lru_cache(maxsize=256)(partial(address.IPv4Address, "TCP"))


class TCPTransport(StreamTransport):
    """A TCP connection."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        if not enabled or self._delays:
            self._delays = not enabled
            StreamTransport.setTcpNoDelay(self, enabled)


class TCPServer(TCPTransport, tcp.Server):
    """An accepted or adopted TCP connection."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: tcp.Port | None,
        sessionno: int,
        reactor: LoopReactor,
    ) -> None:
        # tcp.Server's in fewer steps, but for what is below, which is rarely asked for.
        self.reactor = reactor
        self.socket = sock
        if isinstance(protocol, TLSMemoryBIOProtocol):
            self.protocol = protocol
        else:
            self._protocol = protocol
        if len(client) != 2:
            self._addressType = address.IPv6Address
        self.server = server  # type: ignore[assignment]
        self.client = client
        self.sessionno = sessionno
        if server is None:
            # An adopted one: others may have it open, too, so that closing it would not take it out
            # of the set of those that are used directly.
            self._start(None)
        else:
            # The port, which has more to accept, goes on with it.
            self._start(reactor.direct)
        self._reading = True
        self.connected = 1

    @property
    def hostname(self) -> Any:  # type: ignore[override]
        return self.client[0]

    @cached_property
    def logstr(self) -> str:  # type: ignore[override]
        prefix = self._protocol_name or self._getLogPrefix(self._protocol)
        return f"{prefix},{self.sessionno},{self.hostname}"

    @cached_property
    def repstr(self) -> str:  # type: ignore[override]
        name = self._protocol_name or self._protocol.__class__.__name__
        port = None if self.server is None else self.server._realPortNumber
        return f"<{name} #{self.sessionno} on {port}>"


class TCPClient(TCPTransport, tcp.Client):
    """A TCP connection that this side opens.

    Names, addresses and binding are `tcp.Client`'s.  Until it is connected it is a stream of the
    reactor's that the loop has no transport for.
    """

    _commonConnection = StreamTransport
    _connecting = False

    def __init__(
        self,
        host: str,
        port: int,
        bindAddress: Any,
        connector: TCPConnector | TCPLink,
        reactor: LoopReactor,
    ) -> None:
        family = None if bindAddress is not None else literal_family(host)
        if family is None:
            tcp.Client.__init__(self, host, port, bindAddress, connector, reactor)
            return
        # tcp.Client's for an address literal, in fewer steps.
        self.connector = connector
        self._requiresResolution = False
        self.addr: tuple[Any, ...] = (host, port)
        if family is socket.AF_INET6:
            self.addr = (host, port, 0, 0)
            self.addressFamily = family
            self._addressType = address.IPv6Address  # type: ignore[assignment]
        try:
            sock = stream_socket(family)
        except OSError as e:
            problem = error.ConnectBindError(e.args[0], e.args[1])
            self._finishInit(None, None, problem, reactor)
            return
        self.reactor = reactor
        self._contexts = reactor.contexts
        self.socket = sock
        self._protocol = None  # type: ignore[assignment]
        self.realAddress = self.addr
        reactor.dial(self)

    def _finishInit(
        self,
        whenDone: Callable[[], object] | None,
        skt: socket.socket | None,
        error: Exception | None,
        reactor: LoopReactor,
    ) -> None:
        self._contexts = reactor.contexts
        self.connector.arm(self)
        if whenDone is not None:
            tcp.Connection.__init__(self, skt, None, reactor)  # type: ignore[arg-type]
            del self.fileno
            reactor.loop.call_soon(self._call, whenDone)
        else:
            if skt is not None:
                skt.close()
            reactor.loop.call_soon(self._call, self.failIfNotConnected, error)

    def createInternetSocket(self) -> socket.socket:
        return stream_socket(self.addressFamily)

    def resolveAddress(self) -> None:
        if self._requiresResolution:
            tcp.Client.resolveAddress(self)
            return
        try:
            self._setRealAddress(self.addr)
        except Exception:
            self.failIfNotConnected(Failure())

    def doConnect(self) -> None:
        if not hasattr(self, "connector"):
            return  # the attempt was given up
        try:
            code = self.socket.connect_ex(self.realAddress)
            if code == errno.EINPROGRESS:
                # On the same machine it is done by now, which this tells: the loop need not watch.
                code = self.socket.connect_ex(self.realAddress)
        except OSError as e:
            code = e.args[0]
        except Exception:  # A port that is none.
            self.failIfNotConnected(Failure())
            return
        if code in _PENDING:
            self._connecting = True
            self.connector.arm(self)
            self.reactor.streams.add(self)
            self.reactor.loop.add_writer(self.fileno(), self._call, self._connectable)
        else:
            self._connect_ended(code)

    def _connectable(self) -> None:
        self.stopWriting()
        self._connect_ended(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def stopWriting(self) -> None:
        if self._connecting:
            self._connecting = False
            self.reactor.loop.remove_writer(self.fileno())
        self._flush_due = False

    def _connect_ended(self, code: int) -> None:
        if code and code != errno.EISCONN:
            self.failIfNotConnected(error.getConnectError((code, os.strerror(code))))
            return
        # tcp.Client's _connectDone.
        self._start(self.reactor.direct)
        self._watch()
        where = self.realAddress
        if len(where) == 2:
            protocol = self.connector.buildProtocol(_ipv4_address(*where))
        else:
            protocol = self.connector.buildProtocol(self.getPeer())
        self.connected = 1
        if protocol is None:
            # Something has to be told of the end.
            self.protocol = Protocol()
            self.loseConnection()
        else:
            if isinstance(protocol, TLSMemoryBIOProtocol):
                self.protocol = protocol
            else:
                self._protocol = protocol
            self._reading = True
            protocol.makeConnection(self)

    def _collectSocketDetails(self) -> None:
        self.reactor.streams.discard(self)
        del self.socket

    def connectionLost(self, reason: Failure) -> None:
        if not self.connected:
            tcp.Client.connectionLost(self, reason)
            return
        StreamTransport.connectionLost(self, reason)
        connector = self.connector
        connector.connectionLost(reason)
        if connector.state == "disconnected":
            connector.transport = None  # They lead to each other.

    @cached_property
    def logstr(self) -> str:  # type: ignore[override]
        prefix = self._protocol_name
        if prefix is None and self._protocol is not None:
            prefix = self._getLogPrefix(self._protocol)
        return f"{prefix},client"


class LoopTimeout(base.BaseConnector):
    """A connector whose timeout is a timer of the loop's, which costs less than a delayed call."""

    reactor: LoopReactor
    _arms_at_once = True

    def connect(self) -> None:
        # BaseConnector's, but for the timer.
        if self.state != "disconnected":
            raise RuntimeError("can't connect in this state")
        self.state = "connecting"
        if not self.factoryStarted:
            self.factory.doStart()
            self.factoryStarted = 1
        self.transport = self._makeTransport()
        if self._arms_at_once:
            self.arm(self.transport)
        self.factory.startedConnecting(self)

    def arm(self, transport: Any) -> None:
        """Have the attempt end after the timeout."""
        if self.timeout is not None and self.timeoutID is None:
            self.timeoutID = self.reactor.loop.call_later(  # type: ignore[assignment]
                self.timeout, self._time_out, transport
            )

    def _time_out(self, transport: Any) -> None:
        try:
            transport.failIfNotConnected(error.TimeoutError())
        except Exception:
            log.failure("Unhandled error after {connector!r} timed out", connector=self)


class TCPConnector(LoopTimeout, tcp.Connector):
    """What `connectTCP` returns."""

    # The transport arms the timeout once it has something to wait for.
    _arms_at_once = False

    def __init__(
        self,
        host: str,
        port: int | str,
        factory: Any,
        timeout: float,
        bindAddress: Any,
        reactor: LoopReactor,
    ) -> None:
        if type(port) is int and literal_family(host) is socket.AF_INET:
            # tcp.Connector's, in fewer steps.
            self.host, self.port, self.bindAddress = host, port, bindAddress
            base.BaseConnector.__init__(self, factory, timeout, reactor)
        else:
            tcp.Connector.__init__(self, host, port, factory, timeout, bindAddress, reactor)

    def buildProtocol(self, addr: Any) -> Any:
        self.state = "connected"
        if self.timeoutID is not None:
            self.cancelTimeout()
        return self.factory.buildProtocol(addr)

    def _makeTransport(self) -> TCPClient:
        return TCPClient(self.host, self.port, self.bindAddress, self, self.reactor)
