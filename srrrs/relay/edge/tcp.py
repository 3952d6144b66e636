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
from srrrs.relay.edge import logged
from srrrs.relay.edge.accesslog import AccessLog, ConnectionEntry
from srrrs.relay.edge.gatekeeper import lets_in_again
from srrrs.relay.edge.interfaces import IPublicService, ServiceAway, ServiceParked
from srrrs.relay.edge.logged import LoggedSplice
from srrrs.relay.edge.site import connection_id


class PublicPortFactory(Factory):
    """Every connection to the port becomes a stream to the service; where it cannot, it is reset.

    :param gate: told of each connection, and asked whether its address may have one more.
    :param access_log: told of each connection; ``None``: there is none.
    :param kind: of the service, for the log.
    """

    _log = Logger()
    noisy = False

    def __init__(
        self,
        service: IPublicService,
        gate: AcceptGate,
        access_log: AccessLog | None = None,
        kind: str = "tcp",
    ) -> None:
        self.service = service
        self.gate = gate
        self.access_log = access_log
        self.kind = kind

    def buildProtocol(self, addr: IAddress | None) -> Any:
        assert addr is not None
        if not self.gate.admit_visitor(addr):
            self._log.warn("too many connections from {peer}", peer=format_address(addr))
            return self._refused(None, self._entry(addr), logged.TOO_MANY)
        entry = self._entry(addr)
        keeper = self.service.gatekeeper
        if keeper is not None and not keeper.check_connection(addr):
            return self._refused(addr, entry, logged.DENIED)
        try:
            channel = self.service.open(addr, "" if entry is None else entry.id)
        except ServiceAway:
            return self._refused(addr, entry, logged.AWAY)
        except Overloaded:
            return self._refused(addr, entry, logged.BUSY)
        except ServiceParked as parked:
            return _Held(self, addr, entry, parked.service.wait())
        if entry is None:
            return _Visitor(channel, self.gate)
        assert self.access_log is not None
        return _LoggedVisitor(channel, self.gate, self.access_log, entry)

    def splice(self, channel: Channel, entry: ConnectionEntry | None) -> Splice:
        """A splice that leaves the gate alone."""
        if entry is None or self.access_log is None:
            return Splice(channel)
        return LoggedSplice(channel, self.access_log, entry)

    def tell(self, entry: ConnectionEntry | None, transport: Any, closed: str) -> None:
        """Log a connection that came to nothing."""
        if entry is not None and self.access_log is not None:
            entry.port = getattr(transport.getHost(), "port", None)
            entry.closed = closed
            self.access_log.connection(entry)

    def _entry(self, visitor: IAddress) -> ConnectionEntry | None:
        if self.access_log is None:
            return None
        return logged.entry_for(self.service, self.kind, visitor, connection_id())

    def _refused(
        self, counted: IAddress | None, entry: ConnectionEntry | None, why: str
    ) -> _Refused:
        return _Refused(self, counted, entry, why)


class _Gated:
    """A splice of which the gate is told."""

    __slots__ = ()

    _gate: AcceptGate
    _visitor: IAddress
    transport: Any

    def connectionMade(self) -> None:
        self._gate.opened(self.transport)
        super().connectionMade()  # type: ignore[misc]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gate.visitor_gone(self._visitor)
        super().connectionLost(reason)  # type: ignore[misc]
        self._gate.closed()


class _Visitor(_Gated, Splice):
    __slots__ = ("_gate", "_visitor")

    def __init__(self, channel: Channel, gate: AcceptGate) -> None:
        Splice.__init__(self, channel)
        self._visitor = channel.visitor
        self._gate = gate


class _LoggedVisitor(_Gated, LoggedSplice):
    __slots__ = ("_gate", "_visitor")

    def __init__(
        self, channel: Channel, gate: AcceptGate, access_log: AccessLog, entry: ConnectionEntry
    ) -> None:
        super().__init__(channel, access_log, entry)
        self._visitor = channel.visitor
        self._gate = gate


@implementer(IHalfCloseableProtocol)
class _Held(Protocol):
    """Waits, unread, until the service is served again, and becomes a stream to it then."""

    _log = Logger()

    def __init__(
        self,
        factory: PublicPortFactory,
        addr: IAddress,
        entry: ConnectionEntry | None,
        wait: Deferred[IPublicService],
    ) -> None:
        self._factory = factory
        self._gate = factory.gate
        self._visitor = addr
        self._entry = entry
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
        if not lets_in_again(self._factory.service.gatekeeper, service.gatekeeper, self._visitor):
            self._tell(logged.DENIED)
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        try:
            channel = service.open(self._visitor, "" if self._entry is None else self._entry.id)
        except (ServiceAway, ServiceParked, Overloaded):
            self._tell(logged.AWAY)
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        entry, self._entry = self._entry, None
        self._splice = splice = self._factory.splice(channel, entry)
        splice.makeConnection(self.transport)
        if self._splice is splice:
            self.dataReceived = splice.dataReceived  # type: ignore[method-assign]
            if not channel.stream.held_back:
                self.transport.resumeProducing()  # type: ignore[union-attr]

    def _in_vain(self, failure: Failure) -> None:
        waiting, self._wait = self._wait, None
        if waiting is not None and self.transport is not None:
            self._tell(logged.AWAY)
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def _tell(self, closed: str) -> None:
        entry, self._entry = self._entry, None
        self._factory.tell(entry, self.transport, closed)

    def readConnectionLost(self) -> None:
        if self._splice is not None:
            self._splice.readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self._splice is not None:
            self._splice.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        waiting, self._wait = self._wait, None
        self._tell(logged.GONE)
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
    :param why: for the log.
    """

    def __init__(
        self,
        factory: PublicPortFactory,
        counted: IAddress | None,
        entry: ConnectionEntry | None,
        why: str,
    ) -> None:
        self._factory = factory
        self._gate = factory.gate
        self._counted = counted
        self._entry = entry
        self._why = why

    def connectionMade(self) -> None:
        self._gate.opened(self.transport)
        self._factory.tell(self._entry, self.transport, self._why)
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._counted is not None:
            self._gate.visitor_gone(self._counted)
        self._gate.closed()
