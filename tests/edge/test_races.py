"""What happens in the wrong order: an exchange that is over stays over."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from srrrs.relay.edge.interfaces import ServiceParked
from tests.edge.h1kit import OK, Lab, get


class Undecided:
    """A policy that takes its time, and lets bodies be no longer than 10 bytes."""

    max_body = 10

    def __init__(self) -> None:
        self.decision: Deferred[Any] = Deferred()

    def check_request(self, fields: Any, visitor: Any) -> Deferred[Any]:
        return self.decision

    def rewrite_request(self, fields: Any) -> Any:
        return fields

    def rewrite_response(self, fields: Any) -> Any:
        return fields


POST = b"POST / HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"b\r\nhello world\r\n0\r\n\r\n", 413), (b"5\nhello\r\n0\r\n\r\n", 400)],
    ids=["too large", "malformed"],
)
@pytest.mark.parametrize("parked", [False, True])
def test_a_request_that_goes_wrong_as_it_is_let_in(body: bytes, status: int, parked: bool) -> None:
    """Its body was held back while it waited: what ends it then also ends its way to a service."""
    lab = Lab()
    policy = Undecided()
    if parked:
        lab.service.problem = ServiceParked(lab.service)
        policy.decision.callback(None)
    lab.service.gatekeeper = policy
    visitor = lab.connect()
    visitor.receive(POST + body)
    lab.settle(visitor)
    assert not visitor.sent
    if parked:
        lab.service.problem = None
        lab.service.waiting[0].callback(lab.service)
    else:
        policy.decision.callback(None)
    lab.settle(visitor)
    assert visitor.sent.startswith(b"HTTP/1.1 %d " % status)
    assert not lab.service.channels
    lab.service.gatekeeper = None
    visitor.receive(get("/next"))
    lab.settle(visitor)
    if status == 413:
        lab.channel.receive(OK)
        lab.settle(visitor)
        assert visitor.sent.endswith(b"answer")
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize("body", [b"", b"4\r\nwiki\r\n0\r\n\r\n"], ids=["none", "chunks"])
def test_a_visitor_that_half_closes_while_it_waits_gets_its_answer(body: bytes) -> None:
    """Its request is all there, although not all of it was read yet."""
    lab = Lab()
    lab.service.problem = ServiceParked(lab.service)
    visitor = lab.connect()
    visitor.receive(POST + body if body else get("/"))
    visitor.peer_half_close()
    lab.settle(visitor)
    assert visitor.lost is None
    lab.service.problem = None
    lab.service.waiting[0].callback(lab.service)
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert visitor.sent.endswith(b"answer")
    assert not visitor.connected
    lab.assert_nothing_left()


def test_a_visitor_that_half_closes_within_its_request_while_it_waits() -> None:
    """That it is not all there is seen as soon as it is read on; no service takes it for whole."""
    lab = Lab()
    lab.service.problem = ServiceParked(lab.service)
    visitor = lab.connect()
    visitor.receive(POST + b"5\r\nwi")
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.service.problem = None
    lab.service.waiting[0].callback(lab.service)
    lab.settle(visitor)
    assert not visitor.connected
    assert all(b"0\r\n\r\n" not in channel.sent for channel in lab.service.channels)
    assert all(channel.resets for channel in lab.service.channels)
    lab.assert_nothing_left()


@pytest.mark.parametrize("closed", [False, True], ids=["open", "half-closed"])
def test_a_slow_reader_that_pipelines(closed: bool) -> None:
    """What it asked next came in time, and waits for it to take the first answer: it is neither too
    slow a head, nor lost by a half-close."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/1") + get("/2"))
    lab.settle()
    body = bytes(200_000)
    lab.channel.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    lab.settle()
    if closed:
        visitor.peer_half_close()
    lab.clock.pump([1] * 30)
    assert b"/2" not in lab.channel.sent
    lab.settle(visitor)
    lab.settle(visitor)
    assert b"GET /2 " in lab.channel.sent
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert visitor.sent.endswith(b"answer")
    assert b" 408 " not in visitor.sent
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()
