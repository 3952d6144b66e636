"""Binary WebSocket frames, in place of Autobahn's: that is where a tunnel's time goes.

Autobahn joins what arrives to what is left of it, counts, validates and copies each frame. Here a
payload is handed on as it arrives, unmasked on the way. Control frames are delimited
and left to Autobahn, whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from struct import Struct
from typing import Any, Final, Protocol

from autobahn.websocket.xormasker import create_xor_masker  # type: ignore[attr-defined]

from srrrs.protocol.errors import CloseCode, ProtocolError

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Payload bytes of one frame; it is never collected, so this only bounds nonsense."""
SHORT: Final = 1024
"""Bytes up to which an XOR of Python's integers is faster than a call of Autobahn's masker."""
JOINED: Final = 16 * 1024
"""Bytes of a message up to which one copy costs less than a list of chunks in a system call."""

_LENGTH_16 = Struct("!BBH")
_LENGTH_64 = Struct("!BBQ")

_nvx: Any = None
try:
    _nvx = import_module("_nvx_xormasker")
except ImportError:
    pass  # Autobahn was built without it.


def mask_short(key: bytes, data: bytes) -> bytes:
    """``data`` XOR ``key``, repeated (RFC 6455, 5.3); for up to about ``SHORT`` bytes."""
    size = len(data)
    keys = (key * ((size + 3) >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(
        size, "little"
    )


def mask_long(key: bytes, data: bytearray) -> bytearray:
    """The same, of any number of bytes: ``data`` is masked where it stands, where that can be.

    Autobahn's own masker copies what it is given, twice, and clears memory for it; the function
    that it is made of, in the library that it comes with, does neither.
    """
    if _nvx is None:
        return bytearray(create_xor_masker(key, len(data)).process(bytes(data)))
    lib, ffi = _nvx.lib, _nvx.ffi
    masker = lib.nvx_xormask_new(ffi.from_buffer("uint8_t[]", key))
    try:
        lib.nvx_xormask_process(masker, ffi.from_buffer("uint8_t[]", data), len(data))
    finally:
        lib.nvx_xormask_free(masker)
    return data


def _new_keys() -> Iterator[bytes]:
    # Unpredictable (RFC 6455, 10.3), which Autobahn's own choice is not; a system call for many.
    while True:
        pool = os.urandom(4096)
        for i in range(0, len(pool), 4):
            yield pool[i : i + 4]


_new_key = _new_keys().__next__


def binary_frame(
    kind: bytes, chunks: Sequence[bytes], size: int, masked: bool
) -> list[bytes | bytearray]:
    """A whole binary message, as chunks for the transport.

    :param kind: the first byte of its payload.
    :param chunks: the rest, ``size`` bytes in all.
    """
    length = size + 1
    bit = 0x80 if masked else 0
    if length < 126:
        head = bytes((0x82, bit | length))
    elif length < 65536:
        head = _LENGTH_16.pack(0x82, bit | 126, length)
    else:
        head = _LENGTH_64.pack(0x82, bit | 127, length)
    if not masked:
        if length <= JOINED:
            return [b"".join((head, kind, *chunks))]
        return [head + kind, *chunks]
    key = _new_key()
    if length <= SHORT:
        return [head + key + mask_short(key, b"".join((kind, *chunks)))]
    return [head + key, mask_long(key, bytearray().join((kind, *chunks)))]


class FrameSink(Protocol):
    """Whom the reader calls, in the order of the bytes."""

    __slots__ = ()

    def message_data(self, data: bytes | bytearray, start: int, end: int, first: bool) -> None:
        """``data[start:end]`` is a part of a binary message, never empty; ``first`` where it
        begins one. It is not kept."""

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
                size = stop - pos
                self._left = left = left - size
                first, self._first = self._first, False
                key = self._key
                if not key:
                    sink.message_data(data, pos, stop, first)
                elif size <= SHORT:
                    sink.message_data(mask_short(key, data[pos:stop]), 0, size, first)
                else:
                    plain = mask_long(key, bytearray(memoryview(data)[pos:stop]))
                    sink.message_data(plain, 0, size, first)
                if left and key:
                    turn = size & 3
                    self._key = key[turn:] + key[:turn]
                pos = stop
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
