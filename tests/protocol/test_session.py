"""The session: cut anywhere, nothing is lost and nothing comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.protocol.errors import ProtocolError
from srrrs.protocol.flow import Budget
from srrrs.protocol.session import (
    ACK_EVERY,
    ACK_INTERVAL,
    ACK_LATE,
    ACK_SOON,
    JOINED,
    MIN_REPLAY,
    Session,
)


class Wire:
    """Two sessions and what is under way between them, in one direction."""

    def __init__(self) -> None:
        self.sender, self.receiver = Session(1 << 20), Session(1 << 20)
        self.under_way = bytearray()
        self.written = bytearray()
        self.arrived = bytearray()

    def send(self, data: bytes) -> None:
        """First what is to be sent again, as the tunnel does."""
        while self.sender.pending:
            self.again(7)
        self.sender.record([data], len(data))
        self.under_way += data
        self.written += data

    def again(self, limit: int) -> None:
        chunks, size = self.sender.again(limit)
        assert size == len(b"".join(chunks)) <= limit
        self.under_way += b"".join(chunks)

    def arrive(self, size: int) -> None:
        data = self.under_way[:size]
        del self.under_way[:size]
        self.arrived += data
        self.receiver.parsed(len(data), 0.0)

    def acknowledge(self) -> None:
        self.sender.acknowledged(self.receiver.acknowledge(0.0))

    def cut(self) -> None:
        """What is under way is lost, and both go on with another carrier."""
        self.under_way.clear()
        assert self.sender.resume(self.receiver.received) == self.sender.pending


def test_a_cut_at_every_byte_of_a_short_exchange() -> None:
    chunks = [b"abc", b"d", b"efghij", b"kl"]
    whole = b"".join(chunks)
    for cut in range(len(whole) + 1):
        for acked in range(cut + 1):
            wire = Wire()
            for chunk in chunks:
                wire.send(chunk)
            wire.arrive(acked)
            wire.acknowledge()
            wire.arrive(cut - acked)
            wire.cut()
            wire.again(1 << 20)
            wire.arrive(len(whole))
            assert wire.arrived == whole
            wire.acknowledge()
            assert wire.sender.held == wire.sender.pending == wire.sender.under_way == 0


STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 60)),
    st.tuples(st.just("again"), st.integers(1, 60)),
    st.tuples(st.just("arrive"), st.integers(0, 80)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("cut"), st.just(0)),
)


@given(st.lists(STEP, max_size=60))
def test_cuts_anywhere_in_a_long_one(steps: list[tuple[str, int]]) -> None:
    """Whatever is sent, arrives, is acknowledged and lost, in any order: every byte arrives once,
    in its place; cuts in the middle of what is sent again included."""
    wire = Wire()
    number = 0
    for what, size in steps:
        if what == "send":
            wire.send(bytes((number + i) & 0xFF for i in range(size)))
            number += size
        elif what in ("again", "arrive"):
            getattr(wire, what)(size)
        else:
            getattr(wire, what)()
        assert wire.written.startswith(wire.arrived)
        assert wire.sender.under_way >= len(wire.under_way)
    wire.cut()
    wire.again(1 << 20)
    wire.arrive(1 << 20)
    assert wire.arrived == wire.written
    wire.acknowledge()
    assert wire.sender.held == 0


def test_the_replay_buffer_is_bounded_and_emptied_by_acknowledgements() -> None:
    session = Session(1000, maximum=1000)
    session.record([bytes(600)], 600)
    session.record([bytes(400)], 400)
    assert session.space == 0
    session.acknowledged(700)
    assert session.space == 700
    session.acknowledged(650)  # One that was overtaken.
    assert session.space == 700
    assert session.resume(700) == 300


def test_the_replay_buffer_grows_where_it_is_what_limits_the_tunnel() -> None:
    """Bandwidth times delay may be more than it began with; what is never full stays."""
    session = Session(1000, maximum=3000)
    session.record([bytes(999)], 999)
    assert session.space == 1
    session.acknowledged(999)
    assert session.replay == 1000
    for size in (2000, 3000, 3000):
        room = session.space
        assert room
        session.record([bytes(room)], room)
        assert session.space == 0
        session.acknowledged(session.sent)
        assert session.replay == size


def test_where_memory_is_used_up_it_holds_little_and_grows_no_more() -> None:
    """And what it holds is charged to the budget, until it is acknowledged or the end."""
    process = Budget(1 << 20)
    session = Session(1 << 22, Budget(1 << 22, process))
    session.record([bytes(1 << 20)], 1 << 20)
    assert process.used == 1 << 20
    assert session.space == 0
    session.acknowledged((1 << 20) - MIN_REPLAY)
    assert session.space
    session.acknowledged(1 << 20)
    assert process.used == 0
    other = Session(1 << 22, Budget(1 << 22, process))
    process.charge(1 << 20)
    assert other.space
    other.record([bytes(MIN_REPLAY)], MIN_REPLAY)
    assert other.space == 0
    other.acknowledged(MIN_REPLAY)
    assert other.replay == 1 << 22
    other.record([bytes(1 << 19)], 1 << 19)
    other.close()
    assert process.used == 1 << 20


def test_a_peer_that_claims_more_than_was_sent_breaks_the_protocol() -> None:
    session = Session(1000)
    session.record([b"abc"], 3)
    with pytest.raises(ProtocolError):
        session.acknowledged(4)
    session.acknowledged(2)
    with pytest.raises(ProtocolError):
        session.resume(1)
    with pytest.raises(ProtocolError):
        session.resume(4)


def test_a_peer_that_acknowledges_what_it_has_not_got_again_breaks_the_protocol() -> None:
    session = Session(1000)
    session.record([b"abcdef"], 6)
    assert session.resume(2) == 4
    assert session.again(1) == ([b"c"], 1)
    session.acknowledged(3)
    with pytest.raises(ProtocolError):
        session.acknowledged(4)


def test_many_bytes_are_acknowledged_at_once() -> None:
    """What a fast link's sender waits for."""
    session = Session(1 << 20)
    session.acknowledge(1.0)
    assert session.parsed(ACK_EVERY - 1, 1.001) == 1.0 + ACK_INTERVAL
    assert session.parsed(1, 1.001) == 1.001
    owed = [session.owes]
    assert session.acknowledge(1.001) == ACK_EVERY
    owed.append(session.owes)
    assert owed == [True, False]


def test_some_bytes_are_acknowledged_soon() -> None:
    """What a thin link's sender waits for: at once, but not more often than at an interval."""
    session = Session(1 << 20)
    session.acknowledge(1.0)
    due = session.parsed(ACK_SOON, 1.001)
    assert due == 1.0 + ACK_INTERVAL
    assert session.acknowledge(due) == ACK_SOON
    due = session.parsed(ACK_SOON, 2.0)
    assert due is not None
    assert due <= 2.0


def test_the_last_bytes_are_acknowledged_in_time() -> None:
    """However few, so that an idle tunnel keeps nothing."""
    session = Session(1 << 20)
    session.acknowledge(1.0)
    assert session.parsed(1, 5.0) == 5.0 + ACK_LATE


def test_nothing_is_acknowledged_where_nothing_is_kept() -> None:
    session = Session(None)
    assert session.parsed(ACK_EVERY * 2, 1.0) is None
    session.record([b"x"], 1)
    assert session.space is None


def test_a_small_message_is_kept_in_one_piece() -> None:
    """Its chunks are joined once, for the wire and for keeping; a large one's are not copied."""
    session = Session(1 << 20)
    assert session.record([b"ab", b"c"], 3) == [b"abc"]
    large = [bytes(JOINED), b"x"]
    assert session.record(large, JOINED + 1) is large
    session.resume(0)
    chunks, size = session.again(1 << 20)
    assert size == JOINED + 4
    assert b"".join(chunks) == b"abc" + bytes(JOINED) + b"x"
