"""Signs of life on a carrier: pings, their round trips, and silence (``SPEC.md``, *Heartbeats*)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from srrrs.net.carrier import ICarrier

SILENCE: Final = 2.5
"""Heartbeat intervals without a byte after which the carrier is given up."""
MAX_PINGS: Final = 64
"""Pings under way at a time."""

_PING = Struct("!Q")


class TunnelEnded(Exception):
    """A wait for a sign of life was overtaken by the tunnel's end."""


class Heartbeat:
    """Pings a tunnel's carriers, one after the other, and notices when one falls silent.

    :param silent: told, in words, that the carrier is to be given up.
    :param sampled: given each round trip, in seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        silent: Callable[[str], None],
        sampled: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._silent = silent
        self._sampled = sampled
        self._carrier: ICarrier | None = None
        self._interval = 0.0
        self._due = 0.0
        self._number = 0
        self._call: IDelayedCall | None = None
        # Under way: when each was sent, and who waits for its answer.
        self._pings: dict[bytes, tuple[float, Deferred[float] | None]] = {}
        # Who asked while there was no carrier.
        self._asking: list[Deferred[float]] = []
        self._ended: str | None = None
        # The ping that decides whether a carrier in doubt is kept, when it was sent, and for how
        # many seconds nothing may be heard before its answer.
        self._probe: bytes | None = None
        self._probed_at = 0.0
        self._within = 0.0

    def start(self, carrier: ICarrier, interval: float) -> None:
        """Go on with a carrier; ``interval`` in seconds."""
        self._carrier = carrier
        self._interval = interval
        self._due = self._clock.seconds()
        asking, self._asking = self._asking, []
        for waiter in asking:
            self._send(waiter)
        self._beat()

    def stop(self) -> None:
        """The carrier is gone. Who waits for a sign of life gets it from the next one."""
        self._carrier = self._probe = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        pings, self._pings = self._pings, {}
        self._asking += [waiter for _, waiter in pings.values() if waiter is not None]

    def end(self, reason: str) -> None:
        """There will be no other carrier."""
        self.stop()
        self._ended = reason
        asking, self._asking = self._asking, []
        for waiter in asking:
            waiter.errback(TunnelEnded(reason))

    def ping(self) -> Deferred[float]:
        """Ask for a sign of life; fires with the round trip in seconds. Cancellable.

        Errs with :class:`TunnelEnded` where the end comes first, or too many ask already.
        """
        waiter: Deferred[float] = Deferred(self._forget)
        if self._ended is not None:
            waiter.errback(TunnelEnded(self._ended))
        elif len(self._pings) + len(self._asking) >= MAX_PINGS:
            waiter.errback(TunnelEnded("too many ask"))
        elif self._carrier is None:
            self._asking.append(waiter)
        else:
            self._send(waiter)
        return waiter

    def probe(self, within: float) -> None:
        """Give a carrier that is in doubt up unless it answers a ping; bytes heard meanwhile give
        it time, for the answer may have to wait behind much else.

        :param within: seconds for which nothing may be heard.
        """
        if self._carrier is None or self._probe is not None:
            return
        self._probed_at, self._within = self._clock.seconds(), within
        self._probe = self._send(None)
        if self._call is not None:
            self._call.cancel()
        self._beat()

    def ponged(self, payload: bytes) -> None:
        """The answer to a ping has come; it stands for those to earlier ones, as of several pings
        only the latest need be answered (RFC 6455, 5.5.3)."""
        if payload not in self._pings:
            return
        if self._probe is not None and payload >= self._probe:
            self._probe = None
        now = self._clock.seconds()
        self._sampled(now - self._pings[payload][0])
        answered = [each for each in self._pings if each <= payload]
        for sent_at, waiter in [self._pings.pop(each) for each in answered]:
            if waiter is not None:
                waiter.callback(now - sent_at)

    def _forget(self, waiter: Deferred[float]) -> None:
        if waiter in self._asking:
            self._asking.remove(waiter)
        for payload, (_, each) in list(self._pings.items()):
            if each is waiter:
                del self._pings[payload]

    def _beat(self) -> None:
        """Send the ping that is due, notice silence, and come back for whichever is next."""
        self._call = None
        carrier = self._carrier
        if carrier is None:
            return
        now = self._clock.seconds()
        silent_at = carrier.heard_at + SILENCE * self._interval
        if self._probe is not None:
            silent_at = min(silent_at, max(self._probed_at, carrier.heard_at) + self._within)
        if now >= silent_at:
            self._silent(f"nothing heard for {now - carrier.heard_at:.1f} s")
            return
        if now >= self._due:
            self._due = now + self._interval
            if len(self._pings) < MAX_PINGS:
                self._send(None)
        self._call = self._clock.callLater(max(0.0, min(self._due, silent_at) - now), self._beat)

    def _send(self, waiter: Deferred[float] | None) -> bytes:
        assert self._carrier is not None
        self._number += 1
        payload = _PING.pack(self._number)
        self._pings[payload] = (self._clock.seconds(), waiter)
        self._carrier.ping(payload)
        return payload
