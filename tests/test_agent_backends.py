"""How the agent serves a stream: endpoints are connected to, factories are put on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, _WrapperEndpoint
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from srrrs.agent.backends import EndpointBackend, FactoryBackend, IBackend, backend_endpoint
from srrrs.net.channel import Channel
from srrrs.net.loopback import LocalhostEndpoint
from srrrs.net.proxyheader import write_header
from srrrs.protocol.errors import ResetCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.mux import Limits, Multiplexer, Role
from srrrs.testing import FakeTransport
from tests.conftest import FlushLoggedErrors

VISITOR = IPv4Address("TCP", "192.0.2.7", 4711)


class Pair:
    """A relay's and an agent's multiplexer, back to back; ``channel`` is the agent's end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ends: dict[Role, Multiplexer] = {
            role: Multiplexer(role, self, Limits(), Budget(1 << 24)) for role in Role
        }
        self.resets: list[tuple[int | None, str]] = []
        self.received = b""
        self.fins = 0
        self.channel: Any = None
        self.visitor = self.ends[Role.RELAY].open(1, "192.0.2.7 4711")
        self.visitor.handler = self
        self.turn()

    def turn(self) -> None:
        for _ in range(4):
            for role, other in ((Role.RELAY, Role.AGENT), (Role.AGENT, Role.RELAY)):
                chunks, _ = self.ends[role].take(1 << 20)
                for chunk in chunks:
                    self.ends[other].receive(bytes(chunk))

    # The multiplexers' handler
    def stream_opened(self, stream: Any) -> None:
        self.channel = Channel(stream, self.clock, VISITOR, VISITOR)

    def control_received(self, frame: Any) -> None:
        raise AssertionError

    def output_ready(self) -> None:
        pass

    def passed_on(self) -> None:
        pass

    # The visitor's handler
    def data_received(self, data: bytes) -> None:
        self.received += data

    def fin_received(self) -> None:
        self.fins += 1

    def fin_sent(self) -> None:
        pass

    def stream_closed(self, code: int | None, reason: str) -> None:
        self.resets.append((code, reason))

    def pause_sending(self) -> None:
        pass

    def resume_sending(self) -> None:
        pass


@implementer(IStreamClientEndpoint)
class Slow:
    """An endpoint that answers when the test says so."""

    def __init__(self) -> None:
        self.cancelled = False
        self.factory: Any = None
        self.answer: Deferred[IProtocol] = Deferred()

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        self.factory = protocolFactory
        self.answer = Deferred(lambda _: setattr(self, "cancelled", True))
        return self.answer


def connecting(timeout: float = 10.0) -> tuple[Pair, Slow]:
    pair, endpoint = Pair(), Slow()
    backend = EndpointBackend(pair.clock, endpoint, "localhost:8080", timeout)
    verifyObject(IBackend, backend)
    backend.connect(pair.channel)
    return pair, endpoint


def test_a_visitor_who_goes_away_ends_the_attempt() -> None:
    pair, endpoint = connecting()
    pair.visitor.reset(ResetCode.CANCEL, "gone")
    pair.turn()
    assert endpoint.cancelled
    assert pair.clock.getDelayedCalls() == []


def test_so_does_the_tunnels_end() -> None:
    pair, endpoint = connecting()
    pair.ends[Role.AGENT].close(ResetCode.GONE, "cut")
    assert endpoint.cancelled
    assert pair.clock.getDelayedCalls() == []


def test_a_visitor_who_has_said_everything_still_gets_an_answer() -> None:
    """Half-close is no going away."""
    pair, endpoint = connecting()
    pair.visitor.write(b"request")
    pair.visitor.finish()
    pair.turn()
    assert not endpoint.cancelled


def test_a_backend_has_a_deadline() -> None:
    pair, endpoint = connecting(timeout=10)
    pair.clock.advance(10)
    pair.turn()
    assert endpoint.cancelled
    assert [code for code, _ in pair.resets] == [ResetCode.TIMEOUT]


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (error.ConnectionRefusedError(), ResetCode.REFUSED),
        (error.DNSLookupError("backend.internal"), ResetCode.REFUSED),
        (error.TimeoutError(), ResetCode.TIMEOUT),
        (error.TCPTimedOutError(), ResetCode.TIMEOUT),
        (error.ConnectBindError(24, "Too many open files"), ResetCode.OVERLOAD),
        (ValueError("invalid hostname"), ResetCode.REFUSED),
    ],
)
def test_a_backend_that_fails_is_a_reset_that_names_nothing(
    problem: Exception, code: ResetCode
) -> None:
    pair = Pair()

    @implementer(IStreamClientEndpoint)
    class Failing:
        def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
            return fail(problem)

    EndpointBackend(pair.clock, Failing(), "backend.internal:80").connect(pair.channel)
    pair.turn()
    assert [each for each, _ in pair.resets] == [code]
    assert "internal" not in pair.resets[0][1]
    assert pair.clock.getDelayedCalls() == []


def test_an_endpoint_that_raises_is_a_reset_too() -> None:
    pair = Pair()

    @implementer(IStreamClientEndpoint)
    class Raising:
        def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
            raise ValueError("bad")

    EndpointBackend(pair.clock, Raising(), "x").connect(pair.channel)
    pair.turn()
    assert [each for each, _ in pair.resets] == [ResetCode.REFUSED]


# --- who the visitor is


@pytest.mark.parametrize("description", ["tcp:127.0.0.1:8080", "tcp:localhost:8080"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_backend_is_told_who_the_visitor_is(version: Any, description: str) -> None:
    """By a PROXY header ahead of all that the visitor has sent, however soon that came."""
    rig = Rig(description)
    rig.backend.send_proxy = version
    rig.pair.channel.visitor = IPv4Address("TCP", "203.0.113.5", 6000)
    rig.connect()
    rig.pair.visitor.write(b"hello")
    rig.pair.turn()
    sent = rig.accept().drain()
    expected = write_header(version, ("203.0.113.5", 6000), ("192.0.2.1", 50000))
    assert sent == expected + b"hello"


def test_a_visitor_without_an_address() -> None:
    """Then the header says that it says nothing."""
    rig = Rig("tcp:127.0.0.1:8080")
    rig.backend.send_proxy = "v1"
    rig.pair.channel.visitor = UNIXAddress(None)
    rig.connect()
    assert rig.accept().drain() == b"PROXY UNKNOWN\r\n"


# --- addresses that need no lookup


class Rig:
    """A backend for an endpoint string, on a reactor whose connections the test makes."""

    def __init__(self, description: str) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.pair = Pair()
        endpoint = backend_endpoint(self.reactor, description)
        self.backend = EndpointBackend(self.reactor, endpoint, "backend")

    def connect(self) -> None:
        self.backend.connect(self.pair.channel)

    @property
    def hosts(self) -> list[str]:
        """The hosts that were connected to, in order."""
        return [each[0] for each in self.reactor.tcpClients]

    def refuse(self, problem: Exception | None = None) -> None:
        """The attempt that is under way fails."""
        factory = self.reactor.tcpClients[-1][2]
        failure = Failure(problem or error.ConnectionRefusedError())
        factory.clientConnectionFailed(self.reactor.connectors[-1], failure)

    def accept(self) -> FakeTransport:
        """The attempt that is under way succeeds."""
        transport = FakeTransport()
        factory: Any = self.reactor.tcpClients[-1][2]
        transport.attach(factory.buildProtocol(None))
        return transport

    @property
    def resets(self) -> list[int | None]:
        """The codes of the resets that the visitor got."""
        self.pair.turn()
        return [code for code, _ in self.pair.resets]


def test_localhost_is_both_families() -> None:
    """The second is tried at once when the first refuses, and comes first the next time."""
    rig = Rig("tcp:localhost:8080")
    rig.connect()
    rig.pair.visitor.write(b"hello")
    rig.pair.turn()
    rig.refuse()
    transport = rig.accept()
    assert transport.drain() == b"hello"
    rig.pair = Pair()
    rig.connect()
    assert rig.hosts == ["127.0.0.1", "::1", "::1"]
    rig.refuse()
    rig.refuse()
    assert rig.hosts[3:] == ["127.0.0.1"]
    assert rig.resets == [ResetCode.REFUSED]


def test_a_localhost_that_does_not_answer() -> None:
    """Once the time is over, no other address is tried."""
    rig = Rig("tcp:localhost:8080")
    rig.connect()
    assert rig.reactor.tcpClients[0][3] == 10.0
    rig.refuse(error.TimeoutError())
    assert rig.hosts == ["127.0.0.1"]
    assert rig.resets == [ResetCode.TIMEOUT]


@pytest.mark.parametrize("description", ["tcp:127.0.0.1:8080", "tcp:localhost:8080"])
def test_a_visitor_who_goes_away_ends_the_connector(description: str) -> None:
    """The attempt is given up, and nothing else is tried."""
    rig = Rig(description)
    rig.connect()
    factory, connector = rig.reactor.tcpClients[0][2], rig.reactor.connectors[0]
    disconnected = []
    connector.disconnect = lambda: disconnected.append(True)
    factory.startedConnecting(connector)
    rig.pair.visitor.reset(ResetCode.CANCEL, "gone")
    rig.pair.turn()
    assert disconnected
    rig.refuse(error.UserError())
    assert rig.hosts == ["127.0.0.1"]
    assert rig.pair.ends[Role.AGENT].streams == {}


def test_a_connection_that_comes_too_late() -> None:
    """It is closed: its visitor is gone."""
    rig = Rig("tcp:127.0.0.1:8080")
    rig.connect()
    rig.pair.visitor.reset(ResetCode.CANCEL, "gone")
    rig.pair.turn()
    transport = rig.accept()
    transport.drain()
    assert not transport.connected


def test_a_reactor_that_cannot_connect() -> None:
    """What it raises is a reset, as what it reports."""
    rig = Rig("tcp:127.0.0.1:8080")

    def connect(*_: Any, **__: Any) -> Any:
        raise ValueError("no such port")

    rig.reactor.connectTCP = connect
    rig.backend = EndpointBackend(
        rig.reactor, backend_endpoint(rig.reactor, "tcp:127.0.0.1:8080"), "backend"
    )
    rig.connect()
    assert rig.resets == [ResetCode.REFUSED]


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_a_unix_socket(tmp_path: Path) -> None:
    """A UNIX socket's service gets what the visitor sends, and answers."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    path = str(tmp_path / "app.sock")
    port = reactor.listenUNIX(path, Factory.forProtocol(Greeter))
    pair = Pair()
    backend = EndpointBackend(reactor, backend_endpoint(reactor, f"unix:{path}"), path)
    pair.channel.clock = reactor
    backend.connect(pair.channel)
    pair.visitor.write(b"there")
    for _ in range(1000):
        pair.turn()
        if pair.received == b"hello there":
            break
        await deferLater(reactor, 0.005)
    assert pair.received == b"hello there"
    pair.visitor.reset(ResetCode.CANCEL, "enough")
    pair.turn()
    await deferLater(reactor, 0)
    await port.stopListening()
    for _ in range(1000):
        if not any("app.sock" in repr(each) for each in reactor.getReaders()):
            break
        await deferLater(reactor, 0.005)


# --- factories


class Greeter(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello ")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Counting(Factory):
    noisy = False
    started = 0
    stopped = 0
    built: Any = None

    def startFactory(self) -> None:
        self.started += 1

    def stopFactory(self) -> None:
        self.stopped += 1

    def buildProtocol(self, addr: Any) -> Any:
        self.built = addr
        return Greeter()


def test_a_factory_serves_visitors_as_a_listening_port_would() -> None:
    pair, factory = Pair(), Counting()
    backend = FactoryBackend(factory)
    verifyObject(IBackend, backend)
    backend.started()
    public = IPv4Address("TCP", "203.0.113.1", 80)
    backend.locate = lambda: public
    pair.visitor.write(b"early")
    pair.turn()
    backend.connect(pair.channel)
    pair.turn()
    backend.stopped()
    assert pair.received == b"hello early"
    assert factory.built == VISITOR
    assert (factory.started, factory.stopped) == (1, 1)
    assert pair.channel.getHost() == public
    assert pair.channel.getPeer() == VISITOR


def test_a_factory_may_refuse_a_visitor() -> None:
    class Refusing(Counting):
        def buildProtocol(self, addr: Any) -> Any:
            return None

    pair = Pair()
    FactoryBackend(Refusing()).connect(pair.channel)
    pair.turn()
    assert [each for each, _ in pair.resets] == [ResetCode.REFUSED]


def test_a_factory_that_fails_is_a_reset(flush_logged_errors: FlushLoggedErrors) -> None:
    class Failing(Counting):
        def buildProtocol(self, addr: Any) -> Any:
            raise RuntimeError("no database")

    pair = Pair()
    FactoryBackend(Failing()).connect(pair.channel)
    pair.turn()
    assert [each for each, _ in pair.resets] == [ResetCode.INTERNAL]
    assert "database" not in pair.resets[0][1]
    assert len(flush_logged_errors(RuntimeError)) == 1


# --- endpoint strings


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("tcp:localhost:8080", LocalhostEndpoint),
        ("tcp:host=localhost:port=8080", LocalhostEndpoint),
        ("tcp:127.0.0.1:8080", TCP4ClientEndpoint),
        ("tls:backend.internal:443", _WrapperEndpoint),
        ("unix:/run/app.sock", UNIXClientEndpoint),
    ],
)
def test_endpoint_strings(description: str, kind: type) -> None:
    assert type(backend_endpoint(MemoryReactorClock(), description)) is kind


def test_a_string_that_is_no_endpoint() -> None:
    with pytest.raises(ValueError, match="Unknown endpoint type"):
        backend_endpoint(MemoryReactorClock(), "gopher:localhost:70")


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_localhost_is_found_on_either_family_without_waiting() -> None:
    """A service that listens on ::1 alone is reached, and first the next time."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    try:
        port = reactor.listenTCP(0, Counting(), interface="::1")
    except error.CannotListenError:
        pytest.skip("no IPv6 on this machine")
    endpoint = LocalhostEndpoint(reactor, port.getHost().port)
    for _ in range(2):
        connected: Any = await endpoint.connect(Factory.forProtocol(Protocol))
        assert connected.transport.getPeer().host == "::1"
        connected.transport.abortConnection()
    assert "8080" in repr(LocalhostEndpoint(reactor, 8080))
    await port.stopListening()
    with pytest.raises(error.ConnectionRefusedError):
        await endpoint.connect(Factory.forProtocol(Protocol))


def test_a_given_up_connection_is_not_tried_the_other_way() -> None:
    """Cancelling ends the attempt under way and begins no second one."""
    reactor = MemoryReactorClock()
    connecting = LocalhostEndpoint(reactor, 8080).connect(Factory.forProtocol(Protocol))
    failures: list[Any] = []
    connecting.addErrback(failures.append)
    connecting.cancel()
    assert len(failures) == 1
    assert len(reactor.tcpClients) == 1
