"""One stream: its lifecycle and what it still has to send.

The lifecycle is that of RFC 9113, 5.1, without reserved states::

    OPEN ──FIN sent──▶ LOCAL_DONE ──FIN received──▶ CLOSED
    OPEN ──FIN received──▶ REMOTE_DONE ──FIN sent──▶ CLOSED
    any ──RESET sent or received──▶ CLOSED
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from srrrs.protocol.errors import ResetCode
from srrrs.protocol.flow import ReceiveWindow

if TYPE_CHECKING:
    from srrrs.protocol.mux import Multiplexer


class StreamState(Enum):
    """Which directions are still open."""

    # Enum's own is written in Python.
    __hash__ = object.__hash__

    OPEN = "open"
    LOCAL_DONE = "local done"
    REMOTE_DONE = "remote done"
    CLOSED = "closed"


class Input(Enum):
    """What can happen to a stream."""

    __hash__ = object.__hash__

    RECV_DATA = "DATA received"
    RECV_FIN = "FIN received"
    RECV_RESET = "RESET received"
    RECV_WINDOW = "WINDOW received"
    RECV_OPEN = "OPEN received"
    SEND_FIN = "FIN sent"
    SEND_RESET = "RESET sent"


class Act(Enum):
    """What the state table asks for beside the new state."""

    TAKE = "hand it on"
    IGNORE = "ignore"
    ERROR = "protocol error"


_S, _I, _A = StreamState, Input, Act
_CLOSED: Final = StreamState.CLOSED
TRANSITIONS: Final[dict[tuple[StreamState, Input], tuple[StreamState, Act]]] = {
    (_S.OPEN, _I.RECV_DATA): (_S.OPEN, _A.TAKE),
    (_S.OPEN, _I.RECV_FIN): (_S.REMOTE_DONE, _A.TAKE),
    (_S.OPEN, _I.RECV_RESET): (_S.CLOSED, _A.TAKE),
    (_S.OPEN, _I.RECV_WINDOW): (_S.OPEN, _A.TAKE),
    (_S.OPEN, _I.RECV_OPEN): (_S.OPEN, _A.ERROR),
    (_S.OPEN, _I.SEND_FIN): (_S.LOCAL_DONE, _A.TAKE),
    (_S.OPEN, _I.SEND_RESET): (_S.CLOSED, _A.TAKE),
    (_S.LOCAL_DONE, _I.RECV_DATA): (_S.LOCAL_DONE, _A.TAKE),
    (_S.LOCAL_DONE, _I.RECV_FIN): (_S.CLOSED, _A.TAKE),
    (_S.LOCAL_DONE, _I.RECV_RESET): (_S.CLOSED, _A.TAKE),
    # Credit that crossed our FIN.
    (_S.LOCAL_DONE, _I.RECV_WINDOW): (_S.LOCAL_DONE, _A.IGNORE),
    (_S.LOCAL_DONE, _I.RECV_OPEN): (_S.LOCAL_DONE, _A.ERROR),
    (_S.LOCAL_DONE, _I.SEND_FIN): (_S.LOCAL_DONE, _A.IGNORE),
    (_S.LOCAL_DONE, _I.SEND_RESET): (_S.CLOSED, _A.TAKE),
    (_S.REMOTE_DONE, _I.RECV_DATA): (_S.REMOTE_DONE, _A.ERROR),
    (_S.REMOTE_DONE, _I.RECV_FIN): (_S.REMOTE_DONE, _A.ERROR),
    (_S.REMOTE_DONE, _I.RECV_RESET): (_S.CLOSED, _A.TAKE),
    (_S.REMOTE_DONE, _I.RECV_WINDOW): (_S.REMOTE_DONE, _A.TAKE),
    (_S.REMOTE_DONE, _I.RECV_OPEN): (_S.REMOTE_DONE, _A.ERROR),
    (_S.REMOTE_DONE, _I.SEND_FIN): (_S.CLOSED, _A.TAKE),
    (_S.REMOTE_DONE, _I.SEND_RESET): (_S.CLOSED, _A.TAKE),
    # Frames that crossed our RESET or FIN; the id is free for another OPEN.
    (_S.CLOSED, _I.RECV_DATA): (_S.CLOSED, _A.IGNORE),
    (_S.CLOSED, _I.RECV_FIN): (_S.CLOSED, _A.IGNORE),
    (_S.CLOSED, _I.RECV_RESET): (_S.CLOSED, _A.IGNORE),
    (_S.CLOSED, _I.RECV_WINDOW): (_S.CLOSED, _A.IGNORE),
    (_S.CLOSED, _I.RECV_OPEN): (_S.OPEN, _A.TAKE),
    (_S.CLOSED, _I.SEND_FIN): (_S.CLOSED, _A.IGNORE),
    (_S.CLOSED, _I.SEND_RESET): (_S.CLOSED, _A.IGNORE),
}


class StreamHandler(Protocol):
    """The local side of a stream."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Bytes of the stream; call :meth:`Stream.consumed` once they are taken."""

    def fin_received(self) -> None:
        """The peer sends no more."""

    def fin_sent(self) -> None:
        """Our FIN, and so all that was written, went to the carrier."""

    def stream_closed(self, code: int | None, reason: str) -> None:
        """The end: both FINs (``code`` is None) or a reset by the peer, the tunnel or us."""

    def pause_sending(self) -> None:
        """Enough is queued: write no more until :meth:`resume_sending`."""

    def resume_sending(self) -> None:
        """There is room again."""


class Stream:
    """One end of a stream. Made by the multiplexer; ``handler`` is set by whoever takes it."""

    __slots__ = (
        "_backlog",
        "_mux",
        "active",
        "credit",
        "fin_queued",
        "handler",
        "held_back",
        "id",
        "queue",
        "queued",
        "service_id",
        "state",
        "visitor",
        "window",
    )

    def __init__(
        self,
        mux: Multiplexer,
        stream_id: int,
        service_id: int,
        visitor: str,
        credit: int,
        window: ReceiveWindow,
    ) -> None:
        self._mux = mux
        self._backlog = mux.backlog
        self.id = stream_id
        self.service_id = service_id
        self.visitor = visitor
        self.handler: StreamHandler | None = None
        self.state = StreamState.OPEN
        self.credit = credit
        self.window = window
        # What waits for credit or for the carrier; `queued` is its size in bytes. Only the first
        # may be a view: of a chunk that was cut.
        self.queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        self.fin_queued = False
        # In the scheduler; told to pause.
        self.active = False
        self.held_back = False

    def write(self, data: bytes) -> None:
        """Queue bytes to be sent; nothing after :meth:`finish` or the end."""
        if data and self.state is not _CLOSED and not self.fin_queued:
            self.queue.append(data)
            self._backlog.grow(self, len(data))
            if self.credit and not self.active:
                self._mux.activate(self)

    def pass_on(self, data: bytes) -> None:
        """As :meth:`write`, of what a connection was just read: called by nobody else.

        From here a part of the turn's output may be sent at once, so that all that comes of that,
        on other streams too, happens within.
        """
        self.write(data)
        self._mux.passed_on()

    def finish(self) -> None:
        """Half-close: FIN after what is queued."""
        if self.state is not _CLOSED and not self.fin_queued:
            self.fin_queued = True
            self._mux.finish(self)

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """End both directions at once; what is queued is dropped. Nothing once closed."""
        if self.state is not _CLOSED:
            self._mux.reset(self, code, reason)

    def consumed(self, size: int, now: float | None = None) -> None:
        """The local side has taken ``size`` bytes: they are credited to the peer in time.

        :param now: seconds, as of :meth:`Multiplexer.receive`; by default the time of the last.
        """
        mux = self._mux
        grant = self.window.consumed(size, mux.now if now is None else now, mux.rtt)
        if grant:
            mux.grant(self, grant)
