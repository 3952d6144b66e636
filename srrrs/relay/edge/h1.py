"""HTTP/1.0 and 1.1 towards visitors: one request after the other on a connection.

What a connection is about, at each moment::

    a request is read ──its end──▶ it is answered ──▶ idle, or the next one, which waited
           │                          ▲
           └──answered before its end─┴──▶ the rest of it is read and dropped, up to a cap

With a 101 all that ends: the connection and the stream are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.http.errors import BadRequest
from srrrs.http.head import NO_BODY, Kind, RequestHead, ResponseHead
from srrrs.http.request import RequestReader
from srrrs.http.writing import (
    encode_chunk,
    encode_last_chunk,
    encode_response,
    visitor_framing,
)
from srrrs.net.splice import Splice
from srrrs.relay.edge.closing import Closing
from srrrs.relay.edge.context import VisitorContext
from srrrs.relay.edge.exchange import Exchange
from srrrs.relay.edge.interfaces import IResponder
from srrrs.relay.edge.origin import OriginConnection
from srrrs.relay.edge.site import ConnectionInfo, Site
from srrrs.relay.edge.splicing import CountedSplice

PIPELINED: Final = 64 * 1024
"""Bytes of later requests that may wait while one is answered; then nothing more is read."""
DRAINED: Final = 256 * 1024
"""Bytes of a request that are read and dropped after its answer, so that the connection can be
used further; with more to come it is closed."""
JOINED: Final = 16 * 1024
"""Bytes up to which pieces are copied together for one write."""


@implementer(IHalfCloseableProtocol, IPushProducer, IResponder)
class HttpVisitor(Closing):
    """The protocol of a visitor's connection, and the responder of its exchanges.

    :param connection: what is known of it.
    """

    def __init__(self, site: Site, connection: ConnectionInfo) -> None:
        super().__init__(site.clock)
        self._site = site
        self._context = VisitorContext(site, connection)
        self._reader: RequestReader | None = None
        self._first: RequestHead | None = None
        self._request: RequestHead | None = None
        self._exchange: Exchange | None = None
        self._splice: Splice | None = None
        self._out: list[bytes] = []
        # The request: its head was read and not its end; the exchange takes no more of it; what of
        # it was dropped.
        self._reading = self._request_paused = False
        self._dropped = 0
        # The response: its head was told; it is chunked, or lasts until the connection closes; the
        # visitor was told to go on, and may send another request after it.
        self._responding = self._chunked = self._open_ended = self._continued = False
        self._keep = True
        # The connection: the visitor sends no more; takes no more for the moment; is not read.
        self._read_closed = self._write_paused = self._unread = False
        self._pumping = False

    def begin(self, reader: RequestReader, head: RequestHead) -> None:
        """Go on, once there is a transport, with a first head that was parsed already.

        :param reader: has given ``head``, and has what came after it.
        """
        self._reader = reader
        self._first = head
        if self._producing:
            self._pump()

    # --- the connection -----------------------------------------------------------------

    def connectionMade(self) -> None:
        if self._reader is None:
            self._reader = RequestReader(self._site.request_limits)
        self._register()
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        if self._splice is not None:
            self._splice.dataReceived(data)
        elif not self._ending and data:
            self._reader.feed(data)  # type: ignore[union-attr]
            self._pump()

    def readConnectionLost(self) -> None:
        self._read_closed = True
        if self._splice is not None:
            self._splice.readConnectionLost()
        elif self._ending:
            self.transport.loseConnection()
        elif self._exchange is None:
            self._pump()
        elif self._reading:
            # What is not all there cannot be answered.
            self._abort()
        else:
            # It waits for an answer, or has gone: who can tell?
            self._site.idle.add(self)

    def writeConnectionLost(self) -> None:
        if self._splice is not None:
            self._splice.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = self._ending = True
        self._out.clear()
        self._site.heads.discard(self)
        self._site.idle.discard(self)
        self._disarm()
        exchange, self._exchange = self._exchange, None
        splice = self._splice
        if splice is not None:
            splice.connectionLost(reason)
            if exchange is not None:
                received, sent = getattr(splice, "received", 0), getattr(splice, "sent", 0)
                exchange.switch_over(received, sent, "done")
        elif exchange is not None:
            exchange.visitor_gone()
        self._context.close()

    def head_overdue(self) -> None:
        """The head, or the rest of a request that was answered, did not arrive in time."""
        if self._reading:
            self._end()
        else:
            self._refuse(BadRequest(408, "The request did not arrive in time."))

    def idle_too_long(self) -> None:
        """Nothing was asked, or nothing was answered to somebody who sends no more."""
        if self._exchange is None:
            self._end()
        else:
            self._abort()

    def end_if_idle(self) -> None:
        """No more requests are taken; one that is under way is answered."""
        if self._exchange is None and not self._reading:
            self._end()

    # --- producer, for the visitor's transport ------------------------------------------

    def pauseProducing(self) -> None:
        self._write_paused = True
        if self._exchange is not None:
            self._exchange.pause_response()

    def resumeProducing(self) -> None:
        self._write_paused = False
        if self._exchange is not None:
            self._exchange.resume_response()
        else:
            self._pump()

    def stopProducing(self) -> None:
        """Comes right before ``connectionLost``."""

    # --- reading ------------------------------------------------------------------------

    def _pump(self) -> None:
        """Read as far as it can be taken."""
        if self._pumping:
            return
        self._pumping = True
        try:
            self._read()
        except BadRequest as bad:
            self._refuse(bad)
        finally:
            self._pumping = False
        if not self._ending and self._splice is None:
            self._settle()

    def _read(self) -> None:
        reader = self._reader
        assert reader is not None
        first, self._first = self._first, None
        if first is not None:
            self._ask(first)
        while not self._ending and self._splice is None:
            if self._exchange is not None:
                if self._request_paused or not self._reading:
                    return
            elif self._write_paused and not self._reading:
                return
            item: Any = reader.next()
            if item is None:
                return
            if type(item) is RequestHead:
                self._ask(item)
            elif type(item) is bytes:
                if self._exchange is not None:
                    self._exchange.request_data(item)
                else:
                    self._drop(len(item))
            else:
                self._reading = False
                if self._exchange is not None:
                    self._exchange.request_end(item.trailers)
                else:
                    self._site.heads.discard(self)
                    reader.next_message()

    def _ask(self, head: RequestHead) -> None:
        site = self._site
        site.idle.discard(self)
        site.heads.discard(self)
        if self._read_closed:
            site.idle.add(self)
        self._request = head
        self._reading = True
        self._request_paused = self._responding = self._continued = False
        self._keep = head.keep_alive
        self._exchange = exchange = Exchange(self._context, self, head)
        exchange.start()

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > DRAINED:
            self._end()

    def _settle(self) -> None:
        """All that can be read for now was read: see to what is waited for."""
        reader = self._reader
        assert reader is not None
        if self._exchange is not None:
            if self._reading:
                unread = self._request_paused
            else:
                unread = reader.pending > PIPELINED
        else:
            unread = self._write_paused and not self._reading
            if self._read_closed and not (unread and reader.pending):
                self._end()
                return
            site = self._site
            if self._reading:
                pass  # The rest of a request, which is dropped: see `finish`.
            elif unread or not reader.begun:
                # What waits here for the visitor to take an answer does not come too slowly.
                site.idle.add(self)
            elif self not in site.heads:
                site.heads.add(self)
                site.idle.discard(self)
        if unread is not self._unread:
            self._unread = unread
            if unread:
                self.transport.pauseProducing()
            elif not self._read_closed:
                self.transport.resumeProducing()

    # --- the response (IResponder) ------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        self._continued |= head.status == 100
        self._out.append(encode_response(head.status, head.reason, head.fields, NO_BODY))

    def respond(self, head: ResponseHead) -> None:
        request = self._request
        assert request is not None
        framing = visitor_framing(request, head)
        keep = self._keep and framing.kind is not Kind.UNTIL_CLOSE
        if self._reading:
            # It is not known whether the body is sent at all, or it is too long to be dropped.
            unsent = request.expect_continue and not self._continued
            keep = keep and not unsent and request.framing.length <= DRAINED
        elif self._read_closed and not self._reader.pending:  # type: ignore[union-attr]
            keep = False
        keep = keep and not self._site.draining
        self._keep = keep
        self._responding = True
        self._chunked = framing.kind is Kind.CHUNKED
        self._open_ended = framing.kind is Kind.UNTIL_CLOSE
        say = None if keep and request.version != (1, 0) else keep
        self._out.append(encode_response(head.status, head.reason, head.fields, framing, say))

    def write(self, data: bytes) -> None:
        if self._chunked:
            self._out += encode_chunk(data)
        else:
            self._out.append(data)

    def finish(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        if self._chunked:
            self._out.append(encode_last_chunk(trailers))
            self._chunked = False
        self.flush()
        self._exchange = None
        if self._gone:
            return
        if not self._keep:
            self._end()
        elif self._reading:
            self._dropped = 0
            self._site.heads.add(self)
            self._pump()
        else:
            reader = self._reader
            assert reader is not None
            reader.next_message()
            if reader.begun or self._unread or self._read_closed:
                self._pump()
            else:
                self._site.idle.add(self)

    def broken(self) -> None:
        self._exchange = None
        if self._gone:
            return
        if self._open_ended:
            self._abort()
        else:
            # That it is not whole is to be seen; what there is of it need not be lost.
            self.flush()
            self._reading = False
            self._end()

    def switch(self, head: ResponseHead, origin: OriginConnection) -> None:
        fields = head.fields
        self._out.append(
            encode_response(head.status, head.reason, fields, NO_BODY, upgrade=head.upgrade)
        )
        self.flush()
        if self._gone:
            origin.abort()
            return
        transport, reader = self.transport, self._reader
        assert reader is not None
        self._unregister()
        counted = self._site.access_log is not None
        splice: Splice = CountedSplice(origin) if counted else Splice(origin)  # type: ignore[arg-type]
        self._splice = splice
        splice.makeConnection(transport)
        rest = reader.rest()
        if rest:
            splice.dataReceived(rest)
        if self._read_closed:
            splice.readConnectionLost()
        elif self._unread and not origin.stream.held_back:
            transport.resumeProducing()

    def flush(self) -> None:
        out = self._out
        if not out or self._gone:
            return
        self._out = []
        if self._read_closed:
            self._site.idle.add(self)
        if len(out) == 1:
            self.transport.write(out[0])
        elif sum(map(len, out)) <= JOINED:
            self.transport.write(b"".join(out))
        else:
            self.transport.writeSequence(out)

    def pause_request(self) -> None:
        self._request_paused = True
        if not self._pumping:
            self._settle()

    def resume_request(self) -> None:
        if self._request_paused:
            self._request_paused = False
            self._pump()

    def may_send(self) -> bool:
        return True

    # --- the end ------------------------------------------------------------------------

    def _refuse(self, bad: BadRequest) -> None:
        """Answer what is no request, where there is still an answer to give, and close."""
        exchange, self._exchange = self._exchange, None
        answered = self._responding and (exchange is not None or self._reading)
        if exchange is not None:
            exchange.visitor_gone()
        if answered and exchange is not None:
            self._abort()
            return
        if not answered:
            self._responding = False
            site = self._site
            answer = site.pages.page(bad.status, "Bad request", bad.text)
            self._out = [answer.encode()]
            self.flush()
            if exchange is None:
                self._context.log_refusal(bad.status, len(answer.body), bad.text)
        self._end(unread=True)

    def _end(self, unread: bool = False) -> None:
        """Serve no more requests, and close once all was taken.

        :param unread: the visitor may still be sending.
        """
        if self._ending:
            return
        self._ending = True
        self._site.heads.discard(self)
        self._site.idle.discard(self)
        self._context.close()
        self.flush()
        reader = self._reader
        assert reader is not None
        if self._reading and self._request is not None:
            unread |= self._request.framing.kind is not Kind.NONE
        unread = (unread or reader.pending > 0) and not self._read_closed
        self._close(unread, short=not self._responding)
