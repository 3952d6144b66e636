"""How long to wait before dialling again.

Full jitter, after "Exponential Backoff And Jitter" (AWS Architecture Blog): each wait is drawn
evenly from zero to a ceiling that doubles, so that a fleet cut at one moment does not come back at
one moment.
"""

from __future__ import annotations

from collections.abc import Callable

#: First ceiling and highest ceiling of a wait that healing may shorten, in seconds.
BASE = 0.5
CAP = 30.0
#: The same for what does not heal by itself (a bad token, an unknown version), in seconds.
SLOW_BASE = 10.0
SLOW_CAP = 60.0

#: Enough doublings to reach any sensible cap; more would only make the integer grow for ever.
_MAX_DOUBLINGS = 32


class Backoff:
    """Two schedules of waits: one for troubles that pass, a slow one for those that somebody must
    mend.

    :param random: gives floats in [0, 1); injected so that tests choose.
    :param base: first ceiling, seconds.
    :param cap: highest ceiling, seconds.
    :param slow_base: first ceiling of the slow schedule, seconds.
    :param slow_cap: highest ceiling of the slow schedule, seconds.
    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        base: float = BASE,
        cap: float = CAP,
        slow_base: float = SLOW_BASE,
        slow_cap: float = SLOW_CAP,
    ) -> None:
        self._random = random
        self._base = base
        self._cap = cap
        self._slow_base = slow_base
        self._slow_cap = slow_cap
        self._failures = 0
        self._slow_failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure that may heal by itself: 0 to the ceiling."""
        ceiling = _ceiling(self._base, self._cap, self._failures)
        self._failures += 1
        return ceiling * self._random()

    def next_slow(self) -> float:
        """Seconds to wait after a failure that does not heal by itself: half to all of the
        ceiling, so never at once."""
        ceiling = _ceiling(self._slow_base, self._slow_cap, self._slow_failures)
        self._slow_failures += 1
        return ceiling * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Start over. Only the relay's acceptance is a reason: a TCP connection proves nothing
        when a proxy answers it."""
        self._failures = 0
        self._slow_failures = 0


def _ceiling(base: float, cap: float, failures: int) -> float:
    return min(cap, base * 2.0 ** min(failures, _MAX_DOUBLINGS))
