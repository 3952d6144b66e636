"""How the agent serves a stream: one seam, two kinds.

A backend is either a client endpoint, to which each visitor is connected, or a factory in this
process, whose protocols are put on the streams themselves.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.error import TCPTimedOutError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from srrrs.agent.connection import Address, BackendConnection
from srrrs.net.channel import Channel
from srrrs.net.loopback import LocalhostEndpoint
from srrrs.net.proxyheader import Version
from srrrs.protocol.errors import ResetCode

#: Seconds that a backend has to take a connection.
CONNECT_TIMEOUT: Final = 10.0

_LOCALHOST = re.compile(r"tcp:(?:host=)?localhost:(?:port=)?([0-9]{1,5})", re.IGNORECASE)
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})


class IBackend(Interface):
    """Serves the streams of one service."""

    target: str | None = Attribute("What the service leads to, for people.")

    def started() -> None:
        """The service was added to an agent."""

    def connect(channel: Channel) -> None:
        """A visitor opened ``channel``: attach a protocol to it or reset it, now or in time."""

    def stopped() -> None:
        """The service was removed from its agent; running streams go on."""


@implementer(IBackend)
class EndpointBackend:
    """Connects each visitor to a Twisted client endpoint and joins the two.

    :param clock: for the deadline.
    :param endpoint: where the service listens.
    :param target: how to call it in the log.
    :param timeout: seconds that it has to take a connection.
    :param send_proxy: version of the PROXY header that tells it who the visitor is; none: it is
        not told.
    :ivar failing: whether it did not take the last one.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        target: str,
        timeout: float = CONNECT_TIMEOUT,
        send_proxy: Version | None = None,
    ) -> None:
        self.send_proxy = send_proxy
        self._clock = clock
        self._endpoint = endpoint
        self._timeout = timeout
        # In the order in which they are tried; none: the endpoint connects.
        self._addresses = _addresses(endpoint, timeout)
        self.failing = False
        self.target: str | None = target

    def started(self) -> None:
        pass

    def stopped(self) -> None:
        pass

    def connect(self, channel: Channel) -> None:
        connection = BackendConnection(channel, self)
        if connection.abandoned:
            return
        if self._addresses:
            connection.dial(self._addresses)
            return
        attempt = maybeDeferred(self._endpoint.connect, connection)
        connection.cancel = attempt.cancel
        attempt.addTimeout(self._timeout, self._clock)
        attempt.addErrback(self.failed, connection)
        attempt.addErrback(self._broken, connection)

    def connected(self, addresses: tuple[Address, ...]) -> None:
        """The backend took a connection.

        :param addresses: in the order in which they are to be tried the next time.
        """
        self._addresses = addresses
        if self.failing:
            self.failing = False
            self._log.info("the backend {target} answers again", target=self.target)

    def failed(self, failure: Failure, connection: BackendConnection) -> None:
        """The backend did not take the connection."""
        if connection.abandoned:
            return
        code, reason = describe_failure(failure)
        connection.refuse(code, reason)
        # A backend that is down fails for each visitor: the change of state is what counts.
        write = self._log.debug if self.failing else self._log.warn
        self.failing = True
        write(
            "the backend {target} does not answer: {error}",
            target=self.target,
            error=failure.getErrorMessage(),
        )

    def _broken(self, failure: Failure, connection: BackendConnection) -> None:
        self._log.failure("connecting a visitor to {target} failed", failure, target=self.target)
        connection.refuse(ResetCode.INTERNAL, "")


def _addresses(endpoint: Any, timeout: float) -> tuple[Address, ...]:
    """The addresses that an endpoint connects to, in the order in which it tries them; none where
    it does anything else than connect."""
    if type(endpoint) is LocalhostEndpoint:
        found = [_addresses(each, timeout) for each in endpoint._endpoints]
        return tuple(address for each in found for address in each)
    try:
        limit = min(timeout, endpoint._timeout)
        if type(endpoint) in (TCP4ClientEndpoint, TCP6ClientEndpoint):
            host, port = endpoint._host, endpoint._port
            if endpoint._bindAddress is None and (isIPAddress(host) or isIPv6Address(host)):
                reactor = endpoint._reactor
                link = getattr(reactor, "connect_to", None)
                return (Address(reactor.connectTCP, (host, port), limit, link),)
        elif type(endpoint) is UNIXClientEndpoint and not endpoint._checkPID:
            return (Address(endpoint._reactor.connectUNIX, (endpoint._path,), limit),)
    except AttributeError:
        pass  # Another Twisted, which calls them otherwise.
    return ()


@implementer(IBackend)
class FactoryBackend:
    """Puts the protocols of a factory in this process on the streams.

    The factory's ``buildProtocol`` gets the visitor's address, and its ``doStart`` and ``doStop``
    are called as for a listening port.

    :ivar locate: gives what the streams show as their host address; None leaves it as it is.
    """

    _log = Logger()

    def __init__(self, factory: IProtocolFactory) -> None:
        self.factory = factory
        self.target: str | None = None
        self.locate: Callable[[], IAddress] | None = None

    def started(self) -> None:
        self.factory.doStart()

    def stopped(self) -> None:
        self.factory.doStop()

    def connect(self, channel: Channel) -> None:
        if self.locate is not None:
            channel.host = self.locate()
        try:
            protocol = self.factory.buildProtocol(channel.getPeer())
            if protocol is None:
                channel.reset(ResetCode.REFUSED, "the backend refused the connection")
            else:
                channel.attach(protocol)
        except Exception:
            self._log.failure("a factory could not take a visitor")
            channel.reset(ResetCode.INTERNAL)


def describe_failure(failure: Failure) -> tuple[ResetCode, str]:
    """What a failure to connect means to the visitor; says nothing of the agent's network."""
    if failure.check(DeferredTimeout, ConnectTimeout, TCPTimedOutError):
        return ResetCode.TIMEOUT, "the backend did not answer in time"
    # Twisted's connection errors hold the number in `osError`.
    value = failure.value
    if getattr(value, "osError", None) in _NO_FILES or getattr(value, "errno", None) in _NO_FILES:
        return ResetCode.OVERLOAD, "the agent is out of file descriptors"
    return ResetCode.REFUSED, "the backend refused the connection"


def backend_endpoint(
    reactor: Any, description: str, timeout: float = CONNECT_TIMEOUT
) -> IStreamClientEndpoint:
    """The endpoint for a client endpoint string.

    ``tcp:localhost:PORT`` gets the quick :class:`LocalhostEndpoint`.

    :raises ValueError: the string is no client endpoint.
    """
    match = _LOCALHOST.fullmatch(description)
    if match is not None and 0 < int(match.group(1)) < 65536:
        return LocalhostEndpoint(reactor, int(match.group(1)), timeout)
    endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    return endpoint
