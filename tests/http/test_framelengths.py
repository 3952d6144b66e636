"""Frames of HTTP/2 are refused at their header, however the bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srrrs.http.framelengths import PREFACE, FrameLengths


def _frames(lengths: list[int]) -> bytes:
    return bytes(PREFACE) + b"".join(
        length.to_bytes(3, "big") + bytes(6) + bytes(length) for length in lengths
    )


@given(
    st.lists(st.integers(0, 40), max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=40)
)
def test_the_first_that_is_too_long(lengths: list[int], cuts: list[int]) -> None:
    """Only it is refused, and as soon as its length is there."""
    data = _frames(lengths)
    follower = FrameLengths(20)
    bad = next((n for n, length in enumerate(lengths) if length > 20), None)
    least = None if bad is None else len(_frames(lengths[:bad])) + 3
    at = step = 0
    refused = None
    while at < len(data) and refused is None:
        size = cuts[step % len(cuts)]
        step += 1
        if not follower.check(data[at : at + size]):
            refused = at + size
        at += size
    if least is None:
        assert refused is None
    else:
        assert refused is not None
        # With its header, of nine bytes, at the latest.
        assert least <= refused < least + 6 + max(cuts)
