"""One request and its response, whatever version of HTTP the visitor speaks.

The states::

    NEW ──start──▶ CHECKING ──▶ WAITING ──▶ ASKED ──a final head──▶ ANSWERING ──▶ OVER
                  (a password) (an agent)     │
                                              ├──101──▶ SWITCHED ──▶ OVER
                                              └──dead before its first byte, once──▶ ASKED

Each may be left out, and each goes to OVER by a page of the relay's own (while no head was told),
by ``broken`` (after it), or where the visitor goes away. OVER is reached once, and nothing of the
responder or the origin is called after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from zope.interface import classImplements

from srrrs.http.errors import BadRequest
from srrrs.http.forwarding import response_fields, trailer_fields
from srrrs.http.head import Kind, RequestHead, ResponseHead
from srrrs.http.writing import encode_chunk, encode_last_chunk, encode_request
from srrrs.relay.edge import control
from srrrs.relay.edge.approach import Approach, State
from srrrs.relay.edge.context import VisitorContext
from srrrs.relay.edge.interfaces import IExchange, IPublicService, IResponder
from srrrs.relay.edge.origin import OriginConnection
from srrrs.relay.edge.outcomes import NO_ANSWER, PAGES, UNREACHED, Outcome
from srrrs.relay.edge.pages import RETRY_AFTER, Answer

BODY_STEP: Final = 1024
"""Bytes of a request's body that are to come in `SiteLimits.body_timeout` seconds: any
link carries as much, and who sends a byte now and then holds no service's connection by it (Apache
asks for 500 bytes a second)."""


class Exchange(Approach):
    """One request and its response.

    :param responder: the visitor's side.
    :ivar head: of the request.
    """

    # Of the request's body: what came before there was an origin, within what was announced to the
    # responder as full.
    _early: list[bytes] | None = None
    _trailers: Sequence[tuple[bytes, bytes]] = ()
    _limit: int | None = None
    _request_done = False
    # The visitor is to send it (and does not wait for 100); it may not for the moment; so many
    # bytes must have come for its time to begin anew.
    _due = False
    _full = False
    _next_step = 0
    # For the log.
    _arrived = 0.0
    _first_byte: float | None = None
    _status = 0
    _received = 0
    _sent = 0

    def __init__(self, context: VisitorContext, responder: IResponder, head: RequestHead) -> None:
        super().__init__(context, responder, head)
        if context.site.access_log is not None:
            self._arrived = context.site.clock.seconds()

    # --- from the visitor's side --------------------------------------------------------

    def start(self) -> None:
        head, context = self.head, self._context
        front = context.site.front
        if front is not None:
            answer = front.answer(head, context.forwarder.is_secure(head))
            if answer is not None:
                self._answer(answer)
                return
        routes = context.site.routes
        if routes is None:
            self._page((503, "Starting", "The relay is about to start."))
            return
        if routes.is_control_host(head.host):
            self._answer(control.answer_late(head))
            return
        try:
            service = routes.lookup(head.host, head.target)
        except BadRequest as bad:
            self._page((bad.status, "Bad request", bad.text))
            return
        if service is None:
            self._page((404, "No such site", f"Nothing is published as {head.host}."))
            return
        self._asked = service
        self._visitor = context.who(head)
        self._check(service)

    def request_data(self, data: bytes) -> None:
        self._received += len(data)
        if self._limit is not None and self._received > self._limit:
            self._too_large()
            return
        if self._received >= self._next_step:
            self._next_step = self._received + BODY_STEP
            self._due = True
            self._await_body()
        origin = self._origin
        if origin is not None:
            self._pass_on(origin, data)
        elif self._state in _BEFORE:
            if self._early is None:
                self._early = []
            self._early.append(data)

    def request_end(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        self._request_done = True
        self._await_no_body()
        if self.head.framing.kind is Kind.CHUNKED:
            self._trailers = trailers
            if self._origin is not None:
                self._origin.write(encode_last_chunk(trailer_fields(trailers)))

    def visitor_gone(self) -> None:
        if self._state is State.OVER:
            return
        origin = self._release()
        if origin is not None:
            origin.abort()
        self._over("the visitor went away")

    def switch_over(self, received: int, sent: int, closed: str) -> None:
        if self._state is State.SWITCHED:
            self._received, self._sent = received, sent
            self._over(closed)

    def pause_response(self) -> None:
        if self._origin is not None:
            self._origin.pause()

    def resume_response(self) -> None:
        if self._origin is not None:
            self._origin.resume()

    # --- from the origin (OriginUser) ---------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        if head.status < 200:
            self._interim(head)
            return
        assert self._asked is not None
        fields = response_fields(head, self.head.host)
        if self._asked.gatekeeper is not None:
            fields = self._asked.gatekeeper.rewrite_response(fields)
        head.fields = fields
        self._tell(head)

    def response_data(self, data: bytes) -> None:
        self._sent += len(data)
        self._responder.write(data)

    def response_end(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        origin = self._release()
        assert origin is not None
        if self._request_done:
            self._context.pool.keep(origin)
        else:
            # The rest of the request goes to nobody.
            origin.abort()
        self._over("done")
        self._responder.finish(trailer_fields(trailers) if trailers else ())

    def response_flush(self) -> None:
        self._responder.flush()

    def origin_failed(self, code: int | None, text: str) -> None:
        origin = self._release()
        assert origin is not None
        if code in UNREACHED:
            origin.service.failed()
        if self._state is not State.ASKED:
            self._break(text)
        elif self._may_retry(origin, code):
            self._retried = True
            self._count_down()
            assert self._asked is not None
            self._open(self._asked, fresh=True)
        else:
            if code is None:
                self._log.debug("{id}: {text}", id=self._id.decode(), text=text)
            self._page(PAGES.get(code, NO_ANSWER), closed=text)

    def pause_request(self) -> None:
        self._full = True
        self._await_no_body()
        self._responder.pause_request()

    def resume_request(self) -> None:
        self._full = False
        self._await_body()
        self._responder.resume_request()

    # --- the request --------------------------------------------------------------------

    def _check(self, service: IPublicService) -> None:
        limit = _least(self._context.site.limits.body_bytes, service.gatekeeper)
        self._limit = limit
        if limit is not None and max(self.head.framing.length, self._received) > limit:
            self._too_large()
        else:
            super()._check(service)

    def _send(self, origin: OriginConnection) -> None:
        head, service = self.head, self._service
        assert service is not None
        fields = self._context.forwarder.request_fields(head, self._id)
        if service.gatekeeper is not None:
            fields = service.gatekeeper.rewrite_request(fields)
        self._state = State.ASKED
        self._origin = origin
        if head.framing.kind is not Kind.NONE and not head.expect_continue:
            self._due = True
        self._await_body()
        origin.begin(self, head.method, head.upgrade)
        origin.write(encode_request(head.method, head.target, fields, head.framing, head.upgrade))
        early, self._early = self._early, None
        if early:
            for data in early:
                self._pass_on(origin, data)
        if self._request_done and head.framing.kind is Kind.CHUNKED:
            origin.write(encode_last_chunk(trailer_fields(self._trailers)))

    def _pass_on(self, origin: OriginConnection, data: bytes) -> None:
        if self.head.framing.kind is Kind.CHUNKED:
            for piece in encode_chunk(data):
                origin.write(piece)
        else:
            origin.write(data)

    def body_overdue(self) -> None:
        """Too little of the request came in its time."""
        if not self._responder.may_send():
            self._await_body()
            return
        text = "The request did not arrive in time."
        self._page((408, "Too slow", text), closed="the request came too slowly")

    def _await_body(self) -> None:
        """The next step's time begins, where the visitor is to send and may. Once it is answered
        nobody minds how long a request lasts: it may be one side of a conversation."""
        if self._due and self._state is State.ASKED and not (self._full or self._request_done):
            self._context.site.bodies.add(self)

    def _await_no_body(self) -> None:
        if self._due:
            self._context.site.bodies.discard(self)

    # --- the response -------------------------------------------------------------------

    def _interim(self, head: ResponseHead) -> None:
        if head.status == 101:
            self._switch(head)
        elif self.head.version != (1, 0) and (head.status != 100 or self.head.expect_continue):
            head.fields = response_fields(head, self.head.host)
            self._responder.interim(head)
            if head.status == 100:
                self._due = True
                self._await_body()

    def _switch(self, head: ResponseHead) -> None:
        origin = self._origin
        assert origin is not None
        if not self._request_done:
            origin.abort()
            self._release()
            self._page(NO_ANSWER, closed="a change of protocol within a request")
            return
        self._release()
        self._state = State.SWITCHED
        self._note(101)
        head.fields = response_fields(head, self.head.host)
        self._responder.switch(head, origin)

    def _tell(self, head: ResponseHead) -> None:
        self._state = State.ANSWERING
        self._await_no_body()
        self._note(head.status)
        context = self._context
        front = context.site.front
        if front is not None and context.forwarder.is_secure(self.head):
            front.add_hsts(head.fields)
        self._responder.respond(head)

    def _note(self, status: int) -> None:
        self._status = status
        site = self._context.site
        if site.access_log is not None:
            self._first_byte = site.clock.seconds() - self._arrived

    def _too_large(self) -> None:
        if self._state is State.ANSWERING:
            origin = self._release()
            if origin is not None:
                origin.abort()
            self._break("the request is too large")
        elif self._state is not State.OVER:
            self._page((413, "Too large", "The request is larger than this site takes."))

    def _page(self, outcome: Outcome, closed: str = "done") -> None:
        status, title, text = outcome
        headers = (RETRY_AFTER,) if status == 503 else ()
        pages = self._context.site.pages
        self._answer(pages.page(status, title, text, *headers), closed)

    def _answer(self, answer: Answer, closed: str = "done") -> None:
        """End with an answer of the relay's own."""
        origin = self._release()
        if origin is not None:
            origin.abort()
        head, body = answer.response(self.head.method)
        self._tell(head)
        self._sent = len(body)
        responder = self._responder
        self._over(closed)
        if body:
            responder.write(body)
        responder.finish(())

    def _break(self, closed: str) -> None:
        """End where the response cannot be completed."""
        self._over(closed)
        self._responder.broken()

    # --- the end ------------------------------------------------------------------------

    def _release(self) -> OriginConnection | None:
        """Stop what is under way; the origin is the caller's to deal with."""
        self._stop_waiting()
        self._early = None
        origin, self._origin = self._origin, None
        return origin

    def _over(self, closed: str) -> None:
        self._state = State.OVER
        self._await_no_body()
        service = self._service
        self._count_down()
        context = self._context
        if context.site.access_log is not None:
            context.log(
                self.head,
                self._id,
                service or self._asked,
                self._visitor,
                self._status,
                self._received,
                self._sent,
                self._arrived,
                self._first_byte,
                closed,
            )


# Not as a decorator: those keep a class from being compiled whole.
classImplements(Exchange, IExchange)

_BEFORE: Final = (State.NEW, State.CHECKING, State.WAITING)


def _least(limit: int | None, gatekeeper: Any) -> int | None:
    own: int | None = None if gatekeeper is None else gatekeeper.max_body
    if limit is None or own is None:
        return own if limit is None else limit
    return min(limit, int(own))
