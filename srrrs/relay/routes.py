"""From a request's host and path to the service that is live there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from srrrs.http.errors import BadRequest
from srrrs.relay.directory import USED_GRAIN, Directory
from srrrs.relay.edge.interfaces import IPublicService
from srrrs.relay.paths import readings
from srrrs.relay.published import AwayService, PublicService
from srrrs.relay.store import StoreError
from srrrs.relay.urls import PublicNames

PATH_KEPT: Final = 3600.0
"""Seconds for which the requests of a path whose agent went away are not given to the service of a
shorter one, which may hold visitors to less."""


class HostRoutes:
    """The services of one host, by what paths of requests begin with."""

    __slots__ = ("_away", "_live", "_longest", "root")

    def __init__(self) -> None:
        self._live: dict[bytes, IPublicService] = {}
        self._away: dict[bytes, AwayService] = {}
        self._longest = 0
        # What serves any path, if no path has a service of its own.
        self.root: IPublicService | None = None

    def __bool__(self) -> bool:
        return bool(self._live)

    def set(self, path: str, service: IPublicService) -> None:
        """A service is live now."""
        self._live[path.encode()] = service
        self._away.pop(path.encode(), None)
        self._settle()

    def remove(self, path: str, service: IPublicService, away: AwayService) -> None:
        """It is not any more, and ``away`` stands in for it."""
        if self._live.get(path.encode()) is service:
            del self._live[path.encode()]
            self.miss(path, away)

    def miss(self, path: str, away: AwayService) -> None:
        """A path has a service that is not live."""
        if path:
            self._away.setdefault(path.encode(), away)
        self._settle()

    def find(self, target: bytes, now: float) -> IPublicService | None:
        """The service of the longest path that fits.

        :param now: seconds since the epoch.
        :raises BadRequest: it may be one or another.
        """
        if not target.startswith(b"/"):
            return self._live.get(b"")
        found = [self._match(path, now) for path in readings(target)]
        if any(each is not found[0] for each in found):
            raise BadRequest(400, "The path of the request can be read in more than one way.")
        return found[0]

    def _match(self, path: bytes, now: float) -> IPublicService | None:
        if len(path) > self._longest:
            path = path[: self._longest + 1]
            path = path[: path.rfind(b"/")]
        while path:
            service = self._live.get(path) or self._away.get(path)
            if isinstance(service, AwayService) and service.until <= now:
                del self._away[path]
                self._settle()
                service = None
            if service is not None:
                return service
            path = path[: path.rfind(b"/")]
        return self._live.get(b"")

    def _settle(self) -> None:
        self._longest = max(map(len, (*self._live, *self._away)), default=0)
        alone = not self._longest
        self.root = self._live.get(b"") if alone else None


class Routes:
    """What is live under which host.

    :param wall: seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, wall: Callable[[], float], directory: Directory, names: PublicNames) -> None:
        self._wall = wall
        self._directory = directory
        self._names = names
        # Most hosts have one service for all of their paths: that stands for itself.
        self._hosts: dict[str, HostRoutes | IPublicService] = {}
        self._tls: dict[str, IPublicService] = {}

    def publish(self, service: PublicService) -> None:
        """A service with a host is live."""
        assert service.host is not None
        routed: IPublicService = service.shared or service
        if service.kind == "tls":
            self._tls[service.host] = routed
            return
        routes = self._hosts.get(service.host)
        if routes is None:
            routes = self._new(service)
        elif routes is routed:
            return
        elif not isinstance(routes, HostRoutes):
            alone, routes = routes, HostRoutes()
            routes.set("", alone)
        routes.set(service.path, routed)
        self._hosts[service.host] = routes.root or routes

    def unpublish(self, service: PublicService) -> None:
        """It is not any more; of one that is shared, the last."""
        assert service.host is not None
        routed: IPublicService = service.shared or service
        if service.kind == "tls":
            if self._tls.get(service.host) is routed:
                del self._tls[service.host]
            return
        routes = self._hosts.get(service.host)
        if routes is routed:
            del self._hosts[service.host]
        if not isinstance(routes, HostRoutes):
            return
        away = AwayService(service.name, service.host, self._wall() + PATH_KEPT)
        routes.remove(service.path, routed, away)
        if not routes:
            del self._hosts[service.host]

    def lookup(self, host: str, path: bytes) -> IPublicService | None:
        """As :meth:`IRoutes.lookup`."""
        routes = self._hosts.get(host)
        if routes is None:
            return self._reserved(host)
        if not isinstance(routes, HostRoutes):
            return routes
        return routes.find(path, self._wall()) or self._reserved(host, root=True)

    def lookup_tls(self, host: str) -> IPublicService | None:
        """As :meth:`IRoutes.lookup_tls`."""
        return self._tls.get(host) or self._reserved(host, tls=True)

    def _reserved(self, host: str, *, root: bool = False, tls: bool = False) -> AwayService | None:
        """What stands in for an owner who is not there.

        :param root: whether only the owner of any path counts.
        """
        name = self._names.name_of(host)
        try:
            found = self._directory.by_name(name, tls)
        except StoreError as error:
            self._log.error("the directory cannot be read: {error}", error=error)
            return AwayService(name, host)
        known = any(not each.path for each in found) if root else bool(found)
        return AwayService(name, host) if known else None

    def _new(self, service: PublicService) -> HostRoutes:
        """With the paths that were served until not long ago, by an earlier relay perhaps."""
        routes, now = HostRoutes(), self._wall()
        assert service.host is not None
        try:
            found = self._directory.by_name(self._names.name_of(service.host))
        except StoreError as error:
            self._log.error("the directory cannot be read: {error}", error=error)
            return routes
        for each in found:
            until = each.used + USED_GRAIN + PATH_KEPT
            if each.path and until > now:
                routes.miss(each.path, AwayService(each.key.service, service.host, until))
        return routes
