"""The calls of OpenSSL that a TLS connection's bytes go through.

pyOpenSSL makes a buffer for each call and raises an exception where nothing is left: at 16 KiB a
record that is a third of what TLS costs. Here two buffers serve all connections, and a call handles
several records. That needs names of pyOpenSSL's that it does not document; where one is missing the
documented calls do the same, more slowly.

For the reactor's thread alone.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Connection, Error, WantReadError

RECORD: Final = 2**14
"""Bytes of plaintext in a TLS record at the most (RFC 8446, 5.1)."""
GROUP: Final = 4 * RECORD
"""Bytes handled together: enough to save calls, few enough to stay in the cache."""
OUTPUT: Final = GROUP + 2048
"""Bytes that are sent together: a group's records, with what TLS adds to them."""

NOTHING: Final = WantReadError()
"""What :meth:`Calls.read` gives where the peer's next bytes are waited for."""


class Calls(Protocol):
    """How bytes get into and out of a connection that has memory BIOs."""

    def feed(self, connection: Connection, data: bytes, start: int, stop: int) -> None:
        """Take a part of what the peer sent."""

    def read(self, connection: Connection) -> tuple[bytes, Error | None]:
        """What is decrypted, at most a group, and what ended it; ``None`` if more is there."""

    def write(self, connection: Connection, data: bytes, start: int, stop: int) -> int:
        """Encrypt a part of ``data``; how many bytes of it were taken, at least one.

        :raises Error: as ``Connection.send``.
        """

    def outgoing(self, connection: Connection) -> bytes:
        """What is to be sent to the peer, or a part of it; empty where there is nothing."""


class PublicCalls:
    """:class:`Calls` by what pyOpenSSL documents."""

    def feed(self, connection: Connection, data: bytes, start: int, stop: int) -> None:
        connection.bio_write(memoryview(data)[start:stop])

    def read(self, connection: Connection) -> tuple[bytes, Error | None]:
        chunks: list[bytes] = []
        ended: Error | None = None
        try:
            while len(chunks) < GROUP // RECORD:
                chunks.append(connection.recv(RECORD))
        except Error as error:
            ended = error
        return b"".join(chunks), ended

    def write(self, connection: Connection, data: bytes, start: int, stop: int) -> int:
        return connection.send(memoryview(data)[start : min(stop, start + RECORD)])

    def outgoing(self, connection: Connection) -> bytes:
        try:
            return connection.bio_read(OUTPUT)
        except WantReadError:
            return b""


class DirectCalls:
    """:class:`Calls` without pyOpenSSL in between.

    :raises AttributeError: pyOpenSSL lacks something that is needed.
    """

    def __init__(self) -> None:
        lib: Any = SSL._lib  # type: ignore[attr-defined]
        ffi: Any = SSL._ffi  # type: ignore[attr-defined]
        self._ssl_read, self._ssl_write = lib.SSL_read, lib.SSL_write
        self._bio_read, self._bio_write = lib.BIO_read, lib.BIO_write
        self._get_error, self._want_read = lib.SSL_get_error, lib.SSL_ERROR_WANT_READ
        self._view, self._buffer = ffi.from_buffer, ffi.buffer
        self._in = ffi.new("char[]", GROUP)
        self._out = ffi.new("char[]", OUTPUT)
        # What connections must have.
        probe: Any = Connection(SSL.Context(SSL.TLS_METHOD), None)
        for name in ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error"):
            getattr(probe, name)

    def feed(self, connection: Any, data: bytes, start: int, stop: int) -> None:
        size = stop - start
        if self._bio_write(connection._into_ssl, self._view(data) + start, size) != size:
            raise MemoryError("OpenSSL has no room for what was received")

    def read(self, connection: Any) -> tuple[bytes, Error | None]:
        read, ssl, into = self._ssl_read, connection._ssl, self._in
        size, ended = 0, None
        while size < GROUP:
            got = read(ssl, into + size, GROUP - size)
            if got <= 0:
                ended = self._why(connection, got)
                break
            size += got
        return self._buffer(into, size)[:] if size else b"", ended

    def write(self, connection: Any, data: bytes, start: int, stop: int) -> int:
        write, ssl, view = self._ssl_write, connection._ssl, self._view(data)
        done = start
        while done < stop:
            taken = write(ssl, view + done, stop - done)
            if taken <= 0:
                ended = self._why(connection, taken)
                if done == start:
                    # Never the one that all share: it would collect tracebacks.
                    raise WantReadError if ended is NOTHING else ended
                break
            done += taken
        return done - start

    def outgoing(self, connection: Any) -> bytes:
        size = self._bio_read(connection._from_ssl, self._out, OUTPUT)
        return self._buffer(self._out, size)[:] if size > 0 else b""

    def _why(self, connection: Any, result: int) -> Error:
        if self._get_error(connection._ssl, result) == self._want_read:
            return NOTHING
        try:
            connection._raise_ssl_error(connection._ssl, result)
        except Error as error:
            return error
        raise AssertionError("a call of OpenSSL failed without an error")


def _best() -> Calls:
    try:
        return DirectCalls()
    except (AttributeError, TypeError):
        return PublicCalls()


calls: Final = _best()
"""The fastest that this pyOpenSSL allows."""
