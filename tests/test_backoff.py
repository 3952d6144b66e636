"""The waits between dials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.net.backoff import BASE, CAP, SLOW_BASE, SLOW_CAP, Backoff


def test_ceilings_double_from_base_to_cap() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_jitter_is_full() -> None:
    """A wait may be anything from nothing to the ceiling."""
    assert Backoff(lambda: 0.0).next() == 0.0
    assert Backoff(lambda: 0.5).next() == pytest.approx(BASE / 2)


def test_slow_schedule_never_dials_at_once() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next_slow() for _ in range(4)] == [5.0, 10.0, 20.0, 30.0]


def test_reset_starts_both_schedules_over() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next()
        backoff.next_slow()
    backoff.reset()
    assert backoff.next() == BASE
    assert backoff.next_slow() == SLOW_BASE


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 3000))
def test_every_wait_stays_within_its_bounds(value: float, failures: int) -> None:
    """However long the relay is away: no overflow, no wait beyond the cap."""
    backoff = Backoff(lambda: value)
    for _ in range(min(failures, 100)):
        backoff.next()
        backoff.next_slow()
    backoff._failures += failures
    backoff._slow_failures += failures
    assert 0 <= backoff.next() <= CAP
    assert SLOW_BASE / 2 <= backoff.next_slow() <= SLOW_CAP
