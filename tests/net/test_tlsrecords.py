"""Our TLS transport between two protocols, over transports in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from OpenSSL.SSL import TLS_METHOD, Connection, Context, Error
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from srrrs.net.openssl import GROUP, INPUT, RECORD
from srrrs.net.tlsclient import client_connection_creator
from srrrs.net.tlsrecords import TOGETHER, BatchedTLS, tls_factory
from tests.kit import Producer
from tests.net.test_openssl import KINDS, Kind, identity

HEADER = 5
"""Bytes before a record."""
ADDED = 17
"""Bytes in a TLS 1.3 record that are not payload: its type, and AES-GCM's tag."""


class Told(Protocol, Producer):
    """Notes what it is told."""

    def __init__(self, early: bytes = b"") -> None:
        super().__init__()
        self.early = early
        self.pieces: list[bytes] = []
        self.ended: Failure | None = None
        self.on_data: Callable[[], None] | None = None

    def connectionMade(self) -> None:
        if self.early:
            self.send([self.early])

    def send(self, chunks: list[bytes]) -> None:
        assert self.transport is not None
        self.transport.writeSequence(chunks)

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.on_data is not None:
            self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Wire(StringTransport):
    """Keeps what is written, call by call."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.writes: list[bytes] = []
        self.aborting = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def abortConnection(self) -> None:
        self.aborting = True

    def take(self) -> bytes:
        writes, self.writes = self.writes, []
        return b"".join(writes)


class Ends:
    """A relay's and an agent's end of a connection, and the wires below them."""

    def __init__(self, kind: Kind | None = None, early: bytes = b"") -> None:
        relay = identity()
        creator = client_connection_creator("relay.example", pin=relay.pin)
        self.relay, self.agent = Told(), Told(early)
        self.clock = Clock()
        self.tls: list[Any] = [
            self._end(tls_factory(relay.context, False, self._factory(self.relay), self.clock)),
            self._end(tls_factory(creator, True, self._factory(self.agent), self.clock)),
        ]
        self.wires = [Wire(), Wire()]
        for tls, wire in zip(self.tls, self.wires, strict=True):
            if kind is not None:
                tls.records_of = kind
            tls.makeConnection(wire)

    def _factory(self, protocol: Protocol) -> Any:
        return Factory.forProtocol(lambda: protocol)

    def _end(self, factory: Any) -> BatchedTLS:
        protocol = factory.buildProtocol(None)
        assert isinstance(protocol, BatchedTLS)
        return protocol

    def settle(self) -> None:
        """Carry everything over, as often as it takes."""
        for _ in range(5):
            self.carry(0)
            self.carry(1)

    def carry(self, end: int) -> None:
        data = self.wires[end].take()
        if data:
            self.tls[1 - end].dataReceived(data)

    def end(self, reason: Exception) -> None:
        for tls, told in zip(self.tls, (self.relay, self.agent), strict=True):
            if told.ended is None:
                tls.connectionLost(Failure(reason))


@pytest.fixture(params=KINDS)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Two ends that have shaken hands."""
    ends = Ends(request.param)
    ends.settle()
    yield ends
    ends.end(ConnectionDone())


def payloads(data: bytes) -> list[int]:
    """Bytes of plaintext in each record."""
    sizes, pos = [], 0
    while pos < len(data):
        size = int.from_bytes(data[pos + 3 : pos + HEADER], "big")
        sizes.append(size - ADDED)
        pos += HEADER + size
    return sizes


@pytest.mark.parametrize(
    "sizes",
    [
        [0],
        [1],
        [RECORD],
        [10, RECORD - 10],
        [10, 8, 65536, 8, 65536, 8, 65536],
        [3 * GROUP + 1],
        [7 * GROUP],
        [100] * 2000,
        [RECORD - 1, RECORD + 1, 0, 5],
    ],
)
def test_records_are_full(ends: Ends, sizes: list[int]) -> None:
    """However a sequence is cut, all of its records but the last are full; many go together."""
    chunks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    ends.relay.send(chunks)
    total = sum(sizes)
    writes = ends.wires[0].writes
    assert len(writes) <= -(-total // (TOGETHER * GROUP)) + 1
    records = payloads(b"".join(writes))
    assert sum(records) == total
    assert all(size == RECORD for size in records[:-1])
    ends.settle()
    assert ends.agent.data == b"".join(chunks)
    assert len(ends.agent.pieces) <= total // INPUT + 1


def test_before_the_handshake() -> None:
    """What is written before it is done waits for it, in order, and pauses the producer."""
    ends = Ends(early=b"first ")
    producer: Any = ends.agent
    ends.tls[1].registerProducer(producer, True)
    ends.agent.send([b"sec", b"ond"])
    assert ends.agent.calls == ["pause"]
    ends.settle()
    assert ends.relay.data == b"first second"
    assert ends.agent.calls == ["pause", "resume"]
    ends.end(ConnectionDone())


def test_not_after_the_end(ends: Ends) -> None:
    """What is written after a close was asked for is dropped, unless a producer is registered."""
    ends.relay.send([b"last"])
    ends.tls[0].loseConnection()
    ends.relay.send([b"too late"])
    ends.tls[0].write(b"too late")
    ends.settle()
    assert ends.agent.data == b"last"
    assert ends.wires[0].disconnecting
    assert ends.wires[1].disconnecting
    ends.agent.send([b"too late"])
    assert ends.wires[1].writes == []


def test_an_error_in_tls(ends: Ends) -> None:
    """What OpenSSL does not take ends the connection, after what was taken before."""
    ends.tls[0].getHandle().shutdown()
    ends.relay.send([b"too late"])
    ends.tls[1].getHandle().shutdown()
    ends.tls[1].write(b"too late")
    assert all(wire.disconnecting for wire in ends.wires)
    ends.end(ConnectionDone())
    for told in (ends.relay, ends.agent):
        assert told.ended is not None
        assert told.ended.check(Error)


def test_single_records(ends: Ends) -> None:
    """Small writes are records of their own, at once."""
    ends.tls[0].write(b"a")
    ends.tls[0].write(bytes(RECORD))
    ends.tls[0].write(b"")
    assert [payloads(each) for each in ends.wires[0].writes] == [[1], [RECORD]]
    ends.settle()
    assert ends.agent.data == b"a" + bytes(RECORD)


def test_a_reader_that_aborts(ends: Ends) -> None:
    """After an abort nothing more is delivered of what had arrived, and nothing is said."""
    ends.relay.send([bytes(3 * INPUT)])
    ends.agent.on_data = ends.tls[1].abortConnection
    ends.carry(0)
    assert len(ends.agent.pieces) == 1
    assert ends.wires[1].aborting
    assert ends.wires[1].writes == []


def test_a_reader_that_is_lost(ends: Ends) -> None:
    """The end may come while what arrived is delivered."""
    ends.relay.send([bytes(3 * INPUT)])
    ends.agent.on_data = lambda: ends.tls[1].connectionLost(Failure(ConnectionLost()))
    ends.carry(0)
    assert ends.agent.ended is not None
    assert ends.agent.ended.check(ConnectionLost)


def test_forgery(ends: Ends) -> None:
    """A changed record ends the connection, with what came before it delivered."""
    ends.relay.send([b"honest"])
    ends.settle()
    ends.relay.send([b"forged"])
    data = ends.wires[0].take()
    ends.tls[1].dataReceived(data[:-1] + bytes([data[-1] ^ 1]))
    assert ends.wires[1].disconnecting
    ends.tls[1].connectionLost(Failure(ConnectionDone()))
    assert ends.agent.data == b"honest"
    assert ends.agent.ended is not None
    assert ends.agent.ended.check(Error)


def test_cut_off(ends: Ends) -> None:
    """An end below TLS without a farewell is no clean one, not even after half a record."""
    ends.relay.send([b"whole"])
    ends.settle()
    ends.relay.send([b"half"])
    ends.tls[1].dataReceived(ends.wires[0].take()[:-3])
    ends.tls[1].connectionLost(Failure(ConnectionDone()))
    assert ends.agent.data == b"whole"
    assert ends.agent.ended is not None
    assert ends.agent.ended.check(ConnectionLost)


def test_cut_anywhere(ends: Ends) -> None:
    """Records may arrive in pieces of any size."""
    data = bytes(range(256)) * 400
    ends.agent.send([data])
    wire = ends.wires[1].take()
    for pos in range(0, len(wire), 1001):
        ends.tls[0].dataReceived(wire[pos : pos + 1001])
    assert ends.relay.data == data


def test_a_server_does_nothing_before_the_client_has_spoken() -> None:
    """One that gives up while it waits has cost no handshake."""
    relay = identity()
    told = Told(b"")
    tls = tls_factory(
        relay.context, False, Factory.forProtocol(lambda: told), Clock()
    ).buildProtocol(None)
    assert isinstance(tls, BatchedTLS)
    wire = Wire()
    tls.makeConnection(wire)
    connection: Any = tls._tlsConnection
    new = Connection(Context(TLS_METHOD))
    assert connection.get_state_string() == new.get_state_string()
    tls.connectionLost(Failure(ConnectionDone()))
    assert told.ended is not None
