"""The words for what happens to a tunnel and its services: the same in the agent's lines, in
``--json``, in the relay's log and in counters."""

from __future__ import annotations

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
