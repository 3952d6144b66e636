"""Which relay an agent dials, and where it lets a relay send it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from srrrs.agent.edges import PROBE_WITHIN, Edge, EdgeRefused, Edges, destination
from srrrs.net.dial import DialError, DialTarget, measure, unheard
from srrrs.protocol.handshake import Hello
from tests.agent_fakes import WELCOME, FakeCarrier

A, B, C = (f"wss://{each}.example/tunnel" for each in "abc")


class Relays:
    """Three relays that answer when the test says so."""

    def __init__(self, *probed: str) -> None:
        self.clock = Clock()
        self.probes: dict[str, Deferred[float]] = {}
        self.dials: list[tuple[str, Deferred[Any]]] = []
        own = [self.edge(url, url in probed) for url in (A, B, C)]
        self.edges = Edges(self.clock, own, self.told)

    def edge(self, url: str, probed: bool) -> Edge:
        def dial(
            token: str, make_hello: Callable[[str], Hello], answered: Callable[[], None]
        ) -> Deferred[Any]:
            self.dials.append((url, Deferred()))
            return self.dials[-1][1]

        def probe() -> Deferred[float]:
            self.probes[url] = Deferred()
            return self.probes[url]

        return Edge(url, dial, probe if probed else None)

    def told(self, url: str, current: Edge) -> Edge:
        if "evil" in url:
            raise EdgeRefused("evil")
        return self.edge(url, False)

    def dial(self, sequence: list[Edge] | None = None) -> Deferred[Any]:
        hello = Hello("0" * 32, "x", "srrrs/0", 15.0)
        return Deferred.fromCoroutine(self.edges.dial("secret", lambda _: hello, unheard, sequence))

    @property
    def dialled(self) -> list[str]:
        return [url for url, _ in self.dials]

    def fail(self, message: str = "refused", heals: bool = True) -> None:
        self.dials[-1][1].errback(DialError(message, heals))


def test_the_nearest_is_dialled_first() -> None:
    relays = Relays(A, B, C)
    result: list[Any] = []
    relays.dial().addCallback(result.append)
    assert relays.dialled == []
    relays.probes[A].callback(0.080)
    relays.probes[C].callback(0.020)
    relays.probes[B].callback(0.030)
    relays.fail()
    relays.fail()
    carrier = FakeCarrier()
    relays.dials[-1][1].callback((carrier, WELCOME))
    assert relays.dialled == [C, B, A]
    edge, *answer = result[0]
    assert edge.url == A
    assert answer == [carrier, WELCOME]


def test_who_does_not_answer_a_probe_in_time_comes_last() -> None:
    relays = Relays(A, B, C)
    outcome: list[Any] = []
    relays.dial().addErrback(lambda failure: outcome.append(failure.value))
    relays.probes[C].callback(0.2)
    relays.probes[A].errback(OSError("refused"))
    relays.clock.advance(PROBE_WITHIN)
    for _ in range(3):
        relays.fail()
    assert relays.dialled == [C, A, B]
    assert isinstance(outcome[0], DialError)


def test_without_measures_the_given_order_counts() -> None:
    relays = Relays()
    relays.dial().addErrback(lambda failure: failure.trap(DialError))
    for _ in range(3):
        relays.fail()
    assert relays.dialled == [A, B, C]


@pytest.mark.parametrize(("last", "heals"), [(True, True), (False, False)])
def test_what_all_said_is_told_and_whether_any_of_it_heals(last: bool, heals: bool) -> None:
    relays = Relays()
    problems: list[Any] = []
    relays.dial().addErrback(lambda failure: problems.append(failure.value))
    relays.fail("a is no relay", False)
    relays.fail("b is no relay", False)
    relays.fail("c refuses", last)
    assert str(problems[0]) == "a is no relay; b is no relay; c refuses"
    assert problems[0].heals is heals


def test_giving_up_ends_the_probes_and_the_dial() -> None:
    relays = Relays(A)
    dialling = relays.dial()
    dialling.addErrback(lambda failure: failure.trap(CancelledError))
    dialling.cancel()
    relays.probes[A].addErrback(lambda failure: failure)
    assert relays.probes[A].called
    assert relays.clock.getDelayedCalls() == []
    second = Relays()
    dialling = second.dial()
    dialling.addErrback(lambda failure: failure.trap(CancelledError))
    dialling.cancel()
    assert second.dialled == [A]


def test_from_a_relay_that_goes_away_to_where_it_says_then_to_the_others() -> None:
    relays = Relays()
    current = relays.edges.first
    told = "wss://x.a.example/tunnel"
    assert [each.url for each in relays.edges.beyond(current, told)] == [told, B, C]
    assert [each.url for each in relays.edges.beyond(current, None)] == [B, C]
    assert [each.url for each in relays.edges.beyond(current, C)] == [C, B]
    assert [each.url for each in relays.edges.beyond(current, "wss://evil/")] == [B, C]


def test_an_agent_needs_a_relay() -> None:
    with pytest.raises(ValueError, match="needs a relay"):
        Edges(Clock(), [])


# --- where a relay may send an agent


def targets(*urls: str) -> list[DialTarget]:
    return [
        DialTarget.from_url(url, ca_file=Path("/ca.pem"), pin="ab" * 32, insecure=True)
        for url in urls
    ]


@pytest.mark.parametrize(
    "url",
    [
        "wss://relay.example/tunnel",
        "wss://relay.example:8443/other",
        "wss://b.relay.example/",
        "wss://B.Relay.Example./",
        "wss://x.y.other.example",
        "wss://10.0.0.1:444/tunnel",
    ],
)
def test_hosts_of_its_own_edge_urls_and_what_is_under_them(url: str) -> None:
    """Under the same CA and pin."""
    own = targets("wss://relay.example", "wss://other.example", "wss://10.0.0.1")
    found = destination(url, own[0], own)
    assert found.scheme == "wss"
    assert (found.ca_file, found.pin) == (own[0].ca_file, own[0].pin)


@pytest.mark.parametrize(
    "url",
    [
        "wss://example/tunnel",
        "wss://evilrelay.example/tunnel",
        "wss://relay.example.evil/tunnel",
        "wss://relay.example@evil/tunnel",
        "wss://evil/relay.example",
        "wss://x.10.0.0.1/",
        "ws://relay.example/tunnel",
        "ws://b.relay.example/tunnel",
        "https://relay.example/tunnel",
        "wss://relay.example/\r\nX: y",
        "wss://",
        "",
    ],
)
def test_nowhere_else_and_not_without_encryption(url: str) -> None:
    own = targets("wss://relay.example", "wss://10.0.0.1")
    with pytest.raises(EdgeRefused):
        destination(url, own[0], own)


def test_never_from_wss_to_ws() -> None:
    """Not even to a host that the agent itself would dial without encryption; from there, and
    only there, it may go on without."""
    own = targets("wss://relay.example", "ws://plain.example")
    with pytest.raises(EdgeRefused, match="without encryption"):
        destination("ws://plain.example/tunnel", own[0], own)
    assert destination("ws://b.plain.example", own[1], own).scheme == "ws"
    assert destination("wss://b.relay.example", own[1], own).scheme == "wss"
    both = targets("ws://relay.example", "wss://relay.example")
    with pytest.raises(EdgeRefused, match="without encryption"):
        destination("ws://relay.example", both[0], both)


# --- how far away a relay is


def test_a_measure_is_the_time_of_a_tcp_connection() -> None:
    """The shorter of two, as the first may have had to look up the name."""
    reactor = MemoryReactorClock()
    target = DialTarget.from_url("wss://10.0.0.1:444")
    took: list[float] = []
    measure(reactor, target, 5.0, {}).addCallback(took.append)
    for number, seconds in enumerate((0.5, 0.02)):
        _, port, factory, *_ = reactor.tcpClients[number]
        assert port == 444
        reactor.advance(seconds)
        _connect(factory)
    assert took == [pytest.approx(0.02)]
    reactor.advance(60)
    assert len(reactor.tcpClients) == 2


def test_behind_a_proxy_nothing_is_measured() -> None:
    reactor = MemoryReactorClock()
    problems: list[Any] = []
    target = DialTarget.from_url("wss://10.0.0.1")
    environ = {"https_proxy": "http://proxy.example:3128"}
    measure(reactor, target, 5.0, environ).addErrback(problems.append)
    assert problems[0].check(DialError)
    assert reactor.tcpClients == []


def _connect(factory: Any) -> None:
    from twisted.internet.testing import StringTransport

    factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 444)).makeConnection(StringTransport())
