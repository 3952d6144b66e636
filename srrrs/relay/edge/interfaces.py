"""What the edge asks of the relay, and what its parts ask of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from zope.interface import Attribute, Interface

from srrrs.net.channel import Channel

if TYPE_CHECKING:
    from srrrs.http.head import ResponseHead
    from srrrs.relay.edge.gatekeeper import Gatekeeper
    from srrrs.relay.edge.origin import OriginConnection


class ServiceAway(Exception):
    """The service's agent is not connected."""


class ServiceParked(Exception):
    """The connection of the service's agent broke a moment ago: it may be worth waiting.

    :ivar service: what can be waited for.
    """

    def __init__(self, service: IPublicService) -> None:
        super().__init__()
        self.service = service


class IPublicService(Interface):
    """A service that visitors can reach."""

    name: str = Attribute("Its name, for logs.")
    token_name: str = Attribute("The name of its agent's token, for logs; empty while it is away.")
    host: str | None = Attribute("The public host that it was asked for by; ``None``: a port.")
    gatekeeper: Gatekeeper | None = Attribute("Holds visitors to its policy; ``None``: all may in.")
    outstanding: int = Attribute("Requests under way to it.")
    leaving: bool = Attribute("Whether its tunnel is about to end, with the requests by it.")

    def available() -> bool:
        """Whether its agent is connected."""

    def pick() -> IPublicService:
        """The one that serves the next request: itself, or one of those that share its name.

        :raises ServiceAway: none is connected.
        :raises ServiceParked: none is, but one was, a moment ago.
        """

    def open(visitor: IAddress, connection_id: str = "") -> Channel:
        """Open a stream to it.

        :param connection_id: of the visitor's connection, which the agent logs.
        :raises ServiceAway: the agent is not connected.
        :raises ServiceParked: it was, a moment ago.
        :raises Overloaded: a limit or the memory budget is used up.
        """

    def wait() -> Deferred[IPublicService]:
        """Fires with the service, or with what took its place, once it is served again.
        Cancellable; errs with :exc:`ServiceAway`."""

    def request_begun() -> None:
        """A request to it is under way, until :meth:`request_ended`.

        :raises Overloaded: its tunnel has too many.
        """

    def request_ended() -> None:
        """One for each :meth:`request_begun` that raised nothing."""

    def failed() -> None:
        """It did not take a stream, or ended it before the first byte. Of those that share a name,
        one that failed is left out for a moment."""


class IRoutes(Interface):
    """From a request to a service. Hosts are lower-case, without port or final dot."""

    def is_control_host(host: str) -> bool:
        """Whether the host is the relay itself."""

    def lookup(host: str, path: bytes) -> IPublicService | None:
        """The service that owns the host and the longest prefix of the path; ``None``: nobody.

        :param path: the target of a request in origin form, query and all, or ``*``.
        :raises BadRequest: backends could read the path as one service's or as another's.
        """

    def lookup_tls(host: str) -> IPublicService | None:
        """The service of kind ``tls`` that owns the host, its agent connected or not; it gets
        connections as they are, their TLS too."""


class IResponder(Interface):
    """The visitor's side of one exchange: HTTP/1 (:mod:`.h1`) or another version.

    :class:`~srrrs.relay.edge.exchange.Exchange` calls it: any number of :meth:`interim`, then
    :meth:`respond`, :meth:`write` and :meth:`finish`; :meth:`broken` at any time; or, instead of
    all that follows, :meth:`switch`. After ``finish``, ``broken`` or ``switch`` it calls nothing
    more. What is told may be kept until :meth:`flush`.

    None of them raises. All may be called while the responder is inside of a call to the exchange.
    """

    def interim(head: ResponseHead) -> None:
        """A response of 1xx (but 101), which goes out before the final one."""

    def respond(head: ResponseHead) -> None:
        """The final response's head, its fields as they go to the visitor, without framing of its
        own: the responder frames the body by ``head.framing`` as its version does, and may close
        the connection after."""

    def write(data: bytes) -> None:
        """A piece of the body. It may answer with ``pause_response`` of the exchange."""

    def finish(trailers: Sequence[tuple[bytes, bytes]]) -> None:
        """The response is complete. The request may not be: the rest of it goes to nobody."""

    def broken() -> None:
        """The response cannot be completed: the visitor must not take it for a whole one."""

    def switch(head: ResponseHead, origin: OriginConnection) -> None:
        """The backend agreed to another protocol: from here on the connection and the origin's
        stream are joined, and :meth:`IExchange.switch_over` tells of their end."""

    def flush() -> None:
        """Nothing follows at the moment: what was told goes out now."""

    def pause_request() -> None:
        """Give the exchange no more of the request's body until :meth:`resume_request`. What is
        given all the same is taken, so that what is bounded is bounded by the caller."""

    def resume_request() -> None:
        """There is room again."""

    def may_send() -> bool:
        """Whether the visitor can send more of a request that is not paused: ``False`` while others
        of its connection hold it up."""


class IExchange(Interface):
    """One request and its response, as the visitor's side sees it."""

    def start() -> None:
        """Route the request, whose head it was made with."""

    def request_data(data: bytes) -> None:
        """A piece of the request's body, without framing."""

    def request_end(trailers: Sequence[tuple[bytes, bytes]]) -> None:
        """The request is complete; at once after ``start`` where it has no body."""

    def visitor_gone() -> None:
        """Nobody is there for the response any more, or the request was broken off. Nothing of the
        responder is called after that."""

    def switch_over(received: int, sent: int, closed: str) -> None:
        """What :meth:`IResponder.switch` has joined is over.

        :param received: bytes from the visitor, and to it.
        :param closed: why, for the log.
        """

    def pause_response() -> None:
        """Call ``write`` no more until :meth:`resume_response`; a head or end may still come."""

    def resume_response() -> None:
        """There is room again."""
