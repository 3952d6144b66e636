"""One port for everything: what a connection to a listener is, and who goes on with it.

A TLS ClientHello is noticed by its first byte (RFC 8446, 5.1: a handshake record is 0x16, which
starts no HTTP request) and looked into again inside TLS. Then the first request's head decides: the
control host with ``/tunnel`` is an agent, any other host a visitor's.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.accept import AcceptGate, Slot
from srrrs.net.splice import CLOSE_TIMEOUT
from srrrs.protocol.handshake import PATH
from srrrs.relay.edge.head import END, BadHead, Head, parse_head
from srrrs.relay.edge.http import HttpVisitor
from srrrs.relay.edge.interfaces import IRoutes
from srrrs.relay.edge.pages import page

TLS_HANDSHAKE: Final = 0x16
"""The first byte of a TLS connection."""
HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request's head, unless an option says otherwise."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds for a connection's first head, unless an option says otherwise."""


@implementer(IProtocolNegotiationFactory)
class EdgeFactory(Factory):
    """Makes the protocol of each connection to a listener.

    :param carriers: builds the agents' protocols.
    :param tls: a TLS context factory, or ``None`` where the listener is to take no ClientHello.
    :param head_bytes: cap of a request's head.
    :param head_timeout: seconds for a TLS handshake and for a head.
    """

    noisy = False
    routes: IRoutes

    def __init__(
        self,
        clock: IReactorTime,
        gate: AcceptGate,
        carriers: Any,
        tls: Any = None,
        head_bytes: int = HEAD_BYTES,
        head_timeout: float = HEAD_TIMEOUT,
    ) -> None:
        self.clock = clock
        self.gate = gate
        self.carriers = carriers
        self.head_bytes = head_bytes
        self.head_timeout = head_timeout
        self.connections: set[EdgeConnection] = set()
        self.tls: TLSMemoryBIOFactory | None = None
        if tls is not None:
            self.tls = TLSMemoryBIOFactory(tls, False, _Inside(self), clock)
            self.tls.noisy = False

    def buildProtocol(self, addr: IAddress | None) -> EdgeConnection:
        return EdgeConnection(self, outer=None)

    def acceptableProtocols(self) -> list[bytes]:
        """For ``ssl:`` endpoints, which otherwise refuse whoever offers a protocol by ALPN."""
        return [b"http/1.1"]


class _Inside(Factory):
    """What is inside TLS: told of the connection that it is in."""

    noisy = False

    def __init__(self, edge: EdgeFactory) -> None:
        self._edge = edge
        self.outer: EdgeConnection | None = None

    def buildProtocol(self, addr: IAddress | None) -> EdgeConnection:
        outer, self.outer = self.outer, None
        return EdgeConnection(self._edge, outer)


@implementer(IHalfCloseableProtocol)
class EdgeConnection(Protocol):
    """Looks at the first bytes, then hands the connection over and only forwards its end.

    :param outer: the connection that this one is inside of, where that is TLS.
    """

    _log = Logger()

    def __init__(self, edge: EdgeFactory, outer: EdgeConnection | None) -> None:
        self._edge = edge
        self._outer = outer
        self._inner: Any = None
        self._buffer = b""
        self._deadline: IDelayedCall | None = None
        self._slot: Slot | None = None
        self._visitor: IAddress | None = None
        self._ending = False

    # --- the connection -----------------------------------------------------------------

    def connectionMade(self) -> None:
        if self._outer is None:
            self._edge.connections.add(self)
            self._edge.gate.opened(self.transport)
        try:
            self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        except (AttributeError, OSError):
            pass  # A UNIX socket has none.
        self._deadline = self._edge.clock.callLater(self._edge.head_timeout, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        if self._ending:
            return
        if not self._buffer and self._outer is None and data[0] == TLS_HANDSHAKE:
            self._start_tls(data)
            return
        self._buffer += data
        end = self._buffer.find(END, max(0, len(self._buffer) - len(data) - len(END)))
        if end < 0 and len(self._buffer) <= self._edge.head_bytes:
            return
        if not 0 <= end <= self._edge.head_bytes:
            self._answer(page(431, "Too long", "The request's head is too long."))
            return
        try:
            self._route(parse_head(self._buffer[: end + len(END)]))
        except BadHead as bad:
            self._answer(page(bad.status, "Bad request", bad.text))

    def readConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._inner):
            self._inner.readConnectionLost()
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._inner):
            self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_deadline()
        self.release()
        if self._visitor is not None:
            self._edge.gate.visitor_gone(self._visitor)
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        if self._outer is None:
            self._edge.connections.discard(self)
            self._edge.gate.closed()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def release(self) -> None:
        """The handshake is over: another may begin."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    # --- what it is -----------------------------------------------------------------------

    def _start_tls(self, data: bytes) -> None:
        tls = self._edge.tls
        if tls is None:
            self._answer(page(400, "Bad request", "This port does not speak TLS."))
            return

        def start() -> None:
            self._resume()
            inside = tls.wrappedFactory
            inside.outer = self
            # The clock of the head, and so of the handshake, starts inside.
            self._become(tls.buildProtocol(self.transport.getPeer()), data)  # type: ignore[union-attr]

        self._wait_for_turn(start)

    def _route(self, head: Head) -> None:
        routes = self._edge.routes
        peer = self.transport.getPeer()  # type: ignore[union-attr]
        if routes.is_control_host(head.host):
            self._control(head)
            return
        if not self._edge.gate.admit_visitor(peer):
            self._answer(page(429, "Too many", "Your address has too many connections here."))
            return
        self._visitor = peer
        splice, answer = HttpVisitor(routes).open(head, peer)
        self._handshake_over()
        if splice is None:
            self._answer(answer)
            return
        data, self._buffer = self._buffer, b""
        self._become(splice, b"")
        splice.channel.write(data)

    def _control(self, head: Head) -> None:
        body = head.method != "HEAD"
        if head.target == PATH and head.method == "GET" and head.upgrade:
            if self._outer is not None:
                self._agent()
            else:
                self._wait_for_turn(self._agent)
        elif head.target == PATH:
            self._answer(page(400, "For agents", "This address is for agents.", body=body))
        elif head.target == "/":
            self._answer(page(200, "A relay", "An srrrs relay is running here.", body=body))
        else:
            self._answer(page(404, "Not found", "There is nothing here.", body=body))

    def _agent(self) -> None:
        """Autobahn goes on; the head is validated and capped by now."""
        self._resume()
        carrier = self._edge.carriers.buildProtocol(self.transport.getPeer())  # type: ignore[union-attr]
        carrier.handshake_over = self._handshake_over
        data, self._buffer = self._buffer, b""
        self._become(carrier, data)

    def _become(self, protocol: IProtocol, data: bytes) -> None:
        """Hand the connection over with what was read of it; from here on only its end comes by."""
        self._cancel_deadline()
        self._inner = protocol
        protocol.makeConnection(self.transport)  # type: ignore[arg-type]
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        if data:
            protocol.dataReceived(data)

    # --- waiting and ending -----------------------------------------------------------------

    def _wait_for_turn(self, start: Any) -> None:
        """Unread and with no clock running until there is a turn."""
        self._cancel_deadline()
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self._slot = self._edge.gate.handshake(self.transport.getPeer(), start)  # type: ignore[union-attr]

    def _resume(self) -> None:
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def _handshake_over(self) -> None:
        self.release()
        if self._outer is not None:
            self._outer.release()

    def _answer(self, response: bytes) -> None:
        """Send a page and close, with a deadline for a visitor that does not take it."""
        self._ending = True
        self._cancel_deadline()
        self._buffer = b""
        self._handshake_over()
        self.transport.write(response)  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]
        self._deadline = self._edge.clock.callLater(CLOSE_TIMEOUT, self._expired)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._buffer and not self._ending:
            self._answer(page(408, "Too slow", "The request did not arrive in time."))
        else:
            self.abort()

    def _expired(self) -> None:
        self._deadline = None
        self.abort()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
