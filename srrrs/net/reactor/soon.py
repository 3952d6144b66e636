"""Delayed calls without a delay, which Twisted's own code makes at every turn."""

# Twisted does not annotate the classes that this derives from.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import DelayedCall
from twisted.logger import Logger

log = Logger()


def _ignore(call: DelayedCall) -> None:
    """A call that is cancelled, or moved, is noticed when its turn comes."""


class SoonReactor(AsyncioSelectorReactor):
    """`callLater(0, ...)` appends to a list that the loop runs in its next turn.

    It saves the heap, the clock and the loop's timer: two thirds of what such a call costs.
    """

    loop: asyncio.AbstractEventLoop

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

    def getDelayedCalls(self) -> Any:
        soon = [call for call in self._soon if not call.cancelled]
        return [*super().getDelayedCalls(), *soon]
