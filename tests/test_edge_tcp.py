"""A service's own public port."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock

from srrrs.net.accept import AcceptGate
from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.relay.edge.interfaces import ServiceAway
from srrrs.relay.edge.tcp import PublicPortFactory
from srrrs.testing import FakeTransport
from tests.edge_fakes import VISITOR, FakeService, end


class Port:
    """A public port with a service behind it."""

    def __init__(self, problem: Exception | None = None, **limits: int) -> None:
        self.clock = Clock()
        self.gate = AcceptGate(self.clock, **limits)
        self.service = FakeService(self.clock, problem)
        self.factory = PublicPortFactory(self.service, self.gate)

    def connect(self, peer: Any = VISITOR) -> FakeTransport:
        transport = FakeTransport(peer=peer)
        transport.attach(self.factory.buildProtocol(peer))
        return transport

    def assert_nothing_left(self) -> None:
        assert not self.gate._visitor_count
        assert self.gate._connections == 0
        assert not self.clock.getDelayedCalls()


def test_a_visitor() -> None:
    """A connection becomes a stream that knows its visitor: bytes and half-closes both ways."""
    port = Port()
    transport = port.connect()
    (channel,) = port.service.channels
    assert channel.visitor is cast(Any, VISITOR)
    assert transport.no_delay
    transport.receive(b"question")
    transport.peer_half_close()
    assert channel.drain() == b"question"
    assert channel.write_closed
    channel.receive(b"answer")
    channel.peer_half_close()
    transport.drain()
    transport.drain()
    assert transport.sent == b"answer"
    assert transport.lost is not None
    assert transport.lost.check(ConnectionDone)
    port.assert_nothing_left()


def test_the_other_side_speaks_first() -> None:
    """Nothing has to come from the visitor before the service may speak."""
    port = Port()
    transport = port.connect()
    port.service.channels[0].receive(b"SSH-2.0-x\r\n")
    assert transport.drain() == b"SSH-2.0-x\r\n"


@pytest.mark.parametrize("code", [ResetCode.REFUSED, ResetCode.GONE])
def test_a_reset_is_a_reset(code: ResetCode) -> None:
    """A stream that is reset resets the visitor's connection."""
    port = Port()
    transport = port.connect()
    port.service.channels[0].peer_resets(code)
    transport.drain()
    assert transport.lost is not None
    assert transport.lost.check(ConnectionAborted)
    port.assert_nothing_left()


@pytest.mark.parametrize("problem", [ServiceAway(), Overloaded()])
def test_no_stream(problem: Exception) -> None:
    """Where no stream can be had, the visitor's connection is reset."""
    port = Port(problem)
    transport = port.connect()
    transport.drain()
    assert transport.lost is not None
    assert transport.lost.check(ConnectionAborted)
    port.assert_nothing_left()


def test_visitors_of_one_address() -> None:
    """One address may have so many connections; beyond, they are reset, and others are not."""
    port = Port(visitors=2)
    first, second, third = port.connect(), port.connect(), port.connect()
    third.drain()
    assert third.lost is not None
    other = port.connect(IPv4Address("TCP", "192.0.2.2", 1))
    assert len(port.service.channels) == 3
    first.peer_reset()
    again = port.connect()
    assert len(port.service.channels) == 4
    for transport in (second, other, again):
        transport.peer_reset()
    port.assert_nothing_left()


def test_end() -> None:
    """A service that is done ends the connection, and nothing stays behind."""
    port = Port()
    transport = port.connect()
    (channel,) = port.service.channels
    channel.receive(b"bye")
    channel.peer_half_close()
    end(transport)
    channel.drain()
    assert transport.sent == b"bye"
    port.assert_nothing_left()
