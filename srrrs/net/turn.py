"""The next turn of the reactor, and short waits, as cheaply as they can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime


class Pending(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Prevent it."""


def next_turn(clock: IReactorTime) -> Callable[[Callable[[], None]], Pending]:
    """What has a function called in the next turn; it must not raise.

    Where the reactor runs on an event loop, that costs a quarter of ``callLater(0, …)``.
    """
    loop: Any = getattr(clock, "loop", None)
    if loop is not None:
        return loop.call_soon  # type: ignore[no-any-return]
    return lambda function: clock.callLater(0, function)


def soon(clock: IReactorTime) -> Callable[[float, Callable[[], None]], Pending]:
    """What has a function called after some seconds, to the millisecond; it must not raise.

    For waits that come hundreds of times a second: there ``callLater`` itself is what costs.
    """
    loop: Any = getattr(clock, "loop", None)
    if loop is not None:
        return loop.call_later  # type: ignore[no-any-return]
    return clock.callLater


def traffic_on(clock: IReactorTime) -> Callable[[], None]:
    """What is to be told of traffic: a reactor that can then polls a moment before it sleeps."""
    polling = getattr(clock, "polling", None)
    return _nothing if polling is None else polling.traffic


def _nothing() -> None:
    pass
