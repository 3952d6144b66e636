"""Polls for a moment before the loop sleeps, while traffic comes in quick succession.

A processor that falls asleep takes tens of microseconds to wake, more on a virtual machine: as long
as a whole request takes through a tunnel. So where the last sleeps were short, the loop looks for
events a little longer, and leaves the processor to whoever wants it each time; where they were not,
it sleeps at once. How long follows the rule of KVM's halt polling (Linux,
``Documentation/virt/kvm/halt-polling.rst``), which knows the same trade; and a loop that has worked
for a while may poll for longer, as what it waits for, the others' share of the same requests, takes
about as long as its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

MOST: Final = 200e-6
"""Seconds of polling, and the sleep up to which polling would have spared it, whatever was done
before (KVM's ``halt_poll_ns``)."""
LONGEST: Final = 2e-3
"""Seconds of both at the most, for a loop that has worked enough."""
EARNED: Final = 2.0
"""Seconds of polling that a second of work earns."""
SLEEP: Final = 0.25
"""Seconds of it that a second of sleep uses up: a loop that works for less than a ninth of the time
has none left."""
ROUND: Final = 10e-6
"""Seconds that looking once takes at the most; the rest of the time that it took, others had."""
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
    :param most: seconds that it polls without having earned them; 0: there is no polling.
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
        # Seconds of polling that are earned and not used up.
        self._earned = 0.0
        # The longest sleep that polling was worth when something was there last.
        self._worth = most
        self._looked_at = -1.0

    def traffic(self) -> None:
        """Something came or goes. Cheap: it may be told of each message."""
        self._seen = True
        if not self._polling and self._most:
            self._polling = True
            now = self._now()
            slept, self._looked_at = now - self._looked_at, now
            self._use_up(slept * SLEEP)
            self._adjust(slept)
            self._call_soon(self._look)

    def _adjust(self, slept: float) -> None:
        """As long again where polling would have spared the sleep, half of it where not."""
        if slept <= self._worth:
            self.limit = min(max(2 * self.limit, LEAST), self._worth)
        else:
            self.limit /= 2
            if self.limit < LEAST:
                self.limit = 0.0

    def _use_up(self, seconds: float) -> None:
        self._earned = max(self._earned - seconds, 0.0)

    def _look(self) -> None:
        now = self._now()
        took, self._looked_at = now - self._looked_at, now
        if self._seen:
            self._seen = False
            self._earned = min(self._earned + EARNED * took, LONGEST)
            self._worth = max(self._most, self._earned)
            self._until = now + min(self.limit, self._worth)
        elif now < self._until:
            self._use_up(min(took, ROUND))
            self._give_way()
        else:
            self._polling = False
            return
        self._call_soon(self._look)
