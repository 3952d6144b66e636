"""A stream behaves as a TCP transport does, to protocols written for TCP."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface.verify import verifyObject

from srrrs.net.channel import LINGER, Channel, StreamReset
from srrrs.protocol.errors import Overloaded, ResetCode, TunnelGone
from srrrs.protocol.flow import BASE_WINDOW
from srrrs.protocol.mux import Limits
from srrrs.testing import HalfCloseRecorder, Recorder
from tests.kit import Producer
from tests.net.kit import VISITOR, Pair, ended, reset_code

BIG = b"0123456789abcdef" * 65536
"""More than any window or queue of these tests."""
SMALL = Limits(window=BASE_WINDOW)


@pytest.fixture
def pair() -> Pair:
    return Pair()


class PullProducer(Producer):
    """Gives a piece each time it is asked."""

    def __init__(self, channel: Channel, pieces: int, size: int = 1000) -> None:
        super().__init__()
        self.channel = channel
        self.left: int = pieces
        self.size = size

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.left -= 1
        self.channel.write(b"p" * self.size)
        if not self.left:
            self.channel.unregisterProducer()


# --- what it is ---------------------------------------------------------------------------


def test_interfaces(pair: Pair) -> None:
    """A channel is a TCP transport, a consumer and a producer, with every method of them."""
    near, far = pair.open()
    assert [str(each.getPeer()) for each in (near, far)] == [str(VISITOR)] * 2
    near.setTcpNoDelay(False)
    near.setTcpKeepAlive(True)
    assert near.getTcpNoDelay()
    assert near.getTcpKeepAlive()
    for interface in (ITCPTransport, IConsumer, IPushProducer):
        verifyObject(interface, near)


def test_protocols_of_others_may_keep_things_on_it(pair: Pair) -> None:
    """As on Twisted's transports: Autobahn's resource sets ``wrappedProtocol``, Conch ``write``."""
    near, _ = pair.open()
    transport: Any = near
    transport.wrappedProtocol = recorder = Recorder()
    written: list[bytes] = []
    transport.write = written.append
    near.write(b"theirs")
    assert written == [b"theirs"]
    assert transport.wrappedProtocol is recorder
    assert weakref.ref(near)() is near


def test_bytes_both_ways(pair: Pair) -> None:
    """What is written on one end arrives at the other, whole and in order."""
    near, a, far, b = pair.joined()
    near.write(b"one ")
    near.writeSequence([b"two ", b"", b"three"])
    far.write(BIG)
    pair.settle()
    assert b.data == b"one two three"
    assert a.data == BIG


@pytest.mark.parametrize("wrong", ["text", bytearray(b"x"), memoryview(b"x"), None])
def test_only_bytes_are_written(pair: Pair, wrong: Any) -> None:
    """As on Twisted's transports, anything but bytes is a mistake of the caller."""
    near, *_ = pair.joined()
    with pytest.raises(TypeError):
        near.write(wrong)


# --- attaching ------------------------------------------------------------------------------


def test_data_and_fin_before_attach(pair: Pair) -> None:
    """What came before the protocol is delivered after `makeConnection`, then the half-close."""
    near, far = pair.open()
    near.write(b"early")
    near.loseWriteConnection()
    pair.settle()
    protocol = HalfCloseRecorder()
    far.attach(protocol)
    assert protocol.events == ["connectionMade", b"early", "readConnectionLost"]


def test_a_reset_after_the_fin_before_attach(pair: Pair) -> None:
    """A whole request whose sender then vanished is still delivered, then the end."""
    near, far = pair.open()
    near.write(b"early")
    near.loseWriteConnection()
    pair.settle()
    near.reset(ResetCode.CANCEL)
    pair.settle()
    protocol = HalfCloseRecorder()
    far.attach(protocol)
    assert protocol.events[:3] == ["connectionMade", b"early", "readConnectionLost"]
    assert reset_code(protocol) == ResetCode.CANCEL


def test_a_reset_before_attach_drops_unfinished_data(pair: Pair) -> None:
    """Without a FIN the data is not whole: the protocol learns of the reset only."""
    near, far = pair.open()
    near.write(b"half of a requ")
    pair.settle()
    near.reset(ResetCode.TIMEOUT, "too slow")
    pair.settle()
    assert pair.agent.budget.used == 0
    protocol = HalfCloseRecorder()
    far.attach(protocol)
    assert protocol.events == ["connectionMade", "connectionLost"]
    assert reset_code(protocol) == ResetCode.TIMEOUT


@pytest.mark.parametrize("close", ["loseConnection", "abortConnection"])
def test_a_close_before_attach(pair: Pair, close: str) -> None:
    """Whoever attaches to a stream that was closed meanwhile is told so."""
    near, far = pair.open()
    getattr(far, close)()
    pair.settle()
    b = HalfCloseRecorder()
    far.attach(b)
    assert b.events == ["connectionMade", "connectionLost"]
    near.attach(Recorder())
    pair.settle()
    assert pair.relay.tunnel.streams == pair.agent.tunnel.streams == 0
    assert b.events.count("connectionLost") == 1


def test_a_protocol_that_pauses_on_attach(pair: Pair) -> None:
    """`pauseProducing` from `connectionMade` holds even what came before it."""

    class Paused(HalfCloseRecorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()  # type: ignore[union-attr]

    near, far = pair.open()
    near.write(b"early")
    pair.settle()
    protocol = Paused()
    far.attach(protocol)
    assert protocol.events == ["connectionMade"]
    far.resumeProducing()
    assert protocol.events == ["connectionMade", b"early"]


# --- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
def test_half_close(pair: Pair, swap: bool) -> None:
    """Either end may finish first; the other goes on; both are done once both have finished."""
    near, a, far, b = pair.joined()
    if swap:
        near, a, far, b = far, b, near, a
    near.write(b"question")
    near.loseWriteConnection()
    near.write(b" too late")
    pair.settle()
    assert b.events == ["connectionMade", b"question", "readConnectionLost"]
    assert a.events == ["connectionMade", "writeConnectionLost"]
    far.write(b"answer")
    far.loseConnection()
    pair.settle()
    assert a.events[2:] == [b"answer", "readConnectionLost", "connectionLost"]
    assert ended(a, ConnectionDone)
    assert ended(b, ConnectionDone)
    assert pair.relay.tunnel.streams == pair.agent.tunnel.streams == 0


@pytest.mark.parametrize("swap", [False, True])
def test_a_fin_closes_protocols_without_half_close(pair: Pair, swap: bool) -> None:
    """As on TCP: where the protocol knows no half-close, the peer's FIN ends the connection."""
    near, a, far, b = pair.joined(Recorder)
    if swap:
        near, a, far, b = far, b, near, a
    near.write(b"bye")
    near.loseConnection()
    pair.settle()
    assert b.data == b"bye"
    assert ended(a, ConnectionDone)
    assert ended(b, ConnectionDone)
    assert pair.relay.tunnel.streams == pair.agent.tunnel.streams == 0


@pytest.mark.parametrize("swap", [False, True])
def test_reset_both_ways(pair: Pair, swap: bool) -> None:
    """A reset ends both ends at once, and says why; the side that asked sees an abort."""
    near, a, far, b = pair.joined()
    if swap:
        near, a, far, b = far, b, near, a
    near.write(b"dropped")
    near.reset(ResetCode.REFUSED, "nobody there")
    pair.settle()
    assert b.events == ["connectionMade", "connectionLost"]
    assert reset_code(b) == ResetCode.REFUSED
    assert str(b.lost.value) == "nobody there"
    assert ended(a, ConnectionAborted)


def test_abort(pair: Pair) -> None:
    """`abortConnection` is a reset with CANCEL, to TCP-minded protocols a lost connection."""
    near, a, _far, b = pair.joined()
    near.abortConnection()
    near.abortConnection()
    pair.settle()
    assert reset_code(b) == ResetCode.CANCEL
    assert b.lost.check(ConnectionLost)
    assert ended(a, ConnectionAborted)


def test_a_reset_code_from_the_future(pair: Pair) -> None:
    """A code that is not known has words, too."""
    assert str(StreamReset(99)) == "reset with code 99"
    assert str(StreamReset(ResetCode.UNKNOWN_SERVICE)) == "unknown service"


def test_lose_connection_sends_everything_first(pair: Pair) -> None:
    """`loseConnection` closes only once all that was written has gone out."""
    near, a, _far, b = pair.joined(Recorder)
    near.write(BIG)
    near.loseConnection()
    near.write(b"late")
    pair.turn()
    assert "connectionLost" not in a.events
    pair.settle()
    assert b.data == BIG
    assert ended(a, ConnectionDone)
    assert ended(b, ConnectionDone)


def test_linger(pair: Pair) -> None:
    """A peer that never finishes after our close is reset when its time is up."""
    near, a, _far, b = pair.joined()
    near.loseConnection()
    pair.settle()
    assert ended(a, ConnectionDone)
    assert b.events == ["connectionMade", "readConnectionLost"]
    pair.pass_time(LINGER - 1)
    assert pair.relay.tunnel.streams == 1
    pair.pass_time(2)
    assert pair.relay.tunnel.streams == pair.agent.tunnel.streams == 0
    assert reset_code(b) == ResetCode.CANCEL
    assert a.events.count("connectionLost") == 1


def test_linger_ends_with_the_peers_fin(pair: Pair) -> None:
    """A peer that does finish in time leaves no timer behind."""
    near, _a, far, _b = pair.joined()
    near.loseConnection()
    pair.settle()
    far.loseConnection()
    pair.settle()
    assert pair.relay.tunnel.streams == 0
    assert all(call.getTime() < LINGER for call in pair.clock.getDelayedCalls())


def test_data_after_our_close_is_answered_by_a_reset(pair: Pair) -> None:
    """As TCP: who goes on sending to a closed socket is told so, and its bytes are credited."""
    near, a, far, b = pair.joined()
    near.loseConnection()
    pair.settle()
    far.write(b"still talking")
    pair.settle()
    assert a.events == ["connectionMade", "connectionLost"]
    assert reset_code(b) == ResetCode.CANCEL
    assert pair.relay.tunnel.streams == 0
    assert pair.relay.budget.used == 0


@pytest.mark.parametrize("paused", [False, True])
def test_data_during_our_close_does_not_cut_the_answer(paused: bool) -> None:
    """Who closes is still heard out: the peer's late bytes are refused only after our FIN."""
    pair = Pair(SMALL)
    near, a, far, b = pair.joined()
    far.write(BIG[: 8 * BASE_WINDOW])
    if paused:
        far.pauseProducing()
    far.loseConnection()
    near.write(b"one more thing")
    pair.settle()
    assert a.data == BIG[: 8 * BASE_WINDOW]
    assert a.events[2] == "readConnectionLost"
    assert reset_code(a) == ResetCode.CANCEL
    assert ended(b, ConnectionDone)
    assert b.data == b""
    assert pair.relay.budget.used == pair.agent.budget.used == 0


def test_a_fin_then_a_reset_still_delivers_everything(pair: Pair) -> None:
    """Bytes that wait for a paused protocol outlive a reset that follows the peer's FIN."""
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    near.write(b"all of it")
    near.loseWriteConnection()
    pair.settle()
    near.reset(ResetCode.CANCEL)
    pair.settle()
    assert b.events == ["connectionMade"]
    far.resumeProducing()
    assert b.events[1:3] == [b"all of it", "readConnectionLost"]
    assert reset_code(b) == ResetCode.CANCEL


def test_a_fin_that_waits_outlives_a_reset(pair: Pair) -> None:
    """A FIN that a paused protocol has not seen, with no byte before it, is still told first."""
    near, _a, far, b = pair.joined()
    near.write(b"all of it")
    pair.settle()
    far.pauseProducing()
    near.loseWriteConnection()
    pair.settle()
    near.reset(ResetCode.CANCEL)
    pair.settle()
    far.resumeProducing()
    assert b.events == ["connectionMade", b"all of it", "readConnectionLost", "connectionLost"]


def test_a_reset_without_a_fin_drops_what_waits(pair: Pair) -> None:
    """Held bytes of an unfinished stream are dropped, and the protocol told at once."""
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    near.write(b"half")
    pair.settle()
    near.reset(ResetCode.CANCEL)
    pair.settle()
    assert b.events == ["connectionMade", "connectionLost"]
    far.resumeProducing()
    assert b.events == ["connectionMade", "connectionLost"]
    assert pair.agent.budget.used == 0


def test_both_fins_while_paused_deliver_everything(pair: Pair) -> None:
    """A stream that is over, cleanly, still hands on what its paused protocol has not seen."""
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    far.loseWriteConnection()
    near.write(b"all of it")
    near.loseConnection()
    pair.settle()
    assert pair.agent.tunnel.streams == 0
    assert "connectionLost" not in b.events
    far.resumeProducing()
    assert b.data == b"all of it"
    assert ended(b, ConnectionDone)
    assert pair.agent.budget.used == 0


def test_lose_connection_with_data_held(pair: Pair) -> None:
    """Closing while paused drops what waits, gives back its memory and does not deliver it."""
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    near.write(b"unread")
    near.loseWriteConnection()
    pair.settle()
    far.loseConnection()
    pair.settle()
    assert b.data == b""
    assert ended(b, ConnectionDone)
    assert pair.agent.tunnel.streams == pair.relay.tunnel.streams == 0
    assert pair.agent.budget.used == pair.relay.budget.used == 0


def test_close_from_within_callbacks(pair: Pair) -> None:
    """A protocol may close from `dataReceived`; nothing more is delivered."""

    class OneShot(HalfCloseRecorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.loseConnection()  # type: ignore[union-attr]

    near, far = pair.open()
    near.write(b"one")
    pair.settle()
    near.write(b"two")
    pair.settle()
    b = OneShot()
    far.attach(b)
    pair.settle()
    assert b.data == b"one"


def test_abort_from_within_data_received(pair: Pair) -> None:
    """A protocol may abort from `dataReceived`; nothing more is delivered."""

    class Bomb(HalfCloseRecorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.abortConnection()  # type: ignore[union-attr]

    near, far = pair.open()
    a, b = HalfCloseRecorder(), Bomb()
    near.attach(a)
    near.write(b"one")
    pair.settle()
    near.write(b"two")
    pair.settle()
    far.attach(b)
    pair.settle()
    assert b.events == ["connectionMade", b"one", "connectionLost"]
    assert reset_code(a) == ResetCode.CANCEL
    assert pair.agent.budget.used == pair.relay.budget.used == 0


@pytest.mark.parametrize("name", ["dataReceived", "readConnectionLost", "writeConnectionLost"])
def test_faulty_protocols_reset_their_stream(
    pair: Pair, flush_logged_errors: Any, name: str
) -> None:
    """An exception in a callback is logged and resets that stream; the tunnel goes on."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    near, a, far, b = pair.joined()
    setattr(b, name, fail)
    near.write(b"x")
    near.loseWriteConnection()
    far.loseWriteConnection()
    pair.settle()
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    assert b.events[-1] == "connectionLost"
    assert b.events.count("connectionLost") == a.events.count("connectionLost") == 1
    assert not pair.relay.lost
    assert not pair.agent.lost
    assert pair.relay.tunnel.streams == pair.agent.tunnel.streams == 0


def test_a_fault_is_told_to_the_peer(pair: Pair, flush_logged_errors: Any) -> None:
    """The peer of a faulty protocol is reset with INTERNAL."""

    class Faulty(HalfCloseRecorder):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    near, far = pair.open()
    a = HalfCloseRecorder()
    near.attach(a)
    far.attach(Faulty())
    near.write(b"x")
    pair.settle()
    assert reset_code(a) == ResetCode.INTERNAL
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_a_fault_in_connection_lost_is_logged(pair: Pair, flush_logged_errors: Any) -> None:
    """`connectionLost` that raises harms nobody."""
    near, _a, _far, b = pair.joined()

    def fail(_: object) -> None:
        raise ZeroDivisionError

    b.connectionLost = fail
    near.abortConnection()
    pair.settle()
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    assert not pair.agent.lost


def test_the_tunnels_end_resets_streams(pair: Pair) -> None:
    """Streams of a tunnel that ended are reset with GONE, on both ends."""
    near, a, far, b = pair.joined()
    far.pauseProducing()
    near.write(b"held")
    pair.settle()
    pair.relay_carrier.cut()
    assert reset_code(a) == reset_code(b) == ResetCode.GONE
    assert pair.agent.budget.used == pair.relay.budget.used == 0
    near.write(b"x")
    near.loseConnection()
    near.abortConnection()
    assert a.events.count("connectionLost") == 1


# --- flow -------------------------------------------------------------------------------------


def test_credit_is_given_only_when_taken() -> None:
    """A paused protocol takes one window and no more; the rest waits at the sender."""
    pair = Pair(SMALL)
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    near.write(BIG[: 4 * BASE_WINDOW])
    pair.settle()
    assert far.stream.window.held == BASE_WINDOW
    assert near.stream.queued == 3 * BASE_WINDOW
    far.resumeProducing()
    pair.settle()
    assert b.data == BIG[: 4 * BASE_WINDOW]
    assert near.stream.queued == 0


def test_pause_inside_data_received_holds_credit() -> None:
    """Bytes given to a protocol that paused meanwhile count as untaken until it resumes."""

    class Sip(HalfCloseRecorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.pauseProducing()  # type: ignore[union-attr]

    pair = Pair(SMALL)
    near, far = pair.open()
    b = Sip()
    far.attach(b)
    near.write(BIG[: 4 * BASE_WINDOW])
    pair.settle()
    assert 0 < len(b.data) <= BASE_WINDOW
    assert far.stream.window.held == BASE_WINDOW
    for _ in range(100):
        far.resumeProducing()
        pair.settle()
    assert b.data == BIG[: 4 * BASE_WINDOW]


def test_pausing_twice_and_resuming_twice(pair: Pair) -> None:
    """Twisted's transports call `pauseProducing` on every over-full write; that is no counter."""
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    far.pauseProducing()
    near.write(b"x")
    pair.settle()
    far.resumeProducing()
    far.resumeProducing()
    assert b.data == b"x"


def test_resume_inside_data_received_keeps_the_order(pair: Pair) -> None:
    """`resumeProducing` from within `dataReceived` does not turn the order of bytes."""

    class Restless(HalfCloseRecorder):
        def dataReceived(self, data: bytes) -> None:
            transport: Any = self.transport
            transport.pauseProducing()
            super().dataReceived(data)
            transport.resumeProducing()

    near, far = pair.open()
    for number in range(50):
        near.write(b"%02d" % number)
        pair.settle()
    b = Restless()
    far.attach(b)
    pair.settle()
    assert b.data == b"".join(b"%02d" % number for number in range(50))
    assert far.stream.window.held == 0


def test_backpressure_reaches_a_push_producer() -> None:
    """A producer is paused when enough is queued and resumed when there is room."""
    pair = Pair(Limits(window=BASE_WINDOW, stream_queue=4 * BASE_WINDOW))
    near, _a, far, b = pair.joined()
    producer = Producer()
    near.registerProducer(producer, True)
    far.pauseProducing()
    near.write(BIG[: 4 * BASE_WINDOW])
    near.write(BIG[: 4 * BASE_WINDOW])
    assert producer.calls == ["pause"]
    pair.settle()
    assert producer.calls == ["pause"]
    far.resumeProducing()
    pair.settle()
    assert producer.calls == ["pause", "resume"]
    near.unregisterProducer()
    assert len(b.data) == 8 * BASE_WINDOW


def test_a_producer_registered_while_held_back() -> None:
    """Who registers while there is no room is paused at once."""
    pair = Pair(Limits(stream_queue=4 * BASE_WINDOW))
    near, *_ = pair.joined()
    near.write(BIG)
    producer = Producer()
    near.registerProducer(producer, True)
    assert producer.calls == ["pause"]
    pair.settle()
    assert producer.calls == ["pause", "resume"]


def test_pull_producers_are_asked_as_there_is_room() -> None:
    """A pull producer gives its pieces one a turn, and none while the queue is full."""
    pair = Pair(Limits(window=BASE_WINDOW, stream_queue=2 * BASE_WINDOW))
    near, _a, far, b = pair.joined()
    far.pauseProducing()
    producer = PullProducer(near, pieces=100)
    near.registerProducer(producer, False)
    pair.settle()
    assert 0 < len(producer.calls) < 100
    assert near.stream.queued <= 2 * BASE_WINDOW + producer.size
    far.resumeProducing()
    pair.settle()
    assert producer.calls == ["resume"] * 100
    assert b.data == b"p" * 100_000


def test_a_pull_producer_ends_with_its_stream(pair: Pair) -> None:
    """A reset stops the producer and leaves no call behind."""
    near, _a, far, _b = pair.joined()
    far.pauseProducing()
    producer = PullProducer(near, pieces=1 << 30)
    near.registerProducer(producer, False)
    pair.turn()
    far.abortConnection()
    near.pauseProducing()
    pair.settle()
    assert producer.calls[-1] == "stop"
    assert producer.calls.count("stop") == 1


def test_a_second_producer_is_a_mistake(pair: Pair) -> None:
    """As on Twisted's transports."""
    near, *_ = pair.joined()
    near.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError):
        near.registerProducer(Producer(), True)


def test_registering_at_a_stream_that_is_over(pair: Pair) -> None:
    """Who comes too late is stopped at once."""
    near, _a, far, _b = pair.joined()
    far.abortConnection()
    pair.settle()
    producer = Producer()
    near.registerProducer(producer, True)
    assert producer.calls == ["stop"]


def test_stop_producing_closes(pair: Pair) -> None:
    """What produces into a consumer that ended closes its side."""
    near, a, _far, b = pair.joined(Recorder)
    near.stopProducing()
    pair.settle()
    assert ended(a, ConnectionDone)
    assert ended(b, ConnectionDone)


# --- opening ----------------------------------------------------------------------------------


def test_too_many_streams() -> None:
    """Over the limit a stream is refused before anything is sent."""
    pair = Pair(Limits(streams=2))
    pair.open()
    near, _ = pair.open()
    with pytest.raises(Overloaded):
        pair.relay.tunnel.open(1, VISITOR)
    near.abortConnection()
    pair.settle()
    pair.open()


def test_no_stream_on_a_tunnel_that_is_over(pair: Pair) -> None:
    pair.relay_carrier.cut()
    with pytest.raises(TunnelGone):
        pair.relay.tunnel.open(1, VISITOR)


def test_nobody_serves_the_stream(pair: Pair, flush_logged_errors: Any) -> None:
    """A handler that fails to serve a stream has it reset, and the failure logged."""

    def fail(_: Channel) -> None:
        raise ZeroDivisionError

    pair.agent.serve = fail
    near, _ = pair.open()
    a = HalfCloseRecorder()
    near.attach(a)
    assert reset_code(a) == ResetCode.INTERNAL
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
