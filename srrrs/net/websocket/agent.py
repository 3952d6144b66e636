"""The agent's end of a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
)
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure

from srrrs._version import __version__
from srrrs.net.websocket.base import HANDSHAKE_TIMEOUT, MAX_ANSWER_HEAD, OPTIONS, CarrierBase, NoLog
from srrrs.net.websocket.errors import Denial, HandshakeDenied, HandshakeFailed
from srrrs.protocol import handshake
from srrrs.protocol.errors import ProtocolError
from srrrs.protocol.handshake import Challenge, Denied, Hello, Welcome
from srrrs.protocol.mux import MAX_FRAME


class AgentCarrier(CarrierBase, WebSocketClientProtocol):  # type: ignore[misc]
    """The agent's end of a WebSocket.

    ``welcomed`` fires with ``(carrier, Welcome)``, or errs with :class:`Denial` (an HTTP status),
    :class:`HandshakeDenied`, :class:`HandshakeFailed` or the connection's failure. Cancelling it
    aborts the connection.
    """

    _masked = True
    _peer_masks = False
    heard_nothing = True

    def __init__(self) -> None:
        super().__init__()
        self.welcomed: Deferred[tuple[AgentCarrier, Welcome]] = Deferred(lambda _: self.abort())
        self._failure: Exception | None = None
        self._binding: str | None = None
        self._challenged = False

    def dataReceived(self, data: bytes) -> None:
        if self.heard_nothing:
            self.heard_nothing = False
            self.factory.answered()
        if self.state == WebSocketProtocol.STATE_CONNECTING:
            head = self.data + data
            if len(head) > MAX_ANSWER_HEAD and b"\r\n\r\n" not in head[:MAX_ANSWER_HEAD]:
                self._failure = HandshakeFailed("the answer's head is too long")
                self.abort()
                return
        super().dataReceived(data)

    def onConnect(self, response: Any) -> None:
        if response.protocol != handshake.SUBPROTOCOL:
            self._failure = HandshakeFailed(f"it does not speak {handshake.SUBPROTOCOL}")
            raise self._failure

    def failHandshake(self, reason: str) -> None:
        line = getattr(self, "http_status_line", None)
        if line is None:  # Autobahn could not read the head.
            line = self.data.partition(b"\r\n")[0].decode("latin-1")
        words = line.split(None, 2) if line.startswith("HTTP/") else []
        if self._failure is None:
            if len(words) > 1 and words[1].isdigit() and words[1] != "101":
                text = words[2] if len(words) > 2 and words[2].isprintable() else ""
                self._failure = Denial(int(words[1]), text[:100])
            else:
                self._failure = HandshakeFailed("what answers there is no relay")
        super().failHandshake(reason)  # type: ignore[no-untyped-call]

    def handshake_message(self, payload: bytes) -> None:
        answer: Challenge | Denied | Welcome
        if not self._challenged:
            answer = handshake.decode_challenge(payload)
            if isinstance(answer, Challenge):
                self._challenged = True
                self._binding = self.channel_binding()
                hello = self.factory.make_hello(answer.nonce)
                self.say(replace(hello, binding=self._binding))
                return
        else:
            answer = handshake.decode_answer(payload)
        if isinstance(answer, Denied):
            self._failure = HandshakeDenied(answer)
            self.close(1000, "")
            return
        self.peer_frame = answer.frame or MAX_FRAME
        if self._binding is not None and answer.binding == self._binding:
            # Both ends have proved that they share the TLS connection: no proxy that would need
            # masks (RFC 6455, 10.3) ever sees a frame.
            self._masked = False
        if not self.welcomed.called:
            self.welcomed.callback((self, answer))
            if self._handler is None:
                self.abort()  # Nobody took it.

    def fail(self, error: ProtocolError) -> None:
        if self._failure is None:
            self._failure = HandshakeFailed(error.reason, error.code)
        super().fail(error)

    def _lost(self, code: int | None, reason: str, failure: Failure) -> None:
        if not self.welcomed.called:
            if self._failure is None and self._told is not None and code is not None:
                self._failure = HandshakeFailed(reason, code)
            self.welcomed.errback(failure if self._failure is None else Failure(self._failure))
        super()._lost(code, reason, failure)


class AgentCarrierFactory(WebSocketClientFactory):
    """Makes the agent's end; connect it to an endpoint, then wait for ``protocol.welcomed``.

    ``welcomed``'s first callback must start the carrier (``tunnel.attach``), or it is aborted.

    :param url: the edge URL, ``ws:`` or ``wss:``.
    :param token: the secret, sent as a bearer token (RFC 6750, 2.1).
    :param make_hello: from the relay's nonce to what to say.
    """

    protocol = AgentCarrier
    log = NoLog()
    answered: Callable[[], None] = staticmethod(lambda: None)
    """Called at the relay's first byte."""
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        url: str,
        token: str,
        make_hello: Callable[[str], Hello],
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        parts = urlsplit(url)
        if not parts.path or parts.path == "/":
            url = parts._replace(path=handshake.PATH).geturl()
        super().__init__(  # type: ignore[no-untyped-call]
            url,
            protocols=[handshake.SUBPROTOCOL],
            useragent=f"srrrs/{__version__}",
            headers={"Authorization": f"Bearer {token}"},
            reactor=reactor,
        )
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            serverConnectionDropTimeout=0, version=18, **OPTIONS
        )
        self.clock = reactor
        self.make_hello = make_hello
        self.handshake_timeout = handshake_timeout

    def buildProtocol(self, addr: IAddress | None) -> AgentCarrier:
        carrier = AgentCarrier()
        carrier.factory = self
        carrier.clock = self.clock
        return carrier
