"""Connections without a factory: for a protocol that is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.net.reactor.tcp import TCPClient

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol

    from srrrs.net.reactor.reactor import LoopReactor

log = Logger()


class TCPLink:
    """Stands for a connector to its `TCPClient`: it connects once, to one protocol.

    A connector and its factory tell each other a dozen things for each connection, to nobody's use
    where the factory has one protocol and does not connect again.

    :param failed: called with the failure where no connection comes about.
    :param timeout: seconds.
    """

    __slots__ = ("_failed", "_protocol", "_timer", "reactor", "state", "timeout", "transport")

    def __init__(
        self,
        host: str,
        port: int,
        protocol: IProtocol,
        failed: Callable[[Failure], object],
        timeout: float,
        reactor: LoopReactor,
    ) -> None:
        self.reactor = reactor
        self.timeout = timeout
        self.state = "connecting"
        self._protocol = protocol
        self._failed = failed
        self._timer: Any = None
        self.transport: TCPClient | None = TCPClient(host, port, None, self, reactor)

    def disconnect(self) -> None:
        """Give the attempt up, or close the connection."""
        transport = self.transport
        if transport is None:
            return
        if self.state == "connecting":
            transport.failIfNotConnected(error.UserError())  # type: ignore[no-untyped-call]
        else:
            transport.loseConnection()

    # -- from the transport ---------------------------------------------------------------------

    def arm(self, transport: TCPClient) -> None:
        if self._timer is None:
            self._timer = self.reactor.loop.call_later(self.timeout, self._time_out, transport)

    def buildProtocol(self, addr: Any) -> IProtocol:
        self.state = "connected"
        if self._timer is not None:
            self._cancel()
        return self._protocol

    def connectionFailed(self, reason: Failure) -> None:
        self.state = "disconnected"
        self.transport = None
        self._cancel()
        self._failed(reason)

    def connectionLost(self, reason: Failure) -> None:
        self.state = "disconnected"

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _time_out(self, transport: TCPClient) -> None:
        self._timer = None
        try:
            transport.failIfNotConnected(error.TimeoutError())  # type: ignore[no-untyped-call]
        except Exception:
            log.failure("Unhandled error after a connection timed out")
