"""Binary WebSocket frames, without Autobahn and without a transport."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.net.websocket import binary
from srrrs.net.websocket.binary import (
    JOINED,
    SHORT,
    FrameReader,
    binary_frame,
    mask_long,
    mask_short,
)


def reference(key: bytes, data: bytes) -> bytes:
    """RFC 6455, 5.3, to the letter."""
    return bytes(byte ^ key[i & 3] for i, byte in enumerate(data))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 15, 16, 17, 127, 128, 1000, SHORT + 1, 70_001])
def test_masks_are_those_of_the_rfc(
    size: int, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any length, also one that starts at an odd place, with and without the fast library."""
    if native and binary._nvx is None:
        pytest.skip("Autobahn was built without it")
    if not native:
        monkeypatch.setattr(binary, "_nvx", None)
    key, data = b"\x01\xfe\x55\xaa", bytes(i * 7 & 0xFF for i in range(size))
    assert mask_short(key, data) == reference(key, data)
    place = bytearray(data)
    assert mask_long(key, place) == reference(key, data)


class Sink:
    """Joins each message."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._parts: list[bytes] = []

    def message_data(self, data: bytes | bytearray, start: int, end: int, first: bool) -> None:
        assert first is not bool(self._parts)
        assert start < end
        self._parts.append(bytes(data[start:end]))

    def message_end(self) -> None:
        self.messages.append(b"".join(self._parts))
        self._parts.clear()

    def control_frame(self, frame: bytes) -> None:
        raise AssertionError(frame)


SIZES = [1, 2, 125, 126, 127, 1000, SHORT, SHORT + 1, 2 * SHORT, JOINED, JOINED + 1, 65535, 65536]


@given(
    st.lists(st.sampled_from(SIZES), max_size=5),
    st.lists(st.integers(1, 3 * SHORT), min_size=1, max_size=20),
    st.booleans(),
)
def test_what_is_framed_is_read_however_it_is_cut(
    sizes: list[int], cuts: list[int], masked: bool
) -> None:
    """Also where a cut turns the mask, and where pieces of both ways of masking meet."""
    messages = [bytes((i + size) & 0xFF for i in range(size)) for size in sizes]
    wire = b"".join(
        b"".join(binary_frame(whole[:1], [whole[1:]], len(whole) - 1, masked)) for whole in messages
    )
    sink = Sink()
    reader = FrameReader(sink, masked)
    position = turn = 0
    while position < len(wire):
        step = cuts[turn % len(cuts)]
        reader.feed(wire[position : position + step])
        position += step
        turn += 1
    assert sink.messages == messages
