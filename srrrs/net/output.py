"""What a tunnel sends, and when: once a reactor turn, as much as may be under way.

A turn that reads many connections sends in parts, along the way. One message for all of them would
have the peer wait while they are read, and then this end while the peer reads as many answers: all
requests would go around together, with one processor at work at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from srrrs.net.acks import Acknowledger
from srrrs.net.carrier import ICarrier
from srrrs.net.turn import Pending, next_turn, soon, traffic_on
from srrrs.protocol.inflight import InFlight
from srrrs.protocol.mux import MIN_DATA, Multiplexer
from srrrs.protocol.session import MAX_REPLAY, Session

MESSAGE: Final = 512 * 1024
"""Bytes of session that one message carries at about the most."""
MESSAGES_A_TURN: Final = 4
"""Messages sent before the reactor gets to serve others."""
FIRST_PART: Final = 8
"""Connections read in a turn after which the first part of its output goes, at the least."""
PART: Final = 4
"""The first part is this fraction of the last turn; each further one is twice the one before, so
that a turn has few, however many connections there are."""


class Output:
    """Moves what the multiplexer has to the carrier, within what the session may keep and the path
    should hold.

    :param acks: what is due of them travels with it.
    :param failed: called where that went wrong, which is a fault in our code.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        mux: Multiplexer,
        acks: Acknowledger,
        failed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._mux = mux
        self._acks = acks
        self._soon = soon(clock)
        self._failed = failed
        self._next_turn = next_turn(clock)
        self._traffic = traffic_on(clock)
        self._carrier: ICarrier | None = None
        self._session = Session(replay=None)
        # None: nothing is acknowledged, so nothing is known.
        self._inflight: InFlight | None = None
        self._writable = False
        self._sending = False
        # Connections read in this turn: since its last part, and before; those that make the next.
        self._read = self._read_before = 0
        self._enough = FIRST_PART
        # Whether as much is under way as may be: the next acknowledgement goes on.
        self._full = False
        self._call: Pending | None = None

    def start(self, carrier: ICarrier, session: Session) -> None:
        """Go on over ``carrier``; call :meth:`ready` once it was started."""
        self._carrier = carrier
        self._session = session
        self._writable = True
        kept = session.replay is not None
        self._inflight = InFlight(session.acked, MAX_REPLAY) if kept else None

    def stop(self) -> None:
        """The carrier is gone."""
        self._carrier = None
        self._writable = self._full = False
        self._acks.output_comes = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def pause(self) -> None:
        """The carrier takes no more for now."""
        self._writable = False

    def resume(self) -> None:
        """It does again."""
        if self._carrier is not None:
            self._writable = True
            self._flush()
            self._acks.flush()

    def ready(self) -> None:
        """There is something to send: a turn's frames travel as one message, or few."""
        if self._call is None and self._writable:
            self._call = self._next_turn(self._turn)
            self._acks.output_comes = True

    def passed_on(self) -> None:
        """A connection was read. What came together so far is sent, once it is a part."""
        self._read += 1
        if self._read == self._enough:
            self._read_before += self._read
            self._read = 0
            self._enough *= 2
            if self._call is not None and not self._sending:
                self._flush_safely()

    def acknowledged(self, count: int, now: float) -> None:
        """The peer has parsed ``count`` bytes of the session, which knows of it."""
        if self._inflight is not None:
            self._inflight.acknowledged(count, self._position, now)
        if self._full:
            self.ready()

    def round_trip(self, sample: float, now: float) -> None:
        """Something that the peer answers at once took ``sample`` seconds."""
        if self._inflight is not None:
            self._inflight.round_trip(sample, now)

    def finish(self) -> None:
        """Send the last words, which wait for no acknowledgement."""
        self._inflight = None
        self._flush()

    # --- within -------------------------------------------------------------------------

    @property
    def _position(self) -> int:
        """How far the session is sent on this carrier."""
        return self._session.sent - self._session.pending

    def _turn(self) -> None:
        self._call = None
        self._acks.output_comes = False
        self._enough = max(FIRST_PART, (self._read_before + self._read) // PART)
        self._read = self._read_before = 0
        self._traffic()
        self._flush_safely()

    def _flush_safely(self) -> None:
        try:
            self._flush()
            self._acks.flush()
        except Exception:
            self._log.failure("a tunnel's output failed")
            self._failed()

    def _flush(self) -> None:
        # What is called from here may let connections go on, and so be told of more.
        self._sending = True
        try:
            self._send()
        finally:
            self._sending = False

    def _send(self) -> None:
        session, mux = self._session, self._mux
        self._full = False
        for _ in range(MESSAGES_A_TURN):
            carrier = self._carrier
            if carrier is None or not self._writable:
                return
            room = MESSAGE if session.replay is None else self._room(session)
            if not room:
                return
            if session.pending:
                chunks, size = session.again(room)
                self._note(session, size)
                carrier.send(chunks, size, self._acks.take())
                continue
            chunks, size = mux.take(room)
            if size:
                chunks = session.record(chunks, size)
                self._note(session, size)
                carrier.send(chunks, size, self._acks.take())
            # Once it has none left, it announces the next.
            if not mux.more:
                inflight = self._inflight
                if inflight is not None and session.under_way < inflight.enough:
                    inflight.dry(self._position)
                return
        self.ready()

    def _room(self, session: Session) -> int:
        """Bytes that may be sent now; where there are none, what goes on later is seen to."""
        inflight = self._inflight
        room = MESSAGE
        if inflight is not None:
            room = min(room, inflight.limit - session.under_way)
        if not session.pending:
            space = session.space
            if space is not None:
                room = min(room, space)
        if room <= 0:
            self._full = True
            return 0
        if inflight is not None and inflight.paced:
            allowance = inflight.allowance(self._clock.seconds())
            if allowance < MIN_DATA:
                if self._call is None:
                    self._call = self._soon(inflight.pause(), self._turn)
                return 0
            room = min(room, allowance)
        return room

    def _note(self, session: Session, size: int) -> None:
        inflight = self._inflight
        if inflight is None:
            return
        if inflight.paced:
            inflight.spend(size)
        position = self._position
        if position >= inflight.mark_from:
            inflight.sent(position - size, position, self._clock.seconds())
