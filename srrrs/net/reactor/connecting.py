"""Connectors: Twisted's own, which open connections onto the loop."""

from __future__ import annotations

from twisted.internet import tcp

from srrrs.net.reactor.transport import TCPClient


class TCPConnector(tcp.Connector):
    """Names, timeouts, binding and retries are Twisted's; the connection is the loop's."""

    def _makeTransport(self) -> TCPClient:
        return TCPClient(self.host, self.port, self.bindAddress, self, self.reactor)
