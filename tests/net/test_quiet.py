"""Autobahn's handshake renders nothing for a log that goes nowhere."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from srrrs.net.websocket import AgentCarrierFactory
from srrrs.testing import FakeTransport, connect
from tests.net.test_websocket import HELLO, TOKEN, Relay, say_hello


class Unprintable:
    """Fails whoever makes a text of it."""

    def __repr__(self) -> str:
        raise AssertionError("rendered")

    __str__ = __repr__


class Portless(FakeTransport):
    """As a UNIX socket: without TCP's options."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        raise OSError("not a TCP socket")


def agents(clock: Clock) -> Any:
    return AgentCarrierFactory(clock, "ws://localhost:8000/tunnel", TOKEN, say_hello)


def test_options_are_not_rendered() -> None:
    """Both ends shake hands with options that no text can be made of, and without delays."""
    clock = Clock()
    relay, agent = Relay(clock), agents(clock)
    for factory in (relay.factory, agent):
        factory.tcpNoDelay = Unprintable()
    carrier = agent.buildProtocol(None)
    carrier.welcomed.addErrback(lambda _: None)
    connection = connect(carrier, relay.factory.buildProtocol(None))
    connection.flush()
    assert relay.hellos == [HELLO]
    assert connection.a.no_delay
    carrier.abort()
    connection.flush()


def test_a_transport_without_tcp_options() -> None:
    """The request goes out all the same."""
    carrier = agents(Clock()).buildProtocol(None)
    carrier.welcomed.addErrback(lambda _: None)
    transport = Portless()
    transport.attach(carrier)
    assert bytes(transport.drain()).startswith(b"GET /tunnel HTTP/1.1\r\n")
    transport.peer_reset()
