"""Waiting for streams to end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

DRAIN: Final = 30.0
"""Seconds that running streams have to finish in, unless told otherwise."""
LOOK_EVERY: Final = 0.05
"""Seconds between two looks at whether any is left: nobody is told of each stream's end."""


def when_idle(clock: IReactorTime, idle: Callable[[], bool]) -> Deferred[None]:
    """Fires as soon as ``idle()`` holds, at once if it does now. Cancellable; whoever waits sets
    the limit."""
    waiter: Deferred[None] = Deferred(lambda _: stop())
    call: IDelayedCall | None = None

    def look() -> None:
        nonlocal call
        call = None
        if idle():
            waiter.callback(None)
        else:
            call = clock.callLater(LOOK_EVERY, look)

    def stop() -> None:
        if call is not None:
            call.cancel()

    look()
    return waiter
