"""The edge on real sockets: every sort of listener, TLS on the plain port, long uploads."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from srrrs.net.accept import AcceptGate
from srrrs.net.selfsigned import ServerIdentity
from srrrs.net.serving import server_endpoint
from srrrs.net.tlsclient import client_connection_creator
from srrrs.relay.edge.listener import EdgeFactory
from srrrs.relay.edge.site import Site
from tests.edge_fakes import Carriers, FakeChannel, FakeRoutes, FakeService

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ANSWERED = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n"
UNKNOWN = b"POST / HTTP/1.1\r\nHost: no.example\r\nContent-Length: 3000000\r\n\r\n"
AGENT = (
    b"GET /tunnel HTTP/1.1\r\nHost: relay.example\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n"
)


class AnsweringChannel(FakeChannel):
    """A backend that answers the head and closes."""

    def write(self, data: bytes) -> None:
        if not self.delivered:
            self.receive(ANSWER)
            self.peer_half_close()


class AnsweringService(FakeService):
    def open(self, visitor: Any, connection_id: str = "") -> Any:
        channel = AnsweringChannel(self._clock, visitor)
        self.channels.append(channel)
        return channel


class Visitor(Protocol):
    """Sends, and collects what comes back until the end."""

    def __init__(self, data: bytes, closes: bool = False) -> None:
        self._data = data
        self._closes = closes
        self.got = b""
        self.done: Deferred[bytes] = Deferred()
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        self.transport.write(self._data)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        if self._closes and self.got.endswith(b"ok"):
            self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.done.callback(self.got)


class Listener:
    """An edge on a real listener."""

    def __init__(self, reactor: Any, tmp_path: Path, tls: bool) -> None:
        self.reactor = reactor
        self.identity = ServerIdentity.self_signed(tmp_path, "relay.example")
        self.carriers = Carriers()
        self.routes = FakeRoutes()
        self.gate = AcceptGate(reactor)
        self.site = AnsweringService(Clock())
        # The stream's clock is the reactor's: it arms deadlines for real connections.
        self.site._clock = reactor
        self.routes.services["site.example"] = self.site
        context = self.identity.context if tls else None
        self.shared = Site(reactor)
        self.factory = EdgeFactory(self.shared, self.gate, self.carriers, context)
        self.shared.routes = self.routes
        self.endpoint: IStreamClientEndpoint

    async def ask(self, data: bytes, closes: bool = False) -> bytes:
        visitor = Visitor(data, closes)
        await self.endpoint.connect(Factory.forProtocol(lambda: visitor))
        return await visitor.done

    def over_tls(self) -> IStreamClientEndpoint:
        creator = client_connection_creator("relay.example", pin=self.identity.pin)
        return wrapClientTLS(creator, self.endpoint)


@asynccontextmanager
async def listening(kind: str, tmp_path: Path) -> AsyncIterator[Listener]:
    from twisted.internet import reactor

    edge = Listener(reactor, tmp_path, tls=kind == "noticed")
    endpoint: Any
    if kind == "unix":
        endpoint = serverFromString(reactor, f"unix:{tmp_path}/sock")
    elif kind == "ssl":
        from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

        pem = edge.identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "server.pem").write_bytes(
            pem + edge.identity.certificate.public_bytes(Encoding.PEM)
        )
        endpoint = server_endpoint(
            reactor, f"ssl:0:interface=127.0.0.1:privateKey={tmp_path}/server.pem"
        )
    elif kind == "adopted":  # What `systemd:` does with the sockets that it is given.
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        endpoint = AdoptedStreamServerEndpoint(reactor, bound.detach(), socket.AF_INET)
    else:
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    port = await endpoint.listen(edge.factory)
    edge.gate.add(port)
    if kind == "unix":
        edge.endpoint = UNIXClientEndpoint(reactor, f"{tmp_path}/sock")
    else:
        edge.endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    if kind in ("ssl", "noticed"):
        edge.endpoint = edge.over_tls()
    try:
        yield edge
    finally:
        edge.gate.stop()
        await port.stopListening()
        for connection in list(edge.factory.connections):
            connection.abort()
        edge.shared.stop()


EVERY_KIND = pytest.mark.parametrize("kind", ["tcp", "noticed", "ssl", "unix", "adopted"])


@EVERY_KIND
@pytest_twisted.ensureDeferred
async def test_visitors(kind: str, tmp_path: Path) -> None:
    """Every sort of listener serves visitors, with their bytes and the end of the answer."""
    async with listening(kind, tmp_path) as edge:
        assert await edge.ask(REQUEST) == ANSWERED
        assert (await edge.ask(REQUEST.replace(b"site", b"no"))).startswith(b"HTTP/1.1 404 ")


@EVERY_KIND
@pytest_twisted.ensureDeferred
async def test_agents(kind: str, tmp_path: Path) -> None:
    """Every sort of listener hands agents over, on a transport that can be written to."""
    async with listening(kind, tmp_path) as edge:
        done = edge.ask(AGENT + b"hello", closes=True)
        talking = Deferred.fromCoroutine(done)
        while not (edge.carriers.made and edge.carriers.made[0].data.endswith(b"hello")):
            await turn(edge.reactor)
        (carrier,) = edge.carriers.made
        assert carrier.data == AGENT + b"hello"
        carrier.handshake_over()
        carrier.transport.write(b"ok")  # type: ignore[union-attr]
        assert await talking == b"ok"
        while carrier.lost is None:
            await turn(edge.reactor)
        assert carrier.lost.check(ConnectionDone)


@pytest.mark.parametrize("kind", ["tcp", "noticed", "unix"])
@pytest_twisted.ensureDeferred
async def test_the_page_reaches_an_uploader(kind: str, tmp_path: Path) -> None:
    """Whoever is still sending a long body gets to read why it is not wanted."""
    async with listening(kind, tmp_path) as edge:
        answer = await edge.ask(UNKNOWN + b"x" * 3_000_000)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.endswith(b"</html>\n")


@pytest_twisted.ensureDeferred
async def test_one_port_speaks_both(tmp_path: Path) -> None:
    """The same port takes TLS and plain HTTP, from visitors and agents alike."""
    async with listening("noticed", tmp_path) as edge:
        secure, plain = edge.endpoint, edge.endpoint._wrappedEndpoint  # type: ignore[attr-defined]
        for edge.endpoint in (plain, secure, plain):
            assert await edge.ask(REQUEST) == ANSWERED


@pytest.mark.parametrize("kind", ["noticed", "ssl"])
@pytest_twisted.ensureDeferred
async def test_many_at_once_over_tls(kind: str, tmp_path: Path) -> None:
    """More TLS connections of one address than may shake hands at a time are all served."""
    async with listening(kind, tmp_path) as edge:
        edge.gate._hellos.limit = 2
        asked = [Deferred.fromCoroutine(edge.ask(REQUEST)) for _ in range(50)]
        for each in asked:
            assert await each == ANSWERED
        assert not edge.gate._hellos._inside


async def turn(reactor: Any) -> None:
    """Let the reactor go round once."""
    again: Deferred[None] = Deferred()
    reactor.callLater(0, again.callback, None)
    await again
