"""Requests whose bodies come slowly: in time they are served, drips are not."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from srrrs.protocol.errors import ResetCode
from srrrs.relay.edge import h2stream
from srrrs.relay.edge.exchange import BODY_STEP
from srrrs.relay.edge.h1 import HttpVisitor
from srrrs.relay.edge.interfaces import ServiceParked
from srrrs.relay.edge.site import BODY_TIMEOUT, SiteLimits
from srrrs.testing import FakeTransport
from tests.edge.h1kit import OK, Lab, split
from tests.edge.test_exchange import Keeper
from tests.edge.test_h1 import is_read
from tests.edge.test_h2 import MADE, POST, Client, Script

HEAD = b"POST / HTTP/1.1\r\nHost: site.example\r\n"
SIZED = HEAD + b"Content-Length: 10000\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EXPECTS = HEAD + b"Expect: 100-continue\r\nContent-Length: 10000\r\n\r\n"
WAIT = 10 * BODY_TIMEOUT


def begin(lab: Lab, data: bytes) -> FakeTransport:
    visitor = lab.connect()
    visitor.receive(data)
    lab.settle(visitor)
    return visitor


def said(visitor: FakeTransport) -> bytes:
    visitor.drain()
    return bytes(visitor.sent)


def leave(lab: Lab, visitor: FakeTransport) -> None:
    visitor.peer_reset()
    assert not len(lab.site.bodies)
    lab.assert_nothing_left()


@pytest.mark.parametrize("head", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_does_not_come(head: bytes, drips: bool) -> None:
    """408, and its service's connection ends, whether there is silence or a byte now and then."""
    lab = Lab()
    visitor = begin(lab, head)
    # The first byte begins the time anew.
    for _ in range(5 if drips else 4):
        assert not visitor.sent
        lab.clock.advance(BODY_TIMEOUT / 4)
        if drips:
            visitor.receive(b"1\r\nx\r\n" if head is CHUNKED else b"x")
        lab.settle(visitor)
    assert split(visitor.sent)[0] == 408
    assert lab.channel.resets == [ResetCode.CANCEL]
    (entry,) = lab.log.requests
    assert (entry.status, entry.closed) == (408, "the request came too slowly")
    leave(lab, visitor)


def test_a_slow_upload_arrives() -> None:
    """However long it takes: 1 KiB in the time is enough, and the last piece may be less."""
    lab = Lab()
    visitor = begin(lab, SIZED)
    for left in range(10_000, 0, -BODY_STEP):
        lab.clock.advance(BODY_TIMEOUT - 1)
        visitor.receive(bytes(min(left, BODY_STEP)))
        lab.settle(visitor)
    lab.clock.advance(WAIT)  # The service takes its time, too.
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 200
    leave(lab, visitor)


def test_who_is_not_read_does_not_drip() -> None:
    """A service that stops reading holds its visitor up; the time begins anew with its reading."""
    lab = Lab()
    visitor = begin(lab, SIZED.replace(b"10000", b"1000000"))
    while is_read(visitor):
        visitor.receive(bytes(16384))
    lab.clock.advance(WAIT)
    assert not said(visitor)
    lab.settle(visitor)
    assert is_read(visitor)
    lab.clock.advance(BODY_TIMEOUT - 1)
    assert not said(visitor)
    lab.clock.advance(1)
    assert said(visitor).startswith(b"HTTP/1.1 408 ")
    leave(lab, visitor)


@pytest.mark.parametrize("parked", [False, True])
def test_who_waits_to_be_let_in_does_not_drip(parked: bool) -> None:
    """For its policy, or for an agent that is away."""
    lab = Lab()
    decision: Deferred[Any] = Deferred()
    if parked:
        lab.service.problem = ServiceParked(lab.service)
    else:
        lab.service.gatekeeper = Keeper(decision)
    visitor = begin(lab, SIZED + b"x")
    lab.clock.advance(WAIT)
    assert not said(visitor)
    lab.service.problem = None
    (lab.service.waiting[0] if parked else decision).callback(lab.service if parked else None)
    lab.settle(visitor)
    lab.clock.advance(BODY_TIMEOUT)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 408
    leave(lab, visitor)


@pytest.mark.parametrize("seconds", [5.0, 0.0])
def test_how_long_is_an_option(seconds: float) -> None:
    """Of the relay; 0: a body may take as long as it takes."""
    lab = Lab(SiteLimits(body_timeout=seconds))
    visitor = begin(lab, SIZED + b"x")
    lab.clock.advance(seconds or WAIT)
    lab.settle(visitor)
    if seconds:
        assert split(visitor.sent)[0] == 408
    else:
        assert not visitor.sent
    leave(lab, visitor)


@pytest.mark.parametrize("sends", [False, True])
def test_who_waits_for_100_does_not_drip(sends: bool) -> None:
    """Its time begins as it is told to go on, or goes on by itself."""
    lab = Lab()
    visitor = begin(lab, EXPECTS)
    lab.clock.advance(WAIT)
    assert not said(visitor)
    if sends:
        visitor.receive(b"x")
    else:
        lab.channel.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
    lab.settle(visitor)
    lab.clock.advance(BODY_TIMEOUT - 1)
    assert b" 408 " not in said(visitor)
    lab.clock.advance(1)
    assert b" 408 " in said(visitor)
    leave(lab, visitor)


def test_a_conversation_is_left_alone() -> None:
    """Once the service answers, the request lasts as long as it likes."""
    lab = Lab()
    visitor = begin(lab, CHUNKED)
    lab.channel.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    lab.settle(visitor)
    lab.clock.advance(WAIT)
    visitor.receive(b"1\r\nx\r\n")
    lab.clock.advance(WAIT)
    lab.settle(visitor)
    assert visitor.connected
    assert lab.channel.sent.endswith(b"1\r\nx\r\n")
    leave(lab, visitor)


def test_an_upgraded_connection_is_left_alone() -> None:
    """Also where its request had a body."""
    lab = Lab()
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    visitor = begin(lab, HEAD + upgrade + b"Content-Length: 1\r\n\r\nx")
    switched = b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n"
    lab.channel.receive(switched)
    lab.settle(visitor)
    assert visitor.sent.startswith(b"HTTP/1.1 101 ")
    lab.clock.advance(WAIT)
    visitor.receive(b"x")
    lab.settle(visitor)
    assert visitor.connected
    assert lab.channel.sent.endswith(b"x")
    leave(lab, visitor)


def test_who_is_held_up_by_others_of_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/2: what other requests hold of the connection's window is not this one's to send."""
    monkeypatch.setattr(h2stream, "Exchange", Script)
    MADE.clear()
    client = Client()
    stream, waiting = client.ask(POST, end=False)
    assert waiting.responder.may_send()
    held = []
    while client.h2.local_flow_control_window(stream):
        other, exchange = client.ask(POST, end=False)
        exchange.responder.pause_request()
        held.append(exchange)
        while size := min(client.h2.local_flow_control_window(other), 16384):
            client.h2.send_data(other, bytes(size))
        client.turn()
    assert not waiting.responder.may_send()
    for exchange in held:
        exchange.responder.resume_request()
    client.turn()
    assert waiting.responder.may_send()
    client.transport.peer_reset()
    client.site.stop()
    assert not client.clock.getDelayedCalls()


def test_who_is_held_up_does_not_drip(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at again later, when it may send."""
    lab = Lab()
    visitor = begin(lab, SIZED)
    with monkeypatch.context() as patch:
        patch.setattr(HttpVisitor, "may_send", lambda _: False)
        lab.clock.pump([BODY_TIMEOUT] * 3)
        assert not said(visitor)
    lab.clock.advance(BODY_TIMEOUT)
    assert said(visitor).startswith(b"HTTP/1.1 408 ")
    leave(lab, visitor)
