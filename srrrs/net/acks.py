"""When the peer is told how much of the session was parsed."""

from __future__ import annotations

import math
from typing import Final

from twisted.internet.interfaces import IReactorTime

from srrrs.net.carrier import ICarrier
from srrrs.net.turn import Pending, soon
from srrrs.protocol.session import Session

TICK: Final = 0.001
"""Seconds by which a timer may come too early."""


class Acknowledger:
    """Sends acknowledgements on a tunnel's carriers, as they fall due (:meth:`Session.parsed`).

    They travel with what is sent anyway, where something is.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._soon = soon(clock)
        self.output_comes = False
        """Whether something is sent in this turn: what is due waits for it, or :meth:`flush`."""
        self._carrier: ICarrier | None = None
        self._session = Session(replay=None)
        self._writable = False
        # One waits for what is sent anyway, or for room: a peer that does not read must not fill
        # our buffer.
        self._waits = False
        self._call: Pending | None = None
        # When the next is due, at the latest.
        self._due = math.inf

    def start(self, carrier: ICarrier, session: Session) -> None:
        """Go on over ``carrier``."""
        self._carrier = carrier
        self._session = session
        self._writable = True

    def stop(self) -> None:
        """The carrier is gone."""
        self._carrier = None
        self._writable = self._waits = False
        self._due = math.inf
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def pause(self) -> None:
        """The carrier takes no more for now."""
        self._writable = False

    def resume(self) -> None:
        """It does again; call :meth:`flush` when the output has had it."""
        self._writable = self._carrier is not None

    def parsed(self, size: int, now: float) -> None:
        """``size`` bytes were parsed at ``now``, seconds."""
        due = self._session.parsed(size, now)
        if due is not None and (due < self._due or due <= now):
            self._at(due, now)

    def take(self) -> int | None:
        """The count to tell with what is sent now; ``None``: none is due."""
        if not self._waits or self._carrier is None:
            return None
        self._waits = False
        return self._session.acknowledge(self._carrier.heard_at)

    def flush(self) -> None:
        """Nothing was sent that could have told it."""
        if self._waits and self._writable and self._carrier is not None:
            self._waits = False
            self._carrier.send_ack(self._session.acknowledge(self._carrier.heard_at))

    def _at(self, due: float, now: float) -> None:
        if due <= now:
            self._waits = True
            if not self.output_comes:
                self.flush()
            return
        self._due = due
        if self._call is not None:
            self._call.cancel()
        self._call = self._soon(due - now, self._is_due)

    def _is_due(self) -> None:
        self._call = None
        self._due = math.inf
        if self._carrier is not None and self._session.owes:
            now = self._clock.seconds()
            due = self._session.parsed(0, now)
            if due is not None:
                self._at(due - TICK, now)
