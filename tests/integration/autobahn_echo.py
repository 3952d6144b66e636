"""A WebSocket server that echoes, and a client that talks to one: Autobahn's, as programs.

``python -m tests.integration.autobahn_echo serve`` prints its port;
``… ask URL CONNECT_PORT MESSAGE…`` prints what came back, a line each.
"""

# Autobahn annotates in part.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet import reactor


class Echo(WebSocketServerProtocol):
    """Sends back what comes."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class Asker(WebSocketClientProtocol):
    """Says one thing after the other."""

    left: list[str]

    def onOpen(self) -> None:
        self.left = list(sys.argv[4:])
        self._say()

    def _say(self) -> None:
        if self.left:
            self.sendMessage(self.left.pop(0).encode())
        else:
            self.sendClose(1000)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        print(payload.decode(), flush=True)
        self._say()

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        print(f"closed {code} clean {wasClean}", flush=True)
        loop: Any = reactor
        loop.stop()


def main() -> None:
    loop: Any = reactor
    if sys.argv[1] == "serve":
        server = WebSocketServerFactory()
        server.protocol = Echo
        port = loop.listenTCP(0, server, interface="127.0.0.1")
        print(f"port {port.getHost().port}", flush=True)
    else:
        client = WebSocketClientFactory(sys.argv[2])
        client.protocol = Asker
        loop.connectTCP("127.0.0.1", int(sys.argv[3]), client)
    loop.run()


if __name__ == "__main__":
    main()
