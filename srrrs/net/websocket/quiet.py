"""Autobahn's opening handshake without what nobody reads.

For each connection Autobahn renders its options, its peer and the whole certificate as text for its
debug log, whether or not that is on: more work than the rest of an agent's arrival without TLS. Its
log goes nowhere here (it would hold the bearer token), so nothing is rendered.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted import websocket
from autobahn.websocket import protocol
from autobahn.websocket.types import ConnectingRequest


def _unread(*_: object, **__: object) -> str:
    return ""


for _module in (protocol, websocket):
    for _name in ("pformat", "hltype", "hlval", "hlid"):
        # Only ever asked for what goes into a log event.
        if hasattr(_module, _name):
            setattr(_module, _name, _unread)


class QuietProtocol:
    """A mixin over Autobahn's protocols for Twisted: what they gather about the transport for
    applications that ask is not gathered."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # A UNIX socket has none.
        self._connectionMade()  # type: ignore[attr-defined]

    def startHandshake(self) -> None:
        """The agent's request, of what the factory holds."""
        factory = self.factory
        self._actuallyStartHandshake(  # type: ignore[attr-defined]
            ConnectingRequest(
                host=factory.host,
                port=factory.port,
                resource=factory.resource,
                headers=factory.headers,
                useragent=factory.useragent,
                protocols=factory.protocols,
            )
        )

    def _onOpen(self) -> None:
        self.onOpen()  # type: ignore[attr-defined]
