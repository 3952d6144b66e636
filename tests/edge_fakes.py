"""A relay's inside as the edge sees it, with streams that end at the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.accept import AcceptGate
from srrrs.net.channel import StreamReset
from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.protocol.stream import StreamHandler
from srrrs.relay.edge.interfaces import IPublicService, IRoutes
from srrrs.relay.edge.listener import EdgeConnection, EdgeFactory
from srrrs.relay.edge.site import Site, SiteLimits
from srrrs.testing import FakeTransport, Recorder

VISITOR = IPv4Address("TCP", "192.0.2.1", 50000)


@implementer(IHalfCloseableProtocol)
class _Feed(Protocol):
    """Tells whoever handles a stream at the time what happens on it."""

    def __init__(self, channel: FakeChannel) -> None:
        self._channel = channel

    @property
    def _handler(self) -> Any:
        return self._channel.handler or mock.Mock()

    def dataReceived(self, data: bytes) -> None:
        self._handler.data_received(data)

    def readConnectionLost(self) -> None:
        self._handler.fin_received()

    def writeConnectionLost(self) -> None:
        self._handler.fin_sent()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        done = reason.check(ConnectionDone)
        code = None if done else getattr(reason.value, "code", ResetCode.CANCEL)
        self._handler.stream_closed(code, "")


class FakeChannel(FakeTransport):
    """A stream, and its channel, whose far end is the test."""

    held_back = False

    def __init__(self, clock: Clock, visitor: IAddress = VISITOR) -> None:
        super().__init__(peer=visitor)
        self.clock = clock
        self.visitor = visitor
        self.delivered = 0
        self.credited = 0
        self.resets: list[ResetCode] = []
        self.handler: StreamHandler | None = None
        self._fin_came = False

    @property
    def stream(self) -> FakeChannel:
        return self

    def hand_over(self, handler: StreamHandler) -> None:
        self.handler = handler
        self.attach(_Feed(self))
        self.registerProducer(_Writer(self), True)

    def receive(self, data: bytes) -> None:
        self.delivered += len(data)
        super().receive(data)

    def peer_half_close(self) -> None:
        self._fin_came = True
        super().peer_half_close()

    def peer_resets(self, code: ResetCode) -> None:
        """The agent resets the stream."""
        self._lose(Failure(StreamReset(code)))

    # --- what a stream does -------------------------------------------------------------

    def pass_on(self, data: bytes) -> None:
        self.write(data)

    def consumed(self, size: int, now: float | None = None) -> None:
        self.credited += size

    def finish(self) -> None:
        self.unregisterProducer()
        if self._fin_came:
            self.loseConnection()
        else:
            self.loseWriteConnection()

    def reset(self, code: ResetCode, reason: str = "") -> None:
        if self.connected:
            self.resets.append(code)
            self.abortConnection()


@implementer(IPushProducer)
class _Writer:
    """Whoever writes to a stream: its handler lets it wait."""

    def __init__(self, channel: FakeChannel) -> None:
        self._channel = channel

    def pauseProducing(self) -> None:
        if self._channel.handler is not None:
            self._channel.handler.pause_sending()

    def resumeProducing(self) -> None:
        if self._channel.handler is not None:
            self._channel.handler.resume_sending()

    def stopProducing(self) -> None:
        pass


@implementer(IPublicService)
class FakeService:
    """A service: keeps the channels that were opened to it."""

    token_name = "token"
    host = "site.example"
    leaving = False

    def __init__(self, clock: Clock, problem: Exception | None = None) -> None:
        self.name = "site"
        self.problem = problem
        self.gatekeeper: Any = None
        self.outstanding = self.failures = 0
        self.most = self.most_streams = 1000
        self.channels: list[FakeChannel] = []
        self.waiting: list[Deferred[Any]] = []
        self._clock = clock

    def available(self) -> bool:
        return self.problem is None

    def wait(self) -> Any:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def pick(self) -> FakeService:
        if self.problem is not None:
            raise self.problem
        return self

    def request_begun(self) -> None:
        if self.outstanding >= self.most:
            raise Overloaded
        self.outstanding += 1

    def request_ended(self) -> None:
        self.outstanding -= 1

    def failed(self) -> None:
        self.failures += 1

    def open(self, visitor: IAddress, connection_id: str = "") -> Any:
        if self.problem is not None:
            raise self.problem
        if sum(each.connected and not each.aborted for each in self.channels) >= self.most_streams:
            raise Overloaded
        self.channels.append(FakeChannel(self._clock, visitor))
        return self.channels[-1]


@implementer(IRoutes)
class FakeRoutes:
    """The control host is ``relay.example`` and its services are under ``example``."""

    def __init__(self) -> None:
        self.services: dict[str, FakeService] = {}
        self.tls: dict[str, FakeService] = {}
        self.asked: list[str] = []

    def is_control_host(self, host: str) -> bool:
        return host in ("example", "relay.example", "192.0.2.9", "2001:db8::9")

    def lookup(self, host: str, path: bytes) -> FakeService | None:
        self.asked.append(host)
        return self.services.get(host)

    def lookup_tls(self, host: str) -> FakeService | None:
        return self.tls.get(host)


class FakeCarrier(Recorder):
    """What goes on with an agent's connection; ``handshake_over`` is the edge's to set."""

    handshake_over: Callable[[], None]


class Carriers(Factory):
    """Makes them."""

    def __init__(self) -> None:
        self.made: list[FakeCarrier] = []

    def buildProtocol(self, addr: IAddress | None) -> FakeCarrier:
        self.made.append(FakeCarrier())
        return self.made[-1]


class Edge:
    """An edge with everything around it faked."""

    def __init__(self, tls: Any = None, head_bytes: int = 1024, **limits: int) -> None:
        self.clock = Clock()
        self.gate = AcceptGate(self.clock, **limits)
        self.carriers = Carriers()
        self.routes = FakeRoutes()
        self.site = FakeService(self.clock)
        self.routes.services["site.example"] = self.site
        self.shared = Site(self.clock, SiteLimits(head_bytes=head_bytes))
        self.shared.routes = self.routes
        self.factory = EdgeFactory(self.shared, self.gate, self.carriers, tls)

    def connect(self, peer: IAddress = VISITOR, tls: bool = False) -> FakeTransport:
        """A connection to the listener; its protocol is an :class:`EdgeConnection`."""
        transport = FakeTransport(peer=peer, tls=tls)
        protocol = self.factory.buildProtocol(peer)
        assert isinstance(protocol, EdgeConnection)
        transport.attach(protocol)
        return transport

    def ask(self, data: bytes, step: int | None = None, tls: bool = False) -> FakeTransport:
        """A connection that has sent ``data``, in parts of ``step`` bytes."""
        transport = self.connect(tls=tls)
        for at in range(0, len(data), step or len(data)):
            transport.receive(data[at : at + (step or len(data))])
        return transport

    def assert_nothing_left(self) -> None:
        """No connection, no timer, no count."""
        assert not self.factory.connections
        for waits in (self.shared.heads, self.shared.idle, self.shared.idle_origins):
            assert not len(waits)
        self.shared.stop()
        assert not self.clock.getDelayedCalls()
        assert not self.gate.paused
        assert not self.gate._visitor_count
        for stile in (self.gate._agents, self.gate._addresses):
            assert not stile._inside
            assert not stile._lines


def end(transport: FakeTransport) -> None:
    """The visitor takes what is left and closes."""
    transport.drain()
    transport.peer_half_close()
    transport.drain()
    transport.drain()
