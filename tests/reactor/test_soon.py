"""Delayed calls, with and without a delay."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.defer import Deferred

from tests.conftest import FlushLoggedErrors
from tests.reactor.kit import turns

ensure = pytest_twisted.ensureDeferred


@ensure
async def test_order(reactor: Any) -> None:
    """Calls without a delay are made in their order, in the next turn; those that they make, in
    the turn after it."""
    made: list[Any] = []

    def first() -> None:
        reactor.callLater(0, made.append, "third")
        made.append("first")

    reactor.callLater(0, first)
    reactor.callLater(0, made.append, "second")
    assert made == []
    await turns(reactor, 3)
    assert made == ["first", "second", "third"]


@ensure
async def test_cancelled(reactor: Any) -> None:
    """A call that is cancelled is not made, and is no longer listed."""
    made: list[Any] = []
    call = reactor.callLater(0, made.append, 1)
    assert call in reactor.getDelayedCalls()
    assert call.active()
    call.cancel()
    assert call not in reactor.getDelayedCalls()
    with pytest.raises(error.AlreadyCancelled):
        call.cancel()
    await turns(reactor)
    assert made == []
    call = reactor.callLater(0, made.append, 2)
    await turns(reactor)
    assert made == [2]
    assert not call.active()
    with pytest.raises(error.AlreadyCalled):
        call.cancel()


@ensure
@pytest.mark.parametrize("method", ["delay", "reset"])
async def test_put_off(reactor: Any, method: str) -> None:
    """A call without a delay can be put off, and cancelled then."""
    done: Deferred[None] = Deferred()
    started = reactor.seconds()
    call = reactor.callLater(0, done.callback, None)
    getattr(call, method)(0.05)
    other = reactor.callLater(0, pytest.fail)
    getattr(other, method)(10)
    await turns(reactor)
    assert not done.called
    assert {call, other} <= set(reactor.getDelayedCalls())
    other.cancel()
    await done
    assert reactor.seconds() - started >= 0.05


@ensure
async def test_errors(reactor: Any, flush_logged_errors: FlushLoggedErrors) -> None:
    """An exception in a call is logged, and the others are made."""
    made: list[Any] = []
    reactor.callLater(0, lambda: 1 / 0)
    reactor.callLater(0, made.append, 1)
    await turns(reactor)
    assert made == [1]
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_negative(reactor: Any) -> None:
    """A delay is not negative."""
    with pytest.raises(AssertionError):
        reactor.callLater(-1, print)


@ensure
async def test_a_timer_is_not_set_again_and_again(reactor: Any, monkeypatch: Any) -> None:
    """A loop that counts whole milliseconds may be early; the reactor then does not spin until the
    call is due."""
    done: Deferred[None] = Deferred()
    turned = 0
    run = reactor.runUntilCurrent

    def count() -> None:
        nonlocal turned
        turned += 1
        run()

    monkeypatch.setattr(reactor, "runUntilCurrent", count)
    for number in range(20):
        reactor.callLater(0.0103 + number * 0.0023, lambda: None)
    reactor.callLater(0.0617, done.callback, None)
    await done
    assert turned < 70
