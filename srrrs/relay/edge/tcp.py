"""TCP visitors: a service's own public port."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.accept import AcceptGate
from srrrs.net.address import format_address
from srrrs.net.channel import Channel
from srrrs.net.splice import Splice
from srrrs.protocol.errors import Overloaded
from srrrs.relay.edge.interfaces import IPublicService, ServiceAway, ServiceParked


class PublicPortFactory(Factory):
    """Every connection to the port becomes a stream to the service; where it cannot, it is reset.

    :param gate: told of each connection, and asked whether its address may have one more.
    """

    _log = Logger()
    noisy = False

    def __init__(self, service: IPublicService, gate: AcceptGate) -> None:
        self.service = service
        self.gate = gate

    def buildProtocol(self, addr: IAddress | None) -> Any:
        assert addr is not None
        if not self.gate.admit_visitor(addr):
            self._log.warn("too many connections from {peer}", peer=format_address(addr))
            return _Refused(self.gate, None)
        try:
            channel = self.service.open(addr)
        except (ServiceAway, Overloaded):
            return _Refused(self.gate, addr)
        except ServiceParked as parked:
            return _Held(self.gate, addr, parked.service.wait())
        return _Visitor(channel, self.gate)


class _Visitor(Splice):
    __slots__ = ("_gate", "_visitor")

    def __init__(self, channel: Channel, gate: AcceptGate) -> None:
        Splice.__init__(self, channel)
        self._visitor = channel.visitor
        self._gate = gate

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self._gate.opened(transport)
        Splice.connectionMade(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        gate = self._gate
        gate.visitor_gone(self._visitor)
        Splice.connectionLost(self, reason)
        gate.closed()


@implementer(IHalfCloseableProtocol)
class _Held(Protocol):
    """Waits, unread, until the service is served again, and becomes a stream to it then."""

    _log = Logger()

    def __init__(self, gate: AcceptGate, addr: IAddress, wait: Deferred[IPublicService]) -> None:
        self._gate = gate
        self._visitor = addr
        self._wait: Deferred[IPublicService] | None = wait
        self._splice: Splice | None = None

    def connectionMade(self) -> None:
        self._gate.opened(self.transport)
        self.transport.pauseProducing()  # type: ignore[union-attr]
        assert self._wait is not None
        self._wait.addCallbacks(self._served, self._in_vain).addErrback(
            lambda failure: self._log.failure("a visitor who waited was lost", failure)
        )

    def _served(self, service: IPublicService) -> None:
        self._wait = None
        try:
            channel = service.open(self._visitor)
        except (ServiceAway, ServiceParked, Overloaded):
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self._splice = splice = Splice(channel)
        splice.makeConnection(self.transport)
        if self._splice is splice:
            self.dataReceived = splice.dataReceived  # type: ignore[method-assign]
            if not channel.stream.held_back:
                self.transport.resumeProducing()  # type: ignore[union-attr]

    def _in_vain(self, failure: Failure) -> None:
        waiting, self._wait = self._wait, None
        if waiting is not None and self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def readConnectionLost(self) -> None:
        if self._splice is not None:
            self._splice.readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self._splice is not None:
            self._splice.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        waiting, self._wait = self._wait, None
        if waiting is not None:
            waiting.cancel()
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.connectionLost(reason)
        self._gate.visitor_gone(self._visitor)
        self._gate.closed()


class _Refused(Protocol):
    """Ends its connection at once.

    :param counted: the visitor, where it was admitted.
    """

    def __init__(self, gate: AcceptGate, counted: IAddress | None) -> None:
        self._gate = gate
        self._counted = counted

    def connectionMade(self) -> None:
        self._gate.opened(self.transport)
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._counted is not None:
            self._gate.visitor_gone(self._counted)
        self._gate.closed()
