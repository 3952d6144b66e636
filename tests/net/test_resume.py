"""Two tunnels whose carriers break: what the streams notice of it, which is a pause."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone

from srrrs.net.heartbeat import SILENCE, TunnelEnded
from srrrs.net.output import MESSAGE
from srrrs.net.tunnel import TunnelLost
from srrrs.protocol.errors import FINAL, CloseCode, ProtocolError, ResetCode, TunnelGone
from srrrs.protocol.lifecycle import State
from srrrs.protocol.mux import MAX_TURN
from srrrs.protocol.session import REPLAY
from srrrs.testing import Recorder, carriers
from tests.net.kit import HEARTBEAT, VISITOR, Pair, ended, reset_code

GRACE = 60.0


def parked() -> Pair:
    """A pair with a stream, its carrier just cut."""
    pair = Pair(grace=GRACE)
    pair.joined()
    pair.relay_carrier.cut()
    return pair


def test_streams_go_on_after_a_cut() -> None:
    """What was under way and what was written meanwhile arrives once, and in order."""
    pair = Pair(grace=GRACE)
    near, visitor, far, backend = pair.joined()
    near.write(b"question")
    pair.settle()
    near.write(b" one")
    far.write(b"answer")
    pair.turn()
    pair.relay_carrier.cut("wire gone")
    assert pair.relay.parked == pair.agent.parked == [TunnelLost(None, "wire gone")]
    near.write(b" two")
    far.write(b" of many words")
    pair.pass_time(10)
    assert (backend.data, visitor.data) == (b"question", b"")
    pair.redial()
    pair.settle()
    assert (backend.data, visitor.data) == (b"question one two", b"answer of many words")
    assert not pair.relay.lost
    assert not pair.agent.lost
    assert (pair.relay.resumed, pair.agent.resumed) == ([12], [14])


STEP = st.one_of(
    st.tuples(st.sampled_from(["write", "answer"]), st.integers(0, 2), st.integers(1, 300_000)),
    st.tuples(st.sampled_from(["to agent", "to relay"]), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("turn"), st.just(0), st.just(0)),
    st.tuples(st.just("cut"), st.integers(0, 30), st.integers(0, 30)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_whatever_is_cut_wherever(steps: list[tuple[str, int, int]]) -> None:
    """Writes, deliveries, turns and cuts in any order, within a message too: no byte is lost, none
    comes twice, none out of order, and every stream closes in good order at the end."""
    pair = Pair(grace=GRACE)
    streams = [pair.joined() for _ in range(3)]
    said: list[tuple[bytearray, bytearray]] = [(bytearray(), bytearray()) for _ in streams]
    for number, (what, which, size) in enumerate(steps):
        if what in ("write", "answer"):
            data = bytes((number + i) & 0xFF for i in range(size))
            side = 0 if what == "write" else 1
            streams[which][2 * side].write(data)
            said[which][side].extend(data)
        elif what == "to agent":
            pair.relay_carrier.deliver(which)
        elif what == "to relay":
            pair.agent_carrier.deliver(which)
        elif what == "turn":
            pair.turn()
        else:
            pair.relay_carrier.deliver_part(which)
            pair.agent_carrier.deliver_part(size)
            pair.relay_carrier.cut()
            pair.redial()
    # Acknowledgements come in time.
    pair.pass_time(1.0, 0.1)
    for near, visitor, far, backend in streams:
        near.loseConnection()
        far.loseConnection()
        pair.pass_time(1.0, 0.1)
        assert ended(visitor, ConnectionDone)
        assert ended(backend, ConnectionDone)
    for (_, visitor, _, backend), (asked, answered) in zip(streams, said, strict=True):
        assert backend.data == asked
        assert visitor.data == answered
    for end in (pair.relay, pair.agent):
        assert end.tunnel.session.held <= end.tunnel.session.sent
        end.tunnel.abort("over")
        assert end.budget.used == 0


def test_a_stream_opened_while_parked_is_served_after() -> None:
    pair = parked()
    channel = pair.relay.tunnel.open(1, VISITOR)
    channel.attach(Recorder())
    channel.write(b"hello")
    pair.redial()
    pair.settle()
    backend = Recorder()
    pair.agent.channels[-1].attach(backend)
    assert backend.data == b"hello"


def test_after_the_grace_time_streams_are_reset() -> None:
    """With a reason, on both sides; and nothing can go on with the session."""
    pair = Pair(grace=GRACE)
    _, visitor, _, backend = pair.joined()
    pair.relay_carrier.cut()
    pair.clock.advance(GRACE - 0.1)
    assert pair.relay.tunnel.parked
    pair.clock.advance(0.1)
    assert pair.relay.tunnel.ended is not None
    assert reset_code(visitor) == reset_code(backend) == ResetCode.GONE
    with pytest.raises(TunnelGone):
        pair.relay.tunnel.check_resume(0)
    with pytest.raises(RuntimeError):
        pair.relay.tunnel.resume(carriers(pair.clock, 1)[0], HEARTBEAT, 0)
    assert pair.clock.getDelayedCalls() == []
    assert pair.relay.budget.used == 0


@pytest.mark.parametrize("code", sorted(FINAL))
def test_an_end_that_was_meant_parks_nothing(code: CloseCode) -> None:
    pair = Pair(grace=GRACE)
    pair.relay.tunnel.close(code, "for a reason")
    pair.settle()
    assert pair.agent.parked == []
    assert pair.agent.lost == [TunnelLost(code, "for a reason")]


def test_without_a_grace_time_a_cut_is_the_end() -> None:
    pair = Pair(grace=0.0)
    pair.joined()
    pair.relay_carrier.cut("wire gone")
    assert pair.relay.parked == []
    assert pair.relay.lost == [TunnelLost(None, "wire gone")]


def test_silence_parks() -> None:
    """A carrier that has fallen silent is given up, and the session kept."""
    pair = Pair(grace=GRACE)
    pair.joined()
    pair.clock.advance(HEARTBEAT * SILENCE)
    assert [lost.code for lost in pair.relay.parked] == [CloseCode.SILENCE]
    pair.clock.advance(1)
    pair.redial()
    pair.settle()
    assert pair.relay.tunnel.state is pair.agent.tunnel.state is State.CONNECTED


def test_a_resume_replaces_a_carrier_that_nobody_missed_yet() -> None:
    """And what the old one still brings, or says of its end, is not heard."""
    pair = Pair(grace=GRACE)
    near, _, _, backend = pair.joined()
    near.write(b"one")
    pair.turn()
    old = pair.relay_carrier
    pair.redial()
    assert old.aborted
    assert old.deliver() == 0
    pair.settle()
    near.write(b"two")
    pair.settle()
    assert backend.data == b"onetwo"
    assert pair.relay.parked == []


def test_a_carrier_cut_again_and_again_while_it_resumes() -> None:
    """However little gets through before the next cut, it goes on from there in the end."""
    pair = Pair(grace=GRACE)
    near, _, _, backend = pair.joined()
    data = bytes(i * 7 & 0xFF for i in range(600_000))
    near.write(data)
    pair.turn()
    for part in range(40):
        pair.relay_carrier.cut()
        pair.redial()
        pair.turn()
        pair.relay_carrier.deliver_part(part * 37)
    pair.relay_carrier.cut()
    pair.redial()
    pair.settle()
    assert backend.data == data


def test_a_full_replay_buffer_holds_the_output_until_acknowledgements_come() -> None:
    """A peer that reads and acknowledges nothing is sent no more than the buffer holds; streams
    that nobody reads do not stop acknowledgements."""
    pair = Pair(grace=GRACE)
    streams = [pair.joined() for _ in range(40)]
    for _, visitor, far, _ in streams:
        visitor.transport.pauseProducing()
        far.write(bytes(255_000))
    pair.agent_carrier._buffer_size = 1 << 30
    for _ in range(40):
        pair.turn()
    held = pair.agent.tunnel.session.held
    assert MESSAGE < held <= REPLAY + MAX_TURN
    pair.pass_time(2.0, 0.1)
    assert pair.agent.tunnel.session.held < MESSAGE
    assert pair.agent.tunnel.session.sent > REPLAY


def test_a_peer_that_claims_more_than_was_sent_ends_the_tunnel() -> None:
    pair = parked()
    with pytest.raises(ProtocolError):
        pair.relay.tunnel.check_resume(pair.relay.tunnel.session.sent + 1)
    assert [lost.code for lost in pair.relay.lost] == [CloseCode.PROTOCOL]


def test_a_ping_asked_while_parked_is_answered_after() -> None:
    """Or ends with the session."""
    pair = parked()
    answered: list[object] = []
    pair.relay.tunnel.ping().addBoth(answered.append)
    pair.pass_time(1)
    assert answered == []
    pair.redial()
    pair.settle()
    assert answered == [0.0]
    pair.relay_carrier.cut()
    pair.relay.tunnel.ping().addErrback(lambda failure: answered.append(failure.type))
    pair.relay.tunnel.expire("the memory was needed")
    assert answered[1:] == [TunnelEnded]


def test_closing_a_parked_tunnel() -> None:
    """It ends at once, for there is nobody to tell."""
    pair = parked()
    closed: list[None] = []
    pair.relay.tunnel.when_closed().addCallback(closed.append)
    pair.relay.tunnel.close(CloseCode.SHUTDOWN, "the relay stops")
    assert closed == [None]
    assert [lost.reason for lost in pair.relay.lost] == ["the relay stops"]
    assert pair.agent.lost == []
