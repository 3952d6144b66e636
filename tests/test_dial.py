"""Dialling: every failure is one clear line, and says whether waiting may help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.dial import TURN, DialError, DialTarget, Taken, dial, explain, unknown
from srrrs.net.proxy import ProxyError
from srrrs.net.selfsigned import ServerIdentity
from srrrs.net.websocket import Denial, HandshakeDenied, HandshakeFailed
from srrrs.protocol.handshake import Denied, Hello
from srrrs.relay.edge.doorstep import TURN_TIMEOUT
from srrrs.testing import FakeTransport
from tests.mini_relay import TOKEN, MiniRelay, until

HELLO = Hello("0" * 32, "machine", "srrrs/0", 15.0)


def say_hello(nonce: str) -> Hello:
    return HELLO


# --- edge URLs


@pytest.mark.parametrize(
    ("url", "whole", "host", "port"),
    [
        ("wss://relay.example/tunnel", "wss://relay.example/tunnel", "relay.example", 443),
        ("wss://relay.example", "wss://relay.example/tunnel", "relay.example", 443),
        ("WSS://Relay.example:8443/", "wss://Relay.example:8443/tunnel", "relay.example", 8443),
        ("ws://localhost:8000/tunnel", "ws://localhost:8000/tunnel", "localhost", 8000),
        ("ws://relay.localhost:8000/t", "ws://relay.localhost:8000/t", "relay.localhost", 8000),
        ("ws://127.0.0.1:8000/tunnel", "ws://127.0.0.1:8000/tunnel", "127.0.0.1", 8000),
        ("ws://[::1]:8000/tunnel", "ws://[::1]:8000/tunnel", "::1", 8000),
    ],
)
def test_edge_urls(url: str, whole: str, host: str, port: int) -> None:
    target = DialTarget.from_url(url)
    assert (target.url, target.host, target.port) == (whole, host, port)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay.example",
        "http://relay.example",
        "wss://",
        "wss://u:p@relay.example",
        "wss://relay.example#x",
        "wss://relay.example:0",
        "wss://relay.example:99999",
        "wss://[::1",
        "wss://relay.example/a b",
    ],
)
def test_edge_urls_that_cannot_work(url: str) -> None:
    with pytest.raises(ValueError, match="edge URL"):
        DialTarget.from_url(url)


@pytest.mark.parametrize(
    "host", ["relay.example", "10.0.0.1", "localhost.example", "[2001:db8::1]"]
)
def test_the_token_does_not_leave_the_machine_in_the_clear(host: str) -> None:
    with pytest.raises(ValueError, match="--insecure"):
        DialTarget.from_url(f"ws://{host}/tunnel")
    DialTarget.from_url(f"ws://{host}/tunnel", insecure=True)


# --- failures in words

PLAIN = DialTarget.from_url("ws://relay.example:8000/tunnel", insecure=True)


@pytest.mark.parametrize(
    ("problem", "word", "heals"),
    [
        (error.DNSLookupError("x"), "cannot be looked up", True),
        (error.ConnectionRefusedError(), "refuses", True),
        (error.TimeoutError(), "does not answer", True),
        (error.TCPTimedOutError(), "does not answer", True),
        (error.NoRouteError(), "no route", True),
        (error.ConnectBindError(24, "Too many open files"), "Too many open files", True),
        (error.ConnectionDone(), "closed the connection", True),
        (error.ConnectionLost(), "closed the connection", True),
        (ProxyError("the proxy says no", heals=False), "proxy", False),
        (Denial(401, "no"), "401", False),
        (Denial(403, "no"), "403", False),
        (Denial(404, "no"), "no relay", False),
        (Denial(200, "no"), "no relay", False),
        (Denial(302, "no"), "no relay", False),
        (Denial(400, "no"), "version", False),
        (Denial(429, "no"), "not available", True),
        (Denial(503, "no"), "not available", True),
        (HandshakeDenied(Denied("full", "too many tunnels", True)), "too many tunnels", True),
        (HandshakeDenied(Denied("version", "unknown version", False)), "unknown version", False),
        (HandshakeFailed("it does not speak srrrs.v1"), "srrrs.v1", False),
        (ValueError("invalid hostname: x"), "invalid hostname", False),
        (RuntimeError("odd"), "odd", True),
    ],
)
def test_failures_in_words(problem: Exception, word: str, heals: bool) -> None:
    told = explain(Failure(problem), PLAIN)
    assert word in str(told)
    assert told.heals is heals
    assert "\n" not in str(told)


# --- the dial itself


@implementer(IStreamClientEndpoint)
class Never:
    """An endpoint that never answers, and notices that it was given up."""

    def __init__(self) -> None:
        self.cancelled = False

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        return Deferred(self._cancelled)

    def _cancelled(self, _: Any) -> None:
        self.cancelled = True


def test_one_deadline_covers_the_whole_dial() -> None:
    clock, way = Clock(), Never()
    failures: list[Any] = []
    dial(clock, PLAIN, TOKEN, say_hello, timeout=20, endpoint=way).addErrback(failures.append)
    clock.advance(19.9)
    assert failures == []
    clock.advance(0.1)
    assert failures[0].check(DialError)
    assert failures[0].value.heals
    assert "relay.example:8000 did not answer within 20 s" in str(failures[0].value)
    assert way.cancelled


def test_a_dial_can_be_given_up() -> None:
    clock, way = Clock(), Never()
    dialling = dial(clock, PLAIN, TOKEN, say_hello, timeout=20, endpoint=way)
    dialling.cancel()
    failures: list[Any] = []
    dialling.addErrback(failures.append)
    assert failures[0].check(CancelledError)
    assert way.cancelled
    assert clock.getDelayedCalls() == []


@implementer(IStreamClientEndpoint)
class Connecting(Never):
    """As Twisted's TCP endpoints: a connection that is given up fails in its own way."""

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        way: Deferred[IProtocol] = Deferred(
            lambda d: d.errback(error.ConnectingCancelledError("192.0.2.1"))
        )
        return way


def test_a_connection_that_nobody_takes() -> None:
    """The deadline's own words, not the address that the endpoint errs with; and a cancelled dial
    stays a cancelled one."""
    clock = Clock()
    failures: list[Any] = []
    dial(clock, PLAIN, TOKEN, say_hello, timeout=20, endpoint=Connecting()).addErrback(
        failures.append
    )
    clock.advance(20)
    assert str(failures[0].value) == "relay.example:8000 did not answer within 20 s"
    dialling = dial(clock, PLAIN, TOKEN, say_hello, timeout=20, endpoint=Connecting())
    dialling.addErrback(failures.append)
    dialling.cancel()
    assert failures[1].check(CancelledError)
    assert clock.getDelayedCalls() == []


@implementer(IStreamClientEndpoint)
class Standing:
    """An endpoint whose connection stands at once; the test is its other end."""

    def __init__(self) -> None:
        self.transport = FakeTransport()

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        protocol = protocolFactory.buildProtocol(None)
        self.transport.attach(protocol)
        return succeed(protocol)


def test_an_agent_waits_its_turn() -> None:
    """A relay that has taken the connection may let it wait; from its first byte on it has the
    deadline of any other."""
    clock, way = Clock(), Standing()
    failures: list[Any] = []
    dial(clock, PLAIN, TOKEN, say_hello, timeout=20, endpoint=way).addErrback(failures.append)
    assert TURN > TURN_TIMEOUT
    clock.advance(TURN - 1)
    way.transport.receive(b"HTTP/1.1 101 ")
    clock.advance(19)
    way.transport.receive(b"Switching")
    assert failures == []
    clock.advance(1)
    way.transport.drain()
    assert str(failures[0].value) == "relay.example:8000 did not answer within 20 s"
    assert not way.transport.connected
    assert clock.getDelayedCalls() == []


def test_it_is_told_when_tcp_is_answered() -> None:
    """With what tells whether the relay's system has all that was said; of this transport nobody
    can tell."""
    clock, way = Clock(), Standing()
    told: list[bool] = []

    def answered(taken: Taken = unknown, /) -> None:
        told.append(taken())

    dialling = dial(clock, PLAIN, TOKEN, say_hello, endpoint=way, answered=answered)
    dialling.addErrback(lambda failure: None)
    assert told == [False]
    dialling.cancel()


def test_no_agent_waits_for_ever() -> None:
    clock, way = Clock(), Standing()
    failures: list[Any] = []
    dial(clock, PLAIN, TOKEN, say_hello, timeout=20, endpoint=way).addErrback(failures.append)
    clock.advance(TURN)
    way.transport.drain()
    assert str(failures[0].value) == f"relay.example:8000 did not answer within {TURN:g} s"
    assert not way.transport.connected
    assert clock.getDelayedCalls() == []


def test_an_endpoint_that_fails_is_explained() -> None:
    @implementer(IStreamClientEndpoint)
    class Refusing:
        def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
            return fail(error.ConnectionRefusedError())

    failures: list[Any] = []
    dial(Clock(), PLAIN, TOKEN, say_hello, endpoint=Refusing()).addErrback(failures.append)
    assert "refuses" in str(failures[0].value)


async def failure_of(reactor: Any, url: str, token: str = TOKEN, **options: Any) -> DialError:
    with pytest.raises(DialError) as caught:
        await dial(reactor, DialTarget.from_url(url), token, say_hello, environ={}, **options)
    return caught.value


@contextmanager
def global_reactor() -> Iterator[Any]:
    from twisted.internet import reactor

    yield reactor


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_a_relay_welcomes() -> None:
    """Over real sockets: the carrier comes with the welcome, and lives once it is started."""
    with global_reactor() as reactor:
        relay = MiniRelay(reactor)
        relay.listen()
        target = DialTarget.from_url(f"ws://relay.localhost:{relay.number}")
        carrier, welcome = await dial(reactor, target, TOKEN, say_hello, environ={})
        assert welcome.tunnel == "t1"
        assert relay.tokens == [TOKEN]
        assert relay.tunnels[0].hello == HELLO
        carrier.abort()
        await until(reactor, lambda: relay.lost)
        await relay.close()


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_a_bad_token_is_one_clear_line() -> None:
    with global_reactor() as reactor:
        relay = MiniRelay(reactor)
        relay.listen()
        told = await failure_of(reactor, relay.url, "wrong")
        assert str(told) == "the relay does not accept the token (401)"
        assert not told.heals
        await relay.close()


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_a_relay_that_denies_after_the_upgrade() -> None:
    with global_reactor() as reactor:
        relay = MiniRelay(reactor)
        relay.denied = Denied("full", "too many tunnels", True)
        relay.listen()
        told = await failure_of(reactor, relay.url)
        assert "too many tunnels" in str(told)
        assert told.heals
        await relay.close()


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_a_relay_that_never_greets() -> None:
    with global_reactor() as reactor:
        relay = MiniRelay(reactor)
        relay.silent = True
        relay.listen()
        told = await failure_of(reactor, relay.url, timeout=0.2)
        assert "did not answer within 0.2 s" in str(told)
        await relay.close()


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_nobody_listens() -> None:
    with global_reactor() as reactor:
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        for host in ("localhost", "127.0.0.1"):
            told = await failure_of(reactor, f"ws://{host}:{number}")
            assert str(told) == f"{host}:{number} refuses the connection"
            assert told.heals


class Says(Protocol):
    """Answers whatever comes with one text, and closes."""

    answer = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.answer)
        self.transport.loseConnection()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answer", "word", "heals"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "no relay (404)", False),
        (b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n", "not available (503)", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", "no relay", False),
        (b"", "closed the connection", True),
        (b"x" * 40_000, "too long", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_answers_is_no_relay(answer: bytes, word: str, heals: bool) -> None:
    with global_reactor() as reactor:
        factory = Factory.forProtocol(type("Saying", (Says,), {"answer": answer}))
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        told = await failure_of(reactor, f"ws://127.0.0.1:{port.getHost().port}/tunnel")
        assert word in str(told)
        assert told.heals is heals
        await port.stopListening()


# Twisted's CertificateOptions takes pyOpenSSL's certificates only.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_tls_relays_are_known_by_their_certificate(tmp_path: Path) -> None:
    """A self-signed relay: refused as it is, let through by its pin, refused by any other pin and
    under any other name."""
    with global_reactor() as reactor:
        identity = ServerIdentity.self_signed(tmp_path, "relay.localhost")
        relay = MiniRelay(reactor)
        relay.listen(lambda factory: TLSMemoryBIOFactory(identity.context, False, factory))

        async def attempt(host: str, pin: str | None) -> DialError | None:
            target = DialTarget.from_url(f"wss://{host}:{relay.number}/tunnel", pin=pin)
            try:
                carrier, _ = await dial(reactor, target, TOKEN, say_hello, environ={})
            except DialError as problem:
                return problem
            carrier.abort()
            return None

        assert await attempt("relay.localhost", identity.pin) is None
        for host, pin in (
            ("relay.localhost", None),
            ("relay.localhost", "sha256:" + "A" * 43 + "="),
            ("localhost", identity.pin),
            ("127.0.0.1", identity.pin),
        ):
            told = await attempt(host, pin)
            assert told is not None
            assert f"no secure connection to {host}" in str(told)
            assert not told.heals
        assert relay.tokens == [TOKEN]
        await relay.close()
