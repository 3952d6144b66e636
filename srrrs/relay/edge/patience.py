"""How much useless work a visitor may make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 500.0
"""What may be spent at once: a page that is left takes some hundred requests back."""
REFILL: Final = 50.0
"""What is given back each second."""


class Patience:
    """A bucket that refills.

    :param now: gives seconds.
    """

    __slots__ = ("_at", "_left", "_now")

    def __init__(self, now: Callable[[], Any]) -> None:
        self._now = now
        self._left = PATIENCE
        self._at: float = now()

    def spend(self, cost: float) -> bool:
        """Whether there was so much left."""
        now = self._now()
        self._left = min(PATIENCE, self._left + (now - self._at) * REFILL) - cost
        self._at = now
        return self._left >= 0
