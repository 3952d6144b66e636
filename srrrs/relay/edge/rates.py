"""How often who may come: one number each, in a bounded table."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from srrrs.http.policy import Rate

MOST: Final = 65_536
"""Keys kept. With more in use at a time, the one not seen for longest gets its burst anew."""


class RateTable:
    """Buckets of tokens, each as the time at which it will be full (the generic cell rate
    algorithm, ITU-T I.371, A.1).

    :param most: cap of keys.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # By when last seen, oldest first. What is full is as good as what is not there.
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, rate: Rate, now: float) -> float:
        """Take one, if there is one: 0; else how many seconds from ``now`` there will be.

        :param now: seconds.
        """
        table, interval = self._full_at, rate.interval
        whole = rate.burst * interval
        # Never emptier than empty, where the rate was another before, or the clock was set back.
        full_at = min(max(table.pop(key, now), now), now + whole)
        then = full_at + interval
        wait = then - whole - now
        # What takes a billionth of the interval is rounding.
        taken = wait <= interval * 1e-9
        table[key] = then if taken else full_at
        self._prune(now)
        return 0.0 if taken else wait

    def _prune(self, now: float) -> None:
        table = self._full_at
        # Two for each that may have been added: so the full ones go in time.
        for _ in range(2):
            oldest = next(iter(table))
            if table[oldest] > now and len(table) <= self._most:
                return
            del table[oldest]
            if not table:
                return
