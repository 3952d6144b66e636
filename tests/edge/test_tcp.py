"""A service's own public port."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionAborted

from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.relay.edge.interfaces import ServiceAway
from srrrs.relay.edge.tcp import PublicPortFactory
from tests.edge.kit import Site
from tests.net.kit import VISITOR, reset_code


def test_a_visitor() -> None:
    """A connection is a stream from its first byte on; the backend sees who it is."""
    site = Site()
    visitor = site.connect(PublicPortFactory(site, site.gate))
    site.settle(visitor)
    (backend,) = site.backends
    assert str(backend.transport.getPeer()) == str(VISITOR)
    # The backend may speak first, as sshd does.
    backend.transport.write(b"SSH-2.0-x\r\n")
    site.settle(visitor)
    visitor.receive(b"SSH-2.0-y\r\n")
    visitor.peer_half_close()
    site.settle(visitor)
    assert visitor.sent == b"SSH-2.0-x\r\n"
    assert backend.events == ["connectionMade", b"SSH-2.0-y\r\n", "readConnectionLost"]
    backend.transport.loseConnection()
    site.settle(visitor)
    assert not visitor.connected
    assert site.over()


def test_a_visitor_that_resets() -> None:
    site = Site()
    visitor = site.connect(PublicPortFactory(site, site.gate))
    site.settle(visitor)
    visitor.peer_reset()
    site.settle()
    assert reset_code(site.backends[0]) == ResetCode.CANCEL
    assert site.over()


def test_a_backend_that_refuses() -> None:
    """A refusal is the nearest thing that TCP has: a reset."""
    site = Site()
    visitor = site.connect(PublicPortFactory(site, site.gate))
    site.settle(visitor)
    site.backends[0].transport.reset(ResetCode.REFUSED)
    site.settle(visitor)
    assert visitor.aborted
    assert visitor.lost.check(ConnectionAborted)
    assert site.over()


@pytest.mark.parametrize("problem", [ServiceAway(), Overloaded()])
def test_no_stream_to_be_had(problem: Exception) -> None:
    """Where the agent is away, or a limit reached, the connection is reset at once."""
    site = Site()
    site.problem = problem
    visitor = site.connect(PublicPortFactory(site, site.gate))
    visitor.receive(b"x")
    visitor.drain()
    assert visitor.sent == b""
    assert not visitor.connected
    assert site.over()


def test_too_many_of_one_address() -> None:
    """Over the cap of an address its next connection is reset; then there is room again."""
    site = Site()
    factory = PublicPortFactory(site, site.gate)
    visitors = [site.connect(factory) for _ in range(4)]
    site.settle(*visitors)
    assert [visitor.connected for visitor in visitors] == [True, True, True, False]
    visitors[0].peer_reset()
    visitors.append(site.connect(factory))
    site.settle(*visitors)
    assert visitors[-1].connected
    for visitor in visitors:
        visitor.peer_reset()
    site.settle()
    assert site.over()


def test_the_tunnels_end() -> None:
    """The visitors of a tunnel that is gone are reset."""
    site = Site()
    visitor = site.connect(PublicPortFactory(site, site.gate))
    site.settle(visitor)
    site.pair.agent_carrier.cut()
    visitor.drain()
    assert not visitor.connected
    assert reset_code(site.backends[0]) == ResetCode.GONE
    assert site.clock.getDelayedCalls() == []
