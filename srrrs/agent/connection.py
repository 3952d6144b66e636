"""One visitor's connection to a backend: from the stream's OPEN, through connecting, to its end.

Apart from the backend: a visitor's connection passes all of this, and it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IAddress, IConnector, IProtocol, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import classImplements

from srrrs.net.address import place_of
from srrrs.net.proxyheader import write_header
from srrrs.net.splice import Splice
from srrrs.protocol.errors import ResetCode

if TYPE_CHECKING:
    from srrrs.net.channel import Channel


@dataclass(frozen=True, slots=True)
class Address:
    """Where a backend listens, if that needs no lookup: connected to in fewer steps than by a
    client endpoint, which makes a Deferred and wraps each protocol.

    :param connect: ``reactor.connectTCP`` or ``connectUNIX``, and what it is called with.
    :param timeout: seconds.
    :param link: `LoopReactor.connect_to`, where the reactor has it.
    """

    connect: Any
    where: tuple[Any, ...]
    timeout: float
    link: Any = None


class BackendConnection(Splice):
    """The splice of one visitor, from OPEN on; to what connects it, it is the factory as well.

    :param backend: an ``EndpointBackend``.
    :ivar abandoned: the visitor went away before the backend answered.
    :ivar cancel: gives up the attempt that is under way.
    """

    __slots__ = ("_addresses", "_backend", "_tries", "_visitor", "abandoned", "cancel")

    def __init__(self, channel: Channel, backend: Any) -> None:
        self._backend = backend
        self._visitor = channel.visitor
        self._addresses: tuple[Address, ...] = ()
        self._tries = 0
        self.abandoned = False
        self.cancel: Callable[[], object] | None = None
        Splice.__init__(self, channel)

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.cancel = None
        tries, backend = self._tries, self._backend
        if tries or backend.failing:
            addresses = self._addresses
            backend.connected((*addresses[tries:], *addresses[:tries]))
        version = backend.send_proxy
        if version is not None:
            # Ahead of all that the visitor has sent, and of TLS.
            there = place_of(transport.getPeer())
            transport.write(write_header(version, place_of(self._visitor), there))
        Splice.connectionMade(self)

    def dial(self, addresses: tuple[Address, ...]) -> None:
        """Connect to the first address that takes the connection."""
        self._addresses = addresses
        address = addresses[self._tries]
        try:
            if address.link is None:
                address.connect(*address.where, self, address.timeout)
            else:
                link = address.link(*address.where, self, self.connect_failed, address.timeout)
                self.cancel = link.disconnect
        except Exception:
            self._backend.failed(Failure(), self)

    def abandon(self) -> None:
        self.abandoned = True
        cancel, self.cancel = self.cancel, None
        if cancel is not None:
            cancel()

    def refuse(self, code: ResetCode, reason: str) -> None:
        """There will be no connection."""
        self.cancel = None
        self.let_go(code, reason)

    # --- IProtocolFactory, and what a connector asks of one -----------------------------

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def startedConnecting(self, connector: IConnector) -> None:
        self.cancel = connector.disconnect

    def buildProtocol(self, addr: IAddress | None) -> IProtocol:
        return self

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.connect_failed(reason)

    def connect_failed(self, reason: Failure) -> None:
        """An address did not take the connection."""
        self.cancel = None
        last = self._tries + 1 == len(self._addresses)
        # One that does not answer in time has had all the time there was.
        if self.abandoned or last or reason.check(ConnectTimeout):
            self._backend.failed(reason, self)
        else:
            self._tries += 1
            self.dial(self._addresses)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """``connectionLost`` has been told."""


classImplements(BackendConnection, IProtocolFactory)
