"""What a connection is found to be, and that whoever goes on with it gets all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from srrrs.net.selfsigned import ServerIdentity
from srrrs.protocol.errors import ResetCode
from srrrs.relay.edge import doorstep
from srrrs.relay.edge.closing import LINGER
from srrrs.relay.edge.doorstep import TURN_TIMEOUT
from srrrs.testing import FakeTransport
from tests.edge_fakes import VISITOR, Edge, FakeService, end

REQUEST = b"GET /x HTTP/1.1\r\nHost: site.example\r\n\r\n"
AGENT = (
    b"GET /tunnel HTTP/1.1\r\nHost: relay.example:8000\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nAuthorization: Bearer s3cret\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVERY_WAY = pytest.mark.parametrize("step", [None, 1, 7])


def status(transport: FakeTransport) -> int:
    """The status of the page that was sent."""
    transport.drain()
    head, _, _ = bytes(transport.sent).partition(b"\r\n\r\n")
    assert b"\r\ncache-control: no-store" in head
    assert b"\r\nx-content-type-options: nosniff" in head
    assert b"\r\ncontent-security-policy: default-src 'none'" in head
    return int(head.split(b" ")[1])


def reads(transport: FakeTransport) -> bool:
    """Whether its peer's bytes are taken."""
    return transport.reading


# --- handing over --------------------------------------------------------------------------


@EVERY_WAY
def test_an_agent(step: int | None) -> None:
    """An agent's head goes to the carrier, whole, and whatever followed; then no byte comes by."""
    edge = Edge()
    transport = edge.ask(AGENT + b"more", step)
    (carrier,) = edge.carriers.made
    assert carrier.data == AGENT + b"more"
    assert carrier.transport is cast(Any, transport)
    transport.receive(b"and more")
    assert carrier.data == AGENT + b"moreand more"
    protocol: Any = transport.protocol
    assert protocol is not carrier
    assert protocol.dataReceived == carrier.dataReceived
    carrier.handshake_over()
    transport.peer_reset()
    assert carrier.lost is not None
    assert carrier.lost.check(ConnectionLost)
    edge.assert_nothing_left()


@EVERY_WAY
def test_a_visitor(step: int | None) -> None:
    """A visitor's first request goes to its service, and so does the next, wherever that is."""
    edge = Edge()
    other = edge.routes.services["other.example"] = FakeService(edge.clock)
    transport = edge.ask(REQUEST + REQUEST.replace(b"site", b"other"), step)
    (channel,) = edge.site.channels
    assert channel.drain().startswith(b"GET /x HTTP/1.1\r\nhost: site.example\r\n")
    assert channel.visitor is cast(Any, VISITOR)
    channel.receive(OK)
    assert transport.drain().startswith(b"HTTP/1.1 200 OK\r\n")
    (channel,) = other.channels
    assert channel.drain().startswith(b"GET /x HTTP/1.1\r\nhost: other.example\r\n")
    channel.receive(OK)
    assert transport.drain().startswith(b"HTTP/1.1 200 OK\r\n")
    end(transport)
    channel.drain()
    edge.assert_nothing_left()


def test_a_visitor_that_breaks_off() -> None:
    """A broken connection resets the stream."""
    edge = Edge()
    transport = edge.ask(REQUEST)
    transport.peer_reset()
    assert edge.site.channels[0].resets == [ResetCode.CANCEL]
    edge.assert_nothing_left()


def test_end_of_an_agent() -> None:
    """A carrier, which knows no half-close, ends when its peer sends no more."""
    edge = Edge()
    transport = edge.ask(AGENT)
    transport.peer_half_close()
    (carrier,) = edge.carriers.made
    assert carrier.lost is not None
    assert carrier.lost.check(ConnectionDone)
    edge.assert_nothing_left()


# --- routing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["site.example", "SITE.Example", "site.example.", "site.example:80"]
)
def test_one_name_many_spellings(host: str) -> None:
    """However a host is spelt, it is looked up in one form."""
    edge = Edge()
    edge.ask(b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n")
    assert edge.routes.asked == ["site.example"]
    assert len(edge.site.channels) == 1


@pytest.mark.parametrize(
    "host", ["relay.example", "RELAY.example.:1", "192.0.2.9", "[2001:db8::9]"]
)
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"GET /x HTTP/1.1", b"GET /tunnel?x HTTP/1.1"])
def test_the_control_host_is_never_a_tenants(host: str, line: bytes) -> None:
    """Whatever is asked of the control host, no service is looked for."""
    edge = Edge()
    transport = edge.ask(line + b"\r\nHost: " + host.encode() + b"\r\n\r\n")
    assert status(transport) == (200 if b" / " in line else 404)
    assert edge.routes.asked == []
    assert edge.carriers.made == []


@pytest.mark.parametrize(
    ("request_head", "expected"),
    [
        (AGENT.replace(b"/tunnel", b"/tunnel?redirect=http://x.example"), 404),
        (AGENT.replace(b"/tunnel", b"/tunnel/"), 404),
        (AGENT.replace(b"/tunnel", b"http://relay.example:8000/tunnel"), 400),
        (b"\r\n" + AGENT, 400),
        (AGENT.replace(b"GET", b"POST"), 405),
        (AGENT.replace(b"Upgrade: websocket\r\n", b""), 426),
        (AGENT.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer x\r\n\r\n"), 400),
        (AGENT.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"), 400),
        (AGENT.replace(b"s3cret", b"x\x85Sec-WebSocket-Key: y"), 400),
        (AGENT.replace(b"Host: ", b"Host: site.example\r\nHost: "), 400),
    ],
)
def test_heads_that_the_carrier_never_sees(request_head: bytes, expected: int) -> None:
    """Only a plain, unambiguous request for the tunnel goes to the WebSocket library."""
    edge = Edge()
    transport = edge.ask(request_head)
    assert status(transport) == expected
    assert b"s3cret" not in transport.sent
    assert edge.carriers.made == []


def test_before_the_relay_is_ready() -> None:
    """A visitor that comes before there are routes is told to come again."""
    edge = Edge()
    edge.shared.routes = None
    assert status(edge.ask(REQUEST)) == 503


# --- bad input and deadlines ---------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2000, 431),
        (b"GET /" + b"x" * 2000, 431),
    ],
)
def test_bad_input(data: bytes, expected: int, step: int | None) -> None:
    """What cannot be served is answered at once and ends; nobody else notices."""
    edge = Edge()
    transport = edge.ask(data, step)
    assert status(transport) == expected
    assert edge.routes.asked == []
    end(transport)
    edge.assert_nothing_left()


def test_a_head_may_have_the_cap_exactly() -> None:
    """The cap counts the head alone, not what follows it."""
    edge = Edge(head_bytes=len(REQUEST))
    edge.ask(REQUEST + b"x" * 5000)
    assert len(edge.site.channels) == 1
    edge = Edge(head_bytes=len(REQUEST) - 1)
    assert status(edge.ask(REQUEST)) == 431


def test_a_slow_head() -> None:
    """A head that is not there in time is answered with 408, whatever trickles in."""
    edge = Edge()
    transport = edge.connect()
    for byte in REQUEST[:9]:
        transport.receive(bytes([byte]))
        edge.clock.advance(1)
    assert transport.drain() == b""
    edge.clock.advance(1)
    assert status(transport) == 408
    end(transport)
    edge.assert_nothing_left()


def test_silence() -> None:
    """A connection on which nothing was asked is closed without an answer."""
    edge = Edge()
    transport = edge.connect()
    edge.clock.advance(10)
    transport.drain()
    assert transport.sent == b""
    assert transport.lost is not None
    assert transport.lost.check(ConnectionDone)
    edge.assert_nothing_left()


def test_no_clock_after_the_head() -> None:
    """Once a connection is handed over, the edge puts no time limit on it."""
    edge = Edge()
    visitor, agent = edge.ask(REQUEST), edge.ask(AGENT)
    assert not edge.clock.getDelayedCalls()
    edge.clock.advance(1_000_000)
    assert visitor.connected
    assert agent.connected


def test_a_page_that_nobody_takes() -> None:
    """A visitor that neither reads nor closes is cut off."""
    edge = Edge()
    transport = edge.ask(b"GET / HTTP/1.1\r\n\r\n")
    transport.receive(b"x" * 1000)
    edge.clock.advance(LINGER)
    transport.drain()
    assert transport.lost is not None
    assert transport.lost.check(ConnectionAborted)
    edge.assert_nothing_left()


def test_pages_inside_tls() -> None:
    """On TLS, which has no half-close, a page is sent and the connection closed."""
    edge = Edge()
    transport = edge.ask(b"GET / HTTP/1.1\r\n\r\n", tls=True)
    assert status(transport) == 400
    transport.drain()
    assert not transport.connected
    edge.assert_nothing_left()


def test_no_tls_inside_tls(tmp_path: Path) -> None:
    """Inside TLS a byte that would begin TLS is no more than a bad request."""
    edge = Edge(tls=ServerIdentity.self_signed(tmp_path, "example").context)
    assert status(edge.ask(b"\x16\x03\x01", tls=True)) == 400


def test_end_in_the_middle_of_a_head() -> None:
    """A visitor that leaves before it has asked is let go."""
    edge = Edge()
    transport = edge.ask(REQUEST[:20])
    end(transport)
    assert transport.lost is not None
    edge.assert_nothing_left()


# --- limits ---------------------------------------------------------------------------------


def test_visitors_of_one_address() -> None:
    """An address may have so many visitors' connections; others, and UNIX sockets, are as free as
    before, and one that ends makes room."""
    edge = Edge(visitors=2)
    first = edge.ask(REQUEST)
    edge.ask(REQUEST)
    assert status(edge.ask(REQUEST)) == 429
    for other in (IPv4Address("TCP", "192.0.2.2", 1), *[UNIXAddress(None)] * 3):
        edge.connect(other).receive(REQUEST)
    assert len(edge.site.channels) == 6
    first.peer_reset()
    edge.ask(REQUEST)
    assert len(edge.site.channels) == 7


def agents(edge: Edge, count: int, peer: Any = VISITOR) -> list[FakeTransport]:
    transports = [edge.connect(peer) for _ in range(count)]
    for transport in transports:
        transport.receive(AGENT)
    return transports


def test_handshakes_wait_their_turn() -> None:
    """Agents beyond an address's share are not read, and none is refused: each has its turn, with
    all of its bytes, and its clock starts then."""
    edge = Edge(per_address=2)
    transports = agents(edge, 6)
    assert len(edge.carriers.made) == 2
    for transport in transports[2:]:
        assert not reads(transport)
        transport.receive(b"hello")
    edge.clock.advance(30)
    for number in range(2, 6):
        edge.carriers.made[number - 2].handshake_over()
        assert len(edge.carriers.made) == number + 1
        transports[number].drain()
        assert edge.carriers.made[number].data == AGENT + b"hello"
    assert not any(transport.sent for transport in transports)
    for transport in transports:
        transport.peer_reset()
    edge.assert_nothing_left()


def test_a_fleet_behind_one_address() -> None:
    """A fleet behind one address is slowed, never refused, and nobody waits for ever."""
    edge = Edge(handshakes=256, per_address=128)
    transports = agents(edge, 1_000)
    done = 0
    while done < len(edge.carriers.made):
        edge.carriers.made[done].handshake_over()
        done += 1
    assert done == 1_000
    assert all(carrier.data == AGENT for carrier in edge.carriers.made)
    for transport in transports:
        transport.peer_reset()
    edge.assert_nothing_left()


def test_agents_that_leave_while_they_wait() -> None:
    """Who leaves while waiting, or during the handshake, makes room for the next."""
    edge = Edge(per_address=1)
    first, second, third = agents(edge, 3)
    second.peer_reset()
    assert len(edge.carriers.made) == 1
    first.peer_reset()
    assert len(edge.carriers.made) == 2
    third.peer_reset()
    edge.assert_nothing_left()


def test_nothing_is_spent_on_who_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that hung up unnoticed while it waited is dropped, and the next has its turn."""
    edge = Edge(per_address=1)
    first, second, third = agents(edge, 3)
    monkeypatch.setattr(doorstep, "hung_up", lambda transport: transport is second)
    edge.carriers.made[0].handshake_over()
    second.drain()
    assert second.lost is not None
    assert len(edge.carriers.made) == 2
    third.drain()
    assert edge.carriers.made[1].data == AGENT
    for transport in (first, third):
        transport.peer_reset()
    edge.assert_nothing_left()


def test_a_listener_with_tls_of_its_own() -> None:
    """Connections beyond an address's share are not read before their turn: their handshakes have
    not begun, and their clocks start when they do."""
    edge = Edge(per_address=1)
    first, second = edge.connect(tls=True), edge.connect(tls=True)
    assert reads(first)
    assert not reads(second)
    edge.clock.advance(9)
    connection: Any = first.protocol
    connection.handshakeCompleted()
    assert reads(second)
    edge.clock.advance(9)
    assert first.disconnecting
    assert second.connected
    assert not second.disconnecting
    second.receive(REQUEST)
    assert len(edge.site.channels) == 1
    for transport in (first, second):
        transport.peer_reset()


def test_waiting_ends() -> None:
    """A connection whose turn does not come is not kept for ever."""
    edge = Edge(per_address=1)
    first, second = agents(edge, 2)
    edge.clock.advance(TURN_TIMEOUT)
    second.drain()
    assert second.lost is not None
    assert first.connected
    first.peer_reset()
    edge.assert_nothing_left()


def test_visitors_do_not_wait_for_agents() -> None:
    """A visitor from an address whose agents queue up is served at once."""
    edge = Edge(handshakes=1, per_address=1)
    agents(edge, 5)
    edge.ask(REQUEST)
    assert len(edge.site.channels) == 1


def test_ending_all() -> None:
    """When the relay stops, whatever is left is cut, wherever it stands."""
    edge = Edge(per_address=1)
    transports = [edge.connect(), edge.ask(REQUEST), *agents(edge, 2)]
    for connection in list(edge.factory.connections):
        connection.abort()
    for transport in transports:
        transport.drain()
        assert transport.lost is not None
    edge.assert_nothing_left()


_PIECES = st.sampled_from(
    [
        REQUEST,
        AGENT,
        b"GET / HTTP/1.1\r\n",
        b"Host: ",
        b"site.example",
        b"\r\n",
        b"\r\n\r\n",
        b"\x16",
    ]
)


@given(st.lists(st.one_of(_PIECES, st.binary(max_size=20))), st.integers(1, 40))
def test_anything_in_any_parts(pieces: list[bytes], step: int) -> None:
    """Whatever arrives, in whatever parts, the same becomes of it, and nothing is left."""
    data = b"".join(pieces)
    stories = []
    for size in (None, step) if data else ():
        edge = Edge()
        transport = edge.ask(data, size)
        edge.clock.advance(10)
        transport.drain()
        first = bytes(transport.sent).partition(b"\r\n")[0]
        stories.append((first, [carrier.data for carrier in edge.carriers.made]))
        transport.peer_reset()
        edge.assert_nothing_left()
    assert stories[1:] == stories[:-1]
