"""The words for what happens to a tunnel and its services: the same in the agent's lines, in
``--json``, in the relay's log and in counters."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Word(StrEnum):
    """A change of state, named once for every place that shows it."""

    CONNECTED = "connected"  #: the relay accepted this tunnel
    PARKED = "parked"  #: the tunnel's connection broke; its streams wait for another
    RESUMED = "resumed"  #: the streams go on, on another connection
    EXPIRED = "expired"  #: they have waited too long, and were reset
    DISCONNECTED = "disconnected"  #: the tunnel ended
    RETRYING = "retrying"  #: a dial failed; another follows
    READY = "ready"  #: a service has its public address
    REFUSED = "refused"  #: the relay does not provide a service
    WITHDRAWN = "withdrawn"  #: a service has lost its public address
    DRAINING = "draining"  #: no new visitors here; running streams finish
    STOPPED = "stopped"  #: the agent ended because it was told to


class Tally:
    """How often each of it has happened, for metrics.

    :ivar counts: by word.
    :ivar replayed: bytes that were sent again when sessions went on.
    """

    def __init__(self) -> None:
        self.counts: Counter[Word] = Counter()
        self.replayed = 0

    def count(self, word: Word, replayed: int = 0) -> None:
        """It has happened once more."""
        self.counts[word] += 1
        self.replayed += replayed

    def __str__(self) -> str:
        parts = [f"{count} {word}" for word, count in self.counts.items()]
        if self.replayed:
            parts.append(f"{self.replayed} bytes sent again")
        return ", ".join(parts) or "nothing"
