"""HTTP visitors: from a request's host to a service, and the pages where that fails.

Routing looks at a connection's *first* request only; all that follows on the connection goes the
same way, whatever its Host says. A browser opens a connection for each host, so it never notices.
Whatever shares one connection between hosts does: a proxy or CDN in front that reuses its
connections would bring a visitor's later request to the tenant of the first one. Such a proxy has
to open a connection for each request (nginx's default towards its backends) or for each host.
:class:`HttpVisitor` is the only door to that shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from srrrs.net.splice import Splice
from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.relay.edge.interfaces import IPublicService, IRoutes, ServiceAway, ServiceParked
from srrrs.relay.edge.pages import RETRY_AFTER, page

if TYPE_CHECKING:
    from srrrs.net.channel import Channel
    from srrrs.relay.edge.head import Head


class HttpVisitor:
    """The door: decides where a connection goes, by its first request."""

    def __init__(self, routes: IRoutes) -> None:
        self._routes = routes

    def open(
        self, head: Head, visitor: IAddress, answer: Callable[[bytes], None]
    ) -> Splice | bytes | Deferred[IPublicService]:
        """The protocol that the connection goes on with, or a page to end it with, or what to wait
        for before :meth:`open_late`.

        :param answer: takes the connection back, to end it with a page.
        """
        service = self._routes.lookup(head.host)
        if service is None:
            body = head.method != "HEAD"
            return page(404, "No such site", f"Nothing is published as {head.host}.").encode(body)
        try:
            return self._open(service, head, visitor, answer)
        except ServiceParked as parked:
            return parked.service.wait()

    def open_late(
        self,
        service: IPublicService | None,
        head: Head,
        visitor: IAddress,
        answer: Callable[[bytes], None],
    ) -> Splice | bytes:
        """The same after a wait, which is not repeated. ``None``: it was in vain."""
        if service is not None:
            try:
                return self._open(service, head, visitor, answer)
            except ServiceParked:
                pass
        return _page(_AWAY, head.method != "HEAD")

    def _open(
        self,
        service: IPublicService,
        head: Head,
        visitor: IAddress,
        answer: Callable[[bytes], None],
    ) -> Splice | bytes:
        body = head.method != "HEAD"
        try:
            channel = service.open(visitor)
        except ServiceAway:
            return _page(_AWAY, body)
        except Overloaded:
            return _page(_BUSY, body)
        return HttpSplice(channel, body, answer)


class HttpSplice(Splice):
    """A visitor's connection and a stream, with a page where the backend gave no answer at all.

    :param body: whether an answer to the first request may have a body.
    :param answer: takes the connection back, to end it with a page.
    """

    def __init__(self, channel: Channel, body: bool, answer: Callable[[bytes], None]) -> None:
        super().__init__(channel)
        self._body = body
        self._answer = answer

    def lost(self, code: int) -> None:
        """The stream was reset: a page if no byte of an answer came, else as on TCP."""
        if not self.delivered:
            self._give_up(_PAGES.get(code, _NO_ANSWER))
        else:
            super().lost(code)

    def finish(self) -> None:
        """The backend sends no more; where it has sent nothing, that is no answer either."""
        if not self.delivered and not self._gone and not self._write_done:
            self._give_up(_NO_ANSWER)
        else:
            super().finish()

    def _give_up(self, what: tuple[int, str, str]) -> None:
        self.let_go()
        self._answer(_page(what, self._body))


def _page(what: tuple[int, str, str], body: bool) -> bytes:
    return page(*what, *((RETRY_AFTER,) if what[0] == 503 else ())).encode(body)


_AWAY: Final = (
    503,
    "Not connected",
    "The device that serves this site is not connected at the moment.",
)
_BUSY: Final = (503, "Too busy", "This site has too many visitors at the moment.")
_NO_ANSWER: Final = (502, "No answer", "The site closed the connection without an answer.")
_PAGES: Final[dict[int, tuple[int, str, str]]] = {
    ResetCode.REFUSED: (502, "No answer", "The device is connected, but its site is not up."),
    ResetCode.TIMEOUT: (502, "No answer", "The device's site did not answer in time."),
    ResetCode.OVERLOAD: _BUSY,
    ResetCode.UNKNOWN_SERVICE: _AWAY,
    ResetCode.WITHDRAWN: _AWAY,
    ResetCode.GONE: _AWAY,
}
