"""What both ends of a WebSocket share.

Autobahn does the opening handshake, control frames and the closing handshake. A message that
carries session bytes is handed on as it arrives, never collected; our own messages are written as
one frame. Autobahn's timers use the global reactor, so its timeouts are off and ours stand in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from autobahn.websocket.protocol import WebSocketProtocol
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net import sockets
from srrrs.net.carrier import ICarrier, ICarrierHandler
from srrrs.net.websocket.messages import Messages
from srrrs.net.websocket.quiet import QuietProtocol
from srrrs.protocol import handshake
from srrrs.protocol.errors import CloseCode, ProtocolError
from srrrs.protocol.handshake import Challenge, Denied, Hello, Welcome
from srrrs.protocol.mux import MAX_FRAME

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that the peer has for the closing handshake before the connection is aborted."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds from the connection to the end of our handshake, unless an option says otherwise."""
MAX_ANSWER_HEAD: Final = 16 * 1024
"""Bytes of a relay's answer to the opening handshake."""
_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING


class NoLog:
    """Autobahn logs heads, the Authorization header among them: it gets no logger."""

    def _drop(self, *_: object, **__: object) -> None:
        pass

    debug = info = warn = warning = error = critical = failure = trace = emit = _drop


def _in_words(reason: Failure) -> str:
    """How a connection ended, for people."""
    if reason.check(ConnectionDone):
        return "the connection was closed"
    problem = reason.value
    cause = getattr(problem, "osError", None) or getattr(problem, "__cause__", None)
    if isinstance(cause, OSError) and cause.strerror:
        return f"the connection was lost: {cause.strerror}"
    if reason.check(ConnectionLost):
        return "the connection was lost"
    return reason.getErrorMessage()


@implementer(ICarrier)
class CarrierBase(QuietProtocol):
    """What the two ends share; a mixin over Autobahn's protocols."""

    log = NoLog()
    _log = Logger()

    transport: Any
    data: bytes  # What Autobahn has not parsed yet.
    factory: Any
    state: int
    clock: IReactorTime
    peer: Any  # Autobahn sets a text first; `connectionMade` puts the address in its place.
    heard_at = 0.0

    _handler: ICarrierHandler | None = None
    # Whether our binary frames are masked, and whether the peer's must be (None: as it likes).
    _masked = False
    _peer_masks: bool | None = True
    peer_frame = MAX_FRAME
    # Theirs from the handshake's end on is what arrives and is sent.
    _messages: Messages | None = None
    _in_control = False
    _paused = False
    _registered = False
    _close_call: IDelayedCall | None = None
    _handshake_call: IDelayedCall | None = None
    _pong_waits: bytes | None = None
    _told: tuple[int | None, str] | None = None
    _over = False
    # What came of the handshake's message.
    _collected = b""

    # --- ICarrier -----------------------------------------------------------------------

    def start(self, handler: ICarrierHandler) -> None:
        self._handler = handler
        messages = self._messages = Messages(self, handler, self._masked, self._peer_masks)
        # Who calls the one or the other now reaches them with no step in between.
        self.dataReceived = messages.data_received  # type: ignore[method-assign]
        self.send = messages.send  # type: ignore[method-assign]
        self.send_ack = messages.send_ack  # type: ignore[method-assign]
        self._cancel_handshake()
        sockets.unpace(self.transport)
        self.handshake_over()
        if self._over:
            handler.carrier_lost(*(self._told or (None, "the connection was lost")))
        elif self._paused:
            handler.pause_writing()

    def notice_silence(self, interval: float) -> None:
        sockets.notice_silence(self.transport, interval)

    def is_stranded(self) -> bool:
        return sockets.is_stranded(self.transport)

    def send(self, chunks: Sequence[bytes], size: int, ack: int | None = None) -> None:
        """There is no session before :meth:`start`, which sets another in its place."""

    def send_ack(self, count: int) -> None:
        """As :meth:`send`."""

    def ping(self, payload: bytes) -> None:
        self.sendPing(payload)  # type: ignore[attr-defined]

    def close(self, code: int, reason: str) -> None:
        if self._over:
            return
        self._told = self._told or (None, reason)
        if self.state == _OPEN:
            self.sendClose(int(code), reason)  # type: ignore[attr-defined]
        else:
            self.abort()

    def abort(self) -> None:
        if not self._over:
            self._unregister()
            self.transport.abortConnection()

    def detach(self) -> None:
        self._take_handler()

    def _take_handler(self) -> ICarrierHandler | None:
        """Whom to tell, for the last time."""
        if self._messages is not None:
            self._messages.handler = None
        handler, self._handler = self._handler, None
        return handler

    visitor: IAddress | None = None
    """Who the peer is, where a proxy in between has told; set before the connection is made."""

    def handshake_over(self) -> None:
        """Whoever limits handshakes puts itself here, to be told that this one has ended."""

    def channel_binding(self) -> str | None:
        """What only the two ends of this very TLS connection know (``tls-exporter``, RFC 9266);
        ``None`` without TLS, and before TLS 1.3, where it would need the extended master secret."""
        handle = getattr(self.transport, "getHandle", None)
        connection = None if handle is None else handle()
        if not isinstance(connection, SSL.Connection):
            return None
        if connection.get_protocol_version_name() != "TLSv1.3":
            return None
        return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"").hex()

    def say(self, message: Challenge | Hello | Welcome | Denied) -> None:
        """Send a handshake message."""
        if self.state == _OPEN:
            self.sendMessage(handshake.encode(message))  # type: ignore[attr-defined]

    # --- from the transport -------------------------------------------------------------

    def connectionMade(self) -> None:
        super().connectionMade()
        self.peer = self.visitor or self.transport.getPeer()
        self.heard_at = self.clock.seconds()
        self._handshake_call = self.clock.callLater(
            self.factory.handshake_timeout, self._handshake_expired
        )

    def dataReceived(self, data: bytes) -> None:
        self.heard_at = self.clock.seconds()
        try:
            self._dataReceived(data)  # type: ignore[attr-defined]
        except UnicodeDecodeError:
            # Autobahn takes heads for UTF-8.
            if self.state != _CONNECTING:
                raise
            self.failHandshake("the head is no UTF-8")  # type: ignore[attr-defined]
            return
        if self._messages is not None:
            # The handshake ended just now: what Autobahn holds is ours.
            data, self.data = self.data, b""
            self._messages.data_received(data)

    def control_frame(self, frame: bytes) -> None:
        """A control frame, whole, among the messages."""
        self._in_control = True
        self._dataReceived(frame)  # type: ignore[attr-defined]
        self._in_control = False

    def processData(self) -> bool:
        # Autobahn's loop over what it holds stops as soon as the rest is not its own.
        if self._messages is not None and not self._in_control:
            return False
        return bool(super().processData())  # type: ignore[misc]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        self._cancel_handshake()
        if self._close_call is not None:
            self._close_call.cancel()
            self._close_call = None
        super().connectionLost(reason)  # type: ignore[misc]
        self._tell_end(reason)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> Any:
        was_open = self.state == _OPEN
        violated = super().onCloseFrame(code, reasonRaw)  # type: ignore[misc]
        if was_open and not violated and self._handler is not None:
            # Nothing comes after it, and how long the connection lasts is up to the other end.
            self._tell_end(connectionDone)
        return violated

    def _tell_end(self, reason: Failure) -> None:
        code = getattr(self, "remoteCloseCode", None)
        if self._told is None or code is not None:
            text = getattr(self, "remoteCloseReason", None)
            self._told = (code, text or _in_words(reason))
        self._lost(*self._told, reason)

    def _lost(self, code: int | None, reason: str, failure: Failure) -> None:
        handler = self._take_handler()
        if handler is not None:
            handler.carrier_lost(code, reason)

    # --- producer, for the transport ----------------------------------------------------

    def pauseProducing(self) -> None:
        self._paused = True
        if self._handler is not None:
            self._handler.pause_writing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._pong_waits is not None:
            payload, self._pong_waits = self._pong_waits, None
            self.sendPong(payload)  # type: ignore[attr-defined]
        if self._handler is not None:
            self._handler.resume_writing()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` says the rest."""

    def _unregister(self) -> None:
        # A TLS transport with a registered producer does not close.
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    # --- Autobahn's callbacks -----------------------------------------------------------

    def onOpen(self) -> None:
        self._registered = True
        self.transport.registerProducer(self, True)
        self.opened()

    def opened(self) -> None:
        """The WebSocket stands."""

    def handshake_message(self, payload: bytes) -> None:
        """The peer's handshake message."""

    def onPing(self, payload: bytes) -> None:
        # A peer that pings and does not read must not fill our buffer: one answer waits.
        if self._paused:
            self._pong_waits = payload
        else:
            self.sendPong(payload)  # type: ignore[attr-defined]

    def onPong(self, payload: bytes) -> None:
        if self._handler is not None:
            self._handler.ponged(payload)

    # The handshake's one message is all that Autobahn collects: from then on `Messages` stands
    # in. Its limit is checked at each frame's header.

    def onMessageBegin(self, isBinary: bool) -> None:
        self._collected = b""
        if isBinary:
            self.fail(ProtocolError("a binary message during the handshake"))

    def onMessageFrameBegin(self, length: int) -> None:
        # Autobahn counts on these.
        self.frame_length = length
        self.frame_data: list[bytes] = []
        if len(self._collected) + length > handshake.MAX_HANDSHAKE:
            self.fail(ProtocolError("a handshake that is too long", CloseCode.LIMIT))

    def onMessageFrameData(self, payload: bytes) -> None:
        if self.state == _OPEN:
            self._collected += payload

    def onMessageFrameEnd(self) -> None:
        self.frame_data = []

    def onMessageEnd(self) -> None:
        if self.state == _OPEN and self._messages is None:
            payload, self._collected = self._collected, b""
            try:
                self.handshake_message(payload)
            except ProtocolError as error:
                self.fail(error)

    def sendCloseFrame(self, *args: Any, **kwargs: Any) -> None:
        # Every close goes through here, Autobahn's own too: none may last for ever.
        self._unregister()
        super().sendCloseFrame(*args, **kwargs)  # type: ignore[misc]
        if self._close_call is None and not self._over:
            self._close_call = self.clock.callLater(CLOSE_TIMEOUT, self._close_expired)

    def dropConnection(self, abort: bool = False) -> None:
        self._unregister()
        super().dropConnection(abort)  # type: ignore[misc]
        if self._close_call is None and not self._over:
            self._close_call = self.clock.callLater(CLOSE_TIMEOUT, self._close_expired)

    def unregisterProducer(self) -> None:
        self._unregister()

    # --- within -------------------------------------------------------------------------

    def fail(self, error: ProtocolError) -> None:
        """The peer broke the protocol: close with the code, and say so."""
        self._log.warn(
            "the peer at {peer} broke the protocol: {reason}", peer=self.peer, reason=error.reason
        )
        self._told = (error.code, error.reason)
        self.close(error.code, error.reason)

    def _handshake_expired(self) -> None:
        self._handshake_call = None
        self._told = (CloseCode.HANDSHAKE_TIMEOUT, "the handshake took too long")
        if self.state == _OPEN:
            self.close(CloseCode.HANDSHAKE_TIMEOUT, "the handshake took too long")
        else:
            self.abort()

    def _cancel_handshake(self) -> None:
        if self._handshake_call is not None:
            self._handshake_call.cancel()
            self._handshake_call = None

    def _close_expired(self) -> None:
        self._close_call = None
        self.abort()


OPTIONS: Final = {
    "openHandshakeTimeout": 0,
    "closeHandshakeTimeout": 0,
    "autoPingInterval": 0,
    "failByDrop": False,
    "echoCloseCodeReason": False,
    "tcpNoDelay": True,
}
