"""TCP connections keep the promises of Twisted's transports."""

from __future__ import annotations

import errno
import gc
import socket
import struct
import weakref
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IListeningPort,
    IPullProducer,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.conftest import FlushLoggedErrors
from tests.reactor.kit import (
    Client,
    HalfCloser,
    Recorder,
    Server,
    Silent,
    plain_client,
    tcp_pair,
    turns,
    until,
)

HUGE = 16 * 1024 * 1024
ensure = pytest_twisted.ensureDeferred


@ensure
async def test_interfaces(loop_reactor: Any) -> None:
    """Connections and ports provide what Twisted's provide."""
    pair = await tcp_pair(loop_reactor)
    for transport in (pair.server.transport, pair.client.transport):
        for interface in (ITCPTransport, ITLSTransport, ISystemHandle, IConsumer, IPushProducer):
            assert verifyObject(interface, transport)
    assert verifyObject(IListeningPort, pair.port)
    assert verifyObject(IConnector, pair.client.transport.connector)
    await pair.close()


@ensure
@pytest.mark.parametrize("interface", ["127.0.0.1", "::1"])
async def test_both_ways(reactor: Any, interface: str) -> None:
    """Bytes go both ways over IPv4 and IPv6, and each end knows the other's address."""
    pair = await tcp_pair(reactor, interface=interface)
    pair.client.transport.write(b"to the server")
    pair.server.transport.writeSequence([b"to ", b"the ", b"client"])
    assert await pair.server.received(13) == b"to the server"
    assert await pair.client.received(13) == b"to the client"
    assert pair.server.transport.getPeer() == pair.client.transport.getHost()
    assert pair.client.transport.getPeer() == pair.server.transport.getHost()
    assert pair.server.transport.getHost().host == interface
    await pair.close()


@ensure
async def test_options(reactor: Any) -> None:
    """TCP_NODELAY and keepalive are set and read back; the handle is the socket."""
    pair = await tcp_pair(reactor)
    for transport in (pair.server.transport, pair.client.transport):
        transport.setTcpKeepAlive(True)
        assert transport.getTcpKeepAlive() is True
        for flag in (False, True):
            transport.setTcpNoDelay(flag)
            assert transport.getTcpNoDelay() is flag
        assert transport.getHandle().fileno() == transport.fileno()
    await pair.close()


@ensure
async def test_write_before_the_loop_has_the_connection(reactor: Any) -> None:
    """What is written in connectionMade arrives, in order and at once."""

    class Eager(Recorder):
        def connectionMade(self) -> None:
            for i in range(100):
                self.transport.write(b"%03d," % i)
            self.transport.write(b"x" * HUGE)
            super().connectionMade()

    pair = await tcp_pair(reactor, server=Eager, client=Eager)
    expected = b"".join(b"%03d," % i for i in range(100)) + b"x" * HUGE
    assert await pair.server.received(len(expected)) == expected
    assert await pair.client.received(len(expected)) == expected
    await pair.close()


@ensure
async def test_lose_connection_flushes(reactor: Any) -> None:
    """What was written before loseConnection arrives, and both ends end with ConnectionDone."""

    class Burst(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(b"y" * HUGE)
            self.transport.loseConnection()

    pair = await tcp_pair(reactor, server=Burst)
    assert isinstance(await pair.client.lost, error.ConnectionDone)
    assert len(pair.client.data) == HUGE
    await until(reactor, lambda: pair.server.reason)
    assert pair.server.reason.check(error.ConnectionDone)
    await pair.close()


@ensure
async def test_write_after_lose_connection(reactor: Any) -> None:
    """As in Twisted, what is written right after loseConnection still goes out."""
    pair = await tcp_pair(reactor)
    pair.client.transport.write(b"one ")
    pair.client.transport.loseConnection()
    pair.client.transport.write(b"two")
    await pair.server.lost
    assert pair.server.data == b"one two"
    await pair.close()


@ensure
async def test_write_after_close(loop_reactor: Any) -> None:
    """Writing to a connection that is lost does nothing, however it is written."""
    pair = await tcp_pair(loop_reactor)
    transport = pair.client.transport
    write, write_sequence = transport.write, transport.writeSequence
    transport.abortConnection()
    write(b"lost")
    assert isinstance(await pair.client.lost, error.ConnectionAborted)
    write(b"lost")
    write_sequence([b"lost", b"too"])
    transport.loseConnection()
    transport.loseWriteConnection()
    transport.abortConnection()
    transport.unregisterProducer()
    transport.pauseProducing()
    transport.resumeProducing()
    await turns(loop_reactor)
    assert transport.connected == 0
    await pair.server.lost
    assert pair.server.data == b""
    await pair.close()


@ensure
@pytest.mark.parametrize("data", ["text", None, memoryview(b"m")])
async def test_only_bytes(reactor: Any, data: Any) -> None:
    """Anything but bytes is refused, by TypeError."""
    pair = await tcp_pair(reactor)
    with pytest.raises(TypeError):
        pair.client.transport.write(data)
    with pytest.raises(TypeError):
        pair.client.transport.writeSequence([b"ok", data])
    await pair.close()


@ensure
async def test_a_bytearray_may_be_given_away(loop_reactor: Any) -> None:
    """A transport that says so takes a bytearray as it is; it is sent among the others."""
    pair = await tcp_pair(loop_reactor)
    assert pair.client.transport.takes_buffers
    await turns(loop_reactor)
    pair.client.transport.write(bytearray(b"one "))
    pair.client.transport.writeSequence([b"two ", bytearray(b"three")])
    await until(loop_reactor, lambda: pair.server.data == b"one two three")
    await pair.close()


@ensure
async def test_abort_is_a_reset(reactor: Any) -> None:
    """abortConnection ends both ends without grace, and never calls back at once."""
    pair = await tcp_pair(reactor)
    pair.client.transport.write(b"z" * HUGE)
    pair.client.transport.abortConnection()
    assert pair.client.reason is None
    assert isinstance(await pair.client.lost, error.ConnectionAborted)
    assert isinstance(await pair.server.lost, error.ConnectionLost)
    assert len(pair.server.data) < HUGE
    await pair.close()


@ensure
async def test_half_close(reactor: Any) -> None:
    """loseWriteConnection sends everything, then FIN; the other direction goes on."""
    pair = await tcp_pair(reactor, server=HalfCloser, client=HalfCloser)
    pair.client.transport.write(b"q" * HUGE)
    pair.client.transport.loseWriteConnection()
    await pair.server.read_lost
    assert len(pair.server.data) == HUGE
    assert pair.client.events == ["made", "write lost"]
    pair.client.transport.write(b"not any more")
    pair.server.transport.write(b"answer")
    assert await pair.client.received(6) == b"answer"
    # After readConnectionLost closing is up to the protocol.
    assert pair.server.events == ["made", "read lost"]
    pair.server.transport.loseConnection()
    await pair.client.read_lost
    pair.client.transport.loseConnection()
    for end in (pair.server, pair.client):
        await until(reactor, lambda end=end: end.reason)  # type: ignore[misc]
        assert end.reason.check(error.ConnectionDone)
    await pair.close()


@ensure
async def test_fin_closes_a_protocol_that_cannot_half_close(reactor: Any) -> None:
    """A FIN ends the connection of a protocol that is no IHalfCloseableProtocol."""
    pair = await tcp_pair(reactor, client=HalfCloser)
    pair.client.transport.loseWriteConnection()
    assert isinstance(await pair.server.lost, error.ConnectionDone)
    await pair.client.read_lost
    await pair.close()


@implementer(IPushProducer)
class Pusher:
    """Writes chunks whenever it may, and counts the bytes that it could not hold back."""

    def __init__(self, transport: Any, total: int, chunk: int, reactor: Any) -> None:
        self.transport, self.left, self.chunk, self.reactor = transport, total, chunk, reactor
        self.paused = self.stopped = False
        self.pauses = self.resumes = self.over = 0

    def resumeProducing(self) -> None:
        self.paused = False
        self.resumes += 1
        self.push()

    def pauseProducing(self) -> None:
        assert not self.paused
        self.paused = True
        self.pauses += 1

    def stopProducing(self) -> None:
        self.stopped = True

    def push(self) -> None:
        while self.left and not self.paused:
            size = min(self.chunk, self.left)
            self.left -= size
            self.transport.write(b"p" * size)
        if not self.left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()


@ensure
@pytest.mark.parametrize("chunk", [1000, 65536, 1024 * 1024])
async def test_push_producer(reactor: Any, chunk: int) -> None:
    """A streaming producer is paused while the peer does not read, and never loses a byte."""
    pair = await tcp_pair(reactor)
    pair.server.transport.pauseProducing()
    producer = Pusher(pair.client.transport, HUGE, chunk, reactor)
    pair.client.transport.registerProducer(producer, True)
    producer.push()
    await until(reactor, lambda: producer.paused)
    await turns(reactor, 50)
    assert producer.left > 0
    pair.server.transport.resumeProducing()
    assert isinstance(await pair.server.lost, error.ConnectionDone)
    assert len(pair.server.data) == HUGE
    assert producer.resumes >= 1
    assert producer.pauses - producer.resumes in (0, 1)  # the last chunk may pause it again
    assert not producer.stopped
    await until(reactor, lambda: pair.client.reason)
    await pair.close()


@implementer(IPullProducer)
class Puller:
    """Writes one chunk each time that it is asked."""

    def __init__(self, transport: Any, chunks: int, size: int) -> None:
        self.transport, self.left, self.size = transport, chunks, size
        self.stopped = False
        self.inside = False

    def resumeProducing(self) -> None:
        assert not self.inside, "asked again while it answered"
        self.inside = True
        if self.left:
            self.left -= 1
            self.transport.write(b"u" * self.size)
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        self.inside = False

    def stopProducing(self) -> None:
        self.stopped = True


@ensure
@pytest.mark.parametrize(("chunks", "size"), [(500, 1), (64, 256 * 1024), (4, 4 * 1024 * 1024)])
async def test_pull_producer(reactor: Any, chunks: int, size: int) -> None:
    """A pull producer is asked until it is done, each time that its bytes are gone."""
    pair = await tcp_pair(reactor)
    producer = Puller(pair.client.transport, chunks, size)
    pair.client.transport.registerProducer(producer, False)
    await pair.server.lost
    assert len(pair.server.data) == chunks * size
    assert not producer.stopped
    await until(reactor, lambda: pair.client.reason)
    await pair.close()


@ensure
async def test_producers_end_with_the_connection(reactor: Any) -> None:
    """A producer is stopped when the connection is lost, or was before it came; a second one is
    refused."""
    pair = await tcp_pair(reactor)
    producer = Puller(pair.client.transport, 1, 1)
    push = Pusher(pair.server.transport, 1, 1, reactor)
    pair.server.transport.registerProducer(push, True)
    with pytest.raises(RuntimeError):
        pair.server.transport.registerProducer(push, True)
    pair.client.transport.abortConnection()
    await pair.server.lost
    assert push.stopped
    await until(reactor, lambda: pair.client.reason)
    pair.client.transport.registerProducer(producer, False)
    assert producer.stopped
    await pair.close()


@ensure
async def test_pausing_in_connection_made(reactor: Any) -> None:
    """A protocol that pauses in connectionMade receives nothing until it resumes."""

    class Paused(Recorder):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()
            super().connectionMade()

    pair = await tcp_pair(reactor, server=Paused)
    pair.client.transport.write(b"early")
    await turns(reactor, 50)
    assert pair.server.data == b""
    pair.server.transport.resumeProducing()
    assert await pair.server.received(5) == b"early"
    await pair.close()


@ensure
async def test_protocol_switching(reactor: Any) -> None:
    """The protocol that `transport.protocol` names receives, from the next bytes on, and is told
    of the end."""
    pair = await tcp_pair(reactor)
    second = Recorder()
    transport = pair.server.transport

    class First(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            transport.protocol = second
            second.makeConnection(transport)

    transport.protocol = first = First()
    pair.client.transport.write(b"for the first")
    await first.received(13)
    pair.client.transport.write(b"for the second")
    assert await second.received(14) == b"for the second"
    assert first.data == b"for the first"
    pair.client.transport.loseConnection()
    await second.lost
    assert first.reason is None
    assert pair.server.reason is None
    pair.server.reason = second.reason
    await pair.close()


@ensure
@pytest.mark.parametrize("where", ["connectionMade", "dataReceived"])
async def test_errors_of_protocols(
    loop_reactor: Any, where: str, flush_logged_errors: FlushLoggedErrors
) -> None:
    """An exception of a protocol's is logged and ends its connection, which names it."""

    class Broken(Recorder):
        pass

    def fail(self: Any, data: bytes = b"") -> None:
        raise ZeroDivisionError("on purpose")

    setattr(Broken, where, fail)
    factory = Server()
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    broken = Broken()
    loop_reactor.connectTCP("127.0.0.1", port.getHost().port, Client(broken))
    served = await until(loop_reactor, lambda: factory.protocols and factory.protocols[0])
    await served.made
    served.transport.write(b"bait")
    assert isinstance(await broken.lost, ZeroDivisionError)
    await served.lost
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    await port.stopListening()


@ensure
async def test_errors_in_connection_made_of_a_server(
    reactor: Any, loop_reactor: Any, flush_logged_errors: FlushLoggedErrors
) -> None:
    """A connection whose protocol failed at the start is not left open."""

    class Broken(Recorder):
        def connectionMade(self) -> None:
            raise ZeroDivisionError("on purpose")

    factory = Server(Broken)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    with plain_client(port) as client:
        broken = await until(reactor, lambda: factory.protocols and factory.protocols[0])
        assert isinstance(await broken.lost, ZeroDivisionError)
        assert client.recv(1) == b""
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    await port.stopListening()


@ensure
async def test_errors_in_connection_lost(
    loop_reactor: Any, flush_logged_errors: FlushLoggedErrors
) -> None:
    """An exception in connectionLost is logged, and nothing stays open."""

    class Broken(Recorder):
        def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
            super().connectionLost(reason)
            raise ZeroDivisionError("on purpose")

    pair = await tcp_pair(loop_reactor, server=Broken)
    pair.client.transport.loseConnection()
    await pair.server.lost
    await until(loop_reactor, lambda: pair.client.reason)
    await turns(loop_reactor)
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    assert pair.server.transport.connected == 0
    await pair.close()


@ensure
async def test_last_words(loop_reactor: Any) -> None:
    """What a peer said before it reset the connection is read even where writing fails first."""
    factory = Server()
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    client = plain_client(port)
    served = await until(loop_reactor, lambda: factory.protocols and factory.protocols[0])
    await turns(loop_reactor)
    client.sendall(b"413 go away")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    # Before the reactor polls again:
    served.transport.write(b"more of the request")
    assert isinstance(await served.lost, error.ConnectionLost)
    assert served.data == b"413 go away"
    await port.stopListening()


@ensure
async def test_no_protocol(reactor: Any) -> None:
    """A factory that builds no protocol closes the connection, on either side."""

    class Nobody(Server):
        def buildProtocol(self, addr: Any) -> Any:
            return None

    port = reactor.listenTCP(0, Nobody(), interface="127.0.0.1")
    factory = Client(None)
    reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
    await factory.lost
    with plain_client(port) as client:
        await turns(reactor)
        client.settimeout(0.01)
        await until(reactor, lambda: _ended(client))
    await port.stopListening()


def _ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


@ensure
async def test_connection_refused(reactor: Any) -> None:
    """Nobody listening is ConnectionRefusedError, with its errno."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        factory = Client(Recorder())
        reactor.connectTCP("127.0.0.1", taken.getsockname()[1], factory)
        problem = await factory.failed
    assert isinstance(problem, error.ConnectionRefusedError)
    assert problem.osError == errno.ECONNREFUSED


def _full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A listener that answers no further connection."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


@ensure
async def test_timeout(reactor: Any) -> None:
    """A connection that takes too long fails by TimeoutError."""
    listener, fillers = _full_listener()
    factory = Client(Recorder())
    reactor.connectTCP("127.0.0.1", listener.getsockname()[1], factory, timeout=0.05)
    assert isinstance(await factory.failed, error.TimeoutError)
    for sock in (listener, *fillers):
        sock.close()


@ensure
async def test_stop_connecting(reactor: Any) -> None:
    """An attempt that is given up fails by UserError, and a second time it cannot be."""
    listener, fillers = _full_listener()
    factory = Client(Recorder())
    connector = reactor.connectTCP("127.0.0.1", listener.getsockname()[1], factory)
    await turns(reactor)
    connector.stopConnecting()
    assert isinstance(await factory.failed, error.UserError)
    with pytest.raises(error.NotConnectingError):
        connector.stopConnecting()
    for sock in (listener, *fillers):
        sock.close()


@ensure
async def test_unknown_name(reactor: Any) -> None:
    """A name that does not exist is DNSLookupError."""
    factory = Client(Recorder())
    reactor.connectTCP("no-such-host.invalid", 80, factory)
    assert isinstance(await factory.failed, error.DNSLookupError)


@ensure
async def test_bind_address(reactor: Any) -> None:
    """bindAddress is where a connection comes from; one that is not ours is ConnectBindError."""
    factory = Server()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    where = ("127.0.0.1", port.getHost().port)
    protocol = Recorder()
    reactor.connectTCP(*where, Client(protocol), bindAddress=("127.0.0.2", 0))
    await protocol.made
    assert protocol.transport.getHost().host == "127.0.0.2"
    failing = Client(Recorder())
    reactor.connectTCP(*where, failing, bindAddress=("192.0.2.1", 0))
    assert isinstance(await failing.failed, error.ConnectBindError)
    protocol.transport.loseConnection()
    await protocol.lost
    await until(reactor, lambda: factory.protocols and factory.protocols[0].reason)
    await port.stopListening()


@ensure
async def test_reconnect(reactor: Any) -> None:
    """A connector connects again when it is told to."""
    factory = Server()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    again: list[Any] = []
    done: Deferred[None] = Deferred()

    class Twice(Client):
        def buildProtocol(self, addr: Any) -> Any:
            again.append(Recorder())
            reactor.callLater(0, lambda p=again[-1]: p.transport.loseConnection())
            return again[-1]

        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            if len(again) < 2:
                connector.connect()
            else:
                done.callback(None)

    reactor.connectTCP("127.0.0.1", port.getHost().port, Twice(None))
    await done
    await until(reactor, lambda: len(factory.protocols) == 2)
    await until(reactor, lambda: all(p.reason for p in factory.protocols))
    await port.stopListening()


@ensure
async def test_nothing_keeps_a_connection_alive(loop_reactor: Any) -> None:
    """Connections that ended are gone without the help of the garbage collector, however they
    ended."""
    factory = Silent()
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    live: list[weakref.ref[Any]] = []

    class Ended(Protocol):
        def connectionMade(self) -> None:
            live.append(weakref.ref(self.transport))
            live.append(weakref.ref(self))

    factory.protocol = Ended
    gc.collect()
    gc.disable()
    try:
        for end in ("loseConnection", "abortConnection", "fin"):
            clients = [plain_client(port) for _ in range(3)]
            await until(loop_reactor, lambda: len(live) >= 6)
            await turns(loop_reactor)
            for ref in live:
                transport = ref()
                if end != "fin" and hasattr(transport, end):
                    transport.write(b"bye")
                    getattr(transport, end)()
            del transport
            for client in clients:
                client.close()
            await until(loop_reactor, lambda: not loop_reactor.streams)
            await turns(loop_reactor)
            assert [ref() for ref in live] == [None] * 6, end
            live.clear()
    finally:
        gc.enable()
    await port.stopListening()


@ensure
async def test_nothing_keeps_a_client_alive(loop_reactor: Any) -> None:
    """Nor does anything keep connections that this side opened, or their connectors."""
    factory = Server()
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    gc.collect()
    gc.disable()
    try:
        client = Client(Protocol())
        connector = loop_reactor.connectTCP("127.0.0.1", port.getHost().port, client)
        live = [weakref.ref(connector), weakref.ref(connector.transport)]
        del connector
        await until(loop_reactor, lambda: factory.protocols)
        factory.protocols[0].transport.loseConnection()
        await client.lost
        await turns(loop_reactor)
        assert [ref() for ref in live] == [None] * 2
    finally:
        gc.enable()
    await port.stopListening()


@ensure
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "localhost"])
async def test_how_a_host_is_written(reactor: Any, host: str) -> None:
    """Names and addresses in any form are connected to, and told of as Twisted does."""
    factory = Server()
    interface = "::1" if ":" in host else "127.0.0.1"
    try:
        port = reactor.listenTCP(0, factory, interface=interface)
    except error.CannotListenError:
        pytest.skip("no IPv6 on this machine")
    protocol = Recorder()
    connector = reactor.connectTCP(host, port.getHost().port, Client(protocol))
    await protocol.made
    peer = protocol.transport.getPeer()  # type: ignore[union-attr]
    assert (peer.host, peer.port) == (interface, port.getHost().port)
    assert connector.getDestination().host == host
    await until(reactor, lambda: factory.protocols)
    protocol.transport.loseConnection()  # type: ignore[union-attr]
    await factory.protocols[0].lost
    await port.stopListening()


@ensure
async def test_no_delay_is_what_was_set(loop_reactor: Any) -> None:
    """The loop sets TCP_NODELAY on each connection; it can be taken back, and set again."""
    pair = await tcp_pair(loop_reactor)
    for transport in (pair.client.transport, pair.server.transport):
        for enabled in (True, False, False, True):
            transport.setTcpNoDelay(enabled)
            assert transport.getTcpNoDelay() is enabled
    await pair.close()


@ensure
async def test_drained(loop_reactor: Any) -> None:
    """A transport says whether anything waits to be sent."""
    pair = await tcp_pair(loop_reactor)
    pair.server.transport.pauseProducing()
    await until(loop_reactor, lambda: pair.client.transport.drained)
    pair.client.transport.write(b"x" * (16 << 20))
    assert not pair.client.transport.drained
    pair.server.transport.resumeProducing()
    await until(loop_reactor, lambda: pair.client.transport.drained)
    assert len(await pair.server.received(16 << 20)) == 16 << 20
    await pair.close()
