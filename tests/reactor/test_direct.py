"""Connections that the loop has no transport for, as new ones have none, keep the same promises."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error

from srrrs.net.reactor import direct
from tests.kit import Producer
from tests.reactor.kit import (
    HalfCloser,
    Pair,
    Recorder,
    Server,
    plain_client,
    tcp_pair,
    turns,
    until,
)

pytestmark = pytest.mark.skipif(not direct.AVAILABLE, reason="there is no epoll")
ensure = pytest_twisted.ensureDeferred

HUGE = 16 * 1024 * 1024


def is_direct(end: Any) -> bool:
    transport = end.transport
    assert (transport._direct is None) is (transport._attaching is not None)
    return transport._direct is not None


async def accepted(reactor: Any, make: Any = Recorder) -> tuple[Any, socket.socket, Any]:
    """A port, a plain client, and the protocol that serves it."""
    factory = Server(make)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    client = plain_client(port)
    served = await until(reactor, lambda: factory.protocols and factory.protocols[0])
    await turns(reactor)
    return port, client, served


async def over(port: Any, client: socket.socket, served: Any) -> None:
    """Once the protocol has lost its connection."""
    await served.lost
    client.close()
    await port.stopListening()


@ensure
async def test_a_short_connection_never_has_one(loop_reactor: Any) -> None:
    """A question, an answer, and the end, on both sides: without the loop's transport; nothing of
    it is watched afterwards."""
    watched = loop_reactor.direct._streams
    pair = await tcp_pair(loop_reactor)
    for _ in range(3):
        pair.client.transport.write(b"ask")
        await pair.server.received(3)
        pair.server.transport.writeSequence([b"ans", b"wer"])
        await pair.client.received(6)
    assert is_direct(pair.client)
    assert is_direct(pair.server)
    assert len(watched) == 2
    pair.server.transport.loseConnection()
    assert isinstance(await pair.client.lost, error.ConnectionDone)
    assert isinstance(await pair.server.lost, error.ConnectionDone)
    assert not watched
    await pair.close()


@ensure
async def test_what_came_with_a_connection(loop_reactor: Any) -> None:
    """A server reads in the very turn in which it accepts; but not where its protocol pauses."""
    seen: list[str] = []

    class Early(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            loop_reactor.callLater(0, seen.append, "next turn")

        def dataReceived(self, data: bytes) -> None:
            seen.append(data.decode())

    class Paused(Early):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()
            super().connectionMade()

    for make, expected in ((Early, ["at once", "next turn"]), (Paused, ["next turn"])):
        seen.clear()
        factory = Server(make)
        port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
        with plain_client(port) as client:
            client.sendall(b"at once")
            await until(loop_reactor, lambda: "next turn" in seen)
            assert seen == expected
            factory.protocols[0].transport.abortConnection()
            await factory.protocols[0].lost
        await port.stopListening()


@ensure
async def test_the_end_comes_with_the_last_words(loop_reactor: Any) -> None:
    """Data and FIN that are there together are told in one turn, in this order."""

    class Last(HalfCloser):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.events.append("data")
            loop_reactor.callLater(0, self.events.append, "next turn")

    port, client, served = await accepted(loop_reactor, Last)
    assert is_direct(served)
    client.sendall(b"the last words")
    client.shutdown(socket.SHUT_WR)
    await served.read_lost
    await turns(loop_reactor)
    assert served.events == ["made", "data", "read lost", "next turn"]
    served.transport.loseConnection()
    await over(port, client, served)


@ensure
async def test_the_loop_takes_over_what_does_not_fit(loop_reactor: Any) -> None:
    """What the kernel does not take makes the loop take over, in order, the producer paused."""
    port, client, served = await accepted(loop_reactor)
    producer = Producer()
    served.transport.registerProducer(producer, True)
    sent = bytearray()
    while not producer.calls:
        assert is_direct(served)
        sent += len(sent).to_bytes(8, "big") * 1024
        served.transport.write(bytes(sent[-8192:]))
    assert producer.calls == ["pause"]
    assert not is_direct(served)
    sent += b"and more"
    served.transport.write(b"and more")
    client.setblocking(False)
    got = bytearray()

    def read() -> bool:
        try:
            got.extend(client.recv(1 << 20))
        except BlockingIOError:
            pass
        return len(got) == len(sent)

    await until(loop_reactor, read)
    assert got == sent
    await until(loop_reactor, lambda: producer.calls == ["pause", "resume"])
    served.transport.unregisterProducer()
    served.transport.loseConnection()
    await over(port, client, served)


@ensure
@pytest.mark.parametrize("size", [1, direct.READ, HUGE])
async def test_the_loop_takes_over_what_lasts(loop_reactor: Any, size: int) -> None:
    """After some reads, or a large one, the loop takes over; nothing is lost or reordered."""
    pair = await tcp_pair(loop_reactor)
    total = b""
    for number in range(direct.READS if size == 1 else 1):
        assert is_direct(pair.server)
        data = bytes([number]) * size
        total += data
        pair.client.transport.write(data)
        await pair.server.received(len(total))
    assert pair.server.data == total
    await turns(loop_reactor)
    assert not is_direct(pair.server)
    await both_ways(pair)


async def both_ways(pair: Pair) -> None:
    for _ in range(3):
        already = len(pair.server.data), len(pair.client.data)
        pair.client.transport.write(b"to the server")
        pair.server.transport.write(b"to the client")
        assert (await pair.server.received(already[0] + 13)).endswith(b"to the server")
        assert (await pair.client.received(already[1] + 13)).endswith(b"to the client")
    await pair.close()


@ensure
@pytest.mark.parametrize("end", ["", "fin"])
async def test_pausing_loses_nothing(loop_reactor: Any, end: str) -> None:
    """What comes while a protocol has paused, within dataReceived too, waits until it goes on,
    though the system tells of it once only; so does the end."""

    class Pausing(HalfCloser):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.pauseProducing()

    port, client, served = await accepted(loop_reactor, Pausing)
    client.sendall(b"one")
    await served.received(3)
    client.sendall(b"two")
    if end:
        client.shutdown(socket.SHUT_WR)
    await turns(loop_reactor, 30)
    assert served.data == b"one"
    served.transport.resumeProducing()
    await served.received(6)
    await turns(loop_reactor, 30)
    assert served.events == ["made"]  # It has paused again.
    assert is_direct(served)
    if not end:
        client.sendall(b"six")
    served.transport.resumeProducing()
    if end:
        await served.read_lost
    else:
        await served.received(9)
    served.transport.abortConnection()
    await over(port, client, served)


@ensure
async def test_a_reset(loop_reactor: Any) -> None:
    """A reset ends the connection with ConnectionLost, whether it was read or written to."""
    for write in (False, True):
        port, client, served = await accepted(loop_reactor)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert is_direct(served)
        if write:
            served.transport.write(b"in vain")
        assert isinstance(await served.lost, error.ConnectionLost)
        assert not loop_reactor.direct._streams
        await port.stopListening()


@ensure
async def test_pull_producers_are_the_loops(loop_reactor: Any) -> None:
    """A pull producer is asked for more by the loop's transport."""

    class Pull:
        left = 5

        def resumeProducing(self) -> None:
            self.left -= 1
            served.transport.write(b"chunk")
            if not self.left:
                served.transport.unregisterProducer()

        def stopProducing(self) -> None:
            raise AssertionError

    pair = await tcp_pair(loop_reactor)
    served = pair.server
    served.transport.registerProducer(Pull(), False)
    assert await pair.client.received(25) == b"chunk" * 5
    assert not is_direct(served)
    await pair.close()


@ensure
async def test_where_no_more_can_be_watched(
    loop_reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system refuses to watch one more, or there is no epoll, the loop has all."""

    class Full:
        def register(self, *_: object) -> None:
            raise OSError(28, "no space")

    monkeypatch.setattr(loop_reactor.direct, "_epoll", Full())
    pair = await tcp_pair(loop_reactor)
    assert not is_direct(pair.server)
    await both_ways(pair)
    monkeypatch.setattr(loop_reactor, "direct", None)
    pair = await tcp_pair(loop_reactor)
    assert not is_direct(pair.server)
    await both_ways(pair)


@ensure
async def test_a_protocol_may_close_the_socket(loop_reactor: Any) -> None:
    """Who passes a socket on closes it under the transport, which others do not suffer from."""

    class Closing(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()
            self.transport.socket.close()

    factory = Server(Closing)
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    with plain_client(port) as client:
        assert await until(loop_reactor, lambda: factory.protocols)
        client.settimeout(5)
        assert client.recv(1) == b""
    factory.protocols[0].transport.abortConnection()
    await factory.protocols[0].lost
    factory.make = Recorder
    with plain_client(port) as client:
        client.sendall(b"next")
        await until(loop_reactor, lambda: len(factory.protocols) == 2)
        await factory.protocols[1].received(4)
    await factory.protocols[1].lost
    await port.stopListening()
