"""How long a loop polls before it sleeps: by what its last gaps and its work were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.net.reactor.polling import EARNED, LEAST, LONGEST, MOST, Polling

TURN = 2e-6
"""Seconds that a turn of the loop takes here."""


class Loop:
    """A loop and its clock; it sleeps when nothing is called soon."""

    def __init__(self, most: float = MOST) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.gave_way = 0
        # Seconds spent on looking in vain.
        self.polled = 0.0
        self.polling = Polling(self.soon.append, lambda: self.now, self._give_way, most)

    def _give_way(self) -> None:
        self.gave_way += 1

    def turn(self, takes: float = TURN) -> None:
        calls, self.soon[:] = list(self.soon), []
        self.now += takes
        for call in calls:
            call()

    def event(self, work: float = TURN) -> None:
        """Something that takes so many seconds in its turn."""
        self.polling.traffic()
        if self.soon:
            self.turn(work)

    def wait(self, gap: float) -> None:
        """Until so many seconds after now: it polls, and sleeps for what is left."""
        until = self.now + gap
        while self.soon and self.now < until:
            self.turn()
            self.polled += TURN
        self.now = max(self.now, until)

    def events(self, gap: float, count: int = 20, work: float = TURN) -> float:
        """So many events, each that long after the last one's end; the share of the last gap that
        was polled."""
        self.event(work)
        for _ in range(count):
            self.polled = 0.0
            self.wait(gap)
            self.event(work)
        return self.polled / gap


def test_the_first_event_finds_no_polling() -> None:
    """Nothing is known of what follows it."""
    loop = Loop()
    loop.event()
    loop.wait(1.0)
    assert not loop.gave_way


def test_events_in_quick_succession() -> None:
    """They are found without a sleep, and others may have the processor meanwhile; after the last,
    it polls for about as long as one was waited for."""
    loop = Loop()
    assert loop.events(50e-6) == pytest.approx(1, abs=0.1)
    assert loop.gave_way
    loop.polled = 0.0
    loop.wait(1.0)
    assert 50e-6 <= loop.polled <= 100e-6


def test_events_at_leisure() -> None:
    """The gaps are longer than polling would be worth: before long there is none."""
    loop = Loop()
    loop.events(50e-6)
    assert loop.events(5e-3) < 0.001
    assert loop.polling.limit == 0


def test_one_long_gap_is_not_the_end_of_it() -> None:
    """Half as long after each."""
    loop = Loop()
    loop.events(50e-6)
    before = loop.polling.limit
    loop.wait(1.0)
    loop.event()
    assert loop.polling.limit == before / 2 > 0


@pytest.mark.parametrize(("work", "polled"), [(TURN, 0.0), (50e-6, 0.0), (300e-6, 1.0)])
def test_polling_is_earned(work: float, polled: float) -> None:
    """A gap of half a millisecond is worth it to a loop that works for as long in between."""
    loop = Loop()
    assert loop.events(500e-6, work=work) == pytest.approx(polled, abs=0.02)


@given(st.lists(st.tuples(st.floats(0.0, 0.01), st.floats(0.0, 0.003)), max_size=60))
def test_what_was_earned_is_used_up(times: list[tuple[float, float]]) -> None:
    """Whatever comes when: beyond ``MOST`` after each event, it polls for no more than is earned
    by its work."""
    loop = Loop()
    work = 0.0
    for gap, takes in times:
        loop.event(takes)
        work += takes + TURN
        loop.wait(gap)
        assert loop.polled <= EARNED * work + (MOST + 4 * TURN) * len(times)


def test_it_can_be_off() -> None:
    """Then nothing is called."""
    loop = Loop(most=0.0)
    loop.events(50e-6)
    assert not loop.gave_way
    assert not loop.soon


@given(st.lists(st.tuples(st.floats(0.0, 0.01), st.floats(0.0, 0.003)), max_size=60))
def test_its_bounds(times: list[tuple[float, float]]) -> None:
    """Whatever comes when: it polls no longer than that after the last event, and then sleeps."""
    loop = Loop()
    for gap, takes in times:
        loop.wait(gap)
        loop.event(takes)
        loop.polled = 0.0
        assert loop.polling.limit == 0 or LEAST <= loop.polling.limit <= LONGEST
    loop.wait(1.0)
    assert loop.polled <= LONGEST + 4 * TURN
    assert not loop.soon


@pytest.mark.parametrize("gap", [0.6e-3, 20e-3])
def test_a_thin_link_costs_next_to_nothing(gap: float) -> None:
    """A packet at a time: polling takes less than a hundredth of the processor."""
    assert Loop().events(gap, work=30e-6) < 0.01
