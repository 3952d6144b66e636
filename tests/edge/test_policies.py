"""Policies and the access log where requests and connections come by them."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock

from srrrs.net.accept import AcceptGate
from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.relay.edge.accesslog import ConnectionEntry
from srrrs.relay.edge.gatekeeper import Gatekeeper, Policies
from srrrs.relay.edge.interfaces import ServiceAway, ServiceParked
from srrrs.relay.edge.tcp import PublicPortFactory
from srrrs.testing import FakeTransport
from tests.edge.h1kit import OK, Lab, LogRecorder, get, split
from tests.edge_fakes import VISITOR, FakeChannel, FakeService

LETS_IN = {"allow": ["0.0.0.0/0", "::/0"]}
SHUTS_OUT = {"deny": ["0.0.0.0/0", "::/0"]}


def keeper(members: dict[str, Any], kind: str = "http") -> Gatekeeper:
    policies = Policies(Clock(), lambda look: succeed(look()))
    made = policies.gatekeeper(members, kind, "site", "http://site.example")
    assert made is not None
    return made


# --- HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (None, None, 200),
        (None, LETS_IN, 200),
        (None, SHUTS_OUT, 403),
        (LETS_IN, LETS_IN, 200),
        (LETS_IN, SHUTS_OUT, 403),
        (LETS_IN, None, 200),
        ({"rate": "1/h"}, {"rate": "1/h"}, 200),
    ],
)
def test_the_policy_of_the_agent_that_came_back(before: Any, after: Any, status: int) -> None:
    """Who waited for it is let in by its policy, not by that of the agent that left; and is not
    counted twice where they are the same."""
    lab = Lab()
    lab.service.gatekeeper = before and keeper(before)
    lab.service.problem = ServiceParked(lab.service)
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    assert not visitor.sent
    other = lab.other
    other.gatekeeper = after and keeper(after)
    lab.service.waiting[0].callback(other)
    lab.settle(visitor)
    if other.channels:
        other.channels[0].receive(OK)
        lab.settle(visitor)
    assert split(bytes(visitor.sent))[0] == status
    (entry,) = lab.log.requests
    assert entry.status == status
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize("stated", [False, True])
def test_the_bound_of_bodies_of_the_agent_that_came_back(stated: bool) -> None:
    """It holds for the request that waited, too, whether its length was stated or not."""
    lab = Lab()
    lab.service.problem = ServiceParked(lab.service)
    visitor = lab.connect()
    framing = b"Content-Length: 4" if stated else b"Transfer-Encoding: chunked"
    body = b"1234" if stated else b"4\r\n1234\r\n0\r\n\r\n"
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\n%b\r\n\r\n%b" % (framing, body))
    lab.other.gatekeeper = keeper({"max_body": 3})
    lab.service.waiting[0].callback(lab.other)
    lab.settle(visitor)
    assert split(bytes(visitor.sent))[0] == 413
    visitor.peer_reset()
    lab.assert_nothing_left()


def test_an_answer_of_the_policy_keeps_the_connection() -> None:
    """The next request may be another one's, or right."""
    lab = Lab()
    lab.service.gatekeeper = keeper(SHUTS_OUT)
    visitor = lab.connect()
    visitor.receive(get() + get(host="other.example"))
    lab.settle(visitor)
    lab.other.channels[0].receive(OK)
    lab.settle(visitor)
    assert visitor.sent.startswith(b"HTTP/1.1 403 ")
    assert visitor.sent.endswith(b"answer")
    visitor.peer_reset()
    lab.assert_nothing_left()


# --- TCP ----------------------------------------------------------------------------------


class Port:
    """A public port with a service behind it, and a log."""

    def __init__(self, members: dict[str, Any] | None = None) -> None:
        self.clock = Clock()
        self.gate = AcceptGate(self.clock, visitors=1)
        self.service = FakeService(self.clock)
        self.service.gatekeeper = members and keeper(members, "ssh")
        self.log = LogRecorder()
        self.factory = PublicPortFactory(self.service, self.gate, self.log, "ssh")  # type: ignore[arg-type]

    def connect(self) -> FakeTransport:
        transport = FakeTransport(peer=VISITOR, host=IPv4Address("TCP", "192.0.2.9", 20001))
        transport.attach(self.factory.buildProtocol(VISITOR))
        return transport

    @property
    def channel(self) -> FakeChannel:
        """The latest stream."""
        return self.service.channels[-1]

    @property
    def entry(self) -> ConnectionEntry:
        """The only line of the log."""
        (entry,) = self.log.connections
        assert isinstance(entry, ConnectionEntry)
        return entry

    def over(self) -> str:
        """Why the only connection ended, now that all is over."""
        assert not self.gate._visitor_count
        assert self.gate._connections == 0
        assert not self.clock.getDelayedCalls()
        return self.entry.closed


def test_a_connection_is_logged_once_it_is_over() -> None:
    """What went by, when the first byte came, and whose it was."""
    port = Port()
    visitor = port.connect()
    visitor.receive(b"question")
    port.clock.advance(2.0)
    port.channel.receive(b"answers")
    visitor.drain()
    port.clock.advance(3.0)
    visitor.peer_half_close()
    assert port.channel.drain() == b"question"
    assert not port.log.connections
    port.channel.peer_half_close()
    visitor.drain()
    visitor.drain()
    assert port.over() == "done"
    entry = port.entry
    assert (entry.kind, entry.service, entry.token, entry.port) == ("ssh", "site", "token", 20001)
    assert (entry.received, entry.sent) == (8, 7)
    assert (entry.first_byte, entry.duration) == (2.0, 5.0)
    assert entry.visitor == VISITOR.host
    assert entry.id != "-"


def test_a_visitor_that_resets() -> None:
    port = Port()
    port.connect().peer_reset()
    port.channel.drain()
    assert port.over() == "the visitor went away"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (ResetCode.REFUSED, "the service refused"),
        (ResetCode.CANCEL, "the service broke it off"),
        (ResetCode.GONE, "the tunnel ended"),
    ],
)
def test_a_service_that_resets(code: ResetCode, why: str) -> None:
    port = Port()
    visitor = port.connect()
    port.channel.peer_resets(code)
    visitor.drain()
    assert port.over() == why


@pytest.mark.parametrize(
    ("problem", "why"), [(ServiceAway(), "no agent"), (Overloaded(), "overload")]
)
def test_no_stream_to_be_had(problem: Exception, why: str) -> None:
    port = Port()
    port.service.problem = problem
    port.connect().drain()
    assert port.over() == why
    assert port.entry.port == 20001


def test_too_many_connections_of_one_address() -> None:
    port = Port()
    first = port.connect()
    port.connect().drain()
    assert port.entry.closed == "too many connections of one address"
    first.peer_reset()
    port.channel.drain()
    assert [entry.closed for entry in port.log.connections[1:]] == ["the visitor went away"]


def test_a_visitor_whom_the_policy_turns_away() -> None:
    """Is reset, and no stream is opened."""
    port = Port(SHUTS_OUT)
    visitor = port.connect()
    visitor.drain()
    assert visitor.lost is not None
    assert visitor.lost.check(ConnectionAborted)
    assert not port.service.channels
    assert port.over() == "turned away by a policy"


@pytest.mark.parametrize("why", ["done", "turned away by a policy", "no agent", "gone"])
def test_a_visitor_who_waits(why: str) -> None:
    """One line, whatever becomes of it: served, turned away by the policy of the agent that came
    back, in vain, or gone before."""
    port = Port()
    port.service.problem = ServiceParked(port.service)
    visitor = port.connect()
    waiting = port.service.waiting[0]
    other = FakeService(port.clock)
    if why == "done":
        waiting.callback(other)
        other.channels[0].receive(b"hello")
        other.channels[0].peer_half_close()
        visitor.drain()
        visitor.peer_half_close()
        other.channels[0].drain()
        visitor.drain()
        assert port.entry.sent == 5
    elif why == "no agent":
        waiting.errback(ServiceAway())
        visitor.drain()
    elif why == "gone":
        waiting.addErrback(lambda _: None)
        visitor.peer_reset()
        why = "the visitor went away"
    else:
        other.gatekeeper = keeper(SHUTS_OUT, "ssh")
        waiting.callback(other)
        visitor.drain()
        assert not other.channels
    assert port.over() == why
