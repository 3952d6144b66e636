"""TCP visitors: a service's own public port."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.net.accept import AcceptGate
from srrrs.net.splice import Splice
from srrrs.protocol.errors import Overloaded
from srrrs.relay.edge.interfaces import IPublicService, ServiceAway


class PublicPortFactory(Factory):
    """Every connection to the port becomes a stream to the service; where it cannot, it ends."""

    _log = Logger()
    noisy = False

    def __init__(self, service: IPublicService, gate: AcceptGate) -> None:
        self.service = service
        self.gate = gate

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        assert addr is not None
        if not self.gate.admit_visitor(addr):
            self._log.warn("too many connections from {host}", host=getattr(addr, "host", "?"))
            return None
        try:
            channel = self.service.open(addr)
        except (ServiceAway, Overloaded):
            self.gate.visitor_gone(addr)
            return None
        return _Visitor(channel, self.gate)


class _Visitor(Splice):
    def __init__(self, channel: object, gate: AcceptGate) -> None:
        super().__init__(channel)  # type: ignore[arg-type]
        self._gate = gate

    def connectionMade(self) -> None:
        self._gate.opened(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gate.visitor_gone(self.channel.visitor)
        super().connectionLost(reason)
        self._gate.closed()
