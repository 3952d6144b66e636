"""One request of an HTTP/2 connection, and its response: the visitor's side of an exchange.

Its states::

    OPEN ──respond──▶ ANSWERED ──finish, all sent──▶ GONE
    any ──reset by either end, the connection's end──▶ GONE

The request's end is independent of that: where the response ends first, the rest of the request
is dropped up to a cap, and then refused by a reset without an error (RFC 9113, 8.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from zope.interface import implementer

from srrrs.http.head import Kind, RequestHead, ResponseHead
from srrrs.relay.edge.context import VisitorContext
from srrrs.relay.edge.exchange import BODY_STEP, Exchange
from srrrs.relay.edge.interfaces import IResponder

if TYPE_CHECKING:
    from srrrs.relay.edge.h2 import Http2Visitor
    from srrrs.relay.edge.origin import OriginConnection
    from srrrs.relay.edge.pages import Answer

QUEUE: Final = 64 * 1024
"""Bytes of a response that wait for the visitor's credit before its backend is paused."""
FRAME: Final = 16 * 1024
"""Bytes of one DATA frame at the most, so that streams take turns."""


@implementer(IResponder)
class VisitorStream:
    """A stream of the visitor's, and the responder of its exchange."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_exchange",
        "_finished",
        "_gone",
        "_head",
        "_held",
        "_holding",
        "_paused",
        "_queue",
        "_queued",
        "_trailers",
        "_visitor",
        "_waits",
        "id",
        "trailers",
    )

    def __init__(self, visitor: Http2Visitor, stream_id: int) -> None:
        self.id = stream_id
        self._visitor = visitor
        self._exchange: Exchange | None = None
        # The request: its trailers, whether it has ended, what of it is not credited yet.
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        self._ended = False
        self._holding = False
        self._held = 0
        # The response: a head that waits for what follows, the body that waits for credit.
        self._head: list[tuple[bytes, bytes]] | None = None
        # A view is what is left of a piece that was cut.
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._trailers: Sequence[tuple[bytes, bytes]] = ()
        self._finished = False
        self._paused = False
        # In the line of those that have something to send.
        self._waits = False
        self._gone = False

    def begin(self, context: VisitorContext, head: RequestHead) -> None:
        """Start the exchange."""
        self._exchange = exchange = Exchange(context, self, head)
        exchange.start()

    def refuse(self, answer: Answer, method: bytes = b"GET") -> None:
        """Answer a request of that method without an exchange."""
        head, body = answer.response(method)
        self.respond(head)
        self.write(body)
        self.finish(())

    # --- from the visitor ---------------------------------------------------------------

    def data_received(self, data: bytes, size: int) -> None:
        """A piece of the request's body; ``size`` is what it took of the windows."""
        if self._exchange is not None and data:
            self._exchange.request_data(data)
        if self._holding:
            self._held += size
        else:
            self._credit(size)

    def request_ended(self) -> None:
        """The request is complete."""
        self._ended = True
        if self._exchange is not None:
            self._exchange.request_end(self.trailers)

    def may_go_on(self) -> None:
        """There may be credit."""
        if (self._queue or self._finished) and not self._waits and not self._gone:
            self._waits = True
            self._visitor.ready(self)

    def gone(self) -> None:
        """The visitor has reset it, or went away."""
        if self._gone:
            return
        self._leave()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.visitor_gone()

    def reset(self, code: ErrorCodes) -> None:
        """Break it off, for the visitor's fault."""
        self._reset(code)
        self.gone()

    # --- IResponder ---------------------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        if not self._gone:
            self._send_headers([(b":status", b"%d" % head.status), *head.fields], False)

    def respond(self, head: ResponseHead) -> None:
        fields = [(b":status", b"%d" % head.status), *head.fields]
        if head.framing.kind is Kind.LENGTH:
            fields.append((b"content-length", b"%d" % head.framing.length))
        self._head = fields

    def write(self, data: bytes) -> None:
        if self._gone or not data:
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued >= QUEUE and not self._paused and self._exchange is not None:
            self._paused = True
            self._exchange.pause_response()
        self.may_go_on()

    def finish(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        self._finished = True
        self._exchange = None
        self._trailers = trailers
        self.may_go_on()
        self._visitor.pump()

    def broken(self) -> None:
        self._finished = True
        self._exchange = None
        self._reset(ErrorCodes.INTERNAL_ERROR)
        self._visitor.pump()

    def switch(self, head: ResponseHead, origin: OriginConnection) -> None:
        """Nobody asks for it here: HTTP/2 has no Upgrade (RFC 9113, 8.6)."""
        origin.abort()
        self.broken()

    def flush(self) -> None:
        if self._head is not None and not self._gone:
            self._send_head(False)
        self._visitor.pump()

    def pause_request(self) -> None:
        self._holding = True

    def resume_request(self) -> None:
        self._holding = False
        size, self._held = self._held, 0
        if size and not self._gone:
            self._credit(size)
            self._visitor.pump()

    def may_send(self) -> bool:
        # What other requests hold is of the connection's window, which is all requests'.
        try:
            return self._visitor.h2.remote_flow_control_window(self.id) >= BODY_STEP
        except ProtocolError:  # It has ended.
            return True

    # --- sending ------------------------------------------------------------------------

    def send(self) -> int:
        """Send one frame's worth; the bytes that it took. It is its turn."""
        self._waits = False
        if self._gone:
            return 0
        if self._head is not None:
            # Which may be the end of it all.
            self._send_head(self._finished and not self._queue and not self._trailers)
        sent = 0
        if self._queue:
            sent = self._send_data()
            if not sent:
                return 0  # Until a WINDOW_UPDATE.
        if self._queue:
            self.may_go_on()
        elif self._finished and not self._gone:
            self._end()
        if self._paused and self._queued < QUEUE and self._exchange is not None:
            self._paused = False
            self._exchange.resume_response()
        return sent

    def _send_head(self, last: bool) -> None:
        fields, self._head = self._head, None
        assert fields is not None
        self._send_headers(fields, last)
        if last:
            self._over()

    def _send_headers(self, fields: list[tuple[bytes, bytes]], last: bool) -> None:
        try:
            self._visitor.h2.send_headers(self.id, fields, end_stream=last)
        except ProtocolError:  # The connection is ending.
            self.gone()

    def _send_data(self) -> int:
        h2, queue = self._visitor.h2, self._queue
        try:
            size = min(h2.local_flow_control_window(self.id), h2.max_outbound_frame_size, FRAME)
            if size <= 0:
                return 0
            pieces = []
            length = 0
            while queue and length < size:
                piece = queue.popleft()
                if length + len(piece) > size:
                    view = memoryview(piece)
                    queue.appendleft(view[size - length :])
                    piece = view[: size - length]
                pieces.append(piece)
                length += len(piece)
            self._queued -= length
            last = self._finished and not queue and not self._trailers
            h2.send_data(self.id, b"".join(pieces), end_stream=last)
        except ProtocolError:
            self.gone()
            return 0
        if last:
            self._over()
        return length

    def _end(self) -> None:
        """All of the body went out."""
        with suppress(ProtocolError):
            if self._trailers:
                self._visitor.h2.send_headers(self.id, list(self._trailers), end_stream=True)
            else:
                self._visitor.h2.end_stream(self.id)
        self._over()

    def _over(self) -> None:
        """The response has ended; what is still to come of the request goes to nobody."""
        if not self._ended:
            self._visitor.drain(self)
        self._leave()

    def _reset(self, code: ErrorCodes) -> None:
        with suppress(ProtocolError):
            self._visitor.h2.reset_stream(self.id, code)
        self._leave()

    def _leave(self) -> None:
        if self._gone:
            return
        self._gone = True
        self._queue.clear()
        self._queued = 0
        self._head = None
        held, self._held = self._held, 0
        if held:
            self._credit(held)
        self._visitor.forget(self)

    def _credit(self, size: int) -> None:
        with suppress(ProtocolError):
            self._visitor.h2.acknowledge_received_data(size, self.id)
