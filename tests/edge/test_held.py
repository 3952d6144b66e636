"""Visitors who come while the agent's connection is broken: they wait, unread, and are served."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock

from srrrs.net.accept import AcceptGate
from srrrs.protocol.errors import Overloaded
from srrrs.relay.edge.interfaces import ServiceAway, ServiceParked
from srrrs.relay.edge.tcp import PublicPortFactory
from srrrs.testing import FakeTransport
from tests.edge_fakes import VISITOR, Edge, FakeService, end

REQUEST = b"GET /x HTTP/1.1\r\nHost: site.example\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"
WAIT = 100.0
"""Seconds, more than any limit of the edge's own."""


def park(service: FakeService) -> FakeService:
    service.problem = ServiceParked(service)
    return service


def back(service: FakeService) -> FakeService:
    service.problem = None
    return service


def reads(transport: FakeTransport) -> bool:
    """Whether its peer's bytes are taken."""
    return transport.reading


def connected(transport: FakeTransport) -> bool:
    return transport.connected


def status(transport: FakeTransport) -> int:
    """Of the page that was sent; 0: nothing was."""
    transport.drain()
    return int(transport.sent.split(b" ")[1]) if transport.sent else 0


# --- HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_waits_and_is_served(tls: bool) -> None:
    """However long, its body is not read meanwhile; then the backend gets all of it once, and the
    connection is like any other."""
    edge = Edge()
    park(edge.site)
    upload = REQUEST.replace(b"GET", b"PUT").replace(b"\r\n\r\n", b"\r\nContent-Length: 13\r\n\r\n")
    transport = edge.ask(upload + b"one ", tls=tls)
    assert len(edge.site.waiting) == 1
    transport.receive(b"two ")
    transport.drain()
    edge.clock.advance(WAIT)
    assert (transport.reading, transport.held, bytes(transport.sent)) == (False, 4, b"")
    edge.site.waiting[0].callback(back(edge.site))
    transport.drain()
    transport.receive(b"three")
    (channel,) = edge.site.channels
    head, _, body = channel.drain().partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /x HTTP/1.1\r\nhost: site.example\r\n")
    assert body == b"one two three"
    channel.receive(ANSWER)
    transport.drain()
    assert bytes(transport.sent).endswith(b"\r\n\r\nanswer")
    transport.peer_reset()
    channel.drain()
    edge.shared.lingering.stop()
    edge.assert_nothing_left()


def test_another_serves_it() -> None:
    """Who took the service over meanwhile."""
    edge = Edge()
    park(edge.site)
    edge.ask(REQUEST)
    other = FakeService(edge.clock)
    edge.site.waiting[0].callback(other)
    assert edge.site.channels == []
    (channel,) = other.channels
    assert channel.drain().startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize("problem", [ServiceAway(), Overloaded(), "parked"])
def test_when_it_cannot_be_served_after_all(problem: Any) -> None:
    """It is told so, and does not wait a second time."""
    edge = Edge()
    park(edge.site)
    transport = edge.ask(REQUEST)
    other = FakeService(edge.clock, None if problem == "parked" else problem)
    if problem == "parked":
        park(other)
    edge.site.waiting[0].callback(other)
    assert status(transport) == 503
    assert other.waiting == []
    end(transport)
    edge.assert_nothing_left()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_wait_in_vain(at_once: bool, method: bytes) -> None:
    """It ends with a page, without a body where there may be none; at once where too many wait."""
    edge = Edge()
    park(edge.site)
    if at_once:
        edge.site.wait = _in_vain  # type: ignore[method-assign]
    transport = edge.ask(REQUEST.replace(b"GET", method))
    if not at_once:
        assert status(transport) == 0
        edge.site.waiting[0].errback(ServiceAway())
    assert status(transport) == 503
    head, _, body = bytes(transport.sent).partition(b"\r\n\r\n")
    assert b"\r\nretry-after: " in head
    assert bool(body) == (method == b"GET")
    end(transport)
    edge.assert_nothing_left()


def _in_vain() -> Deferred[Any]:
    waiter: Deferred[Any] = Deferred()
    waiter.errback(ServiceAway())
    return waiter


def test_a_visitor_who_leaves_waits_no_more() -> None:
    edge = Edge()
    park(edge.site)
    transport = edge.ask(REQUEST)
    transport.peer_reset()
    assert edge.site.waiting[0].called
    assert edge.site.channels == []
    edge.assert_nothing_left()


def test_those_who_wait_count_as_visitors() -> None:
    """Of their address, until they leave."""
    edge = Edge(visitors=2)
    park(edge.site)
    waiting = [edge.ask(REQUEST) for _ in range(2)]
    third = edge.ask(REQUEST)
    assert len(edge.site.waiting) == 2
    assert status(third) in (429, 503)
    for transport in waiting:
        transport.peer_reset()
    end(third)
    edge.assert_nothing_left()


def test_the_relays_end_while_they_wait() -> None:
    edge = Edge()
    park(edge.site)
    transport = edge.ask(REQUEST)
    for connection in list(edge.factory.connections):
        connection.abort()
    transport.drain()
    assert edge.site.waiting[0].called
    edge.assert_nothing_left()


# --- TCP ----------------------------------------------------------------------------------


class Port:
    """A public port whose agent is away for a moment."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.gate = AcceptGate(self.clock, **limits)
        self.service = park(FakeService(self.clock))
        self.factory = PublicPortFactory(self.service, self.gate)

    def connect(self) -> FakeTransport:
        transport = FakeTransport(peer=VISITOR)
        transport.attach(self.factory.buildProtocol(VISITOR))
        return transport

    @property
    def waiting(self) -> Deferred[Any]:
        return self.service.waiting[-1]

    def assert_nothing_left(self) -> None:
        assert not self.gate._visitor_count
        assert self.gate._connections == 0
        assert not self.clock.getDelayedCalls()


def test_a_connection_waits_and_is_served() -> None:
    """Unread; then it is a stream like any other, half-closes and all."""
    port = Port()
    transport = port.connect()
    transport.receive(b"question")
    transport.peer_half_close()
    port.clock.advance(WAIT)
    assert (transport.connected, transport.reading, transport.held) == (True, False, 8)
    port.waiting.callback(back(port.service))
    transport.drain()
    (channel,) = port.service.channels
    assert str(channel.visitor) == str(VISITOR)
    assert channel.drain() == b"question"
    assert channel.write_closed
    channel.receive(b"answer")
    channel.peer_half_close()
    transport.drain()
    transport.drain()
    assert transport.sent == b"answer"
    assert not connected(transport)
    port.assert_nothing_left()


def test_backpressure_after_the_wait() -> None:
    """Of either side, as without a wait."""
    port = Port()
    transport = port.connect()
    port.waiting.callback(back(port.service))
    transport.drain()
    (channel,) = port.service.channels
    transport.receive(bytes(channel.buffer_size + 1))
    assert not reads(transport)
    channel.drain()
    assert reads(transport)
    channel.receive(bytes(transport.buffer_size + 1))
    assert channel.credited == 0
    transport.drain()
    assert channel.credited == transport.buffer_size + 1
    transport.peer_reset()
    assert channel.resets
    port.assert_nothing_left()


def test_another_serves_the_connection() -> None:
    port = Port()
    transport = port.connect()
    transport.receive(b"question")
    other = FakeService(port.clock)
    port.waiting.callback(other)
    transport.drain()
    assert [bytes(channel.drain()) for channel in other.channels] == [b"question"]


@pytest.mark.parametrize("problem", [ServiceAway(), Overloaded(), "parked"])
def test_when_the_connection_cannot_be_served_after_all(problem: Any) -> None:
    port = Port()
    transport = port.connect()
    other = FakeService(port.clock, None if problem == "parked" else problem)
    if problem == "parked":
        park(other)
    port.waiting.callback(other)
    transport.drain()
    assert transport.lost is not None
    assert transport.lost.check(ConnectionAborted)
    assert other.waiting == []
    port.assert_nothing_left()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_connection_that_waits_in_vain(at_once: bool) -> None:
    """It is reset, at once where too many wait."""
    port = Port()
    if at_once:
        port.service.wait = _in_vain  # type: ignore[method-assign]
    transport = port.connect()
    if not at_once:
        port.waiting.errback(ServiceAway())
    transport.drain()
    assert transport.lost is not None
    assert transport.lost.check(ConnectionAborted)
    port.assert_nothing_left()


def test_a_connection_that_ends_waits_no_more() -> None:
    port = Port()
    transport = port.connect()
    transport.peer_reset()
    assert port.waiting.called
    assert port.service.channels == []
    port.assert_nothing_left()


def test_a_connection_that_ends_in_the_turn_of_its_service() -> None:
    """It was let in a moment ago: the stream is reset, and nothing stays."""
    port = Port()
    transport = port.connect()
    port.waiting.callback(back(port.service))
    transport.peer_reset()
    (channel,) = port.service.channels
    assert channel.resets
    port.assert_nothing_left()
