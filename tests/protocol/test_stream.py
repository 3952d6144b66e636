"""The lifecycle table is whole, and the multiplexer follows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from srrrs.protocol import frames
from srrrs.protocol.errors import ProtocolError, ResetCode
from srrrs.protocol.stream import TRANSITIONS, Act, Input, StreamState
from tests.protocol.pair import End, Pair

RECEIVED: dict[Input, Callable[[int], bytes]] = {
    Input.RECV_DATA: lambda n: frames.encode_data(n, b"x"),
    Input.RECV_FIN: frames.encode_fin,
    Input.RECV_RESET: lambda n: frames.encode_reset(n, ResetCode.CANCEL, ""),
    Input.RECV_WINDOW: lambda n: frames.encode_window(n, 1),
    Input.RECV_OPEN: lambda n: frames.encode_open(n, 1, 65536, "-"),
}


def test_every_state_answers_every_input() -> None:
    assert set(TRANSITIONS) == {(state, what) for state in StreamState for what in Input}


def reach(state: StreamState) -> tuple[Pair, End]:
    """An agent's stream in a state, with nothing under way."""
    pair = Pair()
    relay_end = pair.relay.open()
    pair.pump()
    end = pair.agent.ends[relay_end.stream.id]
    if state is StreamState.LOCAL_DONE:
        end.stream.finish()
    elif state is StreamState.REMOTE_DONE:
        relay_end.stream.finish()
    elif state is StreamState.CLOSED:
        relay_end.stream.reset(ResetCode.CANCEL)
    pair.pump()
    assert end.stream.state is state
    return pair, end


@pytest.mark.parametrize("state", StreamState)
@pytest.mark.parametrize("what", RECEIVED)
def test_the_multiplexer_does_what_the_table_says(state: StreamState, what: Input) -> None:
    """Each frame in each state: taken, ignored, or a protocol error."""
    pair, end = reach(state)
    after, act = TRANSITIONS[state, what]
    frame = RECEIVED[what](end.stream.id)
    if act is Act.ERROR:
        with pytest.raises(ProtocolError):
            pair.agent.mux.receive(frame)
        return
    pair.agent.mux.receive(frame)
    if what is Input.RECV_OPEN:
        assert pair.agent.mux.streams[end.stream.id] is not end.stream
        return
    assert end.stream.state is after
    assert (end.stream.id in pair.agent.mux.streams) == (after is not StreamState.CLOSED)
    assert len(end.closed) == (after is StreamState.CLOSED)


@pytest.mark.parametrize("what", [what for what in RECEIVED if what is not Input.RECV_OPEN])
def test_a_stream_that_was_never_opened_is_an_error(what: Input) -> None:
    pair = Pair()
    for side in (pair.relay, pair.agent):
        with pytest.raises(ProtocolError):
            side.mux.receive(RECEIVED[what](1))


@pytest.mark.parametrize("state", StreamState)
def test_local_calls_are_answered_in_every_state(state: StreamState) -> None:
    """Writing, finishing and resetting never raise; after the end they do nothing."""
    pair, end = reach(state)
    end.stream.write(b"x")
    end.stream.finish()
    end.stream.finish()
    end.stream.write(b"y")
    pair.pump()
    end.stream.reset(ResetCode.CANCEL)
    end.stream.reset(ResetCode.CANCEL)
    pair.pump()
    assert end.stream.state is StreamState.CLOSED
    assert len(end.closed) == 1
    assert not pair.agent.mux.streams
    assert not pair.relay.mux.streams
