"""HTTP visitors: from a request's host to a service, and the pages where that fails.

Routing looks at a connection's *first* request only; all that follows on the connection goes the
same way. Behind a proxy that reuses its connections for several hosts that is wrong, so such a
proxy must not be put in front of this. :class:`HttpVisitor` is the only door to that shortcut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress

from srrrs.net.channel import StreamReset
from srrrs.net.splice import Splice
from srrrs.protocol.errors import Overloaded, ResetCode
from srrrs.relay.edge.interfaces import IRoutes, ServiceAway
from srrrs.relay.edge.pages import page

if TYPE_CHECKING:
    from srrrs.net.channel import Channel
    from srrrs.relay.edge.head import Head

RETRY_AFTER: Final = "5"
"""Seconds that a visitor should wait for an agent that is away (RFC 9110, 10.2.3)."""


def away_page(head: Head) -> bytes:
    return page(
        503,
        "Not connected",
        "The device that serves this site is not connected at the moment.",
        ("Retry-After", RETRY_AFTER),
        body=head.method != "HEAD",
    )


def busy_page(head: Head) -> bytes:
    return page(
        503,
        "Too busy",
        "This site has too many visitors at the moment.",
        ("Retry-After", RETRY_AFTER),
        body=head.method != "HEAD",
    )


def unknown_page(head: Head) -> bytes:
    return page(
        404, "No such site", f"Nothing is published as {head.host}.", body=head.method != "HEAD"
    )


class HttpVisitor:
    """The door: decides where a connection goes, by its first request."""

    def __init__(self, routes: IRoutes) -> None:
        self._routes = routes

    def open(self, head: Head, visitor: IAddress) -> tuple[Splice | None, bytes]:
        """Either the protocol that the connection goes on with, or a page to end it with."""
        service = self._routes.lookup(head.host)
        if service is None:
            return None, unknown_page(head)
        try:
            channel = service.open(visitor)
        except ServiceAway:
            return None, away_page(head)
        except Overloaded:
            return None, busy_page(head)
        return HttpSplice(channel, head), b""


class HttpSplice(Splice):
    """A visitor's connection and a stream, with a page where the backend gave no answer at all."""

    _PAGES: Final[dict[int, tuple[int, str, str]]] = {
        ResetCode.REFUSED: (502, "No answer", "The device is connected, but its site is not up."),
        ResetCode.TIMEOUT: (502, "No answer", "The device's site did not answer in time."),
        ResetCode.UNKNOWN_SERVICE: (502, "No answer", "The device no longer serves this site."),
        ResetCode.OVERLOAD: (503, "Too busy", "The device has too many visitors at the moment."),
        ResetCode.GONE: (503, "Not connected", "The device was disconnected just now."),
    }

    def __init__(self, channel: Channel, head: Head) -> None:
        super().__init__(channel)
        self._head = head

    def lost(self, reset: Any) -> None:
        """The stream was reset: a page if no byte of an answer came, else as on TCP."""
        known = self._PAGES.get(reset.code) if isinstance(reset, StreamReset) else None
        if known is None or self.channel.delivered or self.transport is None:
            self.abort()
            return
        status, title, text = known
        extra = (("Retry-After", RETRY_AFTER),) if status == 503 else ()
        self.transport.write(page(status, title, text, *extra, body=self._head.method != "HEAD"))
        self.close()
