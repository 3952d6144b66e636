"""One port for everything: what a connection to a listener is, and who goes on with it.

A PROXY header is read where a trusted proxy sends one. A TLS ClientHello is noticed by its first
byte and looked into: what a service ends by itself is passed on as it is, all else is looked at
again inside TLS. Then ALPN decides, or the first request's head: the control host with ``/tunnel``
is an agent, anybody else a visitor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.http.errors import BadRequest
from srrrs.http.head import RequestHead
from srrrs.http.request import RequestReader
from srrrs.net.accept import AcceptGate
from srrrs.net.address import format_address, visitor_address
from srrrs.net.clienthello import HANDSHAKE, BadHello, read_hello
from srrrs.net.proxyheader import BadProxyHeader, may_begin, read_header
from srrrs.net.splice import Splice
from srrrs.net.tlsrecords import tls_factory
from srrrs.protocol.handshake import PATH
from srrrs.relay.edge import control
from srrrs.relay.edge.closing import LINGER
from srrrs.relay.edge.context import VisitorContext
from srrrs.relay.edge.doorstep import Doorstep
from srrrs.relay.edge.h1 import HttpVisitor
from srrrs.relay.edge.h2 import Http2Visitor
from srrrs.relay.edge.interfaces import IPublicService
from srrrs.relay.edge.pages import RETRY_AFTER
from srrrs.relay.edge.passthrough import NOT_HERE, PassThrough
from srrrs.relay.edge.site import ConnectionInfo, Site

H2: Final = b"h2"
PROTOCOLS: Final = (H2, b"http/1.1")
"""What is spoken inside TLS, the favourite first (ALPN)."""
_PATH: Final = PATH.encode()
_NOBODY: Final = UNIXAddress(None)


@implementer(IProtocolNegotiationFactory)
class EdgeFactory(Factory):
    """Makes the protocol of each connection to a listener.

    :param site: what all visitors' connections share.
    :param carriers: builds the agents' protocols.
    :param tls: makes the server's end of TLS, or ``None`` where the listener is to end none.
    :param trust_local: whether who comes by a UNIX socket is a trusted proxy.
    """

    noisy = False

    def __init__(
        self,
        site: Site,
        gate: AcceptGate,
        carriers: Any,
        tls: IOpenSSLServerConnectionCreator | None = None,
        trust_local: bool = False,
    ) -> None:
        self.site = site
        self.gate = gate
        self.carriers = carriers
        self.connections: set[EdgeConnection] = set()
        self._tls: TLSMemoryBIOFactory | None = None
        self._certificates = tls
        if tls is not None:
            self._tls = tls_factory(tls, False, _Inside(self), site.clock)
        self._trust_local = trust_local

    def buildProtocol(self, addr: IAddress | None) -> EdgeConnection:
        return EdgeConnection(self, outer=None)

    def acceptableProtocols(self) -> list[bytes]:
        """For ``ssl:`` endpoints, which otherwise refuse whoever offers a protocol by ALPN."""
        return list(PROTOCOLS)

    @property
    def tls(self) -> TLSMemoryBIOFactory | None:
        """Ends TLS; ``None`` where there is nothing to do so with."""
        return self._tls if getattr(self._certificates, "usable", True) else None

    def is_trusted(self, peer: IAddress) -> bool:
        """Whether a peer is a proxy that is believed."""
        host = getattr(peer, "host", None)
        if host is None:
            return self._trust_local
        return bool(self.site.trusted) and self.site.is_trusted(host.partition("%")[0])


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
class EdgeConnection(Doorstep):
    """Finds out what a connection is.

    :param outer: the connection that this one is inside of, where that is TLS.
    """

    _log = Logger()

    info: ConnectionInfo

    def __init__(self, edge: EdgeFactory, outer: EdgeConnection | None) -> None:
        super().__init__(edge.site.clock)
        self._edge = edge
        self._site = edge.site
        self._outer = outer
        self._reader: RequestReader | None = None
        # How much must be in the buffer before another look is of use.
        self._wanted = 0
        self._proxied = outer is not None
        self._visitor: IAddress | None = None
        self._passing: PassThrough | None = None
        self._waiting: Deferred[IPublicService] | None = None

    # --- the connection -----------------------------------------------------------------

    def connectionMade(self) -> None:
        outer = self._outer
        secure = ISSLTransport.providedBy(self.transport)
        if outer is None:
            self._edge.connections.add(self)
            self._edge.gate.opened(self.transport)
            peer = self.transport.getPeer()
            self.info = ConnectionInfo(peer, peer, self._edge.is_trusted(peer), secure)
            # A PROXY header would have come before the TLS that has ended below.
            self._proxied = secure or not self.info.trusted
        else:
            self.info = outer.info
            self.info.secure = True
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # A UNIX socket has none.
        if outer is None and secure:
            # An ``ssl:`` listener's: it is unread, so its handshake has not begun.
            self._wait_for_turn(self._edge.gate.hello, self._counted, self._await_head)
        else:
            self._await_head()

    def _await_head(self) -> None:
        self._arm(self._site.limits.head_timeout, self._too_slow)

    def handshakeCompleted(self) -> None:
        """TLS's handshake is done; what follows may take its time, as without TLS."""
        (self if self._outer is None else self._outer).release()
        self.info.sni = _sni(self.transport)
        if getattr(self.transport, "negotiatedProtocol", None) == H2:
            self._decided = True
            self._disarm()
            if self._admitted():
                self._hand_over(Http2Visitor(self._site, self.info))
            else:
                self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._visitor is not None:
            self._edge.gate.visitor_gone(self._visitor)
        self._ending = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        super().connectionLost(reason)
        passing, self._passing = self._passing, None
        if passing is not None:
            passing.close()
        if self._outer is None:
            self._edge.connections.discard(self)
            self._edge.gate.closed()

    @property
    def _counted(self) -> IAddress:
        """Whose limits this counts for: nobody's where a trusted proxy speaks for many."""
        return _NOBODY if self.info.trusted else self.info.peer

    # --- what it is ---------------------------------------------------------------------

    def look(self, data: bytes) -> None:
        if len(self._buffer) < self._wanted:
            return
        if not self._proxied:
            if not self._read_proxy_header():
                return
            data = bytes(self._buffer)
            if not data:
                return
        if self._buffer[0] == HANDSHAKE and not ISSLTransport.providedBy(self.transport):
            self._look_at_hello()
            return
        reader = self._reader
        if reader is None:
            reader = self._reader = RequestReader(self._site.request_limits)
        reader.feed(data)
        try:
            head = reader.next()
            if head is not None:
                assert isinstance(head, RequestHead)
                self._decided = True
                self._route(reader, head)
        except BadRequest as bad:
            self._page(bad.status, "Bad request", bad.text)

    def _read_proxy_header(self) -> bool:
        """Read what a trusted proxy says, if it does; whether what follows is to be looked at."""
        data = bytes(self._buffer)
        found = None
        if may_begin(data):
            try:
                found = read_header(data)
            except BadProxyHeader as bad:
                peer = format_address(self.info.socket_peer)
                self._log.warn("a bad PROXY header from {peer}: {why}", peer=peer, why=str(bad))
                self._page(400, "Bad request", "The PROXY header is malformed.")
                return False
            if found is None:
                return False
        self._proxied = True
        if found is not None:
            header, size = found
            del self._buffer[:size]
            info = self.info
            # What comes now is somebody else's word.
            info.trusted = False
            info.secure = header.secure
            if header.source is not None:
                host, port = header.source
                info.peer = visitor_address(f"{host} {port}")
                info.trusted = self._edge.is_trusted(info.peer)
        return True

    def _look_at_hello(self) -> None:
        try:
            hello = read_hello(bytes(self._buffer))
        except BadHello:
            self._start_tls(None)  # Whoever ends TLS knows what to say to that.
            return
        if isinstance(hello, int):
            self._wanted = hello
            return
        self._wanted = 0
        routes = self._site.routes
        service = None
        if routes is not None and hello.name is not None:
            service = routes.lookup_tls(hello.name)
        if service is None:
            self._start_tls(hello.name)
            return
        self._decided = True
        self.info.sni = hello.name
        if self._admitted():
            self._passing = passing = PassThrough(self._site, self.info)
            way = passing.open(service)
            if isinstance(way, Deferred):
                self._hold(way, passing.open_late)
            else:
                self._go_on(way)
        else:
            self.abort()

    def _start_tls(self, name: str | None) -> None:
        if self._edge.tls is None:
            self._end(NOT_HERE)
            return
        self._decided = True
        self.info.sni = name
        self._wait_for_turn(self._edge.gate.hello, self._counted, self._inside_tls)

    def _inside_tls(self) -> None:
        tls = self._edge.tls
        assert tls is not None
        inside: Any = tls.wrappedFactory
        inside.outer = self
        # The clock of the handshake and the head starts in there.
        self._hand_over(tls.buildProtocol(self.info.socket_peer))

    def _route(self, reader: RequestReader, head: RequestHead) -> None:
        routes = self._site.routes
        if routes is not None and head.target == _PATH and routes.is_control_host(head.host):
            # The WebSocket library reads it again, as it came: only what can be read in one way.
            if not self._buffer.startswith(head.method + b" " + _PATH + b" "):
                raise BadRequest(400, "An agent asks for a path alone.")
            answer = control.answer(head)
            if answer is None:
                who = VisitorContext(self._site, self.info).who(head)
                self._wait_for_turn(
                    self._edge.gate.handshake, self._counted, lambda: self._agent(who)
                )
            else:
                self._end(answer.encode(head.method))
        elif self._admitted():
            visitor = HttpVisitor(self._site, self.info)
            visitor.begin(reader, head)
            self._buffer.clear()  # The reader has it.
            self._hand_over(visitor)
        else:
            text = "Your address has too many connections here."
            self._page(429, "Too many", text, RETRY_AFTER)

    def _admitted(self) -> bool:
        """Count the visitor, if it may come in."""
        peer = self._counted
        if not self._edge.gate.admit_visitor(peer):
            self._log.warn("too many connections from {peer}", peer=format_address(peer))
            return False
        # Of two that are one inside the other, one is counted.
        self._visitor = peer
        return True

    def _go_on(self, way: Splice | bytes) -> None:
        if isinstance(way, bytes):
            self._end(way)
        else:
            self._hand_over(way)

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

    def _agent(self, who: IAddress) -> None:
        """Autobahn goes on; the head is validated and capped by now."""
        self._reader = None
        carrier = self._edge.carriers.buildProtocol(who)
        carrier.handshake_over = self._tunnel_begins
        carrier.visitor = who
        self._hand_over(carrier)

    def _tunnel_begins(self) -> None:
        self.release()
        if "dataReceived" in self.__dict__:
            # What takes a tunnel's bytes is not what took the handshake's.
            self.dataReceived = self._next.dataReceived  # type: ignore[method-assign]

    def _page(self, status: int, title: str, text: str, *headers: tuple[str, str]) -> None:
        answer = self._site.pages.page(status, title, text, *headers)
        VisitorContext(self._site, self.info).log_refusal(status, len(answer.body), text)
        self._end(answer.encode())

    def _too_slow(self) -> None:
        if self._reader is not None and self._reader.begun:
            self._page(408, "Too slow", "The request did not arrive in time.")
        else:
            # Nothing was asked, so nothing is answered (browsers open connections to spare).
            self.transport.loseConnection()
            self._arm(LINGER, self.abort)


def _sni(transport: Any) -> str | None:
    """The name that TLS was asked for, as the edge spells hosts."""
    handle = getattr(transport, "getHandle", None)
    name = None if handle is None else handle().get_servername()
    return None if not name else name.decode("latin-1").lower().removesuffix(".")
