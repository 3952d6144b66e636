"""A tunnel: the protocol core on a carrier, with its timers.

It only dispatches: bytes to the core, the core's output to the carrier once a reactor turn, and
heartbeats on its own clock (``SPEC.md``, *Heartbeats*).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from struct import Struct
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from srrrs.net.address import visitor_address, visitor_text
from srrrs.net.carrier import ICarrier, ICarrierHandler
from srrrs.net.channel import Channel
from srrrs.net.turn import Pending, next_turn
from srrrs.protocol.errors import CloseCode, ProtocolError, ResetCode, TunnelGone
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame
from srrrs.protocol.inflight import InFlight
from srrrs.protocol.mux import MIN_DATA, Limits, Multiplexer, Role
from srrrs.protocol.session import REPLAY, Session
from srrrs.protocol.stream import Stream

MESSAGE: Final = 512 * 1024
"""Bytes of session that one message carries at about the most."""
MESSAGES_A_TURN: Final = 4
"""Messages sent before the reactor gets to serve others."""
SILENCE: Final = 2.5
"""Heartbeat intervals without a byte after which the carrier is given up."""
MAX_PINGS: Final = 64
"""Pings under way at a time."""
SMOOTHING: Final = 1 / 8
"""Weight of a new round-trip sample (RFC 6298, 2.3)."""

_PING = Struct("!Q")


@dataclass(frozen=True, slots=True)
class TunnelLost:
    """How a tunnel ended: a close code where one was given, and a line for people."""

    code: int | None
    reason: str


class TunnelEnded(Exception):
    """A wait on a tunnel was overtaken by the tunnel's end."""


class ITunnelHandler(Interface):
    """Whom a tunnel tells: the relay's or the agent's side of it."""

    def stream_opened(channel: Channel, service_id: int) -> None:
        """The peer opened a stream (agent only): attach a protocol, or reset it."""

    def control_received(frame: ControlFrame) -> None:
        """A service frame or GOAWAY."""

    def tunnel_lost(lost: TunnelLost) -> None:
        """The end, once."""


@implementer(ICarrierHandler)
class Tunnel:
    """One end of a tunnel.

    :param clock: the reactor, for the turn's flush, heartbeats and deadlines.
    :param budget: this tunnel's own, a child of the process's.
    :param host: what channels give as their host address.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        role: Role,
        handler: ITunnelHandler,
        limits: Limits,
        budget: Budget,
        host: IAddress | None = None,
    ) -> None:
        self.mux = Multiplexer(role, self, limits, budget)
        self.session = Session(REPLAY)
        self._inflight = InFlight(0, REPLAY)
        self.rtt: float | None = None
        self.heartbeat = 0.0
        self.ended: TunnelLost | None = None
        self._clock = clock
        self._handler = handler
        self._host = host
        self._carrier: ICarrier | None = None
        self._writable = True
        self._next_turn = next_turn(clock)
        self._flush_call: Pending | None = None
        self._beat_call: IDelayedCall | None = None
        # Whether as much is under way as may be: the next acknowledgement goes on.
        self._full = False
        # When what was parsed is to be acknowledged, at the latest.
        self._ack_call: IDelayedCall | None = None
        self._ack_due = math.inf
        self._ack_waits = False
        self._ping_due = 0.0
        self._ping_number = 0
        self._pings: dict[bytes, tuple[float, Deferred[float] | None]] = {}
        self._closed_waiters: list[Deferred[None]] = []
        self._carrier_gone = False

    # --- for the relay and the agent ----------------------------------------------------

    @property
    def peer(self) -> IAddress | None:
        """Where the other end is, once attached."""
        return None if self._carrier is None else self._carrier.peer

    @property
    def streams(self) -> int:
        """Streams open now."""
        return len(self.mux.streams)

    def attach(self, carrier: ICarrier, heartbeat: float) -> None:
        """Go on over ``carrier``, whose handshake is done; ``heartbeat`` in seconds."""
        self._carrier = carrier
        self._inflight = InFlight(self.session.acked, REPLAY)
        self.heartbeat = heartbeat
        self.mux.peer_frame = carrier.peer_frame
        self._ping_due = self._clock.seconds()
        carrier.start(self)
        if self.ended is None:
            self._beat()
            self.output_ready()

    def open(self, service_id: int, visitor: IAddress) -> Channel:
        """Open a stream for a visitor (relay only).

        :raises Overloaded: a limit or the budget is used up.
        :raises TunnelGone: the tunnel ended or is going away.
        """
        if self.ended is not None:
            raise TunnelGone
        stream = self.mux.open(service_id, visitor_text(visitor))
        return Channel(stream, self._clock, visitor, self._host or visitor)

    def send_control(self, frame: ControlFrame) -> None:
        """Send a service frame or GOAWAY; nothing once the tunnel has ended."""
        if self.ended is None:
            self.mux.send_control(frame)

    def ping(self) -> Deferred[float]:
        """Ask for a sign of life; fires with the round trip in seconds. Cancellable.

        Errs with :class:`TunnelEnded` where the tunnel ends first.
        """
        payload = b""

        def forget(_: Deferred[float]) -> None:
            self._pings.pop(payload, None)

        waiter: Deferred[float] = Deferred(forget)
        if self.ended is not None or self._carrier is None or len(self._pings) >= MAX_PINGS:
            waiter.errback(TunnelEnded("the tunnel cannot be asked"))
            return waiter
        payload = self._send_ping(waiter)
        return waiter

    def close(self, code: CloseCode, reason: str) -> None:
        """End the tunnel: what is queued goes out, streams are reset, the carrier is closed."""
        if self.ended is not None:
            return
        # The last words wait for no acknowledgement.
        self._inflight.limit, self._inflight.paced = REPLAY, False
        self._flush()
        self._end(TunnelLost(code, reason))
        if self._carrier is not None:
            self._carrier.close(code, reason)

    def abort(self, reason: str) -> None:
        """End the tunnel and its carrier at once."""
        self._end(TunnelLost(None, reason))
        if self._carrier is not None:
            self._carrier.abort()

    def when_closed(self) -> Deferred[None]:
        """Fires once the carrier is gone too."""
        waiter: Deferred[None] = Deferred(self._closed_waiters.remove)
        if self._carrier_gone or (self._carrier is None and self.ended is not None):
            waiter.callback(None)
        else:
            self._closed_waiters.append(waiter)
        return waiter

    # --- from the carrier ---------------------------------------------------------------

    def session_data(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        carrier = self._carrier
        if self.ended is not None or carrier is None:
            return
        if end is None:
            end = len(data)
        try:
            self.mux.receive(data, start, end, carrier.heard_at)
        except ProtocolError as error:
            self._fail(error)
            return
        due = self.session.parsed(end - start, carrier.heard_at)
        if due is not None and due < self._ack_due:
            self._acknowledge_at(due, carrier.heard_at)

    def ack_received(self, count: int) -> None:
        carrier, session = self._carrier, self.session
        if self.ended is not None or carrier is None:
            return
        try:
            session.acknowledged(count)
        except ProtocolError as error:
            self._fail(error)
            return
        self._inflight.acknowledged(count, session.sent, carrier.heard_at)
        if self._full:
            self.output_ready()

    def ponged(self, payload: bytes) -> None:
        sent_at, waiter = self._pings.pop(payload, (None, None))
        if sent_at is None:
            return
        sample = self._clock.seconds() - sent_at
        self.rtt = sample if self.rtt is None else self.rtt + SMOOTHING * (sample - self.rtt)
        self.mux.rtt = self.rtt
        self._inflight.round_trip(sample, self._clock.seconds())
        if waiter is not None:
            waiter.callback(sample)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self.ended is None:
            if self._ack_waits:
                self._ack_waits = False
                self._acknowledge()
            self._flush()

    def carrier_lost(self, code: int | None, reason: str) -> None:
        self._carrier_gone = True
        self._end(TunnelLost(code, reason))
        waiters, self._closed_waiters = self._closed_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    # --- from the multiplexer -----------------------------------------------------------

    def stream_opened(self, stream: Stream) -> None:
        visitor = visitor_address(stream.visitor)
        channel = Channel(stream, self._clock, visitor, self._host or visitor)
        try:
            self._handler.stream_opened(channel, stream.service_id)
        except Exception:
            self._log.failure("a stream could not be served")
            channel.reset(ResetCode.INTERNAL)

    def control_received(self, frame: ControlFrame) -> None:
        self._handler.control_received(frame)

    def output_ready(self) -> None:
        # A whole turn's frames travel as one message.
        if self._flush_call is None and self._writable and self._carrier is not None:
            self._flush_call = self._next_turn(self._turn)

    # --- within -------------------------------------------------------------------------

    def _turn(self) -> None:
        self._flush_call = None
        try:
            self._flush()
        except Exception:
            self._log.failure("a tunnel's output failed")
            self.abort("internal error")

    def _flush(self) -> None:
        carrier, mux = self._carrier, self.mux
        if carrier is None or self.ended is not None:
            return
        session, inflight = self.session, self._inflight
        self._full = False
        for _ in range(MESSAGES_A_TURN):
            if not self._writable:
                return
            room = inflight.limit - (session.sent - session.acked)
            if room <= 0:
                self._full = True
                return
            if inflight.paced:
                allowance = inflight.allowance(self._clock.seconds())
                if allowance < MIN_DATA:
                    if self._flush_call is None:
                        self._flush_call = self._clock.callLater(inflight.pause(), self._turn)
                    return
                room = min(room, allowance)
            chunks, size = mux.take(min(room, MESSAGE))
            if size:
                chunks = session.record(chunks, size)
                if inflight.paced:
                    inflight.spend(size)
                if session.sent >= inflight.mark_from:
                    inflight.sent(session.sent - size, session.sent, self._clock.seconds())
                carrier.send(chunks, size)
            # Once it has none left, it announces the next.
            if not mux.has_output:
                if session.sent - session.acked < inflight.enough:
                    inflight.dry(session.sent)
                return
        if self._flush_call is None:
            self._flush_call = self._next_turn(self._turn)

    def _acknowledge_at(self, due: float, now: float) -> None:
        """Tell the peer what was parsed, at ``due``."""
        if due <= now:
            self._acknowledge()
            return
        self._ack_due = due
        if self._ack_call is not None:
            self._ack_call.cancel()
        self._ack_call = self._clock.callLater(due - now, self._ack_timer)

    def _ack_timer(self) -> None:
        self._ack_call = None
        self._ack_due = math.inf
        if self.session.unacknowledged:
            self._acknowledge()

    def _acknowledge(self) -> None:
        carrier = self._carrier
        if carrier is None or self.ended is not None:
            return
        if self._writable:
            carrier.send_ack(self.session.acknowledge(carrier.heard_at))
        else:
            # A peer that does not read must not fill our buffer: one waits for room.
            self._ack_waits = True

    def _beat(self) -> None:
        """Send the ping that is due, notice silence, and come back for whichever is next."""
        self._beat_call = None
        carrier = self._carrier
        assert carrier is not None
        now = self._clock.seconds()
        silent_at = carrier.heard_at + SILENCE * self.heartbeat
        if now >= silent_at:
            reason = f"nothing heard for {now - carrier.heard_at:.1f} s"
            self._end(TunnelLost(CloseCode.SILENCE, reason))
            carrier.abort()
            return
        if now >= self._ping_due:
            self._ping_due = now + self.heartbeat
            if len(self._pings) < MAX_PINGS:
                self._send_ping(None)
        self._beat_call = self._clock.callLater(
            max(0.0, min(self._ping_due, silent_at) - now), self._beat
        )

    def _send_ping(self, waiter: Deferred[float] | None) -> bytes:
        assert self._carrier is not None
        self._ping_number += 1
        payload = _PING.pack(self._ping_number)
        self._pings[payload] = (self._clock.seconds(), waiter)
        self._carrier.ping(payload)
        return payload

    def _fail(self, error: ProtocolError) -> None:
        self._log.warn("the peer broke the protocol: {reason}", reason=error.reason)
        self._end(TunnelLost(error.code, error.reason))
        if self._carrier is not None:
            self._carrier.close(error.code, error.reason)

    def _end(self, lost: TunnelLost) -> None:
        if self.ended is not None:
            return
        self.ended = lost
        if self._flush_call is not None:
            self._flush_call.cancel()
        if self._beat_call is not None:
            self._beat_call.cancel()
        if self._ack_call is not None:
            self._ack_call.cancel()
        self._flush_call = self._beat_call = self._ack_call = None
        self.mux.close(ResetCode.GONE, lost.reason)
        pings, self._pings = self._pings, {}
        for _, waiter in pings.values():
            if waiter is not None:
                waiter.errback(Failure(TunnelEnded(lost.reason)))
        self._handler.tunnel_lost(lost)
