"""Connections to services that speak HTTP/1.1: a stream each, kept for the next request.

The states of one::

    IDLE ──begin──▶ BUSY ──the response's end──▶ IDLE (kept, or closed by whoever has it)
    IDLE | BUSY ──switch──▶ GONE (the stream is somebody else's)
    IDLE ──any byte, FIN or reset──▶ GONE
    BUSY ──reset, FIN before the end, a bad response──▶ GONE (the exchange is told)
    any ──close | abort──▶ GONE
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from twisted.logger import Logger

from srrrs.http.errors import BadResponse
from srrrs.http.head import ResponseHead
from srrrs.http.response import ResponseReader
from srrrs.protocol.errors import ResetCode
from srrrs.relay.edge.deadlines import Deadlines

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from srrrs.net.channel import Channel
    from srrrs.protocol.stream import StreamHandler
    from srrrs.relay.edge.interfaces import IPublicService

KEPT: Final = 75.0
"""Seconds that a connection to a backend is kept for another request."""
LINGER: Final = 60.0
"""Seconds that a backend has to close, too, a connection that was closed."""


class OriginState(Enum):
    """What it is used for."""

    __hash__ = object.__hash__

    IDLE = "idle"
    BUSY = "busy"
    GONE = "gone"


class OriginUser(Protocol):
    """Whose request it is."""

    def response_head(self, head: ResponseHead) -> None:
        """A head: any number of interim ones, then the final one."""

    def response_data(self, data: bytes) -> None:
        """A piece of the body."""

    def response_end(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        """The response is complete; the origin is no longer the user's."""

    def response_flush(self) -> None:
        """All that came in one go was told."""

    def origin_failed(self, code: int | None, text: str) -> None:
        """It ended in the midst: by a reset's code, or (None) by its backend's doing, as ``text``
        says."""

    def pause_request(self) -> None:
        """Enough is queued."""

    def resume_request(self) -> None:
        """There is room again."""


class OriginConnection:
    """One stream to a service, for one exchange at a time, and its handler.

    What arrives while its user is paused is held, bounded by the stream's window, and
    credited once it was taken.

    :ivar service: the one that it goes to.
    :ivar visitor: for whom it was opened.
    :ivar served: responses that came by it completely.
    :ivar idle_since: seconds, on the clock, of the last of them.
    """

    _log: ClassVar[Any] = Logger()

    __slots__ = (
        "__weakref__",
        "_fin",
        "_held",
        "_keep_alive",
        "_over",
        "_paused",
        "_pumping",
        "_reader",
        "_reset",
        "_uncredited",
        "_user",
        "clock",
        "idle_since",
        "kept_by",
        "lingering",
        "served",
        "service",
        "state",
        "stream",
        "visitor",
        "write",
    )

    def __init__(
        self,
        service: IPublicService,
        channel: Channel,
        reader: ResponseReader,
        lingering: Deadlines[OriginConnection],
    ) -> None:
        # Whatever has its methods: compiled classes would take no other.
        stream: Any = channel.stream
        self.service = service
        self.stream = stream
        self.visitor = channel.visitor
        self.clock: IReactorTime = channel.clock
        self.write: Callable[[bytes], None] = stream.write
        self.state = OriginState.IDLE
        self.served = 0
        self.idle_since = 0.0
        self.kept_by: OriginPool | None = None
        self.lingering = lingering
        self._reader = reader
        self._user: OriginUser | None = None
        self._uncredited = 0
        self._paused = self._pumping = False
        self._keep_alive = True
        self._held: deque[bytes] | None = None
        # The stream: its FIN came; it is over; by a reset of this code.
        self._fin = self._over = False
        self._reset: int | None = None
        channel.hand_over(self)

    # --- from whoever uses it -----------------------------------------------------------

    def begin(self, user: OriginUser, method: bytes, upgrade: bytes | None) -> None:
        """A request of that method is sent by :meth:`write`; its response goes to ``user``.

        :param upgrade: the protocol that it asks to change to.
        """
        self.state = OriginState.BUSY
        self._paused = False
        self._user = user
        self._reader.expect(method, upgrade)
        if self.stream.held_back:
            user.pause_request()

    def pause(self) -> None:
        """The user takes no more of the response."""
        self._paused = True

    def resume(self) -> None:
        """It does again."""
        if self._paused:
            self._paused = False
            self._pump()

    @property
    def begun(self) -> bool:
        """Whether a byte of the response has come."""
        return self._reader.begun

    def idle_for(self) -> float:
        """Seconds since the last response."""
        return self.clock.seconds() - self.idle_since

    @property
    def reusable(self) -> bool:
        """Whether another request may go by it: nothing is left, and nobody has closed it."""
        return (
            self._keep_alive
            and self.state is OriginState.IDLE
            and not (self._fin or self._over)
            and not (self._reader.pending or self._held)
        )

    def close(self) -> None:
        """End it in good order; nothing where it has ended."""
        if self.state is OriginState.GONE:
            return
        self._leave()
        if not self._over:
            self.stream.finish()
            if not self._over and not self._fin:
                self.lingering.add(self)

    def abort(self, code: ResetCode = ResetCode.CANCEL, reason: str = "aborted") -> None:
        """End it at once, whatever its backend does; nothing where it has ended."""
        if self.state is OriginState.GONE:
            return
        self._leave()
        self.stream.reset(code, reason)

    def abort_late(self) -> None:
        """It was closed long ago, and its backend has not."""
        self.stream.reset(ResetCode.CANCEL, "closed")

    def hand_over(self, handler: StreamHandler) -> None:
        """Give the stream away, as :meth:`Channel.hand_over`; what came and was not given to the
        user is told to ``handler``."""
        rest = b"".join([self._reader.rest(), *(self._held or ())])
        self._held = None
        self._user = None
        self.state = OriginState.GONE
        self.stream.handler = handler
        size, self._uncredited = self._uncredited - len(rest), 0
        if size:
            self.stream.consumed(size, self.clock.seconds())
        if rest:
            handler.data_received(rest)
        if self._fin:
            handler.fin_received()
        if self._over:
            self.stream.handler = None
            handler.stream_closed(self._reset, "")

    # --- from the stream (StreamHandler) ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._user is None:
            self._unasked(len(data))
            return
        self._uncredited += len(data)
        if self._paused or self._held:
            if self._held is None:
                self._held = deque()
            self._held.append(data)
        else:
            self._reader.feed(data)
            self._pump()

    def fin_received(self) -> None:
        self._fin = True
        if self.state is OriginState.IDLE:
            self.close()
        elif self.state is OriginState.GONE:
            self.lingering.discard(self)
        elif not self._paused:
            self._pump()

    def fin_sent(self) -> None:
        pass

    def stream_closed(self, code: int | None, reason: str) -> None:
        self._over = True
        self._reset = code
        self.stream.handler = None
        self.lingering.discard(self)
        if self.state is OriginState.IDLE:
            self._leave()
        elif self.state is OriginState.BUSY and (not self._paused or not self._whole):
            self._paused = False
            self._pump()

    def pause_sending(self) -> None:
        if self._user is not None:
            self._user.pause_request()

    def resume_sending(self) -> None:
        user = self._user
        if user is not None:
            try:
                user.resume_request()
            except Exception:
                self._log.failure("a request could not be passed on")
                self._fail(ResetCode.INTERNAL, "a fault")

    # --- within -------------------------------------------------------------------------

    @property
    def _whole(self) -> bool:
        """Whether what came is all that the backend sent: a reset after its FIN takes nothing."""
        return self._fin or (self._over and self._reset is None)

    def _pump(self) -> None:
        """Give the user what has come, as far as it takes it."""
        user = self._user
        if user is None or self._pumping:
            return
        self._pumping = True
        try:
            self._give(user)
        except BadResponse as bad:
            self._pumping = False
            self._fail(None, str(bad))
        except Exception:
            # It must not end the tunnel, and with it everybody's streams.
            self._log.failure("a response could not be passed on")
            self._pumping = False
            self._fail(ResetCode.INTERNAL, "a fault")
        self._pumping = False
        if self._user is user:
            user.response_flush()
        if self._uncredited and not self._paused:
            size, self._uncredited = self._uncredited, 0
            self.stream.consumed(size, self.clock.seconds())

    def _give(self, user: OriginUser) -> None:
        reader = self._reader
        ended = False
        while not self._paused and self._user is user:
            item: Any = reader.next()
            if type(item) is bytes:
                user.response_data(item)
            elif item is None:
                if self._held:
                    reader.feed(self._held.popleft())
                    continue
                if ended or not (self._fin or self._over):
                    return
                if not self._whole:
                    self._fail(self._reset, "the stream was reset")
                    return
                ended = True
                reader.eof()
            elif type(item) is ResponseHead:
                self._keep_alive = item.keep_alive
                user.response_head(item)
            else:
                self._user = None
                self.state = OriginState.IDLE
                self.served += 1
                self.idle_since = self.clock.seconds()
                user.response_end(item.trailers)
                return

    def _fail(self, code: int | None, text: str) -> None:
        user = self._user
        if user is None:
            return
        self._leave()
        if not self._over:
            self.stream.reset(ResetCode.CANCEL, "not a response")
        try:
            user.origin_failed(code, text)
        except Exception:
            self._log.failure("an exchange could not be ended")

    def _unasked(self, size: int) -> None:
        """Bytes that belong to no response: whoever takes them for one is deceived."""
        self.stream.consumed(size)
        if self.state is OriginState.IDLE:
            self._leave()
        self.stream.reset(ResetCode.CANCEL, "closed")

    def _leave(self) -> None:
        self.state = OriginState.GONE
        self._user = None
        if self.kept_by is not None:
            self.kept_by.forget(self)
        size, self._uncredited = self._uncredited, 0
        if size:
            self.stream.consumed(size, self.clock.seconds())


class OriginPool:
    """The idle connections of one visitor's connection: at most one to each service.

    :param idle: where all pools' connections wait for their end.
    """

    __slots__ = ("_idle", "_kept")

    def __init__(self, idle: Deadlines[OriginConnection]) -> None:
        self._idle = idle
        self._kept: dict[IPublicService, OriginConnection] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, service: IPublicService) -> OriginConnection | None:
        """The one to a service, if there is one, which is no longer the pool's."""
        origin = self._kept.pop(service, None)
        if origin is not None:
            origin.kept_by = None
            self._idle.discard(origin)
        return origin

    def keep(self, origin: OriginConnection) -> None:
        """Keep it for the next request, or close it where it cannot serve one."""
        service = origin.service
        if not origin.reusable or service.leaving or service in self._kept:
            origin.close()
            return
        self._kept[service] = origin
        origin.kept_by = self
        self._idle.add(origin)

    def forget(self, origin: OriginConnection) -> None:
        """It ended by itself."""
        if self._kept.get(origin.service) is origin:
            del self._kept[origin.service]
            origin.kept_by = None
            self._idle.discard(origin)

    def close(self) -> None:
        """The visitor has gone: so do they."""
        for origin in list(self._kept.values()):
            origin.close()
