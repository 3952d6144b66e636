"""What a TLS client asks for before anything is encrypted: a name, and protocols.

As of RFC 8446, 4.1.2. Only looked at, never answered: whoever ends the TLS gets the same bytes.
Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

HANDSHAKE: Final = 0x16
"""The first byte of a TLS connection (RFC 8446, 5.1), which starts no HTTP request."""
HELLO_BYTES: Final = 16 * 1024
"""Of a ClientHello's message at the most. Large ones, with keys for the time after quantum
computers, have 2 KiB."""
RECORDS: Final = 64
"""Records that it may be cut into; a client has no reason for more than one or two."""
WIRE_BYTES: Final = HELLO_BYTES + 5 * RECORDS
"""Bytes of a connection that can be needed to see a whole ClientHello, whatever its records."""

_RECORD_HEAD: Final = 5
_RECORD_BYTES: Final = 2**14
_TYPE: Final = (b"", b"\x16")
_VERSION: Final = (b"", b"\x03")
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0  # RFC 6066, 3
_HOST_NAME: Final = 0
_ALPN: Final = 16  # RFC 7301, 3.1
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_MAX_NAME: Final = 253


class BadHello(Exception):
    """No ClientHello that could be understood; what TLS answers to that is not said here."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What it asks for.

    :ivar name: of the server, lower-case, without final dot; ``None``: it does not say, or nothing
        that is a host name.
    :ivar protocols: in its order (ALPN).
    """

    name: str | None
    protocols: tuple[bytes, ...] = ()


def read_hello(data: bytes) -> ClientHello | int:
    """The ClientHello that a connection begins with.

    :param data: all that came so far.
    :return: where more is needed, how many bytes there must be at least before asking again is of
        any use; :data:`WIRE_BYTES` or less.
    :raises BadHello: it is malformed, or too long.
    """
    message = _message(data)
    if isinstance(message, int):
        return message
    try:
        return _read_message(message)
    except _Cut:
        raise BadHello("the ClientHello is malformed") from None


def _message(data: bytes) -> bytes | int:
    """The handshake message, out of as many records as it takes (RFC 8446, 5.1)."""
    parts: list[bytes] = []
    size = at = 0
    wanted: int | None = None
    for _ in range(RECORDS):
        head = data[at : at + _RECORD_HEAD]
        if head[:1] not in _TYPE or head[1:2] not in _VERSION:
            raise BadHello("there is another record before the end of the ClientHello")
        if len(head) < _RECORD_HEAD:
            return at + _RECORD_HEAD
        length = int.from_bytes(head[3:5])
        if not 0 < length <= _RECORD_BYTES or size + length > HELLO_BYTES:
            raise BadHello("a record, or the ClientHello, is too long")
        at += _RECORD_HEAD
        part = data[at : at + length]
        parts.append(part)
        size += len(part)
        if wanted is None and size >= 4:
            start = b"".join(parts)
            if start[0] != _CLIENT_HELLO:
                raise BadHello("the first message is no ClientHello")
            wanted = 4 + int.from_bytes(start[1:4])
            if wanted > HELLO_BYTES:
                raise BadHello("the ClientHello is too long")
        if wanted is not None and size >= wanted:
            return b"".join(parts)[4:wanted]
        if len(part) < length:
            return at + length
        at += length
    raise BadHello("the ClientHello is cut into too many records")


class _Cut(Exception):
    """Something ends before it is over."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise _Cut
        return self._data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        """What has its length in ``size`` bytes before it."""
        return self.take(self.number(size))


def _read_message(message: bytes) -> ClientHello:
    reader = _Reader(message)
    reader.take(2 + 32)  # Version and random.
    reader.vector(1)  # Session.
    reader.vector(2)  # Ciphers.
    reader.vector(1)  # Compressions.
    extensions = _Reader(reader.vector(2) if reader.more else b"")
    if reader.more:
        raise _Cut
    seen: set[int] = set()
    name: str | None = None
    protocols: tuple[bytes, ...] = ()
    while extensions.more:
        kind = extensions.number(2)
        body = extensions.vector(2)
        if kind in seen:  # One alone of each (RFC 8446, 4.2): two could name two servers.
            raise _Cut
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(_whole(body, 2))
        elif kind == _ALPN:
            protocols = _protocols(_whole(body, 2))
    return ClientHello(name, protocols)


def _whole(body: bytes, size: int) -> _Reader:
    """The one vector that is all of ``body``."""
    reader = _Reader(body)
    inner = _Reader(reader.vector(size))
    if reader.more or not inner.more:
        raise _Cut
    return inner


def _server_name(names: _Reader) -> str | None:
    found: str | None = None
    kinds: set[int] = set()
    while names.more:
        kind = names.number(1)
        if kind in kinds:
            raise _Cut
        kinds.add(kind)
        value = names.vector(2)
        if kind == _HOST_NAME:
            found = value.decode("latin-1").lower().removesuffix(".")
    if found is None or len(found) > _MAX_NAME or not _NAME.fullmatch(found):
        return None
    return found


def _protocols(names: _Reader) -> tuple[bytes, ...]:
    found: list[bytes] = []
    while names.more:
        name = names.vector(1)
        if not name:
            raise _Cut
        found.append(name)
    return tuple(found)


def alert(description: int) -> bytes:
    """A record that ends the handshake with a fatal alert (RFC 8446, 6), for where no TLS is
    ended here."""
    return bytes((0x15, 3, 3, 0, 2, 2, description))


INTERNAL_ERROR: Final = 80
UNRECOGNIZED_NAME: Final = 112
"""No server of that name (RFC 6066, 3)."""
