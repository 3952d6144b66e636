"""A request's way to its service: its policy, waits, and a connection."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.http.head import Kind, RequestHead
from srrrs.http.response import ResponseReader
from srrrs.protocol.errors import Overloaded
from srrrs.relay.edge.context import VisitorContext
from srrrs.relay.edge.gatekeeper import is_new_policy
from srrrs.relay.edge.interfaces import IPublicService, IResponder, ServiceAway, ServiceParked
from srrrs.relay.edge.origin import OriginConnection
from srrrs.relay.edge.outcomes import AWAY, BUSY, UNREACHED, Outcome
from srrrs.relay.edge.pages import Answer

REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods that may be asked twice (RFC 9110, 9.2.2)."""
SURE_FOR: Final = 4.0
"""Seconds after which a kept connection may be closed by its backend at any moment (the shortest
default in use is Node's 5 s), so that what cannot be repeated goes by a fresh one."""


class State(Enum):
    """See above."""

    __hash__ = object.__hash__

    NEW = "new"
    CHECKING = "checking"
    WAITING = "waiting"
    ASKED = "asked"
    ANSWERING = "answering"
    SWITCHED = "switched"
    OVER = "over"


class Approach:
    """The part of an exchange that ends with a connection to the service, or a page.

    :param responder: the visitor's side.
    :ivar head: of the request.
    """

    _log: ClassVar[Any] = Logger()

    # What was routed to, and which of those that share its name has the request.
    _asked: IPublicService | None = None
    _service: IPublicService | None = None
    _origin: OriginConnection | None = None
    _waiting: Deferred[Any] | None = None
    _retried = False

    def __init__(self, context: VisitorContext, responder: IResponder, head: RequestHead) -> None:
        self._context = context
        self._responder = responder
        self._state = State.NEW
        self.head = head
        self._id = context.forwarder.request_id(head, context.next_id())
        self._visitor: IAddress = context.address

    # --- what comes after ---------------------------------------------------------------

    def _send(self, origin: OriginConnection) -> None:
        """There is a connection for the request."""
        raise NotImplementedError

    def _page(self, outcome: Outcome, closed: str = "done") -> None:
        """There is none, for that reason."""
        raise NotImplementedError

    def _answer(self, answer: Answer, closed: str = "done") -> None:
        """The policy has an answer of its own."""
        raise NotImplementedError

    # --- the way ------------------------------------------------------------------------

    def _check(self, service: IPublicService) -> None:
        """Hold the request against the service's policy, then go on."""
        keeper = service.gatekeeper
        answer = None if keeper is None else keeper.check_request(self.head.fields, self._visitor)
        if answer is None:
            self._open(service)
        elif isinstance(answer, Answer):
            self._answer(answer)
        else:
            self._state = State.CHECKING
            self._wait_for(answer, self._checked)

    def _checked(self, answer: Any) -> None:
        assert self._asked is not None
        if isinstance(answer, Failure):
            self._page(BUSY)
        elif answer is not None:
            self._answer(answer)
        else:
            self._open(self._asked)

    def _is_over(self) -> bool:
        return self._state is State.OVER

    def _wait_for(self, deferred: Deferred[Any], then: Any) -> None:
        """Take no more of the request until it fires."""
        self._waiting = deferred
        self._responder.pause_request()

        def fired(result: Any) -> None:
            self._waiting = None
            # The visitor may have gone away, and what it sent meanwhile may end the exchange.
            if self._is_over():
                return
            self._responder.resume_request()
            if not self._is_over():
                then(result)

        deferred.addBoth(fired).addErrback(
            lambda failure: self._log.failure("a visitor who waited was lost", failure)
        )

    def _open(self, service: IPublicService, fresh: bool = False, waited: bool = False) -> None:
        """Get a connection to the service, and send the request by it.

        :param fresh: not by one that was used before.
        """
        try:
            picked = service.pick()
            picked.request_begun()
            self._service = picked
            origin = self._connect(picked, fresh)
        except ServiceAway:
            self._page(AWAY)
        except Overloaded:
            self._page(BUSY)
        except ServiceParked as parked:
            self._count_down()
            if waited:
                self._page(AWAY)
            else:
                self._state = State.WAITING
                self._wait_for(parked.service.wait(), self._waited)
        else:
            self._send(origin)

    def _waited(self, service: Any) -> None:
        if isinstance(service, Failure):
            self._page(AWAY)
            return
        assert self._asked is not None
        before, self._asked = self._asked.gatekeeper, service
        if is_new_policy(before, service.gatekeeper):
            # The agent that came back asks for something else than the one that left.
            self._check(service)
        else:
            self._open(service, waited=True)

    def _connect(self, service: IPublicService, fresh: bool) -> OriginConnection:
        context = self._context
        origin = None if fresh else context.pool.take(service)
        if origin is not None:
            if (self._repeatable or origin.idle_for() < SURE_FOR) and (
                origin.visitor is self._visitor or origin.visitor == self._visitor
            ):
                return origin
            origin.close()
        site = context.site
        try:
            channel = service.open(self._visitor, context.info.id)
        except Overloaded:
            # Connections that nobody needs at the moment count, too.
            if not site.make_room(service):
                raise
            channel = service.open(self._visitor, context.info.id)
        return OriginConnection(
            service, channel, ResponseReader(site.response_limits), site.lingering
        )

    @property
    def _repeatable(self) -> bool:
        """Whether it may be sent a second time."""
        head = self.head
        return head.framing.kind is Kind.NONE and head.method in REPEATABLE

    def _may_retry(self, origin: OriginConnection, code: int | None) -> bool:
        if self._retried or origin.begun or not self._repeatable:
            return False
        # One that was kept may have been closed as the request was on its way. A fresh one that
        # failed at the agent is worth another try only where another shares the name.
        return origin.served > 0 or (code in UNREACHED and self._asked is not origin.service)

    # --- the end ------------------------------------------------------------------------

    def _stop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            state, self._state = self._state, State.OVER
            waiting.cancel()
            self._state = state

    def _count_down(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.request_ended()
