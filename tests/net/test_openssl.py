"""Bytes in and out of TLS connections, by OpenSSL's calls and by pyOpenSSL's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError

from srrrs.net import openssl
from srrrs.net.openssl import GROUP, RECORD, Calls, DirectCalls, PublicCalls
from srrrs.net.tls import ServerIdentity, make_certificate

BOTH = pytest.mark.parametrize("calls", [DirectCalls(), PublicCalls()], ids=["direct", "public"])


def identity() -> ServerIdentity:
    key, now, day = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), timedelta(days=1)
    names = [x509.DNSName("relay.example")]
    return ServerIdentity(key, make_certificate(key, names, now - day, now + day))


def connections() -> tuple[Connection, Connection]:
    """Both ends of a connection; neither has shaken hands."""
    nobody: Any = None
    server = identity().context.serverConnectionForTLS(nobody)
    server.set_accept_state()
    client = Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    return server, client


def move(calls: Calls, here: Connection, there: Connection) -> int:
    """Take what one end has to send to the other; how many bytes that was."""
    size = 0
    while data := calls.outgoing(here):
        calls.feed(there, data, 0, len(data))
        size += len(data)
    return size


def shaken(calls: Calls) -> tuple[Connection, Connection]:
    """Both ends of a connection that is ready."""
    server, client = connections()
    for _ in range(3):
        for here, there in ((client, server), (server, client)):
            try:
                here.do_handshake()
            except WantReadError:
                pass
            move(calls, here, there)
    calls.read(client)  # the session's tickets
    return server, client


def write_all(calls: Calls, connection: Connection, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += calls.write(connection, data, done, len(data))


def test_the_direct_calls_are_used() -> None:
    """This pyOpenSSL has the names that they need."""
    assert isinstance(openssl.calls, DirectCalls)


def test_without_those_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyOpenSSL that renames something inside of it still works."""
    monkeypatch.delattr(SSL.Connection, "_raise_ssl_error")
    assert isinstance(openssl._best(), PublicCalls)


@BOTH
@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, GROUP, 3 * GROUP + 7])
def test_bytes_arrive(calls: Calls, size: int) -> None:
    """Whatever their number, a group at a time at the most, and then the reader is to wait."""
    server, client = shaken(calls)
    data = bytes(range(256)) * (size // 256 + 1)
    write_all(calls, client, data[:size])
    move(calls, client, server)
    got, ended = b"", None
    while ended is None:
        part, ended = calls.read(server)
        assert len(part) <= GROUP
        got += part
    assert isinstance(ended, WantReadError)
    assert got == data[:size]


@BOTH
def test_parts_of_what_was_received(calls: Calls) -> None:
    """Only the part named is written, and fed."""
    server, client = shaken(calls)
    assert calls.write(client, b"no yes no", 3, 6) == 3
    data = b"?" + calls.outgoing(client) + b"?"
    calls.feed(server, data, 1, 4)
    assert calls.read(server)[0] == b""
    calls.feed(server, data, 4, len(data) - 1)
    assert calls.read(server)[0] == b"yes"
    assert calls.outgoing(client) == b""


@BOTH
def test_before_the_handshake(calls: Calls) -> None:
    """Nothing can be written before; the error does not collect the tracebacks of others."""
    _, client = connections()
    for _ in range(2):
        with pytest.raises(WantReadError) as caught:
            calls.write(client, b"early", 0, 5)
        assert caught.value is not openssl.NOTHING


@BOTH
def test_farewell(calls: Calls) -> None:
    """What came before it is read, then the end."""
    server, client = shaken(calls)
    calls.write(client, b"last", 0, 4)
    client.shutdown()
    move(calls, client, server)
    data, ended = calls.read(server)
    assert (data, type(ended)) == (b"last", ZeroReturnError)


@BOTH
def test_forgery(calls: Calls) -> None:
    """A record that was changed on the way is an error, with OpenSSL's reason, and so is whatever
    comes after it; other connections go on."""
    server, client = shaken(calls)
    calls.write(client, b"honest", 0, 6)
    record = calls.outgoing(client)
    calls.feed(server, record[:-1] + bytes([record[-1] ^ 1]), 0, len(record))
    data, ended = calls.read(server)
    assert data == b""
    assert isinstance(ended, Error)
    assert "decrypt" in str(ended) or "mac" in str(ended)
    others = shaken(calls)
    calls.write(others[1], b"fine", 0, 4)
    move(calls, others[1], others[0])
    assert calls.read(others[0])[0] == b"fine"


@BOTH
def test_cut_off(calls: Calls) -> None:
    """An end without a farewell is an error."""
    server, _ = shaken(calls)
    server.bio_shutdown()
    data, ended = calls.read(server)
    assert data == b""
    assert isinstance(ended, Error)
    assert not isinstance(ended, WantReadError | ZeroReturnError)
