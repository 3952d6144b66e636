"""Rates, in a bounded table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srrrs.http.policy import Rate, parse_rate
from srrrs.relay.edge.rates import RateTable


def test_a_burst_and_then_one_at_a_time() -> None:
    """And whoever is told to wait is served after that wait."""
    table, rate = RateTable(), parse_rate("2/s:3")
    assert [table.take("a", rate, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert table.take("b", rate, 0.0) == 0.0
    assert table.take("a", rate, 0.25) == 0.25
    assert table.take("a", rate, 0.5) == 0.0
    assert table.take("a", rate, 0.5) == 0.5
    assert [table.take("a", rate, 60.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


@given(
    st.lists(st.floats(0.0, 5.0), max_size=60),
    st.integers(1, 20),
    st.sampled_from([1.0, 60.0]),
    st.integers(1, 5),
)
def test_never_more_than_the_burst_and_the_rate(
    gaps: list[float], count: int, seconds: float, burst: int
) -> None:
    """In any stretch of time no more are let in than the burst and what the rate gives."""
    table, rate, now = RateTable(), Rate(count, seconds, burst), 0.0
    taken = []
    for gap in gaps:
        now += gap
        if not table.take("a", rate, now):
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = burst + (taken[last] - taken[first]) / rate.interval
            assert last - first + 1 <= most + 1e-6


def test_nobody_waits_for_what_was_said_before() -> None:
    """With another rate, or a clock that was set back, no longer than from an empty bucket."""
    table = RateTable()
    slow, quick = parse_rate("1/h:9"), parse_rate("1/s")
    for _ in range(9):
        assert not table.take("a", slow, 1e6)
    assert table.take("a", quick, 1e6) == 1.0
    assert table.take("a", quick, 1e3) == 1.0
    assert not table.take("a", quick, 1e3 + 1.0)


def test_the_table_is_bounded() -> None:
    """Those not seen for longest go first, and have their burst anew."""
    table, rate = RateTable(most=10), parse_rate("1/h")
    for number in range(100):
        assert not table.take(number, rate, 0.0)
    assert len(table) == 10
    assert table.take(99, rate, 0.0)
    assert not table.take(0, rate, 0.0)


def test_what_is_full_is_forgotten() -> None:
    """With nobody else coming back, too: each newcomer takes two such away."""
    table, rate = RateTable(), parse_rate("1/s")
    for number in range(100):
        table.take(number, rate, 0.0)
    for number in range(100, 201):
        table.take(number, rate, float(number))
    assert len(table) <= 2
