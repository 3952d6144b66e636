"""How the agent serves a stream: one seam, two kinds.

A backend is either a client endpoint, to which each visitor is connected, or a factory in this
process, whose protocols are put on the streams themselves.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import TCPTimedOutError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from srrrs.net.channel import Channel
from srrrs.net.loopback import LocalhostEndpoint
from srrrs.net.splice import Splice
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
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        target: str,
        timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._timeout = timeout
        self._failing = False
        self.target: str | None = target

    def started(self) -> None:
        pass

    def stopped(self) -> None:
        pass

    def connect(self, channel: Channel) -> None:
        connecting = _Connecting(channel)
        # The channel stops its producer when the visitor goes away.
        channel.registerProducer(connecting, True)
        if connecting.abandoned:
            return
        attempt = maybeDeferred(self._endpoint.connect, connecting)
        connecting.attempt = attempt
        attempt.addTimeout(self._timeout, self._clock)
        attempt.addCallbacks(self._connected, self._failed, errbackArgs=(connecting,))
        attempt.addErrback(self._broken, channel)

    def _connected(self, protocol: IProtocol) -> None:
        if self._failing:
            self._failing = False
            self._log.info("the backend {target} answers again", target=self.target)

    def _failed(self, failure: Failure, connecting: _Connecting) -> None:
        connecting.over()
        if connecting.abandoned:
            return
        code, reason = describe_failure(failure)
        connecting.channel.reset(code, reason)
        # A backend that is down fails for each visitor: the change of state is what counts.
        write = self._log.debug if self._failing else self._log.warn
        self._failing = True
        write(
            "the backend {target} does not answer: {error}",
            target=self.target,
            error=failure.getErrorMessage(),
        )

    def _broken(self, failure: Failure, channel: Channel) -> None:
        self._log.failure("connecting a visitor to {target} failed", failure, target=self.target)
        channel.reset(ResetCode.INTERNAL)


@implementer(IPushProducer, IProtocolFactory)
class _Connecting:
    """One visitor between OPEN and the backend's answer.

    To the channel it is a producer with nothing to say, which is how it hears that the visitor
    went away; to the endpoint it is the factory.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.attempt: Deferred[Any] | None = None
        self.abandoned = False
        self._over = False

    def over(self) -> None:
        """The endpoint has answered: the channel is the splice's, or is about to be reset."""
        if not self._over:
            self._over = True
            self.channel.unregisterProducer()

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def buildProtocol(self, addr: IAddress | None) -> IProtocol:
        return _BackendConnection(self)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        if self._over:
            return
        self._over = self.abandoned = True
        if self.attempt is not None:
            self.attempt.cancel()


class _BackendConnection(Splice):
    def __init__(self, connecting: _Connecting) -> None:
        super().__init__(connecting.channel)
        self._connecting = connecting

    def connectionMade(self) -> None:
        self._connecting.over()
        super().connectionMade()


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
