"""HTTP proxies: which one the environment names, and the CONNECT that gets us through."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.dial import DialTarget, dial
from srrrs.net.proxy import MAX_HEAD, ConnectEndpoint, Proxy, ProxyError, proxy_for
from srrrs.protocol.handshake import Hello
from tests.mini_relay import TOKEN, MiniRelay, until


@pytest.mark.parametrize(
    ("scheme", "environ", "wanted"),
    [
        ("wss", {}, None),
        ("wss", {"https_proxy": "http://p:3128"}, Proxy("p", 3128)),
        ("wss", {"HTTPS_PROXY": "http://p:3128/"}, Proxy("p", 3128)),
        ("wss", {"https_proxy": "", "HTTPS_PROXY": "http://p:3128"}, None),
        ("wss", {"https_proxy": "p:3128"}, Proxy("p", 3128)),
        ("wss", {"https_proxy": "http://p"}, Proxy("p", 80)),
        ("wss", {"https_proxy": "http://[2001:db8::1]:8080"}, Proxy("2001:db8::1", 8080)),
        ("wss", {"http_proxy": "http://p:3128"}, None),
        ("ws", {"http_proxy": "http://p:3128"}, Proxy("p", 3128)),
        ("ws", {"https_proxy": "http://p:3128"}, None),
    ],
)
def test_the_environment_names_a_proxy(
    scheme: str, environ: dict[str, str], wanted: Proxy | None
) -> None:
    assert proxy_for(scheme, "relay.example", 443, environ) == wanted


@pytest.mark.parametrize(
    ("host", "exceptions", "excepted"),
    [
        ("relay.example", "*", True),
        ("relay.example", "relay.example", True),
        ("relay.example", "example", True),
        ("relay.example", ".example", True),
        ("relay.example", "*.example", True),
        ("relay.example", "a, b ,RELAY.example", True),
        ("relay.example", "relay.example:443", True),
        ("relay.example", "relay.example:8443", False),
        ("relay.example", "lay.example", False),
        ("relay.example", "", False),
        ("relay.example", ",", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "192.168.0.0/16,relay.example", False),
        ("10.1.2.3", "2.3", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db8::1", "[2001:db8::1]:443", True),
        ("localhost", "", True),
        ("relay.localhost", "", True),
        ("127.0.0.1", "", True),
        ("::1", "", True),
    ],
)
def test_exceptions(host: str, exceptions: str, excepted: bool) -> None:
    environ = {"https_proxy": "http://p:3128", "no_proxy": exceptions}
    assert (proxy_for("wss", host, 443, environ) is None) is excepted


@pytest.mark.parametrize(
    "value",
    ["socks5://user:hunter2@p:1080", "https://user:hunter2@p", "http://user:hunter2@", "http://[x"],
)
def test_a_proxy_that_cannot_be_used_is_a_line_without_its_password(value: str) -> None:
    with pytest.raises(ProxyError, match="HTTPS_PROXY") as caught:
        proxy_for("wss", "relay.example", 443, {"HTTPS_PROXY": value})
    assert "hunter2" not in str(caught.value)
    assert not caught.value.heals


def test_credentials_are_sent_and_never_shown() -> None:
    proxy = proxy_for("wss", "r", 443, {"https_proxy": "http://user:p%40ss@proxy:3128"})
    assert proxy is not None
    assert proxy.credentials == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert "ss" not in f"{proxy!r}{proxy}".replace("https", "").replace("class", "")
    transport, _ = answered(proxy)
    assert f"Proxy-Authorization: {proxy.credentials}\r\n".encode() in transport.sent()


# --- CONNECT


class Transport(StringTransport):
    aborted = False

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.1", 3128))  # type: ignore[no-untyped-call]

    def sent(self) -> bytes:
        return bytes(self.value())  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        self.aborted = True


@implementer(IStreamClientEndpoint)
class Wire:
    """An endpoint whose connections are made of memory."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.protocol: Any = None

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        self.protocol = protocolFactory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        done: Deferred[IProtocol] = Deferred()
        done.callback(self.protocol)
        return done


class Inner(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason


PROXY = Proxy("proxy", 3128)


def answered(proxy: Proxy = PROXY, *chunks: bytes) -> tuple[Transport, list[Any]]:
    """A connection through a proxy that said `chunks`, and what came of it."""
    wire = Wire()
    outcome: list[Any] = []
    endpoint = ConnectEndpoint(wire, proxy, "relay.example", 443)
    endpoint.connect(Factory.forProtocol(Inner)).addBoth(outcome.append)
    for chunk in chunks:
        wire.protocol.dataReceived(chunk)
    outcome.append(wire.protocol)
    return wire.transport, outcome


def test_connect_names_the_relay_and_nothing_else() -> None:
    transport, _ = answered()
    assert transport.sent() == (
        b"CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\n\r\n"
    )


@given(st.integers(0, 60))
def test_the_answer_may_come_in_any_pieces(cut: int) -> None:
    """What stands behind the head is the relay's."""
    answer = b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nhello"
    _, (inner, outer) = answered(PROXY, answer[:cut], answer[cut:])
    assert isinstance(inner, Inner)
    assert inner.data == b"hello"
    outer.dataReceived(b" there")
    outer.connectionLost(Failure(ConnectionDone()))
    assert inner.data == b"hello there"
    assert inner.lost is not None


@pytest.mark.parametrize(
    ("answer", "word", "heals"),
    [
        (b"HTTP/1.1 407 Auth\r\n\r\n", "wants a password", False),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden", True),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "502", True),
        (b"HTTP/1.1 200\r\n" + b"x" * MAX_HEAD, "too long a head", True),
        (b"220 mail ESMTP\r\n\r\n", "no HTTP proxy", False),
        (b"HTTP/1.1 abc\r\n\r\n", "no HTTP proxy", False),
    ],
)
def test_a_proxy_that_refuses(answer: bytes, word: str, heals: bool) -> None:
    transport, (failure, _) = answered(PROXY, answer)
    assert failure.check(ProxyError)
    assert word in str(failure.value)
    assert "proxy:3128" in str(failure.value)
    assert failure.value.heals is heals
    assert transport.aborted


def test_a_proxy_that_hangs_up() -> None:
    for reason in (ConnectionDone(), ConnectionLost("reset")):
        wire = Wire()
        outcome: list[Any] = []
        ConnectEndpoint(wire, PROXY, "r", 1).connect(Factory.forProtocol(Inner)).addBoth(
            outcome.append
        )
        wire.protocol.connectionLost(Failure(reason))
        assert "closed the connection" in str(outcome[0].value)


@pytest.mark.parametrize("problem", [ConnectError(111), DNSLookupError("no name")])
def test_a_proxy_that_is_not_there(problem: Exception) -> None:
    """The line names the proxy, not the relay, which nobody has reached yet."""

    @implementer(IStreamClientEndpoint)
    class Nowhere:
        def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
            return fail(problem)

    outcome: list[Any] = []
    endpoint = ConnectEndpoint(Nowhere(), PROXY, "relay.example", 443)
    endpoint.connect(Factory.forProtocol(Inner)).addBoth(outcome.append)
    assert outcome[0].check(ProxyError)
    assert str(outcome[0].value).startswith("the proxy proxy:3128 cannot be reached: ")
    assert outcome[0].value.heals


def test_giving_up_aborts_the_connection_to_the_proxy() -> None:
    wire = Wire()
    outcome: list[Any] = []
    attempt = ConnectEndpoint(wire, PROXY, "r", 1).connect(Factory.forProtocol(Inner))
    attempt.addBoth(outcome.append)
    attempt.cancel()
    assert wire.transport.aborted
    wire.protocol.dataReceived(b"HTTP/1.1 200 late\r\n\r\n")
    wire.protocol.connectionLost(Failure(ConnectionDone()))
    assert len(outcome) == 1


class Forwarder(Protocol):
    """A real proxy, as small as can be: one CONNECT, then bytes both ways."""

    def __init__(self, reactor: Any, number: int) -> None:
        self.reactor = reactor
        self.number = number
        self.head = b""
        self.other: Any = None

    def dataReceived(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
            return
        self.head += data
        if self.head.endswith(b"\r\n\r\n"):
            self.transport.pauseProducing()  # type: ignore[union-attr]
            self.reactor.connectTCP("127.0.0.1", self.number, _Far(self))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.other is not None:
            self.other.transport.loseConnection()


def _Far(near: Forwarder) -> Any:
    from twisted.internet.protocol import ClientFactory

    class Far(Protocol):
        def connectionMade(self) -> None:
            near.other = self
            near.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")  # type: ignore[union-attr]
            near.transport.resumeProducing()  # type: ignore[union-attr]

        def dataReceived(self, data: bytes) -> None:
            near.transport.write(data)  # type: ignore[union-attr]

        def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
            near.transport.loseConnection()  # type: ignore[union-attr]

    return ClientFactory.forProtocol(Far)


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_a_relay_behind_a_proxy_welcomes() -> None:
    """The proxy is asked for the relay by name: it is who looks names up."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    relay = MiniRelay(reactor)
    relay.listen()
    seen: list[Forwarder] = []

    def forwarder() -> Forwarder:
        seen.append(Forwarder(reactor, relay.number))
        return seen[-1]

    port: Any = reactor.listenTCP(0, Factory.forProtocol(forwarder), interface="127.0.0.1")
    target = DialTarget.from_url("ws://relay.invalid:8000/tunnel", insecure=True)
    environ = {"http_proxy": f"http://user:pw@127.0.0.1:{port.getHost().port}"}
    hello = Hello("0" * 32, "machine", "srrrs/0", 15.0)
    carrier, welcome = await dial(reactor, target, TOKEN, lambda _: hello, environ=environ)
    assert welcome.tunnel == "t1"
    assert seen[0].head.startswith(b"CONNECT relay.invalid:8000 HTTP/1.1\r\n")
    carrier.abort()
    await until(reactor, lambda: relay.lost)
    await relay.close()
    await port.stopListening()
