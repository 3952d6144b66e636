"""What the edge asks of the relay."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from zope.interface import Attribute, Interface

from srrrs.net.channel import Channel


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

    def available() -> bool:
        """Whether its agent is connected."""

    def open(visitor: IAddress) -> Channel:
        """Open a stream to it.

        :raises ServiceAway: the agent is not connected.
        :raises ServiceParked: it was, a moment ago.
        :raises Overloaded: a limit or the memory budget is used up.
        """

    def wait() -> Deferred[IPublicService]:
        """Fires with the service, or with what took its place, once it is served again.
        Cancellable; errs with :exc:`ServiceAway`."""


class IRoutes(Interface):
    """From a request's host to a service. Hosts are lower-case, without port or final dot."""

    def is_control_host(host: str) -> bool:
        """Whether the host is the relay itself."""

    def lookup(host: str) -> IPublicService | None:
        """The service that owns the host; ``None``: nobody does."""
