"""Waiting for streams to end by themselves."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from srrrs.net.draining import LOOK_EVERY, when_idle


def test_it_fires_at_once_where_nothing_runs() -> None:
    clock = Clock()
    fired: list[None] = []
    when_idle(clock, lambda: True).addCallback(fired.append)
    assert fired == [None]
    assert clock.getDelayedCalls() == []


def test_it_fires_soon_after_the_last_stream() -> None:
    clock, streams, fired = Clock(), [1, 2], list[None]()
    when_idle(clock, lambda: not streams).addCallback(fired.append)
    clock.advance(LOOK_EVERY)
    assert fired == []
    streams.clear()
    clock.advance(LOOK_EVERY)
    assert fired == [None]
    assert clock.getDelayedCalls() == []


def test_it_can_be_given_up() -> None:
    clock = Clock()
    waiter = when_idle(clock, lambda: False)
    waiter.addErrback(lambda failure: failure.trap(CancelledError))
    clock.advance(LOOK_EVERY)
    waiter.cancel()
    assert clock.getDelayedCalls() == []
