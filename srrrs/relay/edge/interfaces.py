"""What the edge asks of the relay."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from zope.interface import Attribute, Interface

from srrrs.net.channel import Channel


class ServiceAway(Exception):
    """The service's agent is not connected."""


class IPublicService(Interface):
    """A service that visitors can reach."""

    name: str = Attribute("Its name, for logs.")

    def available() -> bool:
        """Whether its agent is connected."""

    def open(visitor: IAddress) -> Channel:
        """Open a stream to it.

        :raises ServiceAway: the agent is not connected.
        :raises Overloaded: a limit or the memory budget is used up.
        """


class IRoutes(Interface):
    """From a request's host to a service. Hosts are lower-case, without port or final dot."""

    def is_control_host(host: str) -> bool:
        """Whether the host is the relay itself."""

    def lookup(host: str) -> IPublicService | None:
        """The service that owns the host; ``None``: nobody does."""
