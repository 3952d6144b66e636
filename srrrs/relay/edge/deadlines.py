"""Many waits of one length, with one timer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Who waits, each for ``seconds`` from when it was added; 0: for ever, so that none is kept.

    To add and to discard costs no timer: each looks, when it fires, for whose turn it is next.

    :param expired: called with each one whose time is up, which waits no more then.
    """

    def __init__(self, clock: IReactorTime, seconds: float, expired: Callable[[T], object]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._expired = expired
        # In the order of their ends, as all wait equally long.
        self._waiting: dict[T, float] = {}
        self._timer: IDelayedCall | None = None
        # By hand, as this is called for each request.
        self._now: Callable[[], Any] = clock.seconds

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, who: T) -> bool:
        return who in self._waiting

    def add(self, who: T) -> None:
        """It waits from now on; if it did already, anew."""
        if not self.seconds:
            return
        waiting = self._waiting
        waiting.pop(who, None)
        waiting[who] = self._now() + self.seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self.seconds, self._look)

    def discard(self, who: T) -> None:
        """It waits no more; nothing if it did not."""
        self._waiting.pop(who, None)

    def first(self, found: Callable[[T], bool]) -> T | None:
        """Of those of whom that is true, the one that waits longest."""
        return next(filter(found, self._waiting), None)

    def all(self) -> list[T]:
        """Who waits now."""
        return list(self._waiting)

    def stop(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now = self._now()
        over = []
        for who, end in self._waiting.items():
            if end > now:
                break
            over.append(who)
        for who in over:
            # One that ended may end others.
            if self._waiting.get(who, now + 1) <= now:
                del self._waiting[who]
                self._expired(who)
        self._wait_on()

    def _wait_on(self) -> None:
        # Who was called may have set the timer.
        if self._waiting and self._timer is None:
            first = next(iter(self._waiting.values()))
            self._timer = self._clock.callLater(max(0.0, first - self._now()), self._look)
