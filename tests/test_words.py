"""The words for what happens, and how often it did."""

from __future__ import annotations

from srrrs.words import Tally, Word


def test_what_has_happened_is_counted() -> None:
    tally = Tally()
    assert str(tally) == "nothing"
    tally.count(Word.CONNECTED)
    for replayed in (100, 23):
        tally.count(Word.PARKED)
        tally.count(Word.RESUMED, replayed)
    assert tally.counts == {Word.CONNECTED: 1, Word.PARKED: 2, Word.RESUMED: 2}
    assert str(tally) == "1 connected, 2 parked, 2 resumed, 123 bytes sent again"
