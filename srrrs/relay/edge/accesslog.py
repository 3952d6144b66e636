"""The access log: a line for each request, and one for each connection of the other services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class RequestEntry:
    """What is written of a request once it is over, or its upgraded connection is.

    :ivar id: the request's, as the service got it in X-Request-Id.
    :ivar service: its name; empty: none was found.
    :ivar token: the name of its agent's token.
    :ivar visitor: the visitor's address as text, without a port; ``-`` where there is none.
    :ivar host: as routed.
    :ivar target: as it stands in the request, query and all.
    :ivar version: of HTTP.
    :ivar status: of the final response, or 101; 0: none was sent.
    :ivar received: bytes of the request's body; for an upgraded connection all that came after.
    :ivar sent: bytes of the response's body, likewise.
    :ivar first_byte: seconds from the head's arrival to the response's first byte, or None.
    :ivar duration: seconds from there to the end.
    :ivar closed: why it ended, in a few words; ``done`` where all is well.
    :ivar fields: of the request; only Referer and User-Agent are looked at, by the combined format.
    """

    id: str = "-"
    service: str = ""
    token: str = ""
    visitor: str = "-"
    method: str = "-"
    host: str = ""
    target: bytes = b"-"
    version: tuple[int, int] = (1, 1)
    status: int = 0
    received: int = 0
    sent: int = 0
    first_byte: float | None = None
    duration: float = 0.0
    closed: str = "done"
    fields: Sequence[tuple[bytes, bytes]] = ()


@dataclass(slots=True)
class ConnectionEntry:
    """What is written of a TCP, ssh or passed-through TLS connection once it is over.

    :ivar id: the connection's.
    :ivar kind: ``tcp``, ``ssh`` or ``tls``.
    :ivar host: the name that TLS was asked for; empty: none.
    :ivar port: the public port; None: that of all.
    :ivar received: bytes from the visitor.
    :ivar sent: bytes to the visitor.
    :ivar first_byte: seconds to the first byte to the visitor, or None.
    """

    id: str = "-"
    kind: str = "tcp"
    service: str = ""
    token: str = ""
    visitor: str = "-"
    host: str = ""
    port: int | None = None
    received: int = 0
    sent: int = 0
    first_byte: float | None = None
    duration: float = 0.0
    closed: str = "done"


class AccessLog:
    """Takes entries; never blocks and never raises."""

    def request(self, entry: RequestEntry) -> None:
        """A request is over. ``entry`` is the log's from now on."""
        raise NotImplementedError

    def connection(self, entry: ConnectionEntry) -> None:
        """A connection is over."""
        raise NotImplementedError
