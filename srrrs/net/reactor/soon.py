"""Delayed calls: cheaper ones without a delay, which Twisted's own code makes at every turn, and a
timer that does not spin."""

# Twisted does not annotate the classes that this derives from.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import DelayedCall
from twisted.logger import Logger

log = Logger()

TICK: Final = 0.001
"""Seconds by which the loop may be early: uvloop counts whole milliseconds, and rounds."""


def _ignore(call: DelayedCall) -> None:
    """A call that is cancelled, or moved, is noticed when its turn comes."""


class SoonReactor(AsyncioSelectorReactor):
    """`callLater(0, ...)` appends to a list that the loop runs in its next turn.

    It saves the heap, the clock and the loop's timer: two thirds of what such a call costs.
    """

    loop: asyncio.AbstractEventLoop
    # Twisted's, which does not say what they become.
    _scheduledAt: Any
    _timerHandle: Any

    def __init__(self, eventloop: asyncio.AbstractEventLoop) -> None:
        self._soon: list[DelayedCall] = []
        super().__init__(eventloop)

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002
        *args: object,
        **kwargs: object,
    ) -> DelayedCall:
        if delay != 0:
            return super().callLater(delay, callable, *args, **kwargs)  # type: ignore[no-any-return]
        now = self.seconds()
        call = DelayedCall(now, callable, args, kwargs, _ignore, _ignore, seconds=self.seconds)
        if not self._soon:
            self.loop.call_soon(self._run_soon)
        self._soon.append(call)
        return call

    def _run_soon(self) -> None:
        calls, self._soon = self._soon, []
        for call in calls:
            if call.cancelled:
                continue
            if call.delayed_time > 0:
                self._put_off(call)
                continue
            call.called = 1
            try:
                call.func(*call.args, **call.kw)
            except Exception:
                log.failure("Unhandled error in a delayed call")
        if self._justStopped:
            self.runUntilCurrent()

    def _put_off(self, call: DelayedCall) -> None:
        # It was given a delay after all.
        call.activate_delay()
        call.canceller = self._cancelCallLater
        call.resetter = self._moveCallLaterSooner
        self._newTimedCalls.append(call)
        self._reschedule()

    def _reschedule(self) -> None:
        # Twisted's, but for the tick. A timer that fires before the first call is due is set anew
        # with next to no time, fires again at once, and so on until it is.
        timeout = self.timeout()
        if timeout is None:
            return
        now = self.loop.time()
        self._scheduledAt = now + timeout
        if self._timerHandle is not None:
            self._timerHandle.cancel()
        at = now if timeout <= 0 else now + timeout + TICK
        self._timerHandle = self.loop.call_at(at, self._onTimer)

    def getDelayedCalls(self) -> Any:
        soon = [call for call in self._soon if not call.cancelled]
        return [*super().getDelayedCalls(), *soon]
