"""How long a loop polls before it sleeps: by what its last sleeps were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.net.reactor.polling import LEAST, MOST, Polling

TURN = 2e-6
"""Seconds that a turn of the loop takes here."""


class Loop:
    """A loop and its clock; it sleeps when nothing is called soon."""

    def __init__(self, most: float = MOST) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.gave_way = 0
        self.polling = Polling(self.soon.append, lambda: self.now, self._give_way, most)

    def _give_way(self) -> None:
        self.gave_way += 1

    def run(self) -> float:
        """Turns until it sleeps; the seconds that it took."""
        begun = self.now
        while self.soon:
            calls, self.soon[:] = list(self.soon), []
            self.now += TURN
            for call in calls:
                call()
        return self.now - begun

    def events(self, pause: float, count: int = 20) -> float:
        """So many events, each after ``pause`` seconds of sleep; what the last polling took."""
        took = 0.0
        for _ in range(count):
            self.now += pause
            self.polling.traffic()
            took = self.run()
        return took


def test_the_first_event_finds_no_polling() -> None:
    """Nothing is known of what follows it."""
    loop = Loop()
    loop.polling.traffic()
    assert loop.run() <= 3 * TURN
    assert not loop.gave_way


def test_events_in_quick_succession() -> None:
    """The sleeps were short, so it polls for as long as is allowed, and gives way meanwhile."""
    loop = Loop()
    took = loop.events(50e-6)
    assert MOST <= took <= MOST + 3 * TURN
    assert loop.gave_way


def test_an_event_while_it_polls() -> None:
    """It is found without a sleep, and the time begins anew."""
    loop = Loop()
    loop.events(50e-6)
    loop.now += 50e-6
    loop.polling.traffic()
    for _ in range(10):
        loop.soon.pop()()
        loop.now += TURN
    loop.polling.traffic()
    assert loop.run() >= MOST
    assert loop.polling.limit == MOST


def test_events_at_leisure() -> None:
    """The sleeps are longer than polling would be worth: before long there is none."""
    loop = Loop()
    loop.events(50e-6)
    assert loop.events(5e-3) <= 3 * TURN
    assert loop.polling.limit == 0


def test_one_long_sleep_is_not_the_end_of_it() -> None:
    """Half as long after each."""
    loop = Loop()
    loop.events(50e-6)
    loop.events(1.0, count=1)
    assert loop.polling.limit == MOST / 2


def test_it_can_be_off() -> None:
    """Then nothing is called."""
    loop = Loop(most=0.0)
    loop.events(50e-6)
    assert not loop.gave_way
    assert not loop.soon


@given(st.lists(st.floats(0.0, 0.01), max_size=60))
def test_its_bounds(pauses: list[float]) -> None:
    """Whatever comes when: it polls no longer than that after the last event, and then sleeps."""
    loop = Loop()
    for pause in pauses:
        loop.now += pause
        loop.polling.traffic()
        assert loop.run() <= MOST + 4 * TURN
        assert loop.polling.limit == 0 or LEAST <= loop.polling.limit <= MOST


@pytest.mark.parametrize("pause", [0.6e-3, 20e-3])
def test_a_thin_link_costs_next_to_nothing(pause: float) -> None:
    """A packet at a time: polling takes less than a hundredth of the processor."""
    loop = Loop()
    loop.events(pause)
    assert loop.events(pause, count=1) < pause / 100 + 3 * TURN
