"""Two ends of a tunnel over a carrier in memory: heartbeats, pings, ends, flushing."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from srrrs.net.heartbeat import MAX_PINGS, SILENCE, TunnelEnded
from srrrs.net.output import MESSAGES_A_TURN
from srrrs.net.tunnel import TunnelLost
from srrrs.protocol import frames
from srrrs.protocol.errors import CloseCode, ResetCode
from srrrs.protocol.flow import BASE_WINDOW
from srrrs.protocol.frames import Goaway, Register, Registered
from srrrs.protocol.inflight import OPENING
from srrrs.protocol.mux import Limits
from srrrs.protocol.session import ACK_LATE, ACK_SOON
from srrrs.testing import HalfCloseRecorder
from tests.kit import Producer
from tests.net.kit import HEARTBEAT, Pair, reset_code


def outcome(waiter: Deferred[Any]) -> list[Any]:
    """What a Deferred came to, if anything yet."""
    results: list[Any] = []
    waiter.addBoth(results.append)
    return results


def kinds(pair: Pair) -> tuple[list[str], list[str]]:
    """What is under way to the agent and to the relay."""
    return (
        [kind for kind, _ in pair.relay_carrier.outbox],
        [kind for kind, _ in pair.agent_carrier.outbox],
    )


# --- heartbeats -------------------------------------------------------------------------------


def test_both_ends_beat() -> None:
    """Each end pings at the interval, outside the session's bytes, from the start."""
    pair = Pair()
    assert kinds(pair) == (["ping"], ["ping"])
    pair.settle()
    pair.clock.advance(HEARTBEAT - 0.1)
    assert kinds(pair) == ([], [])
    pair.clock.advance(0.1)
    assert kinds(pair) == (["ping"], ["ping"])


def test_a_quiet_tunnel_lives() -> None:
    """Heartbeats alone keep a tunnel that carries nothing."""
    pair = Pair()
    pair.pass_time(100 * HEARTBEAT, step=HEARTBEAT / 2)
    assert not pair.relay.lost
    assert not pair.agent.lost


@pytest.mark.parametrize("who", ["relay", "agent"])
def test_silence(who: str) -> None:
    """2.5 intervals without a byte end the carrier at once, on either side."""
    pair = Pair()
    pair.settle()
    mine = getattr(pair, who)
    carrier = getattr(pair, f"{who}_carrier")
    for _ in range(4):
        # The other end sends, but nothing arrives here.
        pair.clock.advance(HEARTBEAT / 2)
        carrier.deliver()
    pair.clock.advance(HEARTBEAT * (SILENCE - 2) - 0.1)
    carrier.deliver()
    assert not mine.lost
    pair.clock.advance(0.1)
    assert [lost.code for lost in mine.lost] == [CloseCode.SILENCE]
    assert mine.lost[0].reason == "nothing heard for 37.5 s"
    assert carrier.aborted
    pair.turn()
    assert len(pair.relay.lost) == len(pair.agent.lost) == 1
    assert pair.clock.getDelayedCalls() == []


def test_any_byte_is_a_sign_of_life() -> None:
    """An end that answers no ping but sends data is alive."""
    pair = Pair()
    pair.agent_carrier.answers_pings = False
    near, far = pair.open()
    near.attach(HalfCloseRecorder())
    # Not even its pings come: the session's bytes must do.
    pair.agent_carrier.ping = lambda payload: None  # type: ignore[method-assign]
    for _ in range(20):
        far.write(b"x")
        pair.pass_time(HEARTBEAT * 2)
    assert not pair.relay.lost


def test_rtt() -> None:
    """The round trip is measured at once, then smoothed (RFC 6298)."""
    pair = Pair()
    tunnel = pair.relay.tunnel
    assert tunnel.rtt is None
    pair.relay_carrier.deliver()
    pair.clock.advance(0.2)
    pair.agent_carrier.deliver()
    assert tunnel.rtt == pytest.approx(0.2)
    assert tunnel.mux.rtt == tunnel.rtt
    pair.pass_time(HEARTBEAT - 0.2, step=1)
    assert tunnel.rtt == pytest.approx(0.2 * 7 / 8)


# --- ping for a takeover ----------------------------------------------------------------------


def test_ping() -> None:
    """`ping` fires with the round trip in seconds."""
    pair = Pair()
    pair.settle()
    results = outcome(pair.relay.tunnel.ping())
    pair.clock.advance(1.5)
    assert results == []
    pair.settle()
    assert results == [1.5]


def test_ping_cancelled() -> None:
    """A ping that nobody waits for any more may be answered, to no effect."""
    pair = Pair()
    waiter = pair.relay.tunnel.ping()
    results = outcome(waiter)
    waiter.cancel()
    assert results[0].check(CancelledError)
    pair.settle()
    assert len(results) == 1
    assert not pair.relay.lost


def test_ping_and_the_tunnels_end() -> None:
    """A tunnel that ends answers every ping that is under way, and every later one."""
    pair = Pair()
    pair.agent_carrier.answers_pings = False
    results = outcome(pair.relay.tunnel.ping())
    pair.settle()
    assert results == []
    pair.relay_carrier.cut()
    assert results[0].check(TunnelEnded)
    assert outcome(pair.relay.tunnel.ping())[0].check(TunnelEnded)


def test_the_answer_to_a_ping_answers_those_before_it() -> None:
    """A peer that was busy answers the latest alone (RFC 6455, 5.5.3)."""
    pair = Pair()
    pair.settle()
    pair.agent_carrier.answers_pings = False
    waits = [outcome(pair.relay.tunnel.ping()) for _ in range(3)]
    pair.settle()
    pair.agent_carrier.answers_pings = True
    waits.append(outcome(pair.relay.tunnel.ping()))
    pair.settle()
    assert waits == [[0.0]] * 4


def test_pings_are_bounded() -> None:
    """A peer that answers none does not make us remember ever more of them."""
    pair = Pair()
    pair.agent_carrier.answers_pings = False
    waits = [outcome(pair.relay.tunnel.ping()) for _ in range(MAX_PINGS * 2)]
    assert sum(bool(each) for each in waits) >= MAX_PINGS
    assert all(each[0].check(TunnelEnded) for each in waits if each)
    pair.relay.tunnel.abort("over")
    assert all(waits)


def test_a_pong_that_nobody_asked_for() -> None:
    """Unknown payloads are ignored (RFC 6455, 5.5.3: a pong may be unsolicited)."""
    pair = Pair()
    for payload in (b"", b"x", b"\0" * 8, b"y" * 125):
        pair.relay.tunnel.ponged(payload)
    assert pair.relay.tunnel.rtt is None
    assert not pair.relay.lost


# --- ends -------------------------------------------------------------------------------------


def test_close() -> None:
    """The peer learns code and reason; what was queued before arrives; both ends are told once."""
    pair = Pair()
    near, _a, _far, b = pair.joined()
    near.write(b"last words")
    pair.relay.tunnel.send_control(Registered(1, "http://x.localhost"))
    pair.relay.tunnel.close(CloseCode.SHUTDOWN, "stopping")
    pair.relay.tunnel.close(CloseCode.PROTOCOL, "again")
    closed = outcome(pair.relay.tunnel.when_closed())
    assert pair.relay.lost == [TunnelLost(CloseCode.SHUTDOWN, "stopping")]
    assert not closed
    pair.settle()
    assert pair.agent.lost == [TunnelLost(CloseCode.SHUTDOWN, "stopping")]
    assert b.data == b"last words"
    assert reset_code(b) == ResetCode.GONE
    assert pair.agent.control == [Registered(1, "http://x.localhost")]
    assert closed == [None]
    assert pair.clock.getDelayedCalls() == []


def test_abort() -> None:
    """`abort` ends at once; whoever waits for the end hears of it once the carrier is gone."""
    pair = Pair()
    pair.settle()
    closed = outcome(pair.agent.tunnel.when_closed())
    pair.agent.tunnel.abort("enough")
    assert pair.agent.lost == [TunnelLost(None, "enough")]
    assert not closed
    pair.settle()
    assert closed == [None]
    assert len(pair.relay.lost) == 1
    assert outcome(pair.agent.tunnel.when_closed()) == [None]
    assert pair.clock.getDelayedCalls() == []


def test_a_cut() -> None:
    """A carrier that breaks ends the tunnel on both sides, once."""
    pair = Pair()
    pair.relay_carrier.cut("wire gone")
    pair.agent_carrier.cut()
    assert pair.relay.lost == pair.agent.lost == [TunnelLost(None, "wire gone")]
    assert pair.clock.getDelayedCalls() == []


def test_when_closed_cancelled() -> None:
    """Who stops waiting is forgotten."""
    pair = Pair()
    waiter = pair.relay.tunnel.when_closed()
    results = outcome(waiter)
    waiter.cancel()
    pair.relay_carrier.cut()
    assert len(results) == 1


def test_nothing_after_the_end() -> None:
    """Frames, bytes and acknowledgements that still arrive are ignored."""
    pair = Pair()
    pair.relay.tunnel.abort("over")
    pair.relay.tunnel.session_data(b"\xff" * 100)
    pair.relay.tunnel.send_control(Goaway("x"))
    pair.relay.tunnel.resume_writing()
    pair.settle()
    assert len(pair.relay.lost) == 1


NONSENSE = {
    "an unknown frame": bytes([77, 0, 0, 0, 0, 0, 0, 1]),
    "a frame that is too long": bytes([0, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1]),
    "data of no stream": frames.encode_header(0, 9, 1) + b"x",
    "a frame of the relay's": frames.encode_control(Registered(1, "http://x.localhost")),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=list(NONSENSE))
def test_a_protocol_error_drops_that_carrier_alone(nonsense: bytes) -> None:
    """A peer that breaks the protocol is dropped with the code; other tunnels do not notice."""
    pair, other = Pair(), Pair()
    _near, a, _far, _b = pair.joined()
    near, _x, _far, y = other.joined()
    pair.agent_carrier.send([nonsense], len(nonsense))
    pair.settle()
    assert [lost.code for lost in pair.relay.lost] == [CloseCode.PROTOCOL]
    assert pair.relay.lost[0].reason
    assert pair.agent.lost[0].code == CloseCode.PROTOCOL
    assert reset_code(a) == ResetCode.GONE
    assert pair.clock.getDelayedCalls() == []
    near.write(b"fine")
    other.settle()
    assert y.data == b"fine"
    assert not other.relay.lost


def test_an_acknowledgement_of_bytes_never_sent() -> None:
    """Is a protocol error, too."""
    pair = Pair()
    pair.agent_carrier.send_ack(1 << 40)
    pair.settle()
    assert [lost.code for lost in pair.relay.lost] == [CloseCode.PROTOCOL]


def test_more_than_the_credit() -> None:
    """Data beyond what was granted ends the tunnel: memory is what was promised."""
    pair = Pair(Limits(window=BASE_WINDOW))
    _near, far = pair.open()
    data = b"x" * (BASE_WINDOW + 1)
    frame = frames.encode_header(0, far.stream.id, len(data)) + data
    pair.agent_carrier.send([frame], len(frame))
    pair.settle()
    assert [lost.code for lost in pair.relay.lost] == [CloseCode.PROTOCOL]
    assert pair.relay.budget.used == 0


def test_a_handler_may_end_the_tunnel_it_is_told_by() -> None:
    """A close from within `control_received` stops there, and the rest is not handed on."""
    pair = Pair()

    def end(frame: Any) -> None:
        pair.relay.control.append(frame)
        pair.relay.tunnel.close(CloseCode.LIMIT, "too many")

    pair.relay.control_received = end  # type: ignore[method-assign]
    for number in (1, 2):
        pair.agent.tunnel.send_control(Register(number, f"s{number}", "http"))
    pair.settle()
    assert [lost.code for lost in pair.relay.lost] == [CloseCode.LIMIT]
    assert [lost.code for lost in pair.agent.lost] == [CloseCode.LIMIT]


# --- flushing ---------------------------------------------------------------------------------


def test_a_turn_is_a_message() -> None:
    """All that happens in one turn of the reactor travels as one message."""
    pair = Pair()
    near, *_ = pair.joined()
    other, *_ = pair.joined()
    pair.settle()
    near.write(b"one")
    other.write(b"two")
    near.write(b"three")
    pair.relay.tunnel.send_control(Registered(1, "http://x.localhost"))
    other.loseWriteConnection()
    assert kinds(pair)[0] == []
    pair.turn()
    assert kinds(pair)[0] == ["data"]
    pair.turn()
    assert kinds(pair)[0] == ["data"]


def test_a_turn_is_bounded() -> None:
    """A bulk transfer lets the reactor serve others after some messages."""
    pair = Pair(Limits(tunnel_queue=64 << 20, stream_queue=64 << 20), carrier_buffer=1 << 30)
    near, far = pair.open()
    near.attach(HalfCloseRecorder())
    far.attach(HalfCloseRecorder())
    # As after a long transfer: credit for all of it.
    near.stream.credit = 32 << 20
    near.write(b"x" * (16 << 20))
    sent: list[int] = []
    pair.clock.callLater(0, lambda: sent.append(kinds(pair)[0].count("data")))
    pair.turn()
    assert sent == [MESSAGES_A_TURN]
    assert kinds(pair)[0].count("data") > MESSAGES_A_TURN
    pair.settle()
    assert near.stream.queued == 0


def test_a_full_carrier_stops_the_tunnel_not_the_reader() -> None:
    """While the carrier takes no more nothing is sent; what arrives is still read."""
    pair = Pair(carrier_buffer=1000)
    near, a, far, b = pair.joined()
    pair.settle()
    near.write(b"x" * 5000)
    pair.turn()
    near.write(b"y" * 5000)
    pair.turn()
    assert kinds(pair)[0] == ["data"]
    far.write(b"from the other side")
    pair.turn()
    pair.agent_carrier.deliver()
    assert a.data == b"from the other side"
    pair.settle()
    assert len(b.data) == 10_000


def test_a_full_carrier_pauses_the_writers() -> None:
    """Backpressure: the carrier's reaches whoever writes on a stream, and goes again."""
    writer = Producer()
    pair = Pair(Limits(stream_queue=4096), carrier_buffer=1000)
    near, _a, _far, b = pair.joined()
    pair.settle()
    near.registerProducer(writer, True)
    near.write(b"x" * 2000)
    pair.turn()
    for _ in range(4):
        near.write(b"y" * 2000)
        pair.turn()
    assert writer.calls == ["pause"]
    pair.settle()
    assert writer.calls == ["pause", "resume"]
    assert len(b.data) == 10_000
    near.unregisterProducer()


def test_a_slow_stream_stops_nobody_else() -> None:
    """A stream whose protocol takes nothing neither fills the tunnel nor delays another."""
    pair = Pair(Limits(stream_queue=4 * BASE_WINDOW, window=BASE_WINDOW))
    slow, _a, slow_far, _b = pair.joined()
    fast, _c, _fast_far, d = pair.joined()
    slow_far.pauseProducing()
    slow.write(b"s" * (4 * BASE_WINDOW))
    for _ in range(64):
        fast.write(b"f" * BASE_WINDOW)
        pair.settle()
    assert len(d.data) == 64 * BASE_WINDOW
    assert slow_far.stream.window.held == BASE_WINDOW
    # The carrier was read all the while: pings are answered.
    results = outcome(pair.relay.tunnel.ping())
    pair.settle()
    assert results


def test_control_frames_pass_a_full_stream() -> None:
    """Registration does not wait behind a bulk transfer that has no credit."""
    pair = Pair(Limits(window=BASE_WINDOW))
    _near, _a, far, _b = pair.joined()
    pair.relay.tunnel.mux.streams[far.stream.id].handler.pauseProducing()  # type: ignore[union-attr]
    far.write(b"x" * (1 << 20))
    pair.settle()
    pair.agent.tunnel.send_control(Register(1, "web", "http"))
    pair.settle()
    assert pair.relay.control == [Register(1, "web", "http")]


# --- acknowledgements -------------------------------------------------------------------------


def test_no_more_is_under_way_than_may_be() -> None:
    """Over a long path a transfer stops at the cap, and goes on when some is acknowledged."""
    pair = Pair(Limits(stream_queue=4 << 20), carrier_buffer=1 << 30, grace=60.0)
    # The first round trip takes long.
    pair.clock.advance(0.2)
    near, _a, far, b = pair.joined()
    near.stream.credit = far.stream.window.credit = far.stream.window.size = 32 << 20
    near.write(b"x" * (1 << 20))
    pair.turn()
    session = pair.relay.tunnel.session
    # To within a header.
    assert session.sent - session.acked <= OPENING + 100
    pair.settle()
    pair.pass_time(1.0, step=0.01)
    assert len(b.data) == 1 << 20


def test_an_idle_tunnel_keeps_nothing() -> None:
    """The last bytes are acknowledged in time, however few, and then no timer is left."""
    pair = Pair(grace=60.0)
    near, _a, _far, b = pair.joined()
    near.write(b"x")
    pair.settle()
    assert b.data == b"x"
    session = pair.relay.tunnel.session
    assert session.acked < session.sent
    pair.pass_time(ACK_LATE + 0.1, step=0.1)
    assert session.acked == session.sent
    assert pair.agent.tunnel.session.acked == pair.agent.tunnel.session.sent
    assert len(pair.clock.getDelayedCalls()) == 2


def test_an_acknowledgement_goes_with_what_is_sent() -> None:
    """Where an answer is on its way, it goes before that, in the same turn."""
    pair = Pair(grace=60.0)
    near, _a, far, b = pair.joined()
    pair.pass_time(1.0)
    b.dataReceived = lambda data: far.write(b"answer")
    near.write(bytes(ACK_SOON))
    pair.turn()
    pair.relay_carrier.deliver()
    assert kinds(pair)[1] == []
    pair.turn()
    assert kinds(pair)[1] == ["ack", "data"]


def test_an_acknowledgement_waits_for_a_carrier_that_is_full() -> None:
    """A peer that sends and does not read does not fill our buffer with acknowledgements."""
    pair = Pair(carrier_buffer=1000, grace=60.0)
    near, _a, far, _b = pair.joined()
    pair.pass_time(1.0)
    far.write(bytes(5000))
    pair.turn()
    for _ in range(3):
        near.write(bytes(ACK_SOON))
        pair.turn()
        pair.relay_carrier.deliver()
        pair.clock.advance(0.1)
    assert "ack" not in kinds(pair)[1]
    pair.settle()
    pair.pass_time(ACK_LATE + 0.1, step=0.1)
    session = pair.relay.tunnel.session
    assert session.acked == session.sent
