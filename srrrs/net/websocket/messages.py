"""A carrier's binary messages, once its handshake is over: session bytes and acknowledgements.

Apart from the carrier, which is Autobahn's protocol: this is what each byte passes, and compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

from srrrs.net.websocket.binary import FrameReader, FrameSink, binary_frame
from srrrs.protocol.errors import ProtocolError
from srrrs.protocol.session import FIRST_OPTIONAL_KIND, Kind

OPEN: Final = 3
"""``WebSocketProtocol.STATE_OPEN``, in which alone anything is sent and handed on."""
_COUNT: Final = Struct("!Q")
_COUNT_SIZE: Final = 8
_SESSION: Final = int(Kind.SESSION)
_ACK: Final = int(Kind.ACK)
_SESSION_KIND: Final = bytes((Kind.SESSION,))
_ACK_KIND: Final = bytes((Kind.ACK,))


class Messages(FrameSink):
    """Both directions of one carrier.

    :param carrier: a ``CarrierBase``: its ``state`` is looked at, ``heard_at`` kept, and
        ``control_frame`` and ``fail`` are called.
    :param handler: an ``ICarrierHandler``.
    :param masked: whether our frames are masked.
    :param peer_masks: as :class:`FrameReader`'s ``masked``.
    :ivar handler: ``None`` once there is nobody to tell.
    """

    __slots__ = (
        "_broken",
        "_carrier",
        "_clock",
        "_collected",
        "_kind",
        "_masked",
        "_reader",
        "_takes_buffers",
        "_transport",
        "handler",
    )

    def __init__(self, carrier: Any, handler: Any, masked: bool, peer_masks: bool | None) -> None:
        self._carrier = carrier
        self._clock = carrier.clock
        self._transport = carrier.transport
        # Whether the transport takes a bytearray, which Twisted's own do not.
        self._takes_buffers = bool(getattr(carrier.transport, "takes_buffers", False))
        self._masked = masked
        self._reader = FrameReader(self, peer_masks)
        self._broken = False
        # The message being received: its kind, and what of it is collected.
        self._kind = 0
        self._collected = b""
        self.handler = handler

    def send(self, chunks: Sequence[bytes], size: int, ack: int | None = None) -> None:
        """As ``ICarrier.send``."""
        if self._carrier.state != OPEN:
            return
        frame = binary_frame(_SESSION_KIND, chunks, size, self._masked)
        if ack is not None:
            frame[0] = self._ack_frame(ack) + frame[0]
        self._write(frame)

    def send_ack(self, count: int) -> None:
        """As ``ICarrier.send_ack``."""
        if self._carrier.state == OPEN:
            self._write([self._ack_frame(count)])

    def _ack_frame(self, count: int) -> bytes:
        # Short, and so in one piece.
        return bytes(binary_frame(_ACK_KIND, (_COUNT.pack(count),), _COUNT_SIZE, self._masked)[0])

    def _write(self, frame: list[bytes | bytearray]) -> None:
        if self._masked and not self._takes_buffers:
            frame = [bytes(part) for part in frame]
        if len(frame) == 1:
            self._transport.write(frame[0])
        else:
            self._transport.writeSequence(frame)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the transport."""
        self._carrier.heard_at = self._clock.seconds()
        if self._broken:
            return
        try:
            self._reader.feed(data)
        except ProtocolError as error:
            # What follows cannot be read: the peer has the close's deadline to go.
            self._broken = True
            self._carrier.fail(error)

    # --- from the frame reader ----------------------------------------------------------

    def message_data(self, data: bytes | bytearray, start: int, end: int, first: bool) -> None:
        handler = self.handler
        if handler is None or self._carrier.state != OPEN:
            return
        if first:
            self._kind = data[start]
            self._collected = b""
            start += 1
        if self._kind == _SESSION:
            handler.session_data(data, start, end)
        elif self._kind == _ACK:
            self._collected += data[start:end]
            if len(self._collected) > _COUNT_SIZE:
                raise ProtocolError("an acknowledgement that is too long")
        elif self._kind < FIRST_OPTIONAL_KIND:
            raise ProtocolError(f"a message of kind {self._kind}")

    def message_end(self) -> None:
        if self._kind == _ACK and self.handler is not None and self._carrier.state == OPEN:
            self._kind = FIRST_OPTIONAL_KIND
            if len(self._collected) != _COUNT_SIZE:
                raise ProtocolError("an acknowledgement that is too short")
            self.handler.ack_received(_COUNT.unpack(self._collected)[0])

    def control_frame(self, frame: bytes) -> None:
        self._carrier.control_frame(frame)
