"""One port, real sockets: agents and visitors, with TLS and without, next to each other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.accept import AcceptGate
from srrrs.net.channel import Channel
from srrrs.net.pins import spki_pin
from srrrs.net.selfsigned import ServerIdentity
from srrrs.net.tlsclient import client_connection_creator
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.net.websocket import AgentCarrierFactory, Denial, RelayCarrier, RelayCarrierFactory
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame
from srrrs.protocol.handshake import Hello, Welcome
from srrrs.protocol.mux import Limits, Role
from srrrs.relay.edge.certificates import Certificates
from srrrs.relay.edge.interfaces import IPublicService, IRoutes, ServiceAway
from srrrs.relay.edge.listener import PROTOCOLS, EdgeFactory
from srrrs.relay.edge.site import Site
from tests.integration.certificates import write_pair
from tests.mini_relay import until

pytestmark = pytest.mark.integration

TOKEN = "right"
HEAD = b"GET /page HTTP/1.0\r\nHost: site.localhost\r\n\r\n"
BODY = bytes(range(256)) * 8192
TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


class Page(Protocol):
    """Answers every request with a page that is longer than any buffer, then closes."""

    def __init__(self) -> None:
        self.request = b""

    def dataReceived(self, data: bytes) -> None:
        self.request += data
        if self.request.endswith(b"\r\n\r\n"):
            transport: Any = self.transport
            transport.write(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
            transport.loseConnection()


@implementer(ITunnelHandler)
class End:
    """One end of the tunnel; the agent's puts a page on every stream."""

    def __init__(self, reactor: Any, role: Role) -> None:
        self.lost: TunnelLost | None = None
        self.tunnel = Tunnel(reactor, role, self, Limits(), Budget(1 << 26))

    def stream_opened(self, channel: Channel, service_id: int) -> None:
        channel.attach(Page())

    def control_received(self, frame: ControlFrame) -> None:
        raise AssertionError(frame)

    def tunnel_parked(self, lost: TunnelLost) -> None:
        pass

    def tunnel_resumed(self, replayed: int) -> None:
        pass

    def tunnel_lost(self, lost: TunnelLost) -> None:
        self.lost = lost


@implementer(IRoutes, IPublicService)
class Relay:
    """A relay with one site."""

    name = token_name = host = "site"
    gatekeeper = None
    outstanding = 0
    leaving = False

    def __init__(self, reactor: Any, identity: ServerIdentity, tls: Any = None) -> None:
        self.reactor = reactor
        self.pin = identity.pin
        self.carriers: list[RelayCarrier] = []
        self.ends: list[End] = []
        self.gate = AcceptGate(reactor)
        carriers = RelayCarrierFactory(reactor, self.authorize, self.greet)
        self.shared = Site(reactor)
        self.factory = EdgeFactory(self.shared, self.gate, carriers, tls or identity.context)
        self.shared.routes = self
        self.number = 0

    def authorize(self, token: str | None, peer: IAddress) -> None:
        if token != TOKEN:
            raise Denial(401, "no")

    def greet(self, carrier: RelayCarrier, identity: Any, hello: Hello) -> None:
        self.carriers.append(carrier)
        end = End(self.reactor, Role.RELAY)
        carrier.answer(Welcome("1", 15.0, "localhost", "srrrs/0"))
        end.tunnel.attach(carrier, 15.0)
        self.ends.append(end)

    def is_control_host(self, host: str) -> bool:
        return host in ("localhost", "127.0.0.1")

    def lookup(self, host: str, path: bytes) -> Relay | None:
        return self if host == "site.localhost" else None

    def lookup_tls(self, host: str) -> None:
        return None

    def pick(self) -> Relay:
        return self

    def request_begun(self) -> None:
        self.outstanding += 1

    def request_ended(self) -> None:
        self.outstanding -= 1

    def failed(self) -> None:
        pass

    def wait(self) -> Any:
        raise NotImplementedError

    def available(self) -> bool:
        return bool(self.ends)

    def open(self, visitor: IAddress, connection_id: str = "") -> Channel:
        if not self.ends:
            raise ServiceAway
        return self.ends[-1].tunnel.open(1, visitor)

    def endpoint(self, tls: bool) -> Any:
        tcp = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.number)
        return (
            wrapClientTLS(client_connection_creator("localhost", pin=self.pin), tcp) if tls else tcp
        )

    async def dial(self, tls: bool, token: str = TOKEN) -> End:
        """An agent, connected."""
        scheme = "wss" if tls else "ws"
        hello = Hello("0" * 32, "machine", "srrrs/0", 15.0)
        factory = AgentCarrierFactory(
            self.reactor, f"{scheme}://localhost:{self.number}/tunnel", token, lambda _: hello
        )
        carrier: Any = await self.endpoint(tls).connect(factory)
        end = End(self.reactor, Role.AGENT)

        def attach(welcomed: tuple[Any, Welcome]) -> None:
            end.tunnel.attach(welcomed[0], 15.0)

        await carrier.welcomed.addCallback(attach)
        return end

    async def visit(self, tls: bool, request: bytes = HEAD, half_close: bool = False) -> bytes:
        """What a visitor gets until the connection ends."""
        visitor: Any = await self.endpoint(tls).connect(Factory.forProtocol(Visitor))
        visitor.transport.write(request)
        if half_close:
            visitor.transport.loseWriteConnection()
        await visitor.over
        return bytes(visitor.data)


@implementer(IHalfCloseableProtocol)
class Visitor(Protocol):
    """Reads until the other end closes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(None)


@asynccontextmanager
async def running(tmp_path: Path, folder: Path | None = None) -> AsyncIterator[Relay]:
    """A relay on a port of the system's choice, that leaves nothing behind.

    :param folder: of certificates, of which one is for ``localhost``.
    """
    from twisted.internet import reactor

    tls = None if folder is None else Certificates(folder, time.time, PROTOCOLS)
    relay = Relay(reactor, ServerIdentity.self_signed(tmp_path, "localhost"), tls)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(relay.factory)
    relay.gate.add(port)
    relay.number = port.getHost().port
    try:
        yield relay
    finally:
        relay.gate.stop()
        await port.stopListening()
        for end in relay.ends:
            end.tunnel.close(CloseCode.SHUTDOWN, "over")
            await end.tunnel.when_closed()
        await until(reactor, lambda: not relay.factory.connections)
        relay.shared.stop()


@TLS
@pytest_twisted.ensureDeferred
async def test_agents_and_visitors(tls: bool, tmp_path: Path) -> None:
    """Over an agent's connection of either kind, visitors of both get two megabytes each."""
    async with running(tmp_path) as relay:
        agent = await relay.dial(tls)
        for way in (False, True):
            for _ in range(3):
                answer = await relay.visit(way)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b"\r\n\r\n" + BODY)
        await until(relay.reactor, lambda: not agent.tunnel.streams)
        assert relay.ends[0].tunnel.streams == 0
        assert not relay.outstanding


@pytest_twisted.ensureDeferred
async def test_an_agent_on_a_certificate_chosen_by_name(tmp_path: Path) -> None:
    """It and the relay prove to each other that no proxy reads along, as on any other TLS."""
    folder = tmp_path / "tls"
    write_pair(folder, "a", "other.example")
    certificate = write_pair(folder, "b", "localhost")
    async with running(tmp_path, folder) as relay:
        relay.pin = spki_pin(x509.load_pem_x509_certificate(certificate.read_bytes()))
        await relay.dial(True)
        (carrier,) = relay.carriers
        assert carrier.channel_binding() is not None
        assert carrier._binding == carrier.channel_binding()


@pytest_twisted.ensureDeferred
async def test_a_visitor_that_half_closes(tmp_path: Path) -> None:
    """Who closes its side behind the request gets the whole answer."""
    async with running(tmp_path) as relay:
        await relay.dial(False)
        assert (await relay.visit(False, half_close=True)).endswith(BODY)


@TLS
@pytest_twisted.ensureDeferred
async def test_pages(tls: bool, tmp_path: Path) -> None:
    """Unknown hosts, an agent that is away, and bad requests: a page, whole, and a close."""
    async with running(tmp_path) as relay:
        for request, status in (
            (HEAD, 503),
            (HEAD.replace(b"site.", b"other."), 404),
            (HEAD.replace(b"Host", b"Ghost"), 400),
            (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
            (b"GET /tunnel HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n" + b"y" * 200_000, 431),
        ):
            answer = await relay.visit(tls, request)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.rstrip().endswith(b"</html>")


@TLS
@pytest_twisted.ensureDeferred
async def test_a_bad_token(tls: bool, tmp_path: Path) -> None:
    """A bad token is an HTTP status, and no tunnel."""
    async with running(tmp_path) as relay:
        with pytest.raises(Denial) as denial:
            await relay.dial(tls, "wrong")
        assert denial.value.status == 401
        assert not relay.ends


@TLS
@pytest_twisted.ensureDeferred
async def test_the_relay_closes(tls: bool, tmp_path: Path) -> None:
    """The agent learns the code; a visitor that waits is told to come again."""
    async with running(tmp_path) as relay:
        agent = await relay.dial(tls)
        relay.ends[0].tunnel.close(CloseCode.REVOKED, "revoked")
        await agent.tunnel.when_closed()
        assert agent.lost == TunnelLost(CloseCode.REVOKED, "revoked")
        await relay.ends[0].tunnel.when_closed()
        relay.ends.clear()
        assert (await relay.visit(tls)).startswith(b"HTTP/1.1 503 ")
