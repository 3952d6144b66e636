"""The calls of OpenSSL that a TLS connection's bytes go through.

pyOpenSSL makes a buffer for each call and raises an exception where nothing is left: at 16 KiB a
record that is a third of what TLS costs. Here two buffers serve all connections, and a call handles
many records. That needs names of pyOpenSSL's that it does not document; where one is missing the
documented calls do the same, more slowly.

For the reactor's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Connection, Error, WantReadError

RECORD: Final = 2**14
"""Bytes of plaintext in a TLS record at the most (RFC 8446, 5.1)."""
GROUP: Final = 4 * RECORD
"""Bytes handled together: enough to save calls, few enough to stay in the cache."""
INPUT: Final = 2**18
"""Bytes that are taken together from the peer: no less than the loop reads at a time."""
PLAIN: Final = INPUT + RECORD
"""Bytes decrypted together, always enough for what is taken together: a record of which a part had
come before may be among them."""
OUTPUT: Final = GROUP + 2048
"""Bytes that are sent together: a group's records, with what TLS adds to them."""

NOTHING: Final = WantReadError()
"""What :meth:`Records.read` gives where the peer's next bytes are waited for."""
DRAINED: Final = WantReadError()
"""The same where only data came since, so that OpenSSL can have nothing to say to the peer."""


class Records(Protocol):
    """How bytes get into and out of a connection that has memory BIOs."""

    def receive(self, data: bytes, start: int, stop: int) -> tuple[bytes, Error | None]:
        """Take a part of what the peer sent, :data:`INPUT` bytes at the most, and read as below.

        All that came before must have been read; where the connection is over the rest is lost.
        """

    def read(self) -> tuple[bytes, Error | None]:
        """What is decrypted, and what ended it; ``None`` if more is there."""

    def write(self, data: bytes, start: int, stop: int) -> int:
        """Encrypt a part of ``data``; how many bytes of it were taken, at least one.

        :raises Error: as ``Connection.send``.
        """

    def outgoing(self) -> bytes:
        """What is to be sent to the peer, :data:`OUTPUT` bytes at the most; empty if nothing."""


class PublicRecords:
    """:class:`Records` by what pyOpenSSL documents."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def receive(self, data: bytes, start: int, stop: int) -> tuple[bytes, Error | None]:
        self._connection.bio_write(memoryview(data)[start:stop])
        return self.read()

    def read(self) -> tuple[bytes, Error | None]:
        chunks: list[bytes] = []
        ended: Error | None = None
        try:
            while len(chunks) < INPUT // RECORD:
                chunks.append(self._connection.recv(RECORD))
        except Error as error:
            ended = error
        return b"".join(chunks), ended

    def write(self, data: bytes, start: int, stop: int) -> int:
        return self._connection.send(memoryview(data)[start : min(stop, start + RECORD)])

    def outgoing(self) -> bytes:
        try:
            return self._connection.bio_read(OUTPUT)
        except WantReadError:
            return b""


def direct_records(lib: Any, ffi: Any) -> Callable[[Connection], Records]:
    """:class:`Records` without pyOpenSSL in between.

    :param lib: OpenSSL's functions, as pyOpenSSL has them; ``ffi`` makes their arguments.
    :raises AttributeError: something that is needed is not there.
    """
    ssl_read, ssl_write, get_error = lib.SSL_read, lib.SSL_write, lib.SSL_get_error
    bio_read, bio_write, bio_size = lib.BIO_read, lib.BIO_write, lib.BIO_get_mem_data
    want_read, null = lib.SSL_ERROR_WANT_READ, ffi.NULL
    view_of, buffer_of = ffi.from_buffer, ffi.buffer
    plain, sealed = ffi.new("char[]", PLAIN), ffi.new("char[]", OUTPUT)

    class DirectRecords:
        __slots__ = ("_connection", "_into", "_outof", "_ssl")

        def __init__(self, connection: Any) -> None:
            self._connection = connection
            # The first owns the others. Kept here, as pyOpenSSL's own attributes are slow.
            self._ssl = connection._ssl
            self._into, self._outof = connection._into_ssl, connection._from_ssl

        def receive(self, data: bytes, start: int, stop: int) -> tuple[bytes, Error | None]:
            view, size = view_of(data), 0
            ended: Error | None = NOTHING
            # In parts, so that OpenSSL's own buffer, which never shrinks, stays small.
            while start < stop and (ended is NOTHING or ended is DRAINED):
                part = min(stop - start, GROUP)
                if bio_write(self._into, view + start, part) != part:
                    raise MemoryError("OpenSSL has no room for what was received")
                start += part
                size, ended = self._decrypt(size)
            return buffer_of(plain, size)[:] if size else b"", ended

        def read(self) -> tuple[bytes, Error | None]:
            size, ended = self._decrypt(0)
            return buffer_of(plain, size)[:] if size else b"", ended

        def _decrypt(self, size: int) -> tuple[int, Error | None]:
            ssl = self._ssl
            while size < PLAIN:
                got = ssl_read(ssl, plain + size, PLAIN - size)
                if got <= 0:
                    return size, self._why(got)
                size += got
                # OpenSSL takes a record from there at a time, and no more than it.
                if got < RECORD and size < PLAIN and not bio_size(self._into, null):
                    return size, DRAINED
            return size, None

        def write(self, data: bytes, start: int, stop: int) -> int:
            ssl, view, done = self._ssl, view_of(data), start
            while done < stop:
                taken = ssl_write(ssl, view + done, stop - done)
                if taken <= 0:
                    ended = self._why(taken)
                    if done == start:
                        # Never the one that all share: it would collect tracebacks.
                        raise WantReadError if ended is NOTHING else ended
                    break
                done += taken
            return done - start

        def outgoing(self) -> bytes:
            size = bio_read(self._outof, sealed, OUTPUT)
            return buffer_of(sealed, size)[:] if size > 0 else b""

        def _why(self, result: int) -> Error:
            if get_error(self._ssl, result) == want_read:
                return NOTHING
            try:
                self._connection._raise_ssl_error(self._ssl, result)
            except Error as error:
                return error
            raise AssertionError("a call of OpenSSL failed without an error")

    probe: Any = Connection(SSL.Context(SSL.TLS_METHOD), None)
    DirectRecords(probe)._connection._raise_ssl_error  # noqa: B018
    return DirectRecords


def fastest() -> Callable[[Connection], Records]:
    """The fastest that this pyOpenSSL allows."""
    try:
        return direct_records(SSL._lib, SSL._ffi)  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return PublicRecords
