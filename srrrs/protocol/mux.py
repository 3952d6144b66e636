"""The multiplexer: frames of streams inside the session. It knows nothing of reconnects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from srrrs.protocol import frames
from srrrs.protocol.backlog import Backlog
from srrrs.protocol.errors import (
    CloseCode,
    Overloaded,
    ProtocolError,
    ResetCode,
    TunnelGone,
)
from srrrs.protocol.flow import BASE_WINDOW, OPENING_WINDOW, Budget, ReceiveWindow
from srrrs.protocol.frames import (
    HEADER,
    HEADER_SIZE,
    ControlFrame,
    FrameDecoder,
    FrameHandler,
    Goaway,
    encode_window,
)
from srrrs.protocol.scheduler import QUANTUM, Scheduler
from srrrs.protocol.stream import TRANSITIONS, Act, Input, Stream, StreamState

MAX_BACKLOG: Final = 1 << 20
"""Bytes of control frames that may wait; a peer that makes us exceed it is dropped."""

MIN_DATA: Final = 4096
"""Bytes of a DATA frame below which the room left for a message is exceeded instead."""

MAX_TURN: Final = QUANTUM + 256 * 1024
"""Bytes of a DATA frame at the most: a turn, and a chunk of what is read from a socket at once."""

LARGE: Final = 256 * 1024
"""Bytes from which on what is taken is cut between chunks rather than within."""

MAX_FRAME: Final = 1024 * 1024
"""Payload bytes of a DATA frame that an end takes which does not say otherwise."""

# Looked up once: this is asked for each frame.
_OPEN: Final = StreamState.OPEN
_LOCAL_DONE: Final = StreamState.LOCAL_DONE
_REMOTE_DONE: Final = StreamState.REMOTE_DONE
_CLOSED: Final = StreamState.CLOSED


class Role(Enum):
    """Which end this is: the relay opens streams, the agent accepts them."""

    RELAY = "relay"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Limits:
    """The multiplexer's named caps."""

    streams: int = 10_240
    """Streams open at a time."""
    window: int = 16 * 1024 * 1024
    """Bytes that one stream's receive window may grow to."""
    frame: int = MAX_FRAME
    """Payload bytes of one DATA frame that this end takes; the handshake tells the peer."""
    stream_queue: int = 256 * 1024
    """Bytes queued on a stream at which its writer is paused."""
    tunnel_queue: int = 4 * 1024 * 1024
    """Bytes queued on all streams at which only those may go on that have credit and nothing
    queued."""


class MuxHandler(Protocol):
    """Whom the multiplexer tells what concerns the tunnel as a whole."""

    __slots__ = ()

    def stream_opened(self, stream: Stream) -> None:
        """The peer opened a stream; set its ``handler`` or reset it, before returning."""

    def control_received(self, frame: ControlFrame) -> None:
        """A service frame or GOAWAY."""

    def output_ready(self) -> None:
        """There is something for :meth:`Multiplexer.take`, where there was nothing before."""

    def passed_on(self) -> None:
        """A stream was written to by the reading of a connection (:meth:`Stream.pass_on`): this is
        where :meth:`Multiplexer.take` may be called before the turn's end."""


class Multiplexer(FrameHandler):
    """One end's streams.

    Bytes go in by :meth:`receive` and come out of :meth:`take`; the caller decides when and how
    much. Not reentrant: handlers may write, finish, reset and open, but not call ``receive``.

    :param budget: the tunnel's, for windows and queues.
    """

    def __init__(
        self,
        role: Role,
        handler: MuxHandler,
        limits: Limits,
        budget: Budget,
        rtt: float | None = None,
    ) -> None:
        self.role = role
        self.limits = limits
        self.rtt = rtt
        self.peer_frame = MAX_FRAME
        """Payload bytes of one DATA frame that the peer takes."""
        self.now = 0.0
        """The time of the last :meth:`receive`, in the caller's seconds."""
        self.streams: dict[int, Stream] = {}
        self.goaway_sent = False
        self.goaway_received = False
        self.closed = False
        self._handler = handler
        self._budget = budget
        receives = frames.RELAY_RECEIVES if role is Role.RELAY else frames.AGENT_RECEIVES
        self._decoder = FrameDecoder(self, receives, limits.frame)
        self._scheduler = Scheduler()
        self._control: list[bytes] = []
        self._control_size = 0
        # Credit to grant, by stream id: coalesced until the next take, so bounded by the streams.
        self._grants: dict[int, int] = {}
        self.backlog = Backlog(self.streams, limits.stream_queue, limits.tunnel_queue, budget)
        self._last_id = 0
        self._announced = False
        self.more = False
        """Whether the last :meth:`take` left something."""

    # --- what comes from the peer -------------------------------------------------------

    def receive(
        self, data: bytes | bytearray, start: int = 0, end: int | None = None, now: float = 0.0
    ) -> None:
        """Take bytes of the session, cut anywhere: ``data[start:end]``.

        :param now: seconds on a monotonic clock.
        :raises ProtocolError: the peer broke the protocol; the tunnel must end.
        """
        self.now = now
        self._decoder.feed(data, start, end)
        if self._control_size > MAX_BACKLOG:
            raise ProtocolError("the peer does not read what it asks for", CloseCode.LIMIT)

    def data_received(self, stream_id: int, data: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        if stream.state is _REMOTE_DONE:
            raise ProtocolError("DATA after FIN")
        grant = stream.window.received(len(data))
        if grant:
            self._grant(stream_id, grant)
        handler = stream.handler
        if handler is not None:
            handler.data_received(data)

    def open_received(self, stream_id: int, service_id: int, window: int, visitor: str) -> None:
        if not 0 < stream_id <= frames.MAX_ID:
            raise ProtocolError("a stream id out of range")
        if stream_id in self.streams:
            raise ProtocolError("OPEN of a stream that is open")
        if not BASE_WINDOW <= window <= frames.MAX_WINDOW:
            raise ProtocolError("OPEN with a window out of range")
        self._last_id = max(self._last_id, stream_id)
        if len(self.streams) >= self.limits.streams or not self._budget.reserve(BASE_WINDOW):
            self._queue(
                frames.encode_reset(stream_id, ResetCode.OVERLOAD, "the agent is at its limit")
            )
            return
        receive = ReceiveWindow(self._budget, BASE_WINDOW, self.limits.window)
        stream = Stream(self, stream_id, service_id, visitor, window, receive)
        self.streams[stream_id] = stream
        self._handler.stream_opened(stream)
        if stream.handler is None:
            stream.reset(ResetCode.INTERNAL)

    def fin_received(self, stream_id: int) -> None:
        stream = self._step(stream_id, Input.RECV_FIN)
        if stream is None:
            return
        handler = stream.handler
        if handler is not None:
            handler.fin_received()
        # The handler may have ended the stream meanwhile; _remove is idempotent.
        if stream.state is _CLOSED:
            self._remove(stream, None, "")

    def reset_received(self, stream_id: int, code: int, reason: str) -> None:
        stream = self._step(stream_id, Input.RECV_RESET)
        if stream is not None:
            self._remove(stream, code, reason)

    def window_received(self, stream_id: int, credit: int) -> None:
        stream = self._step(stream_id, Input.RECV_WINDOW)
        if stream is None:
            return
        if not credit or stream.credit + credit > frames.MAX_WINDOW:
            raise ProtocolError("a WINDOW frame out of range")
        stream.credit += credit
        if stream.queued:
            self.activate(stream)
        if stream.held_back:
            self.backlog.credited(stream)

    def control_received(self, frame: ControlFrame) -> None:
        if isinstance(frame, Goaway):
            self.goaway_received = True
        self._handler.control_received(frame)

    def _step(self, stream_id: int, what: Input) -> Stream | None:
        """Move the stream's state; ``None`` where the frame is to be ignored."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return None
        state, act = TRANSITIONS[stream.state, what]
        if act is Act.ERROR:
            raise ProtocolError(f"{what.value} while {stream.state.value}")
        stream.state = state
        return stream if act is Act.TAKE else None

    def _check_known(self, stream_id: int) -> None:
        if not 0 < stream_id <= self._last_id:
            raise ProtocolError("a frame for a stream that was never opened")

    # --- what the local side asks for ---------------------------------------------------

    def open(self, service_id: int, visitor: str) -> Stream:
        """Open a stream to a service (relay only).

        :raises Overloaded: a limit or the budget is used up.
        :raises TunnelGone: the tunnel ended, or one end has said GOAWAY.
        """
        if self.closed or self.goaway_sent or self.goaway_received:
            raise TunnelGone
        if len(self.streams) >= self.limits.streams:
            raise Overloaded("too many streams on this tunnel")
        opening = min(OPENING_WINDOW, self.limits.window)
        if opening > BASE_WINDOW and self._budget.reserve_elastic(opening):
            window = opening
        elif self._budget.reserve(BASE_WINDOW):
            window = BASE_WINDOW
        else:
            raise Overloaded("the memory budget is used up")
        stream_id = self._next_id()
        receive = ReceiveWindow(self._budget, window, self.limits.window)
        stream = Stream(self, stream_id, service_id, visitor, BASE_WINDOW, receive)
        self.streams[stream_id] = stream
        self._queue(frames.encode_open(stream_id, service_id, window, visitor))
        return stream

    def _next_id(self) -> int:
        # Ids rise and wrap; 2**31 streams lie between an id and its reuse, far more than a late
        # frame of the old stream can outlive.
        candidate = self._last_id
        while True:
            candidate = candidate % frames.MAX_ID + 1
            if candidate not in self.streams:
                break
        self._last_id = max(self._last_id, candidate) if candidate > self._last_id else candidate
        return candidate

    def send_control(self, frame: ControlFrame) -> None:
        """Queue a service frame or GOAWAY."""
        if isinstance(frame, Goaway):
            self.goaway_sent = True
        self._queue(frames.encode_control(frame))

    def finish(self, stream: Stream) -> None:
        """Queue a FIN (called by the stream)."""
        if not stream.queued:
            self.activate(stream)

    def reset(self, stream: Stream, code: ResetCode, reason: str) -> None:
        """End a stream at once (called by it)."""
        stream.state = _CLOSED
        self._queue(frames.encode_reset(stream.id, code, reason))
        self._remove(stream, code, reason)

    def activate(self, stream: Stream) -> None:
        """The stream has something to send, and credit for it (called by it)."""
        self._scheduler.activate(stream)
        if not self._announced:
            self._announce()

    def passed_on(self) -> None:
        """A connection was read, and its stream written to (called by it)."""
        self._handler.passed_on()

    def grant(self, stream: Stream, credit: int) -> None:
        """Grant the peer more bytes on a stream (called by it)."""
        if stream.state in (_OPEN, _LOCAL_DONE):
            self._grant(stream.id, credit)

    def close(self, code: ResetCode, reason: str) -> None:
        """The tunnel ends: every stream is told, nothing more is sent."""
        self.closed = True
        self._control.clear()
        self._control_size = 0
        self._grants.clear()
        self._scheduler = Scheduler()
        for stream in list(self.streams.values()):
            stream.state = _CLOSED
            self._remove(stream, code, reason)

    # --- what goes to the peer ----------------------------------------------------------

    @property
    def queued(self) -> int:
        """Bytes of data that wait to be sent."""
        return self.backlog.queued

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` would give anything."""
        return bool(self._control or self._grants or self._scheduler)

    def take(self, size: int) -> tuple[list[bytes], int]:
        """About ``size`` bytes for the wire, as whole frames: the chunks and their total.

        Control frames come first and are always given whole. Less than ``LARGE`` bytes are kept to
        more closely than that many or more, which are exceeded rather than a chunk cut.
        """
        out: list[bytes] = []
        total = 0
        if self._control:
            out.extend(self._control)
            total = self._control_size
            self._control.clear()
            self._control_size = 0
        if self._grants:
            for stream_id, grant in self._grants.items():
                out.append(encode_window(stream_id, grant))
            total += 12 * len(self._grants)
            self._grants.clear()
        scheduler = self._scheduler
        while total < size:
            stream = scheduler.next()
            if stream is None:
                break
            if size >= LARGE:
                total += self._serve(stream, QUANTUM, MAX_TURN, out)
            else:
                allowed = min(QUANTUM, max(size - total, MIN_DATA))
                total += self._serve(stream, allowed, allowed, out)
        self._announced = self.more = bool(self._control or self._grants or scheduler)
        if self.backlog.unsettled and self.backlog.settle():
            # Nothing may come of those let on: the others' turn must not depend on it.
            self._announce()
        return out, total

    def _serve(self, stream: Stream, allowed: int, longest: int, out: list[bytes]) -> int:
        """Give a stream its turn: one DATA frame of about ``allowed`` bytes, and FIN when due.

        :param longest: bytes that are not exceeded to end with a whole chunk.
        """
        if stream.state not in (_OPEN, _REMOTE_DONE):
            return 0
        total = 0
        queued = stream.queued
        most = min(min(queued, stream.credit), self.peer_frame)  # noqa: PLW3301  # a call less
        if most > 0:
            queue = stream.queue
            if type(queue[0]) is not bytes:
                queue[0] = bytes(queue[0])
            if queued <= most and queued <= allowed:
                length = queued
                out.append(HEADER.pack(length, stream.id))
                out += queue  # type: ignore[arg-type]  # Only the first may be a view.
                queue.clear()
            else:
                # What is cut is copied: a full turn ends with a whole chunk, where it may.
                most = min(most, longest)
                length = 0
                taken: list[bytes] = []
                while length < most and length < allowed:
                    chunk = queue.popleft()
                    size = len(chunk)
                    if length + size > most:
                        size = most - length
                        # A view, so that a large chunk is not copied again for each part of it.
                        view = memoryview(chunk)
                        queue.appendleft(view[size:])
                        chunk = view[:size]
                    taken.append(chunk if type(chunk) is bytes else bytes(chunk))
                    length += size
                out.append(HEADER.pack(length, stream.id))
                out += taken
            stream.credit -= length
            self.backlog.shrink(stream, length)
            total = length + HEADER_SIZE
        if stream.queued:
            if stream.credit:
                self._scheduler.requeue(stream)
        elif stream.fin_queued:
            out.append(frames.encode_fin(stream.id))
            total += HEADER_SIZE
            stream.state, _ = TRANSITIONS[stream.state, Input.SEND_FIN]
            if stream.handler is not None:
                stream.handler.fin_sent()
            if stream.state is _CLOSED:
                self._remove(stream, None, "")
        return total

    # --- within -------------------------------------------------------------------------

    def _announce(self) -> None:
        if not self._announced and not self.closed:
            self._announced = True
            self._handler.output_ready()

    def _queue(self, frame: bytes) -> None:
        if self.closed:
            return
        self._control.append(frame)
        self._control_size += len(frame)
        if self._control_size > MAX_BACKLOG:
            raise ProtocolError("the peer does not read what it asks for", CloseCode.LIMIT)
        self._announce()

    def _grant(self, stream_id: int, grant: int) -> None:
        self._grants[stream_id] = self._grants.get(stream_id, 0) + grant
        self._announce()

    def _remove(self, stream: Stream, code: int | None, reason: str) -> None:
        """Forget a closed stream and tell its handler, once."""
        if self.streams.get(stream.id) is not stream:
            return
        del self.streams[stream.id]
        if self._grants.pop(stream.id, None) is not None:
            # What was announced may be gone with it: what comes next is to be announced again.
            self._announced = self.has_output
        stream.queue.clear()
        self.backlog.forget(stream)
        stream.window.close()
        if stream.handler is not None:
            stream.handler.stream_closed(code, reason)
