"""The public ports of TCP services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger

BACKLOG: Final = 4096
"""Connections that the kernel may hold for a public port before we accept them."""


class PublicPorts:
    """Opens and closes them.

    :param reactor: listens.
    :param interface: the IP address on which they are.
    :param opened: told of each that was opened, so that accept can be paused.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        interface: str,
        opened: Callable[[IListeningPort], None],
        closed: Callable[[IListeningPort], None],
    ) -> None:
        self._reactor = reactor
        self._interface = interface
        self._opened = opened
        self._closed = closed
        # Ports that are being closed: the same port may be asked for again at once.
        self._closing: dict[int, Deferred[Any]] = {}

    async def open(self, number: int, factory: IProtocolFactory) -> IListeningPort:
        """Listen on a port.

        :raises CannotListenError: another program has it.
        """
        if number in self._closing:
            await after(self._closing[number])
        port: IListeningPort = await self._endpoint(number).listen(factory)
        self._opened(port)
        return port

    def close(self, number: int, port: IListeningPort) -> None:
        """Stop listening."""
        self._closed(port)
        closing = maybeDeferred(port.stopListening)
        self._closing[number] = closing

        def closed(_: Any) -> None:
            # It must not return what it takes out: a Deferred that waits for itself never ends.
            self._closing.pop(number, None)

        closing.addErrback(
            lambda failure: self._log.failure("a public port cannot be closed", failure=failure)
        ).addBoth(closed)

    async def all_closed(self) -> None:
        """Wait for those that are being closed."""
        for closing in list(self._closing.values()):
            await after(closing)

    def _endpoint(self, port: int) -> IStreamServerEndpoint:
        kind = TCP6ServerEndpoint if ":" in self._interface else TCP4ServerEndpoint
        return kind(self._reactor, port, backlog=BACKLOG, interface=self._interface)


def after(deferred: Deferred[Any]) -> Deferred[None]:
    """Fires when ``deferred`` does, whatever its result, and leaves it alone."""
    waiter: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        if not waiter.called:
            waiter.callback(None)
        return result

    deferred.addBoth(tell)
    return waiter
