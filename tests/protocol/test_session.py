"""The session: cut anywhere, nothing is lost and nothing comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.protocol.errors import ProtocolError
from srrrs.protocol.session import (
    ACK_EVERY,
    ACK_INTERVAL,
    ACK_LATE,
    ACK_SOON,
    JOINED,
    Session,
)


def transfer(chunks: list[bytes], cut: int, acked: int) -> bytes:
    """Send chunks, lose the carrier after ``cut`` bytes got through, resume; what arrived."""
    sender, receiver = Session(1 << 20), Session(1 << 20)
    wire = bytearray()
    for chunk in chunks:
        sender.record([chunk], len(chunk))
        wire += chunk
    arrived = bytearray(wire[:cut])
    receiver.parsed(len(arrived), 0.0)
    sender.acknowledged(min(acked, cut))
    again, size = sender.resume(receiver.received)
    rest = b"".join(again)
    assert len(rest) == size
    return bytes(arrived + rest)


def test_a_cut_at_every_byte_of_a_short_exchange() -> None:
    chunks = [b"abc", b"d", b"efghij", b"kl"]
    whole = b"".join(chunks)
    for cut in range(len(whole) + 1):
        for acked in range(cut + 1):
            assert transfer(chunks, cut, acked) == whole


@given(
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=20),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_cut_anywhere_of_a_long_one(chunks: list[bytes], where: float, told: float) -> None:
    whole = b"".join(chunks)
    cut = int(len(whole) * where)
    assert transfer(chunks, cut, int(cut * told)) == whole


def test_the_replay_buffer_is_bounded_and_emptied_by_acknowledgements() -> None:
    session = Session(1000)
    session.record([bytes(600)], 600)
    session.record([bytes(400)], 400)
    assert session.space == 0
    session.acknowledged(700)
    assert session.space == 700
    session.acknowledged(650)  # One that was overtaken.
    assert session.space == 700
    assert session.resume(700)[1] == 300


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


def test_many_bytes_are_acknowledged_at_once() -> None:
    """What a fast link's sender waits for."""
    session = Session(1 << 20)
    session.acknowledge(1.0)
    assert session.parsed(ACK_EVERY - 1, 1.001) == 1.0 + ACK_INTERVAL
    assert session.parsed(1, 1.001) == 1.001
    assert session.unacknowledged
    assert session.acknowledge(1.001) == ACK_EVERY
    assert not session.unacknowledged


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
    chunks, size = session.resume(0)
    assert size == JOINED + 4
    assert b"".join(chunks) == b"abc" + bytes(JOINED) + b"x"
