"""Protocols that remember, and pairs of them that are connected."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer


class Recorder(Protocol):
    """Keeps what it receives, and says when things happen."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.events: list[str] = []
        self.made: Deferred[Any] = Deferred()
        self.lost: Deferred[Failure] = Deferred()
        self.reason: Failure | None = None
        self._waiting: list[tuple[int, Deferred[bytes]]] = []

    def connectionMade(self) -> None:
        self.events.append("made")
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def _look(self) -> None:
        while self._waiting and len(self.data) >= self._waiting[0][0]:
            self._waiting.pop(0)[1].callback(bytes(self.data))

    def received(self, size: int) -> Deferred[bytes]:
        """Everything received, once it is `size` bytes."""
        done: Deferred[bytes] = Deferred()
        self._waiting.append((size, done))
        self._look()
        return done

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.events.append("lost")
        self.reason = reason
        self.lost.callback(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """A Recorder that closes each direction by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.read_lost: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.events.append("read lost")
        self.read_lost.callback(None)

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")


class Server(ServerFactory):
    """Makes its protocols by calling something, and keeps them."""

    noisy = False

    def __init__(self, make: Callable[[], Any] = Recorder) -> None:
        self.make = make
        self.protocols: list[Any] = []
        self._waiting: Deferred[Any] | None = None

    def buildProtocol(self, addr: Any) -> Any:
        self.addr = addr
        protocol = self.make()
        protocol.factory = self
        self.protocols.append(protocol)
        return protocol


class Client(ClientFactory):
    """Connects one protocol."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self.made_protocol: Any = protocol
        self.failed: Deferred[Any] = Deferred()
        self.lost: Deferred[Any] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        protocol, self.made_protocol = self.made_protocol, None
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed.callback(reason.value)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.lost.callback(reason.value)


async def until(reactor: Any, condition: Callable[[], Any]) -> Any:
    """Turns the reactor until something is so."""
    for _ in range(2000):
        result = condition()
        if result:
            return result
        await deferLater(reactor, 0.005)
    raise AssertionError("it never came to be so")


async def turns(reactor: Any, count: int = 10) -> None:
    """Gives the reactor some turns."""
    for _ in range(count):
        await deferLater(reactor, 0)


class Pair:
    """A server's and a client's protocol, connected."""

    def __init__(self, port: Any, server: Any, client: Any) -> None:
        self.port, self.server, self.client = port, server, client

    async def close(self) -> None:
        for end in (self.client, self.server):
            if end.reason is None:
                end.transport.abortConnection()
                if isinstance(end, Recorder) and not end.lost.called:
                    await end.lost
        await self.port.stopListening()


async def tcp_pair(
    reactor: Any,
    server: Callable[[], Any] = Recorder,
    client: Callable[[], Any] = Recorder,
    interface: str = "127.0.0.1",
) -> Pair:
    factory = Server(server)
    port = reactor.listenTCP(0, factory, interface=interface)
    return await _connect(
        reactor,
        port,
        factory,
        client(),
        lambda f: reactor.connectTCP(interface, port.getHost().port, f),
    )


async def unix_pair(
    reactor: Any,
    path: str,
    server: Callable[[], Any] = Recorder,
    client: Callable[[], Any] = Recorder,
) -> Pair:
    factory = Server(server)
    port = reactor.listenUNIX(path, factory)
    return await _connect(reactor, port, factory, client(), lambda f: reactor.connectUNIX(path, f))


async def _connect(
    reactor: Any, port: Any, factory: Server, protocol: Any, connect: Callable[[Client], Any]
) -> Pair:
    connect(Client(protocol))
    if not protocol.made.called:
        await protocol.made
    served = await until(reactor, lambda: factory.protocols and factory.protocols[0])
    return Pair(port, served, protocol)


def plain_client(port: Any) -> socket.socket:
    """A blocking socket connected to a TCP port."""
    host = port.getHost()
    return socket.create_connection((host.host, host.port), 20)


class Silent(Factory[Protocol]):
    """Listens to connections and does nothing with them."""

    noisy = False
    protocol = Protocol
