"""``localhost`` is this machine: which names mean it, and a quick way to connect to it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from srrrs.addresses import unmapped
from srrrs.net.address import is_ip_address


def is_localhost_name(host: str) -> bool:
    """Whether a name means the loopback interface (RFC 6761 section 6.3)."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address literal without brackets, is this machine."""
    if is_localhost_name(host):
        return True
    if not is_ip_address(host):
        return False
    return unmapped(ip_address(host)).is_loopback


@implementer(IStreamClientEndpoint)
class LocalhostEndpoint:
    """Connects to 127.0.0.1 or ::1, whichever answered last time first and the other at once after
    a failure.

    Twisted's `HostnameEndpoint` asks a thread for the addresses each time and waits 0.3 s before
    it tries the second one, even when the first refused at once: a service that listens on one
    family alone would cost every visitor that wait.

    :param reactor: provides ``connectTCP``.
    :param port: TCP port.
    :param timeout: seconds for each of the two attempts.
    """

    def __init__(self, reactor: Any, port: int, timeout: float = 10.0) -> None:
        self.port = port
        self._endpoints: list[IStreamClientEndpoint] = [
            TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout),
            TCP6ClientEndpoint(reactor, "::1", port, timeout),
        ]

    def __repr__(self) -> str:
        return f"<LocalhostEndpoint {self.port}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol; errbacks with the first attempt's failure when both fail."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        first, second = self._endpoints
        try:
            return await first.connect(factory)
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception as failure:
            refused = failure
        try:
            protocol = await second.connect(factory)
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception:
            raise refused from None
        # Two connections may have raced to this point; both mean the same order.
        self._endpoints = [second, first]
        return protocol
