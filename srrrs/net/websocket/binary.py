"""Binary WebSocket frames, in place of Autobahn's: that is where a tunnel's time goes.

Autobahn joins what arrives to what is left of it, counts, validates and copies each frame. Here a
payload is handed on as it arrives, unmasked on the way. Control frames are delimited
and left to Autobahn, whole.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Final, Protocol

from autobahn.websocket.xormasker import create_xor_masker  # type: ignore[attr-defined]

from srrrs.protocol.errors import CloseCode, ProtocolError

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Payload bytes of one frame; it is never collected, so this only bounds nonsense."""
SHORT: Final = 1024
"""Bytes up to which an XOR of Python's integers is faster than a call of Autobahn's masker."""

_LENGTH_16 = Struct("!BBH")
_LENGTH_64 = Struct("!BBQ")


def mask(key: bytes, data: bytes) -> bytes:
    """``data`` XOR ``key``, repeated (RFC 6455, 5.3)."""
    size = len(data)
    if size > SHORT:
        return create_xor_masker(key, size).process(data)  # type: ignore[no-any-return]
    keys = (key * ((size + 3) >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(
        size, "little"
    )


def binary_frame(chunks: list[bytes], size: int, masked: bool) -> list[bytes]:
    """A whole binary message of ``size`` bytes, as chunks for the transport."""
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, bit | size))
    elif size < 65536:
        head = _LENGTH_16.pack(0x82, bit | 126, size)
    else:
        head = _LENGTH_64.pack(0x82, bit | 127, size)
    if not masked:
        return [head, *chunks]
    # Unpredictable (RFC 6455, 10.3), which Autobahn's own choice is not.
    key = os.urandom(4)
    return [head, key, mask(key, b"".join(chunks))]


class FrameSink(Protocol):
    """Whom the reader calls, in the order of the bytes."""

    def message_data(self, payload: bytes, first: bool) -> None:
        """A part of a binary message, never empty; ``first`` where it begins one."""

    def message_end(self) -> None:
        """The binary message is whole."""

    def control_frame(self, frame: bytes) -> None:
        """A control frame, as it came."""


class FrameReader:
    """Turns bytes, cut anywhere, into calls on a :class:`FrameSink`.

    :param masked: whether the peer must mask its binary frames, or must not; ``None`` where it may
        do either.
    """

    __slots__ = ("_fin", "_first", "_in_message", "_key", "_left", "_masked", "_rest", "_sink")

    def __init__(self, sink: FrameSink, masked: bool | None) -> None:
        self._sink = sink
        self._masked = masked
        # An incomplete header or control frame: never more than 14 + 125 bytes.
        self._rest = b""
        # Of the frame that is being received: bytes still to come, its key turned to the next of
        # them, and whether it ends its message.
        self._left = 0
        self._key = b""
        self._fin = True
        self._in_message = False
        self._first = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises ProtocolError: they are no frames that may come here.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        sink = self._sink
        pos, end = 0, len(data)
        while pos < end:
            left = self._left
            if left:
                stop = min(pos + left, end)
                payload = data[pos:stop]
                self._left = left = left - (stop - pos)
                if self._key:
                    payload = mask(self._key, payload)
                    if left:
                        turn = (stop - pos) & 3
                        self._key = self._key[turn:] + self._key[:turn]
                pos = stop
                first, self._first = self._first, False
                sink.message_data(payload, first)
                if not left and self._fin:
                    self._in_message = False
                    sink.message_end()
                continue
            size = self._header(data, pos, end)
            if not size:
                self._rest = data[pos:]
                return
            pos += size

    def _header(self, data: bytes, pos: int, end: int) -> int:
        """Take a header, or a whole control frame; its size, or 0 where more is needed."""
        if end - pos < 2:
            return 0
        first, second = data[pos], data[pos + 1]
        opcode, length, masked = first & 0x0F, second & 0x7F, second >> 7
        if first & 0x70:
            raise ProtocolError("a WebSocket frame with reserved bits")
        head = 2 + 4 * masked
        if opcode >= 8:
            if length > 125 or opcode > 10 or not first & 0x80:
                raise ProtocolError("a bad WebSocket control frame")
            if end - pos < head + length:
                return 0
            self._sink.control_frame(data[pos : pos + head + length])
            return head + length
        if opcode == 1:
            raise ProtocolError("a text message after the handshake")
        if opcode > 2 or (opcode == 2) is self._in_message:
            raise ProtocolError("a WebSocket frame out of order")
        if self._masked is not None and bool(masked) is not self._masked:
            raise ProtocolError(
                "a WebSocket frame that is masked" if masked else "a WebSocket frame without a mask"
            )
        if length == 126:
            head += 2
        elif length == 127:
            head += 8
        if end - pos < head:
            return 0
        if length >= 126:
            length = int.from_bytes(data[pos + 2 : pos + head - 4 * masked], "big")
            if length > MAX_MESSAGE:
                raise ProtocolError("a WebSocket frame that is too long", CloseCode.LIMIT)
        self._key = data[pos + head - 4 : pos + head] if masked else b""
        self._fin = bool(first & 0x80)
        self._left = length
        if opcode == 2:
            self._in_message = self._first = True
        if not length and self._fin:
            self._in_message = False
            self._sink.message_end()
        return head
