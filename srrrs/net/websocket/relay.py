"""The relay's end of a WebSocket."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from autobahn.twisted.websocket import (
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.interfaces import IAddress, IReactorTime

from srrrs._version import __version__
from srrrs.net.websocket.base import HANDSHAKE_TIMEOUT, OPTIONS, CarrierBase, NoLog
from srrrs.net.websocket.errors import Denial
from srrrs.protocol import handshake
from srrrs.protocol.handshake import Challenge, Denied, Hello, Welcome
from srrrs.protocol.mux import MAX_FRAME
from srrrs.protocol.resumption import new_nonce


class RelayCarrier(CarrierBase, WebSocketServerProtocol):  # type: ignore[misc]
    """The relay's end of a WebSocket; :meth:`answer` ends the handshake."""

    identity: Any = None
    _binding: str | None = None
    nonce = ""
    """What the agent's proof is to be made for."""

    def onConnect(self, request: Any) -> str:
        if handshake.SUBPROTOCOL not in request.protocols:
            raise ConnectionDeny(400, f"this relay speaks {handshake.SUBPROTOCOL} only")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            self.identity = self.factory.authorize(
                token.strip() if scheme.lower() == "bearer" else None, self.peer
            )
        except Denial as denial:
            raise ConnectionDeny(denial.status, denial.message) from None
        return handshake.SUBPROTOCOL

    def sendHttpErrorResponse(
        self,
        code: int,
        reason: str,
        responseHeaders: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        body = f"{reason}\n".encode()
        lines = [
            f"HTTP/1.1 {code} {_REASONS.get(code, 'Error')}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if code == 401:
            lines.append('WWW-Authenticate: Bearer realm="srrrs"')
        lines += [f"{name}: {value}" for name, value in responseHeaders or ()]
        self.sendData("\r\n".join([*lines, "", ""]).encode() + body)

    def opened(self) -> None:
        self.nonce = new_nonce()
        self.say(Challenge(self.nonce))

    def handshake_message(self, payload: bytes) -> None:
        hello = handshake.decode_hello(payload)
        self.peer_frame = hello.frame or MAX_FRAME
        own = self.channel_binding()
        if own is not None and hello.binding is not None:
            if hmac.compare_digest(own, hello.binding):
                # No proxy reads these frames: the agent need not mask them.
                self._binding = own
                self._peer_masks = None
        self.factory.greet(self, self.identity, hello)

    def answer(self, message: Welcome | Denied) -> None:
        """Answer the hello. After a denial the carrier closes; after a welcome, start it."""
        if isinstance(message, Welcome):
            message = replace(message, binding=self._binding)
        self.say(message)
        if isinstance(message, Denied):
            self._cancel_handshake()
            self.close(1000, message.code)


_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class RelayCarrierFactory(WebSocketServerFactory):
    """Makes the relay's end of each agent's WebSocket.

    :param authorize: from the bearer token (or ``None``) and the peer's address to an identity;
        raises :class:`Denial`.
    :param greet: given the carrier, that identity and the hello, calls ``carrier.answer`` and,
        after a welcome, ``tunnel.attach(carrier, …)``.
    :param handshake_timeout: seconds.
    """

    protocol = RelayCarrier
    log = NoLog()
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        authorize: Callable[[str | None, IAddress], Any],
        greet: Callable[[RelayCarrier, Any, Hello], None],
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            protocols=[handshake.SUBPROTOCOL], server=f"srrrs/{__version__}", reactor=reactor
        )
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            webStatus=False, versions=[13], serveFlashSocketPolicy=False, **OPTIONS
        )
        self.clock = reactor
        self.authorize = authorize
        self.greet = greet
        self.handshake_timeout = handshake_timeout

    def buildProtocol(self, addr: IAddress | None) -> RelayCarrier:
        carrier = RelayCarrier()
        carrier.factory = self
        carrier.clock = self.clock
        return carrier
