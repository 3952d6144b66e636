"""An edge whose service is a real tunnel's, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from srrrs.net.accept import AcceptGate
from srrrs.net.channel import Channel
from srrrs.protocol.mux import Limits
from srrrs.protocol.session import ACK_LATE
from srrrs.relay.edge.interfaces import IPublicService, IRoutes
from srrrs.relay.edge.listener import EdgeFactory
from srrrs.relay.edge.site import Site as Visitors
from srrrs.testing import FakeTransport, HalfCloseRecorder
from tests.net.kit import VISITOR, Pair


@implementer(IPublicService, IRoutes)
class Site:
    """A service behind a tunnel, and the only one that there is."""

    name = "site"
    token_name = "token"
    host = "site.example"
    gatekeeper: Any = None
    outstanding = 0
    leaving = False
    shared: Any = None

    def __init__(self, limits: Limits | None = None) -> None:
        self.pair = Pair(limits)
        self.clock = self.pair.clock
        self.gate = AcceptGate(self.clock, visitors=3)
        self.problem: Exception | None = None
        self.pair.settle()
        self.pair.agent.serve = self.serve
        self.backends: list[Any] = []

    def serve(self, channel: Channel) -> None:
        backend = HalfCloseRecorder()
        channel.attach(backend)
        self.backends.append(backend)

    def wait(self) -> Any:
        raise NotImplementedError

    def available(self) -> bool:
        return self.problem is None

    def open(self, visitor: IAddress, connection_id: str = "") -> Channel:
        if self.problem is not None:
            raise self.problem
        return self.pair.relay.tunnel.open(1, visitor)

    def is_control_host(self, host: str) -> bool:
        return host == "relay.example"

    def pick(self) -> Site:
        if self.problem is not None:
            raise self.problem
        return self

    def request_begun(self) -> None:
        self.outstanding += 1

    def request_ended(self) -> None:
        self.outstanding -= 1

    def failed(self) -> None:
        pass

    def lookup_tls(self, host: str) -> Site | None:
        return None

    def lookup(self, host: str, path: bytes) -> Site | None:
        return self if host == "site.example" else None

    def connect(self, factory: Any, tls: bool = False, **options: Any) -> Any:
        """A visitor's connection."""
        transport = FakeTransport(peer=VISITOR, tls=tls, **options)
        transport.attach(factory.buildProtocol(VISITOR))
        return transport

    def edge(self) -> EdgeFactory:
        """A listener's factory; no agent ever comes."""
        self.shared = shared = Visitors(self.clock)
        shared.routes = self
        return EdgeFactory(shared, self.gate, None)

    def settle(self, *transports: Any) -> None:
        """Let everything arrive."""
        for _ in range(4):
            self.pair.settle()
            for transport in transports:
                transport.drain()

    def over(self) -> bool:
        """No stream, no memory, no visitor counted and no timer but the heartbeats."""
        for side in (self.pair.relay, self.pair.agent):
            assert side.tunnel.streams == 0
            assert side.budget.used == 0
        for _ in range(3):
            assert self.gate.admit_visitor(VISITOR)
        for _ in range(3):
            self.gate.visitor_gone(VISITOR)
        if self.shared is not None:
            for waits in (self.shared.heads, self.shared.idle, self.shared.idle_origins):
                assert not len(waits)
            self.shared.stop()
        assert not self.outstanding
        self.pair.pass_time(ACK_LATE)
        return len(self.clock.getDelayedCalls()) == 2
