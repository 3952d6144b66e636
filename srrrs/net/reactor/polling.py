"""Polls for a moment before the loop sleeps, while traffic comes in quick succession.

A processor that falls asleep takes tens of microseconds to wake, more on a virtual machine: as long
as a whole request takes through a tunnel. So where the last sleeps were short, the loop looks for
events a little longer, and leaves the processor to whoever wants it each time; where they were not,
it sleeps at once. How long follows the rule of KVM's halt polling (Linux,
``Documentation/virt/kvm/halt-polling.rst``), which knows the same trade.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

MOST: Final = 200e-6
"""Seconds of polling at the most, and the sleep up to which polling would have spared it (KVM's
``halt_poll_ns``)."""
LEAST: Final = 20e-6
"""Seconds of polling to begin with, and below which there is none."""


def _stay() -> None:
    """Where a processor cannot be left to others."""


_GIVE_WAY: Final[Callable[[], None]] = getattr(os, "sched_yield", _stay)


class Polling:
    """Keeps a loop from sleeping, after :meth:`traffic`, for as long as that has paid lately.

    :param call_soon: has a function called in the loop's next turn, before which it does not sleep.
    :param now: gives seconds.
    :param give_way: leaves the processor to others that wait for it.
    :param most: seconds; 0: there is no polling.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], Any],
        now: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] = _GIVE_WAY,
        most: float = MOST,
    ) -> None:
        self._call_soon = call_soon
        self._now = now
        self._give_way = give_way
        self._most = most
        # How long it polls now; 0: not at all.
        self.limit = 0.0
        self._polling = False
        self._seen = False
        self._until = 0.0
        # When the loop was last let sleep.
        self._slept_at = -1.0

    def traffic(self) -> None:
        """Something came or goes. Cheap: it may be told of each message."""
        self._seen = True
        if not self._polling and self._most:
            self._polling = True
            self._adjust(self._now() - self._slept_at)
            self._call_soon(self._look)

    def _adjust(self, slept: float) -> None:
        """As long again where polling would have spared the sleep, half of it where not."""
        if slept <= self._most:
            self.limit = min(max(2 * self.limit, LEAST), self._most)
        else:
            self.limit /= 2
            if self.limit < LEAST:
                self.limit = 0.0

    def _look(self) -> None:
        now = self._now()
        if self._seen:
            self._seen = False
            self._until = now + self.limit
        elif now < self._until:
            self._give_way()
        else:
            self._polling = False
            self._slept_at = now
            return
        self._call_soon(self._look)
