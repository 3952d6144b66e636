"""A connection joined to a stream: bytes, half-closes, resets and backpressure pass both ways."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone

from srrrs.net.channel import LINGER, Channel
from srrrs.net.splice import CLOSE_TIMEOUT, Splice
from srrrs.protocol.errors import ResetCode
from srrrs.protocol.flow import BASE_WINDOW
from srrrs.protocol.mux import Limits
from srrrs.protocol.session import ACK_LATE
from srrrs.protocol.stream import StreamState
from srrrs.testing import FakeTransport, HalfCloseRecorder, Recorder
from tests.conftest import FlushLoggedErrors
from tests.net.kit import Pair, ended, reset_code

QUEUE = 4 * BASE_WINDOW
LIMITS = Limits(window=BASE_WINDOW, stream_queue=QUEUE)


class Watched(Splice):
    """One that can be referred to weakly, as those of compiled classes cannot."""


class Rig:
    """A visitor's connection spliced to a stream, whose other end a recorder has."""

    def __init__(
        self, tls: bool = False, attach: bool = True, kind: type[Splice] = Splice, **transport: Any
    ) -> None:
        self.pair = Pair(LIMITS)
        self.near, self.far = self.pair.open()
        self.local: Any = FakeTransport(tls=tls, **transport)
        self.splice = kind(self.near)
        self.local.attach(self.splice)
        self.end = HalfCloseRecorder()
        if attach:
            self.far.attach(self.end)

    def settle(self) -> None:
        for _ in range(3):
            self.pair.settle()
            self.local.drain()
            self.pair.settle()

    def over(self) -> bool:
        """Nothing is left: no connection, no stream, no timer but the heartbeats, no memory."""
        assert not self.local.connected
        for side in (self.pair.relay, self.pair.agent):
            assert side.tunnel.streams == 0
            assert side.budget.used == 0
        assert self.local.producer is None
        self.pair.pass_time(ACK_LATE)
        return len(self.pair.clock.getDelayedCalls()) == 2


def test_a_request_and_its_answer() -> None:
    """Bytes both ways; the local connection ends when the stream has."""
    rig = Rig()
    assert rig.local.no_delay
    rig.local.receive(b"question")
    rig.settle()
    rig.far.write(b"answer")
    rig.far.loseConnection()
    rig.settle()
    assert rig.local.sent == b"answer"
    assert rig.local.write_closed
    assert rig.local.connected
    rig.local.peer_half_close()
    rig.settle()
    assert rig.end.data == b"question"
    assert ended(rig.end, ConnectionDone)
    assert rig.over()


def test_the_visitor_finishes_first() -> None:
    """A half-close of the local peer passes; the answer still comes."""
    rig = Rig()
    rig.local.receive(b"question")
    rig.local.peer_half_close()
    rig.settle()
    assert rig.end.events == ["connectionMade", b"question", "readConnectionLost"]
    rig.far.write(b"answer")
    rig.far.loseConnection()
    rig.settle()
    assert rig.local.sent == b"answer"
    assert ended(rig.end, ConnectionDone)
    assert rig.over()


def test_the_far_end_finishes_first() -> None:
    """A FIN passes as a half-close; the local peer may go on talking."""
    rig = Rig()
    rig.far.write(b"bye")
    rig.far.loseWriteConnection()
    rig.settle()
    assert rig.local.sent == b"bye"
    assert rig.local.write_closed
    rig.local.receive(b"one more thing")
    rig.local.peer_half_close()
    rig.settle()
    assert rig.end.data == b"one more thing"
    assert ended(rig.end, ConnectionDone)
    assert rig.over()


def test_a_reset_from_the_far_end_aborts() -> None:
    """RESET becomes RST: what is unsent is dropped, the connection aborted."""
    rig = Rig()
    rig.far.write(b"dropped")
    rig.pair.settle()
    rig.far.reset(ResetCode.REFUSED)
    rig.settle()
    assert rig.local.sent == b""
    assert rig.local.aborted
    assert rig.local.lost is not None
    assert rig.local.lost.check(ConnectionAborted)
    assert rig.over()


def test_a_broken_connection_resets_the_stream() -> None:
    """RST becomes RESET with CANCEL."""
    rig = Rig()
    rig.local.receive(b"half a requ")
    rig.local.peer_reset()
    rig.settle()
    assert reset_code(rig.end) == ResetCode.CANCEL
    assert rig.over()


def test_the_tunnels_end_aborts() -> None:
    """A tunnel that is cut ends the connections on it, and leaves nothing."""
    rig = Rig()
    rig.far.write(b"x" * 100)
    rig.pair.settle()
    rig.pair.relay_carrier.cut()
    rig.local.drain()
    assert not rig.local.connected
    assert rig.local.aborted
    assert reset_code(rig.end) == ResetCode.GONE


def test_a_connection_that_breaks_after_its_half_close() -> None:
    """A visitor who finished, then went away, resets the stream at once."""
    rig = Rig()
    rig.local.receive(b"GET")
    rig.local.peer_half_close()
    rig.settle()
    rig.far.write(b"x")
    rig.settle()
    rig.local.peer_reset()
    rig.settle()
    assert reset_code(rig.end) == ResetCode.CANCEL
    assert rig.over()


# --- backpressure -----------------------------------------------------------------------------


def test_a_slow_far_end_pauses_the_visitor() -> None:
    """The visitor's connection is not read while the stream is full, and read again after."""
    rig = Rig()
    rig.far.pauseProducing()
    for _ in range(QUEUE // 4096 + 5):
        rig.local.receive(b"x" * 4096)
        rig.pair.settle()
    assert not rig.local.reading
    held = rig.local.held
    rig.local.receive(b"y" * 4096)
    assert rig.local.held == held + 4096
    rig.far.resumeProducing()
    for _ in range(10):
        rig.settle()
    assert rig.local.reading
    assert len(rig.end.data) == (QUEUE // 4096 + 5) * 4096 + 4096


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_slow_far_end_that_sends_no_more_pauses_the_visitor_too(when: str) -> None:
    """A half-closed stream holds up what still comes, and lets it on again, whether its FIN came
    before that or after."""
    rig = Rig()
    if when == "before":
        rig.far.loseWriteConnection()
        rig.settle()
    rig.far.pauseProducing()
    for _ in range(QUEUE // 4096 + 5):
        rig.local.receive(b"x" * 4096)
        rig.pair.settle()
    assert not rig.local.reading
    if when == "after":
        rig.far.loseWriteConnection()
        rig.settle()
        assert rig.local.write_closed
    rig.far.resumeProducing()
    for _ in range(10):
        rig.settle()
    assert rig.local.reading
    assert len(rig.end.data) == (QUEUE // 4096 + 5) * 4096


def test_a_slow_visitor_pauses_the_stream() -> None:
    """A visitor that does not read holds one window, not everything that comes."""
    rig = Rig(buffer_size=4096)
    rig.far.write(b"x" * (8 * BASE_WINDOW))
    rig.pair.settle()
    assert rig.local.buffered <= BASE_WINDOW
    assert rig.far.stream.queued >= 7 * BASE_WINDOW
    while rig.local.drain(1000):
        rig.pair.settle()
    assert len(rig.local.sent) == 8 * BASE_WINDOW


def test_the_visitor_is_paused_from_the_start() -> None:
    """A backend that is connected after the window filled finds its visitor's bytes in order."""
    rig = Rig(attach=False)
    sent = b""
    for number in range(30):
        piece = bytes([number]) * 4096
        sent += piece
        rig.local.receive(piece)
        rig.pair.settle()
    rig.far.attach(rig.end)
    for _ in range(10):
        rig.settle()
    assert rig.end.data == sent


def test_two_splices() -> None:
    """Visitor, stream and backend: an answer of many windows, then a close, arrives whole."""
    pair = Pair(LIMITS)
    near, far = pair.open()
    visitor, backend = FakeTransport(buffer_size=3000), FakeTransport(buffer_size=5000)
    visitor.attach(Splice(near))
    visitor.receive(b"GET")
    visitor.peer_half_close()
    pair.settle()
    backend.attach(Splice(far))
    pair.settle()
    assert backend.drain() == b"GET"
    backend.drain()
    assert backend.write_closed
    answer = bytes(range(256)) * 4096
    backend.receive(answer[:700_000])
    backend.receive(answer[700_000:])
    backend.peer_half_close()
    for _ in range(2000):
        visitor.drain(1500)
        pair.settle()
        backend.drain()
        if not visitor.connected:
            break
    assert visitor.sent == answer
    assert not visitor.connected
    assert not backend.connected
    assert pair.relay.budget.used == pair.agent.budget.used == 0


# --- TLS on the local side --------------------------------------------------------------------


def test_tls_has_no_half_close_so_fin_closes() -> None:
    """Over TLS the far end's FIN closes the connection, producers notwithstanding."""
    rig = Rig(tls=True)
    rig.far.write(b"answer")
    rig.far.loseConnection()
    rig.settle()
    assert rig.local.sent == b"answer"
    assert not rig.local.connected
    assert ended(rig.end, ConnectionDone)
    assert rig.over()


def test_tls_peer_that_closes() -> None:
    """The end of a TLS connection is the stream's end."""
    rig = Rig(tls=True)
    rig.local.receive(b"bye")
    rig.local.peer_half_close()
    rig.settle()
    assert rig.end.data == b"bye"
    assert rig.end.events[2:] == ["readConnectionLost"]
    rig.far.loseConnection()
    rig.settle()
    assert rig.over()


def test_tls_reset() -> None:
    """A reset ends a TLS connection at once."""
    rig = Rig(tls=True)
    rig.far.abortConnection()
    rig.settle()
    assert rig.local.aborted
    assert rig.over()


# --- deadlines --------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_a_visitor_that_never_reads_is_aborted(tls: bool) -> None:
    """What is written to a visitor who reads nothing waits as long as the deadline allows."""
    rig = Rig(tls=tls, buffer_size=100)
    if not tls:
        rig.local.peer_half_close()
    rig.far.write(b"x" * 1000)
    rig.far.loseConnection()
    rig.pair.settle()
    rig.local.drain(10)
    rig.pair.settle()
    rig.pair.pass_time(CLOSE_TIMEOUT - 1, step=10)
    assert rig.local.connected
    assert not rig.local.aborted
    rig.pair.pass_time(2, step=1)
    assert rig.local.aborted
    rig.local.drain()
    rig.settle()
    assert rig.over()


@pytest.mark.parametrize("tls", [False, True])
def test_a_reset_after_the_fin_leaves_what_was_written(tls: bool) -> None:
    """A far end that closed, and lingered in vain, ends the connection without cutting it short."""
    rig = Rig(tls=tls)
    rig.far.write(b"x" * 1000)
    rig.far.loseConnection()
    rig.pair.settle()
    rig.local.drain(10)
    rig.pair.pass_time(LINGER + 1, step=10)
    assert rig.far.stream.state is StreamState.CLOSED
    assert not rig.local.aborted
    rig.settle()
    assert len(rig.local.sent) == 1000
    assert rig.over()


def test_the_deadline_goes_with_the_connection() -> None:
    """A visitor that takes its bytes in time leaves no timer."""
    rig = Rig()
    rig.local.peer_half_close()
    rig.far.write(b"x" * 1000)
    rig.far.loseConnection()
    rig.settle()
    assert rig.over()


def test_a_half_closed_connection_may_stay() -> None:
    """A visitor who finished and waits for a slow answer is not cut off."""
    rig = Rig()
    rig.local.receive(b"GET")
    rig.local.peer_half_close()
    rig.settle()
    rig.pair.pass_time(10 * CLOSE_TIMEOUT, step=30)
    rig.far.write(b"at last")
    rig.far.loseConnection()
    rig.settle()
    assert rig.local.sent == b"at last"
    assert rig.over()


# --- odd orders -------------------------------------------------------------------------------


def test_a_stream_that_was_reset_before_the_backend_answered() -> None:
    """A backend's connection to a stream that is over is closed."""
    pair = Pair(LIMITS)
    near, far = pair.open()
    near.abortConnection()
    pair.settle()
    backend = FakeTransport()
    backend.attach(Splice(far))
    backend.drain()
    assert not backend.connected
    assert backend.producer is None
    pair.pass_time(ACK_LATE)
    assert len(pair.clock.getDelayedCalls()) == 2


def test_a_stream_that_finished_before_the_backend_answered() -> None:
    """The request and its end wait for the backend."""
    pair = Pair(LIMITS)
    near, far = pair.open()
    visitor = HalfCloseRecorder()
    near.attach(visitor)
    near.write(b"GET")
    near.loseWriteConnection()
    pair.settle()
    backend = FakeTransport()
    backend.attach(Splice(far))
    assert backend.drain() == b"GET"
    backend.drain()
    assert backend.write_closed
    backend.receive(b"answer")
    backend.peer_half_close()
    backend.drain()
    pair.settle()
    assert visitor.data == b"answer"
    near.loseConnection()
    pair.settle()
    assert not backend.connected
    assert pair.agent.tunnel.streams == 0


def test_a_connection_lost_while_its_stream_waits() -> None:
    """Held bytes of a connection that is gone are given back."""
    rig = Rig(buffer_size=100)
    rig.far.write(b"x" * (4 * BASE_WINDOW))
    rig.pair.settle()
    rig.local.peer_reset()
    rig.settle()
    assert reset_code(rig.end) == ResetCode.CANCEL
    assert rig.over()


class Chatty(Recorder):
    """Writes into its transport from `connectionLost`, as careless protocols do."""

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        channel: Any = self.transport
        assert isinstance(channel, Channel)
        channel.write(b"x")
        channel.loseConnection()
        channel.abortConnection()


def test_writes_after_the_end_are_nothing() -> None:
    """On the channel as on TCP."""
    rig = Rig(attach=False)
    end = Chatty()
    rig.far.attach(end)
    rig.local.peer_reset()
    rig.settle()
    assert end.events.count("connectionLost") == 1
    assert rig.over()


# --- before and under the connection ----------------------------------------------------------


def test_what_came_before_the_connection() -> None:
    """Bytes that came before the splice was made, and before it was connected, arrive in order."""
    pair = Pair(LIMITS)
    near, far = pair.open()
    near.attach(HalfCloseRecorder())
    near.write(b"one ")
    pair.settle()
    splice = Splice(far)
    near.write(b"two")
    near.loseWriteConnection()
    pair.settle()
    backend = FakeTransport()
    backend.attach(splice)
    assert backend.drain() == b"one two"
    backend.drain()
    assert backend.write_closed


def test_a_request_that_was_reset_after_its_fin() -> None:
    """What the visitor sent is whole: it is delivered, and then the connection ends."""
    pair = Pair(LIMITS)
    near, far = pair.open()
    near.attach(HalfCloseRecorder())
    splice = Splice(far)
    near.write(b"whole")
    near.loseWriteConnection()
    pair.settle()
    near.abortConnection()
    pair.settle()
    backend = FakeTransport()
    backend.attach(splice)
    assert backend.drain() == b"whole"
    backend.drain()
    assert not backend.connected
    assert not backend.aborted
    assert pair.agent.budget.used == 0


class Faulty(FakeTransport):
    """A transport that fails when something is written to it."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("out of order")


def test_a_transport_that_fails(flush_logged_errors: FlushLoggedErrors) -> None:
    """It ends its own stream and nothing else of the tunnel."""
    pair = Pair(LIMITS)
    near, far = pair.open()
    local = Faulty()
    local.attach(Splice(near))
    end = HalfCloseRecorder()
    far.attach(end)
    far.write(b"x")
    pair.settle()
    local.drain()
    assert not local.connected
    assert reset_code(end) == ResetCode.INTERNAL
    assert len(flush_logged_errors(RuntimeError)) == 1
    assert pair.relay.tunnel.ended is None
    assert pair.relay.budget.used == 0


def test_nothing_waits_for_a_transport_that_has_sent_all() -> None:
    """Where the transport says that nothing waits to be sent, closing it arms no timer."""
    rig = Rig()
    rig.local.drained = True
    rig.local.peer_half_close()
    rig.far.loseConnection()
    rig.pair.settle()
    assert len(rig.pair.clock.getDelayedCalls()) == 2
    rig.settle()
    assert rig.over()


def test_tls_has_a_deadline_though_all_was_sent() -> None:
    """The farewell of its peer may never come: the transport below TLS has nothing to tell."""
    rig = Rig(tls=True)
    rig.local.drained = True
    rig.local.receive(b"question")
    rig.settle()
    rig.far.loseConnection()
    rig.pair.settle()
    deadlines = [call.getTime() - rig.pair.clock.seconds() for call in rig.pair.clock.calls]
    assert CLOSE_TIMEOUT in deadlines
    rig.settle()
    assert rig.over()


def test_a_splice_keeps_nothing_alive() -> None:
    """What was joined is gone with its end, without the help of the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        rig = Rig(kind=Watched)
        live = [weakref.ref(rig.splice)]
        rig.far.write(b"bye")
        rig.far.loseConnection()
        rig.settle()
        rig.local.peer_half_close()
        rig.settle()
        assert rig.over()
        del rig.splice
        rig.local.protocol = None
        assert [ref() for ref in live] == [None]
    finally:
        gc.enable()
