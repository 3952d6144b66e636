"""TLS that a service ends by itself: routed by the name asked for, and passed on as it is."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from srrrs.net.channel import Channel
from srrrs.net.clienthello import INTERNAL_ERROR, UNRECOGNIZED_NAME, alert
from srrrs.net.splice import Splice
from srrrs.protocol.errors import Overloaded
from srrrs.relay.edge import logged
from srrrs.relay.edge.accesslog import AccessLog, ConnectionEntry
from srrrs.relay.edge.gatekeeper import Gatekeeper, lets_in_again
from srrrs.relay.edge.interfaces import IPublicService, ServiceAway, ServiceParked
from srrrs.relay.edge.logged import LoggedSplice
from srrrs.relay.edge.site import ConnectionInfo, Site

NOT_HERE = alert(UNRECOGNIZED_NAME)
"""There is no service of that name, and no certificate to say so with."""
NOT_NOW = alert(INTERNAL_ERROR)
"""What is served by the name, is not at the moment."""
_DENIED = 49
"""``access_denied`` (RFC 8446, 6.2)."""


class _Reporting:
    """A splice whose service learns that it gave no answer."""

    __slots__ = ()

    delivered: bool
    _service: IPublicService

    def lost(self, code: int) -> None:
        if not self.delivered:
            self._service.failed()
        super().lost(code)  # type: ignore[misc]


class _Passed(_Reporting, Splice):
    __slots__ = ("_service",)

    def __init__(self, channel: Channel, service: IPublicService) -> None:
        self._service = service
        super().__init__(channel)


class _LoggedPassed(_Reporting, LoggedSplice):
    __slots__ = ("_service",)

    def __init__(
        self, channel: Channel, service: IPublicService, log: AccessLog, entry: ConnectionEntry
    ) -> None:
        self._service = service
        super().__init__(channel, log, entry)


class PassThrough:
    """One visitor's way to a service of kind ``tls``.

    :param info: of the visitor's connection, with the name.
    """

    def __init__(self, site: Site, info: ConnectionInfo) -> None:
        self._site = site
        self._info = info
        self._service: IPublicService | None = None
        self._entry: ConnectionEntry | None = None
        self._keeper: Gatekeeper | None = None

    def open(self, service: IPublicService) -> Splice | bytes | Deferred[IPublicService]:
        """The protocol that the connection goes on with, or last words to it, or what to wait for
        before :meth:`open_late`."""
        info = self._info
        if self._site.access_log is not None:
            self._entry = logged.entry_for(service, "tls", info.peer, info.id, info.sni or "")
        self._keeper = keeper = service.gatekeeper
        if keeper is not None and not keeper.check_connection(info.peer):
            return self._refuse(logged.DENIED, alert(_DENIED))
        try:
            return self._open(service)
        except ServiceParked as parked:
            return parked.service.wait()

    def open_late(self, service: IPublicService | None) -> Splice | bytes:
        """The same after a wait, which is not repeated. ``None``: it was in vain."""
        if service is not None:
            if not lets_in_again(self._keeper, service.gatekeeper, self._info.peer):
                return self._refuse(logged.DENIED, alert(_DENIED))
            try:
                return self._open(service)
            except ServiceParked:
                pass
        return self._refuse(logged.AWAY)

    def close(self) -> None:
        """The visitor's connection has ended, however far it came."""
        service, self._service = self._service, None
        if service is not None:
            service.request_ended()
        elif self._entry is not None:
            self._refuse(logged.GONE)

    def _open(self, service: IPublicService) -> Splice | bytes:
        try:
            picked = service.pick()
            picked.request_begun()
            self._service = picked
            channel = picked.open(self._info.peer, self._info.id)
        except ServiceAway:
            return self._refuse(logged.AWAY)
        except Overloaded:
            return self._refuse(logged.BUSY)
        except ServiceParked:
            self._count_down()
            raise
        entry, self._entry = self._entry, None
        log = self._site.access_log
        if entry is None or log is None:
            return _Passed(channel, picked)
        return _LoggedPassed(channel, picked, log, entry)

    def _count_down(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.request_ended()

    def _refuse(self, why: str, words: bytes = NOT_NOW) -> bytes:
        self._count_down()
        entry, self._entry = self._entry, None
        if entry is not None and self._site.access_log is not None:
            entry.closed = why
            self._site.access_log.connection(entry)
        return words
