"""TCP visitors: a service's own public port."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.net.accept import AcceptGate
from srrrs.net.address import format_address
from srrrs.net.channel import Channel
from srrrs.net.splice import Splice
from srrrs.protocol.errors import Overloaded
from srrrs.relay.edge.interfaces import IPublicService, ServiceAway


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
        return _Visitor(channel, self.gate)


class _Visitor(Splice):
    __slots__ = ("_gate", "_visitor")

    def __init__(self, channel: Channel, gate: AcceptGate) -> None:
        super().__init__(channel)
        self._visitor = channel.visitor
        self._gate = gate

    def connectionMade(self) -> None:
        self._gate.opened(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gate.visitor_gone(self._visitor)
        super().connectionLost(reason)
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
