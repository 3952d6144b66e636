"""HTTP/2 towards visitors: many exchanges side by side on a connection (RFC 9113).

hyper-h2 is the protocol; here is what it leaves to its user: whose turn it is to send, what waits
where and how much of it, and how much of what costs us more than the visitor is put up with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    UnknownFrameReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.http.errors import BadRequest
from srrrs.http.framelengths import FrameLengths
from srrrs.http.request2 import request_head, trailers
from srrrs.relay.edge.closing import Closing
from srrrs.relay.edge.context import VisitorContext
from srrrs.relay.edge.h2stream import VisitorStream
from srrrs.relay.edge.patience import Patience
from srrrs.relay.edge.site import ConnectionInfo, Site

STREAMS: Final = 128
"""Requests that a connection may have open at a time (as nginx's and Apache's defaults)."""
STREAM_WINDOW: Final = 256 * 1024
"""Bytes of one request's body that may wait here."""
CONNECTION_WINDOW: Final = 1024 * 1024
"""Bytes of all of a connection's requests that may wait here."""
OUTPUT: Final = 64 * 1024
"""Bytes that are gathered before they are written to the transport."""
DRAINED: Final = 2 * STREAM_WINDOW
"""Bytes of a request that are dropped once its response is complete, before it is reset. At once,
some clients (curl 7) would take the reset for the response's fate, and lose that."""

# What a frame costs of a visitor's patience: those that make work and carry nothing.
_COSTS: Final[dict[type, float]] = {
    StreamReset: 1.0,  # CVE-2023-44487: requests made and taken back.
    PriorityUpdated: 0.2,
    PingReceived: 1.0,  # CVE-2019-9512.
    RemoteSettingsChanged: 10.0,  # CVE-2019-9515.
    UnknownFrameReceived: 0.5,
}
_EMPTY_DATA: Final = 1.0  # CVE-2019-9518.


@implementer(IPushProducer)
class Http2Visitor(Closing):
    """The protocol of a visitor's connection, once ALPN or its preface said ``h2``.

    :param connection: what is known of it.
    """

    _log = Logger()

    def __init__(self, site: Site, connection: ConnectionInfo) -> None:
        super().__init__(site.clock)
        self._site = site
        self._info = connection
        self._context = VisitorContext(site, connection)
        self._patience = Patience(site.clock.seconds)
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                # What goes out was checked when it came in from the backend.
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._lengths = FrameLengths(self.h2.max_inbound_frame_size)
        self._streams: dict[int, VisitorStream] = {}
        # Those that have something to send, and credit for it; in the order of their turns.
        self._ready: deque[VisitorStream] = deque()
        self._writable = True
        # Those answered before all was said, and how many bytes more are dropped of each.
        self._drained: dict[int, int] = {}
        # Within dataReceived, whose end writes what there is; within the loop that sends.
        self._receiving = self._sending = False

    # --- the connection -----------------------------------------------------------------

    def connectionMade(self) -> None:
        h2, limits = self.h2, self._site.request_limits
        self._register()
        h2.local_settings = type(h2.local_settings)(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.head_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.ENABLE_PUSH: 0,
            },
        )
        h2.decoder.max_header_list_size = limits.head_bytes
        h2.initiate_connection()
        h2.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self._site.heads.add(self)
        self._write_out()

    def dataReceived(self, data: bytes) -> None:
        if self._ending:
            return
        if not self._lengths.check(data):
            self._end(ErrorCodes.FRAME_SIZE_ERROR)
            return
        self._receiving = True
        try:
            for event in self.h2.receive_data(data):
                if not self._take(event):
                    break
        except ProtocolError:
            # hyper-h2 has put the GOAWAY that says why into its output.
            self._end(None)
        finally:
            self._receiving = False
        self.pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = self._ending = True
        self._site.heads.discard(self)
        self._site.idle.discard(self)
        self._disarm()
        self._end_streams()
        self._context.close()

    # --- the deadlines of the site ------------------------------------------------------

    def head_overdue(self) -> None:
        """Nothing was asked in time."""
        self._end(ErrorCodes.NO_ERROR)

    def end_if_idle(self) -> None:
        """Take no more requests where none is under way."""
        self.idle_too_long()

    def idle_too_long(self) -> None:
        """Nothing was asked for long."""
        self._end(ErrorCodes.NO_ERROR)

    # --- producer, for the transport ----------------------------------------------------

    def pauseProducing(self) -> None:
        self._writable = False

    def resumeProducing(self) -> None:
        self._writable = True
        self.pump()

    def stopProducing(self) -> None:
        """Comes right before ``connectionLost``."""

    # --- from the streams ---------------------------------------------------------------

    def ready(self, stream: VisitorStream) -> None:
        """It has something to send."""
        self._ready.append(stream)

    def pump(self) -> None:
        """Send what there is, a frame of each stream in turn, as far as the transport takes it."""
        if self._receiving or self._sending or self._gone:
            return
        self._sending = True
        try:
            size = 0
            while self._ready and self._writable:
                stream = self._ready.popleft()
                size += stream.send()
                if size >= OUTPUT:
                    self._write_out()
                    size = 0
            self._write_out()
        finally:
            self._sending = False

    def forget(self, stream: VisitorStream) -> None:
        """It has ended."""
        if self._streams.pop(stream.id, None) is not None and not self._streams:
            if not self._ending:
                self._site.idle.add(self)

    def drain(self, stream: VisitorStream) -> None:
        """It is answered, and its request goes on: drop that, up to a cap."""
        self._drained[stream.id] = DRAINED

    # --- events -------------------------------------------------------------------------

    def _take(self, event: Event) -> bool:
        """Whether there is more to do afterwards."""
        kind = type(event)
        cost = _COSTS.get(kind)
        if cost is not None and not self._patience.spend(cost):
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, event)
        return not self._ending

    def _request(self, event: RequestReceived) -> None:
        site = self._site
        site.heads.discard(self)
        site.idle.discard(self)
        stream = VisitorStream(self, event.stream_id)
        self._streams[stream.id] = stream
        try:
            head = request_head(event.headers, event.stream_ended is not None, site.request_limits)
        except BadRequest as bad:
            answer = site.pages.page(bad.status, "Bad request", bad.text)
            self._context.log_refusal(bad.status, len(answer.body), bad.text, (2, 0))
            stream.refuse(answer)
            return
        if site.is_misdirected(self._info, head.host):
            # A connection that was opened for another host, whose certificate is not this one's
            # (RFC 9110, 15.5.20): asked again by a connection of its own, it is served.
            answer = site.pages.page(421, "Wrong connection", "Ask by another connection.")
            self._context.log_refusal(421, len(answer.body), "another host's connection", (2, 0))
            stream.refuse(answer, head.method)
            return
        stream.begin(self._context, head)

    def _data(self, event: DataReceived) -> None:
        size = event.flow_controlled_length
        if not event.data and event.stream_ended is None and not self._patience.spend(_EMPTY_DATA):
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        stream = self._streams.get(event.stream_id)
        if stream is None:
            # It was answered before all was said.
            self._drop(event.stream_id, size)
            self.h2.acknowledge_received_data(size, event.stream_id)
        else:
            stream.data_received(event.data, size)

    def _trailers(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        try:
            stream.trailers = trailers(event.headers, self._site.request_limits)
        except BadRequest:
            stream.reset(ErrorCodes.PROTOCOL_ERROR)

    def _drop(self, stream_id: int, size: int) -> None:
        left = self._drained.get(stream_id)
        if left is None:
            return
        if left > size:
            self._drained[stream_id] = left - size
            return
        del self._drained[stream_id]
        # The response was complete: its rest is not wanted (RFC 9113, 8.1).
        with suppress(ProtocolError):  # It has ended: what came at once is all read by now.
            self.h2.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def _stream_ended(self, event: StreamEnded) -> None:
        self._drained.pop(event.stream_id, None)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.request_ended()

    def _stream_reset(self, event: StreamReset) -> None:
        self._drained.pop(event.stream_id, None)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.gone()

    def _window(self, event: WindowUpdated) -> None:
        if event.stream_id:
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.may_go_on()
        else:
            self._all_may_go_on()

    def _settings(self, event: RemoteSettingsChanged) -> None:
        # INITIAL_WINDOW_SIZE may have opened every window.
        self._all_may_go_on()

    def _terminated(self, event: ConnectionTerminated) -> None:
        """The visitor opens no more streams; those that are open go on."""
        if not self._streams:
            self._end(None)

    def _all_may_go_on(self) -> None:
        for stream in list(self._streams.values()):
            stream.may_go_on()

    # --- within -------------------------------------------------------------------------

    def _write_out(self) -> None:
        data = self.h2.data_to_send()
        if data and not self._gone:
            self.transport.write(data)

    def _end_streams(self) -> None:
        for stream in list(self._streams.values()):
            stream.gone()
        self._ready.clear()

    def _end(self, code: ErrorCodes | None) -> None:
        """Read nothing more, and close; ``None``: the GOAWAY is said, or none is due."""
        if self._ending:
            return
        self._ending = True
        self._site.heads.discard(self)
        self._site.idle.discard(self)
        if code is not None:
            self.h2.close_connection(code)
        self._end_streams()
        self._write_out()
        self._close(unread=True, short=self._writable)


_HANDLERS: Final[dict[type, Callable[[Http2Visitor, Any], None]]] = {
    RequestReceived: Http2Visitor._request,
    DataReceived: Http2Visitor._data,
    TrailersReceived: Http2Visitor._trailers,
    StreamEnded: Http2Visitor._stream_ended,
    StreamReset: Http2Visitor._stream_reset,
    WindowUpdated: Http2Visitor._window,
    RemoteSettingsChanged: Http2Visitor._settings,
    ConnectionTerminated: Http2Visitor._terminated,
}
