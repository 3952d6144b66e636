"""The multiplexer: two back to back, whole and one byte at a time, in any interleaving."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srrrs.protocol import frames
from srrrs.protocol.errors import CloseCode, Overloaded, ProtocolError, ResetCode, TunnelGone
from srrrs.protocol.flow import BASE_WINDOW, OPENING_WINDOW
from srrrs.protocol.frames import Goaway, Register, Registered
from srrrs.protocol.mux import LARGE, MAX_BACKLOG, MAX_FRAME, MAX_TURN, Limits
from srrrs.protocol.stream import StreamState
from tests.protocol.pair import Pair


def assert_clean(pair: Pair) -> None:
    for side in (pair.relay, pair.agent):
        assert not side.mux.streams
        assert side.mux.queued == 0
        assert side.budget.used == 0
        assert not side.mux.has_output


@pytest.mark.parametrize("piece", [None, 1, 7])
def test_bytes_go_both_ways_and_both_ends_close(piece: int | None) -> None:
    """A request and an answer, each closed by a FIN of its own, however the wire cuts them."""
    pair = Pair()
    visitor = pair.relay.open()
    visitor.stream.write(b"question" * 1000)
    visitor.stream.finish()
    pair.pump(piece=piece)
    backend = pair.agent.ends[visitor.stream.id]
    assert (bytes(backend.data), backend.fin, visitor.fin) == (b"question" * 1000, True, False)
    assert backend.stream.visitor == "203.0.113.9 4711"
    backend.stream.write(b"answer" * 50_000)
    backend.stream.finish()
    pair.pump(piece=piece)
    assert (bytes(visitor.data), visitor.fin) == (b"answer" * 50_000, True)
    assert visitor.closed == backend.closed == [(None, "")]
    assert_clean(pair)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "write", "finish", "reset", "stall", "take", "move"]),
            st.booleans(),
            st.integers(0, 5),
            st.integers(1, 60_000),
        ),
        max_size=80,
    ),
    st.integers(1, 4000),
)
def test_any_interleaving_keeps_every_byte_in_order(
    steps: list[tuple[str, bool, int, int]], piece: int
) -> None:
    """Whatever both sides do, what arrives is a prefix of what was written, and all of it at the
    end unless someone reset; budgets and queues come back to nothing."""
    pair = Pair(budget=4 << 20)
    written: dict[tuple[int, bool], bytearray] = {}
    reset: set[int] = set()
    source = random.Random(7)
    for verb, at_relay, which, size in steps:
        side = pair.relay if at_relay else pair.agent
        if verb == "open":
            if len(pair.relay.mux.streams) < 6:
                pair.relay.open()
            continue
        if verb == "move":
            other = pair.agent if at_relay else pair.relay
            pair.move(side, other, size, piece)
            continue
        ends = [end for end in side.ends.values() if end.stream.state is not StreamState.CLOSED]
        if not ends:
            continue
        end = ends[which % len(ends)]
        if verb == "write" and not end.stream.fin_queued:
            data = source.randbytes(size)
            written.setdefault((end.stream.id, at_relay), bytearray()).extend(data)
            end.stream.write(data)
        elif verb == "finish":
            end.stream.finish()
        elif verb == "reset":
            reset.add(end.stream.id)
            end.stream.reset(ResetCode.CANCEL)
        elif verb == "stall":
            end.stalled = True
        elif verb == "take":
            end.stalled = False
            end.take()
    for side in (pair.relay, pair.agent):
        for end in side.ends.values():
            end.stalled = False
            end.take()
    pair.pump(piece=piece)
    for (stream_id, at_relay), sent in written.items():
        sink = pair.agent if at_relay else pair.relay
        if stream_id in sink.ends:
            got = sink.ends[stream_id].data
            assert got == sent if stream_id not in reset else sent.startswith(got)
    for side in (pair.relay, pair.agent):
        for end in side.ends.values():
            end.stream.reset(ResetCode.CANCEL)
    pair.pump()
    assert_clean(pair)


def test_many_streams_on_a_small_budget_never_deadlock() -> None:
    """Budget for base windows alone, every stream larger than its window, half of them stalled for
    a while: all the others finish meanwhile, and then the stalled ones."""
    count = 64
    pair = Pair(Limits(streams=count), budget=count * BASE_WINDOW * 8)
    pair.agent.mux._budget.limit = count * BASE_WINDOW
    body = bytes(range(256)) * 800
    visitors = [pair.relay.open() for _ in range(count)]
    pair.pump()
    for number, visitor in enumerate(visitors):
        backend = pair.agent.ends[visitor.stream.id]
        backend.stalled = visitor.stalled = number % 2 == 0
        visitor.stream.write(body)
        backend.stream.write(body)
        visitor.stream.finish()
        backend.stream.finish()
    pair.pump()
    for visitor in visitors[1::2]:
        assert bytes(visitor.data) == bytes(pair.agent.ends[visitor.stream.id].data) == body
    for visitor in visitors[0::2]:
        backend = pair.agent.ends[visitor.stream.id]
        assert not visitor.closed
        for end in (visitor, backend):
            end.stalled = False
            end.take()
    pair.pump()
    for visitor in visitors:
        assert bytes(visitor.data) == bytes(pair.agent.ends[visitor.stream.id].data) == body
    assert_clean(pair)


def test_a_stalled_reader_holds_no_more_than_its_window_and_stalls_nobody() -> None:
    pair = Pair()
    slow, quick = pair.relay.open(stalled=True), pair.relay.open()
    pair.pump()
    for visitor in (slow, quick):
        pair.agent.ends[visitor.stream.id].stream.write(bytes(2_000_000))
    pair.pump()
    assert len(quick.data) == 2_000_000
    assert len(slow.data) == OPENING_WINDOW


def test_ten_thousand_streams_are_open_on_one_tunnel() -> None:
    """With the default limits and budget, each still carries its bytes."""
    pair = Pair()
    visitors = [pair.relay.open() for _ in range(10_000)]
    pair.pump(1 << 20)
    assert len(pair.agent.mux.streams) == 10_000
    assert pair.relay.budget.used <= pair.relay.budget.limit
    for visitor in visitors:
        visitor.stream.write(b"hello")
    pair.pump(1 << 20)
    assert all(bytes(end.data) == b"hello" for end in pair.agent.ends.values())
    for visitor in visitors:
        visitor.stream.reset(ResetCode.CANCEL)
    pair.pump(1 << 20)
    assert_clean(pair)


def test_beyond_its_limits_a_relay_refuses_to_open() -> None:
    pair = Pair(Limits(streams=3))
    for _ in range(3):
        pair.relay.open()
    with pytest.raises(Overloaded):
        pair.relay.open()
    small = Pair(budget=2 * BASE_WINDOW)
    small.relay.open()
    small.relay.open()
    with pytest.raises(Overloaded):
        small.relay.open()


def test_an_agent_over_its_limit_resets_that_stream_alone() -> None:
    pair = Pair()
    pair.agent.mux.limits = Limits(streams=1)
    first, second = pair.relay.open(), pair.relay.open()
    pair.pump()
    assert second.closed[0][0] == ResetCode.OVERLOAD
    first.stream.write(b"still here")
    pair.pump()
    assert bytes(pair.agent.ends[first.stream.id].data) == b"still here"


def test_a_small_answer_does_not_wait_behind_a_bulk_transfer() -> None:
    """A stream that becomes active is served in the very next message."""
    pair = Pair()
    bulk, small = pair.relay.open(), pair.relay.open()
    pair.pump()
    pair.agent.ends[bulk.stream.id].stream.write(bytes(200_000))
    pair.move(pair.agent, pair.relay, 10_000)
    pair.agent.ends[small.stream.id].stream.write(b"keystroke")
    pair.move(pair.agent, pair.relay, 10_000)
    assert bytes(small.data) == b"keystroke"


def test_equal_bulk_streams_take_turns() -> None:
    pair = Pair()
    visitors = [pair.relay.open() for _ in range(8)]
    pair.pump()
    for visitor in visitors:
        pair.agent.ends[visitor.stream.id].stream.write(bytes(250_000))
    for _ in range(16):
        pair.move(pair.agent, pair.relay, 64 * 1024)
    sizes = [len(visitor.data) for visitor in visitors]
    assert max(sizes) - min(sizes) <= 64 * 1024


def test_a_large_message_is_cut_between_chunks() -> None:
    """What a socket gave at once is not copied, though it is more than a turn."""
    pair = Pair()
    visitor = pair.relay.open()
    pair.pump()
    chunk = bytes(200_000)
    pair.agent.ends[visitor.stream.id].stream.write(chunk)
    assert any(part is chunk for part in pair.agent.mux.take(LARGE)[0])


def test_a_small_message_is_cut_within_a_chunk() -> None:
    """A thin link is given no more than was asked for."""
    pair = Pair()
    visitor = pair.relay.open()
    pair.pump()
    visitor.stream.write(bytes(200_000))
    _, size = pair.relay.mux.take(10_000)
    assert size == 10_000 + frames.HEADER_SIZE


def test_no_frame_carries_more_than_the_peer_takes() -> None:
    """Nor more than a turn, however large a chunk is; and all of it arrives."""
    pair = Pair(Limits(frame=20_000, window=1 << 22))
    pair.relay.mux.peer_frame = 20_000
    visitor = pair.relay.open()
    pair.pump()
    data = random.Random(1).randbytes(3_000_000)
    visitor.stream.write(data)
    visitor.stream.write(b"end")
    pair.pump()
    assert pair.agent.ends[visitor.stream.id].data == data + b"end"
    pair.relay.mux.peer_frame = MAX_FRAME
    visitor.stream.write(data)
    out, _ = pair.relay.mux.take(LARGE)
    assert max(map(len, out)) <= MAX_TURN


def test_a_writer_is_paused_at_the_cap_and_resumed_when_there_is_room() -> None:
    limits = Limits(stream_queue=100_000, tunnel_queue=1_000_000)
    pair = Pair(limits)
    visitor = pair.relay.open()
    seen = []
    visitor.stream.write(bytes(99_999))
    seen.append(visitor.paused)
    visitor.stream.write(b"x")
    seen.append(visitor.paused)
    pair.pump()
    seen.append(visitor.paused)
    assert seen == [False, True, False]


def test_a_full_tunnel_pauses_every_writer_and_lets_all_on_again() -> None:
    limits = Limits(stream_queue=100_000, tunnel_queue=300_000)
    pair = Pair(limits)
    visitors = [pair.relay.open() for _ in range(6)]
    for visitor in visitors[:4]:
        visitor.stream.write(bytes(80_000))
    # Those that have something queued wait; the others may go on, for they have credit.
    assert [visitor.paused for visitor in visitors] == [True] * 4 + [False] * 2
    visitors[4].stream.write(b"x")
    assert visitors[4].paused
    pair.pump()
    assert not any(visitor.paused for visitor in visitors)


def test_streams_that_nobody_reads_do_not_pause_the_others_for_ever() -> None:
    """Their queues fill the tunnel's cap and stay there; whoever has credit goes on."""
    limits = Limits(stream_queue=100_000, tunnel_queue=300_000)
    pair = Pair(limits)
    stalled = [pair.relay.open() for _ in range(5)]
    quick = pair.relay.open()
    pair.pump()
    for visitor in stalled:
        pair.agent.ends[visitor.stream.id].stalled = True
    for _ in range(10):
        for visitor in stalled:
            if not visitor.paused:
                visitor.stream.write(bytes(100_000))
        pair.pump()
    assert all(visitor.paused for visitor in stalled)
    for _ in range(50):
        assert not quick.paused
        quick.stream.write(bytes(60_000))
        pair.pump()
    assert len(pair.agent.ends[quick.stream.id].data) == 50 * 60_000
    for visitor in stalled:
        pair.agent.ends[visitor.stream.id].take()
        pair.agent.ends[visitor.stream.id].stalled = False
    pair.pump()
    assert not any(visitor.paused for visitor in stalled)


def test_after_a_saturation_all_are_let_on_even_if_the_first_say_nothing() -> None:
    """They are let on a few at a time, and the rest does not depend on what these write."""
    limits = Limits(stream_queue=100_000, tunnel_queue=300_000)
    pair = Pair(limits)
    visitors = [pair.relay.open() for _ in range(40)]
    for visitor in visitors:
        visitor.stream.write(bytes(10_000))
    assert visitors[-1].paused
    pair.pump()
    assert not any(visitor.paused for visitor in visitors)


def test_more_than_the_window_is_a_protocol_error() -> None:
    pair = Pair()
    end = pair.relay.open()
    pair.pump()
    pair.agent.ends[end.stream.id].stalled = True
    room = pair.agent.ends[end.stream.id].stream.window.credit
    pair.agent.mux.receive(frames.encode_data(end.stream.id, bytes(room // 4)))
    with pytest.raises(ProtocolError):
        pair.agent.mux.receive(frames.encode_data(end.stream.id, bytes(room)))


@pytest.mark.parametrize("credit", [0, frames.MAX_WINDOW, 2**32 - 1])
def test_credit_that_overflows_is_a_protocol_error(credit: int) -> None:
    pair = Pair()
    end = pair.relay.open()
    pair.pump()
    with pytest.raises(ProtocolError):
        pair.relay.mux.receive(frames.encode_window(end.stream.id, credit))


def test_a_peer_that_opens_without_end_and_does_not_read_is_dropped() -> None:
    """Its refusals would pile up; the backlog has a cap."""
    pair = Pair(Limits(streams=1))
    opens = b"".join(frames.encode_open(n, 404, 65536, "-") for n in range(1, MAX_BACKLOG // 10))
    with pytest.raises(ProtocolError) as caught:
        pair.agent.mux.receive(opens)
    assert caught.value.code is CloseCode.LIMIT


def test_windows_grow_for_a_fast_stream_and_shrink_when_memory_is_scarce() -> None:
    pair = Pair()
    for side in (pair.relay, pair.agent):
        side.mux.rtt = 1.0
    visitor = pair.relay.open()
    pair.pump()
    backend = pair.agent.ends[visitor.stream.id]
    for _ in range(40):
        backend.stream.write(bytes(200_000))
        pair.pump()
    grown = visitor.stream.window.size
    assert grown > OPENING_WINDOW
    assert pair.relay.budget.reserve(pair.relay.budget.limit - pair.relay.budget.used)
    for _ in range(400):
        backend.stream.write(bytes(200_000))
        pair.pump()
    assert visitor.stream.window.size == BASE_WINDOW
    assert len(visitor.data) == 440 * 200_000


def test_control_frames_reach_the_other_side_in_order() -> None:
    pair = Pair()
    pair.agent.mux.send_control(Register(1, "http", "http"))
    pair.pump(piece=1)
    pair.relay.mux.send_control(Registered(1, "http://a.localhost"))
    pair.relay.mux.send_control(Goaway("restart"))
    pair.pump(piece=1)
    assert pair.relay.control == [Register(1, "http", "http")]
    assert pair.agent.control == [Registered(1, "http://a.localhost"), Goaway("restart")]


def test_after_goaway_running_streams_finish_and_none_is_opened() -> None:
    pair = Pair()
    visitor = pair.relay.open()
    pair.relay.mux.send_control(Goaway("restart"))
    pair.pump()
    with pytest.raises(TunnelGone):
        pair.relay.open()
    visitor.stream.write(b"still")
    pair.pump()
    assert bytes(pair.agent.ends[visitor.stream.id].data) == b"still"


def test_when_the_tunnel_ends_every_stream_is_told() -> None:
    pair = Pair()
    visitors = [pair.relay.open() for _ in range(3)]
    visitors[0].stream.write(b"unsent")
    pair.relay.mux.close(ResetCode.GONE, "cut")
    assert [visitor.closed for visitor in visitors] == [[(ResetCode.GONE, "cut")]] * 3
    assert not pair.relay.mux.has_output
    assert pair.relay.budget.used == 0
    with pytest.raises(TunnelGone):
        pair.relay.open()


def test_stream_ids_wrap_and_skip_those_in_use() -> None:
    pair = Pair()
    first = pair.relay.open()
    pair.relay.mux._last_id = frames.MAX_ID - 1
    ids = [pair.relay.open().stream.id for _ in range(3)]
    assert first.stream.id == 1
    assert ids == [frames.MAX_ID, 2, 3]
    pair.pump()
    assert sorted(pair.agent.mux.streams) == [1, 2, 3, frames.MAX_ID]


def test_output_that_vanishes_with_its_stream_does_not_silence_the_next() -> None:
    """Credit that was to be granted to a stream which is reset before the grant went out leaves
    nothing to send; the next output is announced all the same, or the tunnel would hang."""
    pair = Pair()
    visitor = pair.relay.open()
    visitor.stream.write(b"x" * BASE_WINDOW)
    pair.move(pair.relay, pair.agent)
    outputs = [pair.agent.mux.has_output]  # Credit for what was taken.
    visitor.stream.reset(ResetCode.CANCEL)
    pair.move(pair.relay, pair.agent)
    outputs.append(pair.agent.mux.has_output)
    assert outputs == [True, False]

    announced = pair.agent.ready
    other = pair.relay.open()
    pair.move(pair.relay, pair.agent)
    pair.agent.ends[other.stream.id].stream.write(b"answer")
    assert pair.agent.ready == announced + 1
