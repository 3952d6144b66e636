"""Before a request is routed: PROXY headers, TLS that is passed on, challenges, redirects."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from srrrs.http.head import HeadLimits, RequestHead
from srrrs.http.request import RequestReader
from srrrs.net.clienthello import INTERNAL_ERROR, UNRECOGNIZED_NAME, alert
from srrrs.net.proxyheader import write_header
from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.relay.edge.closing import LINGER
from srrrs.relay.edge.front import MAX_CHALLENGE, Front
from srrrs.relay.edge.interfaces import ServiceAway, ServiceParked
from srrrs.relay.edge.listener import EdgeFactory
from srrrs.relay.edge.site import HEAD_TIMEOUT
from srrrs.testing import FakeTransport
from tests.edge.h1kit import LogRecorder, split
from tests.edge_fakes import VISITOR, Edge, FakeChannel, FakeService, end
from tests.net.test_clienthello import hello, names, real, records

PROXY = IPv4Address("TCP", "198.51.100.7", 4000)
CDN = ("198.51.100.9", 5000)
FAR = ("203.0.113.5", 6000)
GET = b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n"
EVERY_WAY = pytest.mark.parametrize("step", [None, 1, 7])
VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def edge(trust: str = "198.51.100.0/24", local: bool = False, **limits: int) -> Edge:
    """An edge that believes some proxies."""
    made = Edge(**limits)
    made.shared.trusted = (ip_network(trust),)
    made.factory = EdgeFactory(made.shared, made.gate, made.carriers, None, local)
    return made


def send(made: Edge, data: bytes, peer: IAddress = PROXY, step: int | None = None) -> FakeTransport:
    transport = made.connect(peer)
    for at in range(0, len(data), step or len(data)):
        transport.receive(data[at : at + (step or len(data))])
    return transport


def who(channel: FakeChannel) -> Any:
    return channel.visitor


def reads(transport: FakeTransport) -> bool:
    """Whether its peer's bytes are taken."""
    return transport.reading


def asked(channel: FakeChannel) -> dict[str, str]:
    """The fields of the request that a service got."""
    return split(b"HTTP/1.1 200 " + channel.drain())[1]


# --- PROXY headers -------------------------------------------------------------------------


@EVERY_WAY
@VERSIONS
def test_a_trusted_proxy_speaks_for_its_client(version: Any, step: int | None) -> None:
    """The service is told of the client, and of nothing that the client says of itself."""
    made = edge()
    fields = b"X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-Proto: https\r\n\r\n"
    request = GET[:-2] + fields
    transport = send(made, write_header(version, FAR, None) + request, step=step)
    (channel,) = made.site.channels
    assert who(channel) == IPv4Address("TCP", *FAR)
    told = asked(channel)
    assert told["x-forwarded-for"] == FAR[0]
    assert told["x-forwarded-proto"] == "http"
    end(transport)
    transport.peer_reset()
    made.assert_nothing_left()


def test_a_proxy_behind_a_proxy() -> None:
    """Where the client is a trusted proxy by itself, what it says in its requests is believed."""
    made = edge()
    fields = b"X-Forwarded-For: 192.0.2.66, 192.0.2.77\r\nX-Forwarded-Proto: https\r\n\r\n"
    send(made, write_header("v1", CDN, None) + GET[:-2] + fields)
    told = asked(made.site.channels[0])
    assert told["x-forwarded-for"] == f"192.0.2.66, 192.0.2.77, {CDN[0]}"
    assert told["x-forwarded-proto"] == "https"


def test_a_trusted_proxy_without_a_header() -> None:
    """It speaks HTTP by itself: what it says in its requests is believed."""
    made = edge()
    send(made, GET[:-2] + b"X-Forwarded-For: 192.0.2.66\r\n\r\n")
    (channel,) = made.site.channels
    assert who(channel) == IPv4Address("TCP", "192.0.2.66", 0)
    assert asked(channel)["x-forwarded-for"] == f"192.0.2.66, {PROXY.host}"


@pytest.mark.parametrize("head", [b"PROXY UNKNOWN\r\n", write_header("v2", None, None)])
def test_a_proxy_that_does_not_say(head: bytes) -> None:
    """Then the client is nobody who is believed."""
    made = edge()
    send(made, head + GET[:-2] + b"X-Forwarded-For: 192.0.2.66\r\n\r\n")
    (channel,) = made.site.channels
    assert who(channel) == PROXY
    assert asked(channel)["x-forwarded-for"] == PROXY.host


def test_tls_that_ends_at_the_proxy() -> None:
    """A header of version 2 can say that the client came by TLS."""
    made = edge()
    header = bytearray(write_header("v2", FAR, None) + b"\x20\x00\x05\x01\x00\x00\x00\x00")
    header[14:16] = (12 + 8).to_bytes(2)
    send(made, bytes(header) + GET)
    assert asked(made.site.channels[0])["x-forwarded-proto"] == "https"


@EVERY_WAY
@VERSIONS
def test_strangers_cannot_say_who_they_are(version: Any, step: int | None) -> None:
    """A PROXY header of anybody else is a bad request."""
    made = edge()
    transport = send(made, write_header(version, FAR, None) + GET, VISITOR, step)
    transport.drain()
    assert split(bytes(transport.sent))[0] == 400
    assert not made.site.channels
    end(transport)
    made.assert_nothing_left()


def test_a_bad_header() -> None:
    """It is answered with 400, for whoever looks what is wrong with the proxy."""
    made = edge()
    transport = send(made, b"PROXY TCP4 1.2.3.4\r\n" + GET)
    transport.drain()
    assert split(bytes(transport.sent))[0] == 400
    end(transport)
    made.assert_nothing_left()


@pytest.mark.parametrize("begun", [b"", b"PRO", b"\r\n\r\n\0", records(real()[5:])[:30]])
def test_half_a_beginning(begun: bytes) -> None:
    """A header or ClientHello that does not get ready ends at the deadline of heads."""
    made = edge()
    transport = made.connect(PROXY)
    transport.receive(begun)
    made.clock.advance(HEAD_TIMEOUT)
    transport.drain()
    assert transport.sent == b""
    transport.drain()
    assert not transport.connected
    made.assert_nothing_left()


def test_limits_count_whom_the_proxy_speaks_for() -> None:
    """Clients of a proxy are limited one by one, and the proxy itself is not."""
    made = edge(visitors=1)
    header = write_header("v1", FAR, None)
    send(made, header + GET)
    refused = send(made, header + GET)
    refused.drain()
    assert split(bytes(refused.sent))[0] == 429
    send(made, write_header("v1", ("203.0.113.6", 1), None) + GET)
    for _ in range(3):
        send(made, GET)
    assert len(made.site.channels) == 5


def test_a_local_proxy() -> None:
    """Who comes by a UNIX socket is believed where that is wanted."""
    for local in (False, True):
        made = edge(local=local)
        transport = send(made, write_header("v1", FAR, None) + GET, UNIXAddress(None))
        transport.drain()
        assert bool(made.site.channels) is local
        assert bool(transport.sent) is not local


def test_an_agent_behind_a_proxy() -> None:
    """Its own address is the one that counts, and is told to what goes on."""
    made = edge()
    request = (
        b"GET /tunnel HTTP/1.1\r\nHost: relay.example\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n"
    )
    send(made, write_header("v2", FAR, None) + request)
    told = request[:-2] + b"X-Forwarded-For: 192.0.2.66\r\n\r\n"
    send(made, told)
    for carrier, data, expected in zip(
        made.carriers.made, (request, told), (FAR, ("192.0.2.66", 0)), strict=True
    ):
        assert carrier.data == data
        visitor: Any = carrier.visitor  # type: ignore[attr-defined]
        assert visitor == IPv4Address("TCP", *expected)


# --- TLS that is passed on -----------------------------------------------------------------


def passing(problem: Exception | None = None) -> tuple[Edge, FakeService]:
    made = edge()
    service = made.routes.tls["site.example"] = FakeService(made.clock, problem)
    return made, service


@EVERY_WAY
def test_tls_is_passed_on(step: int | None) -> None:
    """Every byte from the first on, in both directions; the name decides, in any case."""
    made, service = passing()
    data = real(b"SITE.example") + b"more"
    transport = send(made, data, VISITOR, step)
    (channel,) = service.channels
    assert channel.drain() == data
    assert who(channel) is VISITOR
    assert service.outstanding == 1
    channel.receive(b"\x16\x03\x03")
    assert transport.drain() == b"\x16\x03\x03"
    transport.receive(b"end")
    assert channel.drain() == b"end"
    transport.peer_half_close()
    channel.drain()
    channel.peer_half_close()
    transport.drain()
    transport.drain()
    assert not transport.connected
    assert not service.outstanding
    made.assert_nothing_left()


@pytest.mark.parametrize(
    "data",
    [
        real(b"other.example"),
        real(None),
        records(hello(names((0, b"a.example"), (0, b"site.example")))),
        b"\x16\x02\x00\x00\x00",
    ],
)
def test_names_that_nobody_has(data: bytes) -> None:
    """Where no TLS is ended either, the client learns that it is the name."""
    made, service = passing()
    transport = send(made, data, VISITOR)
    transport.drain()
    assert transport.sent == alert(UNRECOGNIZED_NAME)
    assert not service.channels
    made.clock.advance(LINGER)
    transport.drain()
    assert not transport.connected
    made.assert_nothing_left()


@pytest.mark.parametrize("problem", [ServiceAway(), Overloaded()])
def test_a_service_that_is_not_there(problem: Exception) -> None:
    """The client is told that it is our fault, and no request counts."""
    made, service = passing(problem)
    made.shared.access_log = log = LogRecorder()  # type: ignore[assignment]
    transport = send(made, real(), VISITOR)
    transport.drain()
    assert transport.sent == alert(INTERNAL_ERROR)
    assert not service.outstanding
    end(transport)
    made.assert_nothing_left()
    (entry,) = log.connections
    assert (entry.kind, entry.host, entry.visitor) == ("tls", "site.example", VISITOR.host)
    assert entry.closed != "done"


@pytest.mark.parametrize("log", [False, True])
def test_a_service_that_gives_no_answer(log: bool) -> None:
    """It is told, so that of several another is picked; one that has answered is not."""
    made, service = passing()
    if log:
        made.shared.access_log = LogRecorder()  # type: ignore[assignment]
    for answered in (False, True):
        transport = send(made, real(), VISITOR)
        channel = service.channels[-1]
        if answered:
            channel.receive(b"x")
        channel.peer_resets(ResetCode.REFUSED)
        transport.drain()
        assert not transport.connected
        assert service.failures == 1


@pytest.mark.parametrize("outcome", ["served", "in vain", "visitor gone"])
def test_waiting_for_an_agent(outcome: str) -> None:
    """A visitor waits, unread, for an agent whose connection broke."""
    made, service = passing()
    parked = FakeService(made.clock)
    service.problem = ServiceParked(parked)
    data = real()
    transport = send(made, data, VISITOR)
    (wait,) = parked.waiting
    assert isinstance(wait, Deferred)
    assert not reads(transport)
    if outcome == "served":
        wait.callback(parked)
        assert reads(transport)
        (channel,) = parked.channels
        assert channel.drain() == data
        transport.peer_reset()
        assert channel.resets == [ResetCode.CANCEL]
    elif outcome == "in vain":
        wait.errback(ServiceAway())
        transport.drain()
        assert transport.sent == alert(INTERNAL_ERROR)
        end(transport)
    else:
        transport.peer_reset()
    assert not parked.outstanding
    made.assert_nothing_left()


def test_a_visitor_whom_a_policy_turns_away() -> None:
    """It gets an alert, and no stream."""
    made, service = passing()

    class Keeper:
        def check_connection(self, visitor: IAddress) -> bool:
            return getattr(visitor, "host", None) != FAR[0]

    service.gatekeeper = Keeper()
    transport = send(made, write_header("v2", FAR, None) + real())
    transport.drain()
    assert transport.sent == alert(49)
    send(made, write_header("v2", CDN, None) + real())
    assert [channel.visitor for channel in service.channels] == [IPv4Address("TCP", *CDN)]


def test_too_many_of_one_address() -> None:
    """They are cut off, for there is nothing that could be said."""
    made, service = passing()
    made.gate._visitors = 1
    send(made, real(), VISITOR)
    second = send(made, real(), VISITOR)
    second.drain()
    assert not second.connected
    assert len(service.channels) == 1


def test_a_passed_on_connection_is_logged() -> None:
    """With its name, bytes and end."""
    made, service = passing()
    made.shared.access_log = log = LogRecorder()  # type: ignore[assignment]
    data = real()
    transport = send(made, data, VISITOR)
    (channel,) = service.channels
    channel.receive(b"1234")
    transport.peer_reset()
    (entry,) = log.connections
    assert (entry.kind, entry.host, entry.sent) == ("tls", "site.example", 4)
    assert entry.received == len(data)


# --- challenges, and the way to HTTPS ------------------------------------------------------


def head(target: str, method: str = "GET", host: str = "site.example:8000") -> RequestHead:
    reader = RequestReader(HeadLimits())
    reader.feed(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    found = reader.next()
    assert isinstance(found, RequestHead)
    return found


@pytest.mark.parametrize(
    ("host", "port", "target", "expected"),
    [
        ("site.example", None, "/a?b=c&%20", "https://site.example/a?b=c&%20"),
        ("SITE.example:80", 443, "/", "https://site.example/"),
        ("site.example:80", 8443, "/", "https://site.example:8443/"),
        ("[2001:db8::1]", 8443, "/", "https://[2001:db8::1]:8443/"),
        ("site.example", None, "//evil.example/", "https://site.example//evil.example/"),
    ],
)
def test_the_way_to_https(host: str, port: int | None, target: str, expected: str) -> None:
    """To the same host and target, wherever HTTPS is."""
    front = Front(https_redirect=True)
    front.https_port = port
    answer = front.answer(head(target, host=host), secure=False)
    assert answer is not None
    assert answer.status == 308
    assert (b"location", expected.encode()) in answer.fields


def test_who_is_not_sent_to_https() -> None:
    """Who is there already; authorities, who ask by HTTP; and nobody, unless that is wanted."""
    front = Front(https_redirect=True)
    assert front.answer(head("/"), secure=True) is None
    assert front.answer(head("*", "OPTIONS"), secure=False) is None
    assert front.answer(head("/.well-known/acme-challenge/x"), secure=False) is None
    assert Front().answer(head("/"), secure=False) is None


def test_challenges(tmp_path: Path) -> None:
    """A file that a client of ACME has put there, and nothing else of the folder or beyond."""
    folder = tmp_path / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (folder / "t0-ken_").write_bytes(b"t0-ken_.print")
    (folder / "large").write_bytes(bytes(MAX_CHALLENGE + 1))
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    (tmp_path / "secret").write_text("x")
    front = Front(webroot=tmp_path, https_redirect=True)

    def ask(name: str, method: str = "GET", secure: bool = False) -> bytes | None:
        answer = front.answer(head(f"/.well-known/acme-challenge/{name}", method), secure)
        return None if answer is None else answer.body

    assert ask("t0-ken_") == ask("t0-ken_?x") == ask("t0-ken_", secure=True) == b"t0-ken_.print"
    assert ask("t0-ken_", "HEAD") == b"t0-ken_.print"
    for name in ("", ".", "..", "../../secret", "%2e%2e", "large", "folder", "link", "pipe", "no"):
        assert ask(name) is None
    assert ask("t0-ken_", "POST") is None
    assert Front().answer(head("/.well-known/acme-challenge/t0-ken_"), False) is None


def test_strict_transport_security() -> None:
    """Said where the service does not say it by itself."""
    fields = [(b"server", b"x")]
    Front(hsts=86400).add_hsts(fields)
    assert fields == [(b"server", b"x"), (b"strict-transport-security", b"max-age=86400")]
    Front(hsts=1).add_hsts(fields)
    assert len(fields) == 2
    none: list[tuple[bytes, bytes]] = []
    Front().add_hsts(none)
    assert not none
