"""A tunnel: the protocol core on one carrier after another, with its timers.

It only dispatches: bytes to the core, the core's output to the carrier once a reactor turn. What
happens to it when is in :mod:`srrrs.protocol.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import classImplements

from srrrs.net.acks import Acknowledger
from srrrs.net.address import visitor_address, visitor_text
from srrrs.net.carrier import ICarrier, ICarrierHandler
from srrrs.net.channel import Channel
from srrrs.net.handler import ITunnelHandler, TunnelLost
from srrrs.net.heartbeat import Heartbeat
from srrrs.net.output import Output
from srrrs.net.turn import traffic_on
from srrrs.protocol.errors import FINAL, CloseCode, ProtocolError, ResetCode, TunnelGone
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame
from srrrs.protocol.lifecycle import TRANSITIONS, Action, Input, State
from srrrs.protocol.mux import Limits, Multiplexer, MuxHandler, Role
from srrrs.protocol.session import REPLAY, Session
from srrrs.protocol.stream import Stream

__all__ = ["PROBE_MIN", "PROBE_ROUND_TRIPS", "ITunnelHandler", "Tunnel", "TunnelLost"]

PROBE_MIN: Final = 1.0
"""Seconds that a carrier in doubt has at least to be heard."""
PROBE_ROUND_TRIPS: Final = 4
"""Round trips that it has."""
SMOOTHING: Final = 1 / 8
"""Weight of a new round-trip sample (RFC 6298, 2.3)."""


class Tunnel(MuxHandler):
    """One end of a tunnel.

    :param clock: the reactor, for the turn's flush, heartbeats and deadlines.
    :param budget: this tunnel's own, a child of the process's.
    :param host: what channels give as their host address.
    :ivar grace: seconds for which the session is kept after a carrier's end.
    """

    _log: ClassVar = Logger()

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
        self.session = Session(replay=None)
        self.state = State.NEW
        self.grace = 0.0
        self.rtt: float | None = None
        self.ended: TunnelLost | None = None
        self.parked_at: float | None = None
        self.resumptions = 0
        self._clock = clock
        self._handler = handler
        self._host = host
        self._budget = budget
        self._carrier: ICarrier | None = None
        # Ended, its carrier's closing handshake still under way.
        self._closing = False
        self._acks = Acknowledger(clock)
        self._traffic = traffic_on(clock)
        self._output = Output(clock, self.mux, self._acks, lambda: self.abort("internal error"))
        self._grace_call: IDelayedCall | None = None
        self._heartbeat = Heartbeat(clock, self._silent, self._sampled)
        self._closed_waiters: list[Deferred[None]] = []

    # --- for the relay and the agent ----------------------------------------------------

    @property
    def peer(self) -> IAddress | None:
        """Where the other end is, while there is a carrier."""
        return None if self._carrier is None else self._carrier.peer

    @property
    def streams(self) -> int:
        """Streams open now."""
        return len(self.mux.streams)

    @property
    def parked(self) -> bool:
        """Whether the session waits for a carrier."""
        return self.state is State.PARKED

    def attach(self, carrier: ICarrier, heartbeat: float, grace: float = 0.0) -> None:
        """Begin on ``carrier``, whose handshake is done.

        :param heartbeat: seconds.
        :param grace: seconds for which the session is kept after a carrier's end; 0: not at all.
        :raises RuntimeError: it has begun already.
        """
        self._input(Input.ATTACHED, (carrier, heartbeat, grace))

    def check_resume(self, received: int) -> None:
        """Whether a peer that has parsed ``received`` bytes can be gone on with.

        :raises TunnelGone: the tunnel has ended, or keeps no session.
        :raises ProtocolError: it cannot have parsed so many; the tunnel has ended now.
        """
        if self.ended is not None or self.session.replay is None:
            raise TunnelGone
        if not self.session.acked <= received <= self.session.sent:
            error = ProtocolError("a resume from where it cannot be")
            self._fail(error)
            raise error

    def resume(self, carrier: ICarrier, heartbeat: float, received: int) -> None:
        """Go on over ``carrier``, whose handshake is done, after :meth:`check_resume`.

        :param received: the session bytes that the peer has parsed.
        """
        self._input(Input.RESUMED, (carrier, heartbeat, received))

    def open(self, service_id: int, visitor: IAddress, label: str = "") -> Channel:
        """Open a stream for a visitor (relay only).

        :param label: of the visitor's connection, for the agent's log.
        :raises Overloaded: a limit or the budget is used up.
        :raises TunnelGone: the tunnel ended or is going away.
        """
        if self.ended is not None:
            raise TunnelGone
        text = visitor_text(visitor)
        stream = self.mux.open(service_id, f"{text}\0{label}" if label else text)
        return Channel(stream, self._clock, visitor, self._host or visitor)

    def send_control(self, frame: ControlFrame) -> None:
        """Send a service frame or GOAWAY; nothing once the tunnel has ended."""
        if self.ended is None:
            self.mux.send_control(frame)

    def ping(self) -> Deferred[float]:
        """Ask for a sign of life, as :meth:`Heartbeat.ping`."""
        return self._heartbeat.ping()

    def probe(self) -> None:
        """The network has changed: give the carrier up if it cannot work any more, at once where
        this machine has lost its address, else unless it answers soon."""
        carrier = self._carrier
        if carrier is None or self.ended is not None:
            return
        if carrier.is_stranded():
            self._give_up(TunnelLost(None, "this machine's address has changed"))
        else:
            self._heartbeat.probe(max(PROBE_MIN, PROBE_ROUND_TRIPS * (self.rtt or 0.0)))

    def close(self, code: CloseCode, reason: str) -> None:
        """End the tunnel: what is queued goes out, streams are reset, the carrier is closed."""
        if self.ended is not None:
            return
        self._output.finish()
        carrier = self._carrier
        self._closing = carrier is not None
        self._input(Input.END, TunnelLost(code, reason))
        if carrier is not None:
            carrier.close(code, reason)

    def abort(self, reason: str) -> None:
        """End the tunnel and its carrier at once."""
        carrier = self._carrier
        self._closing = carrier is not None
        self._input(Input.END, TunnelLost(None, reason))
        if carrier is not None:
            carrier.abort()

    def expire(self, reason: str) -> None:
        """Give up a session that waits for a carrier."""
        self._input(Input.EXPIRED, TunnelLost(None, reason, expired=True))

    def when_closed(self) -> Deferred[None]:
        """Fires once the tunnel has ended and its carrier is gone too."""
        waiter: Deferred[None] = Deferred(self._closed_waiters.remove)
        if self.ended is not None and not self._closing:
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
        now: float = carrier.heard_at
        try:
            self.mux.receive(data, start, end, now)
        except ProtocolError as error:
            self._fail(error)
            return
        if carrier is self._carrier:
            self._acks.parsed(end - start, now)

    def ack_received(self, count: int) -> None:
        carrier = self._carrier
        if self.ended is not None or carrier is None:
            return
        try:
            self.session.acknowledged(count)
        except ProtocolError as error:
            self._fail(error)
            return
        self._output.acknowledged(count, carrier.heard_at)

    def ponged(self, payload: bytes) -> None:
        self._heartbeat.ponged(payload)

    def pause_writing(self) -> None:
        self._output.pause()
        self._acks.pause()

    def resume_writing(self) -> None:
        self._acks.resume()
        self._output.resume()

    def carrier_lost(self, code: int | None, reason: str) -> None:
        self._carrier = None
        self._closing = False
        self._input(Input.CLOSED if code in FINAL else Input.BROKEN, TunnelLost(code, reason))
        self._tell_closed()

    # --- from the multiplexer -----------------------------------------------------------

    def stream_opened(self, stream: Stream) -> None:
        text, _, label = stream.visitor.partition("\0")
        visitor = visitor_address(text)
        channel = Channel(stream, self._clock, visitor, self._host or visitor)
        channel.label = label
        try:
            self._handler.stream_opened(channel, stream.service_id)
        except Exception:
            self._log.failure("a stream could not be served")
            channel.reset(ResetCode.INTERNAL)

    def control_received(self, frame: ControlFrame) -> None:
        self._handler.control_received(frame)

    def output_ready(self) -> None:
        self._output.ready()

    def passed_on(self) -> None:
        self._output.passed_on()

    # --- the lifecycle ------------------------------------------------------------------

    def _input(self, event: Input, detail: Any) -> None:
        self.state, actions = TRANSITIONS[self.state, event]
        for action in actions:
            _ACTIONS[action](self, detail)

    def _do_start(self, detail: tuple[ICarrier, float, float]) -> None:
        carrier, heartbeat, self.grace = detail
        if self.grace:
            self.session = Session(REPLAY, self._budget)
        self._take(carrier, heartbeat)

    def _do_drop(self, detail: Any) -> None:
        self._stop()
        self._drop_carrier()

    def _do_replay(self, detail: tuple[ICarrier, float, int]) -> None:
        carrier, heartbeat, received = detail
        replayed = self.session.resume(received)
        self.resumptions += 1
        self._end_grace()
        self._handler.tunnel_resumed(replayed)
        self.parked_at = None
        if self.ended is None:
            self._take(carrier, heartbeat)

    def _do_park(self, lost: TunnelLost) -> None:
        self._stop()
        if not self.grace:
            self._input(Input.END, lost)
            return
        self.parked_at = self._clock.seconds()
        self._grace_call = self._clock.callLater(self.grace, self._expired)
        self._handler.tunnel_parked(lost)

    def _do_finish(self, lost: TunnelLost) -> None:
        self.ended = lost
        self.parked_at = None
        self._stop()
        self._end_grace()
        self.mux.close(ResetCode.GONE, lost.reason)
        self.session.close()
        self._heartbeat.end(lost.reason)
        self._handler.tunnel_lost(lost)
        self._tell_closed()

    def _do_refuse(self, detail: Any) -> None:
        raise RuntimeError(f"a tunnel that is {self.state.value} cannot take this carrier")

    def _take(self, carrier: ICarrier, heartbeat: float) -> None:
        self._carrier = carrier
        self._output.start(carrier, self.session)
        self._acks.start(carrier, self.session)
        self.mux.peer_frame = carrier.peer_frame
        carrier.notice_silence(heartbeat)
        carrier.start(self)
        if carrier is self._carrier and self.ended is None:
            self._heartbeat.start(carrier, heartbeat)
            self._output.ready()

    def _stop(self) -> None:
        self._output.stop()
        self._acks.stop()
        self._heartbeat.stop()

    def _end_grace(self) -> None:
        if self._grace_call is not None:
            self._grace_call.cancel()
            self._grace_call = None

    def _expired(self) -> None:
        self._grace_call = None
        self.expire(f"no connection came back within {self.grace:g} s")

    def _silent(self, reason: str) -> None:
        self._give_up(TunnelLost(CloseCode.SILENCE, reason))

    def _give_up(self, lost: TunnelLost) -> None:
        self._drop_carrier()
        self._input(Input.BROKEN, lost)

    def _drop_carrier(self) -> None:
        """End the carrier at once, and hear nothing more of it."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.detach()
            carrier.abort()

    def _sampled(self, sample: float) -> None:
        self.rtt = sample if self.rtt is None else self.rtt + SMOOTHING * (sample - self.rtt)
        self.mux.rtt = self.rtt
        self._output.round_trip(sample, self._clock.seconds())

    def _fail(self, error: ProtocolError) -> None:
        self._log.warn("the peer broke the protocol: {reason}", reason=error.reason)
        carrier = self._carrier
        self._closing = carrier is not None
        self._input(Input.END, TunnelLost(error.code, error.reason))
        if carrier is not None:
            carrier.close(error.code, error.reason)

    def _tell_closed(self) -> None:
        if self.ended is None or self._closing:
            return
        waiters, self._closed_waiters = self._closed_waiters, []
        for waiter in waiters:
            waiter.callback(None)


classImplements(Tunnel, ICarrierHandler)

_ACTIONS: Final[dict[Action, Callable[[Tunnel, Any], None]]] = {
    Action.START: Tunnel._do_start,
    Action.DROP: Tunnel._do_drop,
    Action.REPLAY: Tunnel._do_replay,
    Action.PARK: Tunnel._do_park,
    Action.FINISH: Tunnel._do_finish,
    Action.REFUSE: Tunnel._do_refuse,
}
