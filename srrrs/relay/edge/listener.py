"""One port for everything: what a connection to a listener is, and who goes on with it.

A TLS ClientHello is noticed by its first byte (RFC 8446, 5.1: a handshake record is 0x16, which
starts no HTTP request) and looked into again inside TLS. Then the first request's head decides: the
control host with ``/tunnel`` is an agent, any other host a visitor's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolNegotiationFactory,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from srrrs.net.accept import AcceptGate, Slot, hung_up
from srrrs.net.address import format_address
from srrrs.net.splice import Splice
from srrrs.net.tlsrecords import tls_factory
from srrrs.relay.edge import control
from srrrs.relay.edge.head import END, BadHead, Head, check_beginning, parse_head
from srrrs.relay.edge.http import HttpVisitor
from srrrs.relay.edge.interfaces import IPublicService, IRoutes
from srrrs.relay.edge.pages import RETRY_AFTER, page

TLS_HANDSHAKE: Final = 0x16
"""The first byte of a TLS connection."""
HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request's head, unless an option says otherwise."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds for a connection's first head, unless an option says otherwise."""
TURN_TIMEOUT: Final = 60.0
"""Seconds that a connection may wait for its turn to shake hands."""
LINGER: Final = 5.0
"""Seconds that a visitor has to take a page and close; what it still sends is read and dropped, as
a reset would make it lose the page (RFC 9112, 9.6)."""


@implementer(IProtocolNegotiationFactory)
class EdgeFactory(Factory):
    """Makes the protocol of each connection to a listener.

    :param carriers: builds the agents' protocols.
    :param tls: a TLS context factory, or ``None`` where the listener is to take no ClientHello.
    :param head_bytes: cap of a request's head.
    :param head_timeout: seconds for a TLS handshake and for a head.
    """

    noisy = False
    routes: IRoutes | None = None

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
            self.tls = tls_factory(tls, False, _Inside(self), clock)

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


@implementer(IHandshakeListener)
class EdgeConnection(Protocol):
    """Looks at the first bytes, then hands the connection over and only forwards its end.

    It stays the transport's protocol, so that it works on any transport; ``dataReceived`` becomes
    the other protocol's own.

    :param outer: the connection that this one is inside of, where that is TLS.
    """

    _log = Logger()

    transport: Any

    def __init__(self, edge: EdgeFactory, outer: EdgeConnection | None) -> None:
        self._edge = edge
        self._outer = outer
        self._next: Any = None
        self._buffer = b""
        self._deadline: IDelayedCall | None = None
        self._slot: Slot | None = None
        self._released = False
        self._visitor: IAddress | None = None
        self._waiting: Deferred[IPublicService] | None = None
        # It is known what this is, and nothing more is looked at: bytes are kept for whoever
        # comes next, or dropped at the end.
        self._decided = False
        self._ending = False

    # --- the connection -----------------------------------------------------------------

    def connectionMade(self) -> None:
        if self._outer is None:
            self._edge.connections.add(self)
            self._edge.gate.opened(self.transport)
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # A UNIX socket has none.
        if self._outer is None and self._secure:
            # An ``ssl:`` listener's: it is unread, so its handshake has not begun.
            self._wait_for_turn(self._edge.gate.hello, self._await_head)
        else:
            self._await_head()

    def _await_head(self) -> None:
        self._arm(self._edge.head_timeout, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        if self._next is not None:  # Where the transport remembers this method.
            self._next.dataReceived(data)
        elif self._ending:
            pass
        elif self._decided:
            self._buffer += data
        elif not self._buffer and data[0] == TLS_HANDSHAKE and not self._secure:
            self._start_tls(data)
        else:
            seen = len(self._buffer)
            self._buffer += data
            try:
                self._look(seen)
            except BadHead as bad:
                self._answer(page(bad.status, "Bad request", bad.text))

    def handshakeCompleted(self) -> None:
        """TLS's handshake is done; what follows may take its time, as without TLS."""
        (self if self._outer is None else self._outer).release()

    def readConnectionLost(self) -> None:
        """Called once this has become half-closeable: see :meth:`_outlive_half_close`."""
        if self._next is not None:
            self._next.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """As above."""
        if self._next is not None:
            self._next.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disarm()
        self.release()
        if self._visitor is not None:
            self._edge.gate.visitor_gone(self._visitor)
        self._decided = self._ending = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        following, self._next = self._next, None
        if following is not None:
            following.connectionLost(reason)
        if self._outer is None:
            self._edge.connections.discard(self)
            self._edge.gate.closed()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()

    def release(self) -> None:
        """The handshake is over: another may begin."""
        self._released = True
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    @property
    def _secure(self) -> bool:
        return ISSLTransport.providedBy(self.transport)

    # --- what it is ---------------------------------------------------------------------

    def _look(self, seen: int) -> None:
        """Look at the head; the first ``seen`` bytes of it were looked at before.

        :raises BadHead: it cannot be served.
        """
        data, most = self._buffer, self._edge.head_bytes
        end = data.find(END, max(0, seen - len(END) + 1))
        if end < 0:
            check_beginning(data, seen)
        size = len(data) if end < 0 else end + len(END)
        if size > most:
            raise BadHead(431, "The request's head is too long.")
        if end >= 0:
            head = parse_head(data[:size])
            self._decided = True
            self._route(head)

    def _start_tls(self, data: bytes) -> None:
        tls = self._edge.tls
        if tls is None:
            self._answer(page(400, "Bad request", "This port does not speak TLS."))
            return
        self._decided = True
        self._buffer = data
        self._wait_for_turn(self._edge.gate.hello, self._inside_tls)

    def _inside_tls(self) -> None:
        tls = self._edge.tls
        assert tls is not None
        inside: Any = tls.wrappedFactory
        inside.outer = self
        # The clock of the handshake and the head starts in there.
        self._hand_over(tls.buildProtocol(self.transport.getPeer()))

    def _route(self, head: Head) -> None:
        routes = self._edge.routes
        if routes is None:
            self._answer(page(503, "Starting", "The relay is about to start.", RETRY_AFTER))
        elif routes.is_control_host(head.host):
            answer = control.answer(head)
            if answer is None:
                self._wait_for_turn(self._edge.gate.handshake, self._agent)
            else:
                self._answer(answer)
        else:
            self._visit(head, HttpVisitor(routes))

    def _visit(self, head: Head, door: HttpVisitor) -> None:
        peer = self.transport.getPeer()
        if not self._edge.gate.admit_visitor(peer):
            self._log.warn("too many connections from {peer}", peer=format_address(peer))
            self._answer(
                page(429, "Too many", "Your address has too many connections here.", RETRY_AFTER)
            )
            return
        self._visitor = peer
        visit = door.open(head, peer, self._take_back)
        if isinstance(visit, Deferred):
            self._hold(visit, lambda service: door.open_late(service, head, peer, self._take_back))
        else:
            self._go_on(visit)

    def _go_on(self, visit: Splice | bytes) -> None:
        if isinstance(visit, bytes):
            self._answer(visit)
        else:
            self._hand_over(visit)

    def _hold(
        self,
        wait: Deferred[IPublicService],
        open_late: Callable[[IPublicService | None], Splice | bytes],
    ) -> None:
        """Unread, until the service is served again, or no longer waited for."""
        self._disarm()
        self._waiting = wait
        self.transport.pauseProducing()

        def over(result: Any) -> None:
            self._waiting = None
            if self._ending:
                return  # The visitor went away.
            self.transport.resumeProducing()
            self._go_on(open_late(None if isinstance(result, Failure) else result))

        wait.addBoth(over).addErrback(
            lambda failure: self._log.failure("a visitor who waited was lost", failure)
        )

    def _agent(self) -> None:
        """Autobahn goes on; the head is validated and capped by now."""
        carrier = self._edge.carriers.buildProtocol(self.transport.getPeer())
        carrier.handshake_over = self._tunnel_begins
        self._hand_over(carrier)

    def _tunnel_begins(self) -> None:
        self.release()
        if "dataReceived" in self.__dict__:
            # What takes a tunnel's bytes is not what took the handshake's.
            self.dataReceived = self._next.dataReceived  # type: ignore[method-assign]

    def _hand_over(self, protocol: Any) -> None:
        """Another protocol goes on, with what was read so far; only the end comes by here."""
        self._disarm()
        if IHalfCloseableProtocol.providedBy(protocol):
            self._outlive_half_close()
        self._next = protocol
        protocol.makeConnection(self.transport)
        if self._next is protocol:
            data, self._buffer = self._buffer, b""
            self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
            protocol.dataReceived(data)

    # --- waiting and ending -------------------------------------------------------------

    def _wait_for_turn(
        self, ask: Callable[[IAddress, Callable[[], None]], Slot], start: Callable[[], None]
    ) -> None:
        """Unread, and with no clock of the handshake running, until there is a turn."""
        waiting = begun = False

        def begin() -> None:
            nonlocal begun
            begun = True
            if waiting:
                self._disarm()
                if hung_up(self.transport):
                    # It gave up while it waited: nothing more is spent on it.
                    self.abort()
                    return
                self.transport.resumeProducing()
            start()

        self._disarm()
        self._released = False
        slot = ask(self.transport.getPeer(), begin)
        if self._released:  # It was over before it began.
            slot.release()
            return
        self._slot = slot
        if not begun:
            waiting = True
            self.transport.pauseProducing()
            self._arm(TURN_TIMEOUT, self.abort)

    def _take_back(self, response: bytes) -> None:
        """The protocol that went on has given up: end with a page."""
        self._next = None
        self.__dict__.pop("dataReceived", None)
        self._answer(response)

    def _answer(self, response: bytes) -> None:
        """Send a page and close, in such a way that the visitor gets to read it."""
        transport = self.transport
        self._decided = self._ending = True
        self._buffer = b""
        self.release()
        self._outlive_half_close()
        transport.write(response)
        if self._secure or not hasattr(transport, "loseWriteConnection"):
            # TLS reads on by itself until the peer has closed, too.
            transport.loseConnection()
        else:
            transport.loseWriteConnection()
        transport.resumeProducing()
        self._arm(LINGER, self.abort)

    def _outlive_half_close(self) -> None:
        """From now on the visitor may end its sending without ending the connection."""
        directlyProvides(self, IHalfCloseableProtocol)

    def _too_slow(self) -> None:
        if self._buffer:
            self._answer(page(408, "Too slow", "The request did not arrive in time."))
        else:
            # Nothing was asked, so nothing is answered (browsers open connections to spare).
            self.transport.loseConnection()
            self._arm(LINGER, self.abort)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self._edge.clock.callLater(seconds, self._expired, then)

    def _expired(self, then: Callable[[], None]) -> None:
        self._deadline = None
        then()

    def _disarm(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
