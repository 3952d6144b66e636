"""When the peer is told how much of the session was parsed."""

from __future__ import annotations

import math

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from srrrs.net.carrier import ICarrier
from srrrs.protocol.session import Session


class Acknowledger:
    """Sends acknowledgements on a tunnel's carriers, as they fall due (:meth:`Session.parsed`)."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._carrier: ICarrier | None = None
        self._session = Session(replay=None)
        self._writable = False
        # A peer that does not read must not fill our buffer: one waits for room.
        self._waits = False
        self._call: IDelayedCall | None = None
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
        """It does again."""
        self._writable = self._carrier is not None
        if self._waits:
            self._waits = False
            self._send()

    def parsed(self, size: int, now: float) -> None:
        """``size`` bytes were parsed at ``now``, seconds."""
        due = self._session.parsed(size, now)
        if due is None or due >= self._due:
            return
        if due <= now:
            self._send()
            return
        self._due = due
        if self._call is not None:
            self._call.cancel()
        self._call = self._clock.callLater(due - now, self._is_due)

    def _is_due(self) -> None:
        self._call = None
        self._due = math.inf
        if self._session.owes:
            self._send()

    def _send(self) -> None:
        carrier = self._carrier
        if carrier is None:
            return
        if self._writable:
            carrier.send_ack(self._session.acknowledge(carrier.heard_at))
        else:
            self._waits = True
