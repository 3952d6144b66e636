"""What all visitors' connections share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime

from srrrs.addresses import parse_address
from srrrs.http.head import HeadLimits
from srrrs.relay.edge.deadlines import Deadlines
from srrrs.relay.edge.origin import KEPT, LINGER, OriginConnection
from srrrs.relay.edge.pages import Pages

if TYPE_CHECKING:
    from srrrs.relay.edge.accesslog import AccessLog
    from srrrs.relay.edge.exchange import Exchange
    from srrrs.relay.edge.front import Front
    from srrrs.relay.edge.interfaces import IPublicService, IRoutes

HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request's head, unless an option says otherwise."""
HEAD_FIELDS: Final = 100
"""Fields of a request's head, unless an option says otherwise."""
TARGET_BYTES: Final = 8 * 1024
"""Bytes of a request's target, unless an option says otherwise (RFC 9110, 4.1, asks for 8000)."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds for a head, unless an option says otherwise."""
IDLE_TIMEOUT: Final = 75.0
"""Seconds that a kept connection may be idle, unless an option says otherwise (as nginx's)."""

BODY_TIMEOUT: Final = 60.0
"""Seconds for each step of a request's body, unless an option says otherwise (as nginx's
``client_body_timeout``)."""


def connection_id() -> str:
    """A fresh one: short, random, and no secret."""
    return secrets.token_hex(6)


@dataclass(slots=True)
class ConnectionInfo:
    """What is known of a visitor's connection.

    :ivar peer: the visitor's address, as the PROXY header told it where there was one.
    :ivar socket_peer: the address of whoever dialled.
    :ivar trusted: whether that is a proxy that is believed.
    :ivar secure: whether the connection is TLS, ended here.
    :ivar sni: the name that TLS was asked for.
    :ivar id: random, short; part of each request's id.
    """

    peer: IAddress
    socket_peer: IAddress
    trusted: bool = False
    secure: bool = False
    sni: str | None = None
    id: str = field(default_factory=connection_id)


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """What a visitor may do, by name.

    :ivar head_bytes: of one request's head (else 431).
    :ivar head_fields: in one head (else 431).
    :ivar target_bytes: of a request's target (else 414).
    :ivar head_timeout: seconds for a head, from its first byte (else 408).
    :ivar idle_timeout: seconds between two requests of a connection.
    :ivar body_timeout: seconds for each step of a body, until its answer begins (else 408); 0: any.
    :ivar body_bytes: of one request's body (else 413); ``None``: any.
    """

    head_bytes: int = HEAD_BYTES
    head_fields: int = HEAD_FIELDS
    target_bytes: int = TARGET_BYTES
    head_timeout: float = HEAD_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT
    body_timeout: float = BODY_TIMEOUT
    body_bytes: int | None = None


RESPONSE_LIMITS: Final = HeadLimits(head_bytes=64 * 1024, fields=256)
"""Of responses' heads: services are believed more than visitors, but not without end."""
NETWORKS_KEPT: Final = 4096
"""Addresses of which it is remembered whether they are trusted."""


class Site:
    """What all visitors' protocols share.

    :ivar routes: ``None`` until the relay is ready.
    :ivar trusted: networks of the proxies that are believed.
    :ivar access_log: told of each request; ``None``: there is none.
    :ivar pages: makes the relay's own answers.
    :ivar front: what is answered before a request is routed; ``None``: nothing.
    :ivar draining: whether connections are to end.
    :ivar idle_origins: connections to services that wait for another request.
    :ivar lingering: such that were closed here, and not yet there.
    :ivar heads: visitors of whom a head, or the rest of a refused body, is due.
    :ivar idle: visitors of whom nothing is due.
    :ivar bodies: exchanges of whose visitors more of a request is due.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: SiteLimits = SiteLimits(),
        trusted: tuple[IPv4Network | IPv6Network, ...] = (),
        access_log: AccessLog | None = None,
        pages: Pages | None = None,
        front: Front | None = None,
    ) -> None:
        self.clock = clock
        self.routes: IRoutes | None = None
        self.limits = limits
        self.trusted = trusted
        self.access_log = access_log
        self.pages = Pages() if pages is None else pages
        self.front = front
        self.draining = False
        self.request_limits = HeadLimits(limits.head_bytes, limits.head_fields, limits.target_bytes)
        self.response_limits = RESPONSE_LIMITS
        self.idle_origins: Deadlines[OriginConnection] = Deadlines(
            clock, KEPT, OriginConnection.close
        )
        self.lingering: Deadlines[OriginConnection] = Deadlines(
            clock, LINGER, OriginConnection.abort_late
        )
        self.heads: Deadlines[Any] = Deadlines(clock, limits.head_timeout, _head_overdue)
        self.idle: Deadlines[Any] = Deadlines(clock, limits.idle_timeout, _idle_too_long)
        self.bodies: Deadlines[Exchange] = Deadlines(clock, limits.body_timeout, _body_overdue)
        self.is_trusted = lru_cache(NETWORKS_KEPT)(self._is_trusted)
        # Whether a connection that named the first host to TLS was shown a certificate that is also
        # what the second is served with; None: there is one certificate for all.
        self.same_certificate: Callable[[str | None, str], bool] | None = None

    def _is_trusted(self, address: str) -> bool:
        """Whether an address, as text, is a trusted proxy's."""
        ip = parse_address(address)
        return ip is not None and any(ip in network for network in self.trusted)

    def is_misdirected(self, info: ConnectionInfo, host: str) -> bool:
        """Whether a request came by a connection that was opened for another host, and is to be
        asked again by one of its own (RFC 9110, 15.5.20; RFC 9113, 9.1.1)."""
        if not info.secure or host == info.sni:
            return False
        if self.routes is not None and self.routes.lookup_tls(host) is not None:
            # Its TLS is for its backend to end.
            return True
        return self.same_certificate is not None and not self.same_certificate(info.sni, host)

    def make_room(self, service: IPublicService) -> bool:
        """Give up the connection to a service that has waited longest for another request; whether
        there was one."""
        origin = self.idle_origins.first(lambda each: each.service is service)
        if origin is not None:
            origin.abort()
        return origin is not None

    def let_go(self) -> None:
        """Close what waits for another request by a tunnel that is about to end."""
        for origin in self.idle_origins.all():
            if origin.service.leaving:
                origin.close()

    def drain(self) -> None:
        """From now on connections end with the request that they are about; idle ones at once."""
        self.draining = True
        for visitor in self.idle.all():
            visitor.end_if_idle()

    def stop(self) -> None:
        """No time is kept any more."""
        for each in (self.idle_origins, self.lingering, self.heads, self.idle, self.bodies):
            each.stop()


def _head_overdue(visitor: Any) -> None:
    visitor.head_overdue()


def _body_overdue(exchange: Exchange) -> None:
    exchange.body_overdue()


def _idle_too_long(visitor: Any) -> None:
    visitor.idle_too_long()
