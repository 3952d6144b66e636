"""The fakes behave as Twisted's TCP transport does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from srrrs.testing import Connection, FakeTransport, HalfCloseRecorder, Recorder, connect
from tests.kit import Producer


def test_it_is_what_it_says() -> None:
    """The fake provides the interfaces of a TCP transport, consumer and producer."""
    transport = FakeTransport()
    for interface in (ITCPTransport, IConsumer, IPushProducer):
        assert verifyObject(interface, transport)


def test_every_over_full_write_pauses() -> None:
    """As Twisted's: `pauseProducing` at each write over the limit, `resumeProducing` once empty."""
    transport, producer = FakeTransport(buffer_size=10), Producer()
    transport.attach(Recorder())
    transport.registerProducer(producer, True)
    transport.write(b"x" * 10)
    assert producer.calls == []
    transport.write(b"x")
    transport.write(b"x")
    assert producer.calls == ["pause", "pause"]
    assert transport.drain(11) == b"x" * 11
    assert producer.calls == ["pause", "pause"]
    transport.drain()
    assert producer.calls == ["pause", "pause", "resume"]
    transport.drain()
    assert producer.calls == ["pause", "pause", "resume"]


def test_a_pull_producer_is_asked_each_time() -> None:
    """A pull producer is asked at once, and whenever the buffer has emptied."""
    transport, producer = FakeTransport(), Producer()
    transport.attach(Recorder())
    transport.registerProducer(producer, False)
    transport.drain()
    assert producer.calls == ["resume", "resume"]


def test_close_waits_for_a_paused_producer_and_the_buffer() -> None:
    """`loseConnection` closes when everything was sent and no producer is paused."""
    transport, producer, protocol = FakeTransport(buffer_size=2), Producer(), Recorder()
    transport.attach(protocol)
    transport.registerProducer(producer, True)
    transport.write(b"one")
    transport.loseConnection()
    transport.drain()
    assert producer.calls == ["pause", "resume"]
    transport.write(b"two")
    transport.unregisterProducer()
    assert "connectionLost" not in protocol.events
    assert transport.drain(1) == b"t"
    assert "connectionLost" not in protocol.events
    transport.drain()
    assert transport.sent == b"onetwo"
    assert protocol.lost is not None
    assert protocol.lost.check(ConnectionDone)


def test_tls_does_not_close_while_a_producer_is_registered() -> None:
    """As Twisted's TLS: only `unregisterProducer` lets `loseConnection` come about."""
    transport, producer, protocol = FakeTransport(tls=True), Producer(), Recorder()
    assert ISSLTransport.providedBy(transport)
    transport.attach(protocol)
    transport.registerProducer(producer, True)
    transport.loseConnection()
    transport.write(b"still taken")
    for _ in range(3):
        transport.drain()
    assert "connectionLost" not in protocol.events
    transport.unregisterProducer()
    transport.write(b"dropped")
    transport.drain()
    assert transport.sent == b"still taken"
    assert protocol.lost is not None
    assert protocol.lost.check(ConnectionDone)


def test_tls_has_no_half_close() -> None:
    """Neither way: asking for it is an error, and the peer's end is the connection's."""
    transport, protocol = FakeTransport(tls=True), HalfCloseRecorder()
    transport.attach(protocol)
    with pytest.raises(RuntimeError, match="half-close"):
        transport.loseWriteConnection()
    transport.peer_half_close()
    assert protocol.events == ["connectionMade", "connectionLost"]


def test_paused_reading_holds_data_and_end() -> None:
    """While paused nothing is delivered; afterwards all of it, in order, then the half-close."""
    transport, protocol = FakeTransport(), HalfCloseRecorder()
    transport.attach(protocol)
    transport.pauseProducing()
    transport.receive(b"ab")
    transport.receive(b"c")
    transport.peer_half_close()
    assert protocol.events == ["connectionMade"]
    assert transport.held == 3
    transport.resumeProducing()
    assert protocol.events == ["connectionMade"]
    transport.drain()
    assert protocol.events == ["connectionMade", b"abc", "readConnectionLost"]


def test_abort_drops_what_is_unsent() -> None:
    """After `abortConnection` nothing leaves or arrives, and the end is told once, a turn later."""
    transport, protocol, producer = FakeTransport(), Recorder(), Producer()
    transport.attach(protocol)
    transport.registerProducer(producer, True)
    transport.write(b"x")
    transport.abortConnection()
    transport.receive(b"y")
    assert protocol.events == ["connectionMade"]
    assert transport.drain() == b""
    transport.peer_reset()
    assert protocol.events == ["connectionMade", "connectionLost"]
    assert protocol.lost is not None
    assert protocol.lost.check(ConnectionAborted)
    assert producer.calls == ["stop"]


def test_a_fault_ends_the_connection(flush_logged_errors: Any) -> None:
    """An exception from `dataReceived` ends the connection with that exception."""

    class Faulty(Recorder):
        def dataReceived(self, data: bytes) -> None:
            raise ValueError(data)

    transport, protocol = FakeTransport(), Faulty()
    transport.attach(protocol)
    transport.receive(b"x")
    assert protocol.lost is not None
    assert protocol.lost.check(ValueError)
    assert len(flush_logged_errors(ValueError)) == 1


def test_a_peer_that_does_not_read_fills_the_sender() -> None:
    """Backpressure goes through a pair: the reader's pause ends up as the writer's."""
    a, b, producer = Recorder(), Recorder(), Producer()
    connection = connect(a, b, buffer_size=10, capacity=20)
    connection.a.registerProducer(producer, True)
    connection.b.pauseProducing()
    connection.a.write(b"x" * 35)
    connection.flush()
    assert (connection.b.held, connection.a.buffered) == (20, 15)
    assert producer.calls == ["pause"]
    connection.b.resumeProducing()
    connection.flush()
    assert b.data == b"x" * 35
    assert producer.calls == ["pause", "resume"]


def test_writing_to_a_closed_peer_breaks_the_connection() -> None:
    """Bytes for a peer that has gone come back as a reset."""
    a, b = HalfCloseRecorder(), Recorder()
    connection = connect(a, b)
    connection.b.loseConnection()
    connection.flush()
    assert a.events == ["connectionMade", "readConnectionLost"]
    connection.a.write(b"x")
    connection.flush()
    assert a.lost is not None
    assert a.lost.check(ConnectionLost)


# --- the same script, on the fake and on real TCP ----------------------------------------

Script = Callable[[Recorder, Recorder, Any], Coroutine[Any, Any, None]]


async def half_close(a: Recorder, b: Recorder, settle: Any) -> None:
    assert a.transport is not None
    assert b.transport is not None
    a.transport.write(b"question")
    a.transport.loseWriteConnection()  # type: ignore[attr-defined]
    await settle()
    b.transport.write(b"answer")
    b.transport.loseConnection()
    await settle()
    a.transport.loseConnection()
    await settle()


async def close_with_data(a: Recorder, b: Recorder, settle: Any) -> None:
    assert a.transport is not None
    a.transport.write(b"x" * 100_000)
    a.transport.loseConnection()
    a.transport.write(b"late")
    await settle()


async def abort(a: Recorder, b: Recorder, settle: Any) -> None:
    assert a.transport is not None
    a.transport.write(b"x")
    await settle()
    a.transport.abortConnection()  # type: ignore[attr-defined]
    await settle()


async def pause(a: Recorder, b: Recorder, settle: Any) -> None:
    assert a.transport is not None
    assert b.transport is not None
    b.transport.pauseProducing()  # type: ignore[attr-defined]
    a.transport.write(b"x")
    a.transport.loseConnection()
    await settle()
    b.events.append("resumed")
    b.transport.resumeProducing()  # type: ignore[attr-defined]
    await settle()


async def resume_after_the_end(a: Recorder, b: Recorder, settle: Any) -> None:
    assert a.transport is not None
    assert b.transport is not None
    a.transport.loseWriteConnection()  # type: ignore[attr-defined]
    await settle()
    b.transport.resumeProducing()  # type: ignore[attr-defined]
    await settle()
    b.transport.loseConnection()
    await settle()
    a.transport.loseConnection()
    await settle()


def told(a: Recorder, b: Recorder) -> tuple[object, ...]:
    kinds = [None if each.lost is None else each.lost.type for each in (a, b)]
    return list(a.events), list(b.events), kinds


async def on_fakes(script: Script, kind: type[Recorder]) -> list[object]:
    """What was told by each stop of the script, and in the end."""
    a, b = kind(), kind()
    connection: Connection = connect(a, b)
    story: list[object] = []

    async def settle() -> None:
        connection.flush()
        story.append(told(a, b))

    await script(a, b, settle)
    return story


async def on_tcp(script: Script, kind: type[Recorder], expected: list[object]) -> list[object]:
    """The same over loopback, waiting at each stop until it tells what is expected, or more."""
    from twisted.internet import reactor

    clock: Any = reactor
    b = kind()
    accepted: Deferred[None] = Deferred()

    class Server(Factory):
        def buildProtocol(self, addr: object) -> Recorder:
            clock.callLater(0, accepted.callback, None)
            return b

    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Server())
    try:
        a = kind()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await endpoint.connect(Factory.forProtocol(lambda: a))
        await accepted
        story: list[object] = []

        async def settle() -> None:
            deadline = clock.seconds() + 10
            while told(a, b) != expected[len(story)] and clock.seconds() < deadline:
                await deferLater(clock, 0)
            # Anything more that was to come would show at the next stop, or below.
            story.append(told(a, b))

        await script(a, b, settle)
    finally:
        await port.stopListening()
    assert story[-1] == told(a, b)
    return story


@pytest.mark.parametrize("kind", [Recorder, HalfCloseRecorder])
@pytest.mark.parametrize(
    "script", [half_close, close_with_data, abort, pause, resume_after_the_end]
)
@pytest_twisted.ensureDeferred
async def test_fakes_tell_the_same_story_as_tcp(script: Script, kind: type[Recorder]) -> None:
    """The same script gives the same callbacks, bytes and reasons on fakes and on real TCP."""
    from twisted.internet import reactor

    if script is resume_after_the_end and type(reactor).__module__.startswith("srrrs."):
        pytest.skip("this reactor tells of a half-close once only")
    expected = await on_fakes(script, kind)
    assert await on_tcp(script, kind, expected) == expected
