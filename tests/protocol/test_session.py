"""The session: cut anywhere, nothing is lost and nothing comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.protocol.errors import ProtocolError
from srrrs.protocol.session import ACK_EVERY, Session


def transfer(chunks: list[bytes], cut: int, acked: int) -> bytes:
    """Send chunks, lose the carrier after ``cut`` bytes got through, resume; what arrived."""
    sender, receiver = Session(1 << 20), Session(1 << 20)
    wire = bytearray()
    for chunk in chunks:
        sender.record([chunk], len(chunk))
        wire += chunk
    arrived = bytearray(wire[:cut])
    receiver.parsed(len(arrived))
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


def test_acknowledgements_fall_due_by_bytes_parsed() -> None:
    session = Session(1 << 20)
    assert not session.parsed(ACK_EVERY - 1)
    assert session.parsed(1)
    assert session.acknowledge() == ACK_EVERY
    assert not session.parsed(1)
    nothing_kept = Session(None)
    assert not nothing_kept.parsed(ACK_EVERY * 2)
    nothing_kept.record([b"x"], 1)
    assert nothing_kept.space is None
