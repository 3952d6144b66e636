"""Bytes in and out of TLS connections, by OpenSSL's calls and by pyOpenSSL's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError

from srrrs.net import openssl
from srrrs.net.openssl import (
    GROUP,
    INPUT,
    PLAIN,
    RECORD,
    PublicRecords,
    Records,
    direct_records,
    fastest,
)
from srrrs.net.selfsigned import ServerIdentity, make_certificate

DIRECT = direct_records(SSL._lib, SSL._ffi)  # type: ignore[attr-defined]
KINDS = [pytest.param(DIRECT, id="direct"), pytest.param(PublicRecords, id="public")]
KIND = pytest.mark.parametrize("kind", KINDS)
Kind = Callable[[Connection], Records]


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


class Ends:
    """Both ends of a connection that is ready."""

    def __init__(self, kind: Kind) -> None:
        self.tls = connections()
        self.server, self.client = (kind(each) for each in self.tls)
        for _ in range(3):
            for end in (1, 0):
                try:
                    self.tls[end].do_handshake()
                except WantReadError:
                    pass
                self.carry(end)
        self.client.read()  # the session's tickets

    def carry(self, end: int) -> None:
        """Take what one end has to send to the other, unread."""
        while data := (self.server, self.client)[end].outgoing():
            self.tls[1 - end].bio_write(data)

    def up(self) -> None:
        """Take what the client has to send to the server, unread."""
        self.carry(1)

    def sent(self) -> bytes:
        """What the client has to send."""
        return b"".join(iter(self.client.outgoing, b""))


def write_all(end: Records, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += end.write(data, done, len(data))


def test_the_direct_way_is_taken() -> None:
    """This pyOpenSSL has the names that it needs."""
    assert fastest() is not PublicRecords


@pytest.mark.parametrize("name", ["_lib", "_ffi"])
def test_without_those_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyOpenSSL that renames what is inside of it still works."""
    monkeypatch.delattr(SSL, name)
    assert fastest() is PublicRecords


def test_without_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where a single one is missing."""
    monkeypatch.setattr(SSL, "_lib", SimpleNamespace(SSL_read=None))
    assert fastest() is PublicRecords


@KIND
@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, GROUP, INPUT, PLAIN + 1, 2 * PLAIN + 7])
def test_bytes_arrive(kind: Kind, size: int) -> None:
    """Whatever their number, so many at a time at the most, and then the reader is to wait."""
    ends = Ends(kind)
    data = bytes(range(256)) * (size // 256 + 1)
    write_all(ends.client, data[:size])
    ends.up()
    got, ended = b"", None
    while ended is None:
        part, ended = ends.server.read()
        assert len(part) <= PLAIN
        got += part
    assert isinstance(ended, WantReadError)
    assert got == data[:size]
    assert isinstance(ends.server.read()[1], WantReadError)


@KIND
@pytest.mark.parametrize("first", [1, 5, RECORD, GROUP + 1])
def test_all_that_is_taken_is_read(kind: Kind, first: int) -> None:
    """However much is taken, and whatever part of a record came before it."""
    ends = Ends(kind)
    data = bytes(range(256)) * (2 * INPUT // 256)
    write_all(ends.client, data)
    sent = ends.sent()
    got, start = b"", 0
    for stop in (first, *range(first + INPUT, len(sent), INPUT), len(sent)):
        part, ended = ends.server.receive(sent, start, stop)
        while ended is None:
            got += part
            part, ended = ends.server.read()
        assert isinstance(ended, WantReadError)
        got += part
        start = stop
    assert got == data


@KIND
def test_parts_of_what_was_received(kind: Kind) -> None:
    """Only the part named is written, and taken."""
    ends = Ends(kind)
    assert ends.client.write(b"no yes no", 3, 6) == 3
    data = b"?" + ends.sent() + b"?"
    parts = [ends.server.receive(data, *each) for each in ((1, 4), (4, 10), (10, len(data) - 1))]
    assert [part for part, _ in parts] == [b"", b"", b"yes"]
    assert all(isinstance(ended, WantReadError) for _, ended in parts)
    assert ends.client.outgoing() == b""


@KIND
def test_a_record_and_a_half(kind: Kind) -> None:
    """What is whole is read at once; the rest when it is there."""
    ends = Ends(kind)
    ends.client.write(b"one", 0, 3)
    ends.client.write(b"two", 0, 3)
    data = ends.sent()
    assert ends.server.receive(data, 0, len(data) - 5)[0] == b"one"
    assert ends.server.receive(data, len(data) - 5, len(data))[0] == b"two"


@KIND
def test_before_the_handshake(kind: Kind) -> None:
    """Nothing can be written before; the error does not collect the tracebacks of others."""
    client = kind(connections()[1])
    for _ in range(2):
        with pytest.raises(WantReadError) as caught:
            client.write(b"early", 0, 5)
        assert caught.value is not openssl.NOTHING


@KIND
def test_farewell(kind: Kind) -> None:
    """What came before it is read, then the end."""
    ends = Ends(kind)
    ends.client.write(b"last", 0, 4)
    ends.tls[1].shutdown()
    ends.up()
    data, ended = ends.server.read()
    assert (data, type(ended)) == (b"last", ZeroReturnError)


@KIND
def test_forgery(kind: Kind) -> None:
    """A record that was changed on the way is an error, with OpenSSL's reason, and the peer is to
    be told; other connections go on."""
    ends, others = Ends(kind), Ends(kind)
    ends.client.write(b"honest", 0, 6)
    record = ends.sent()
    forged = record[:-1] + bytes([record[-1] ^ 1])
    data, ended = ends.server.receive(forged, 0, len(forged))
    assert data == b""
    assert isinstance(ended, Error)
    assert "decrypt" in str(ended) or "mac" in str(ended)
    assert ends.server.outgoing()
    write_all(others.client, b"fine")
    others.up()
    assert others.server.read()[0] == b"fine"


@KIND
def test_cut_off(kind: Kind) -> None:
    """An end without a farewell is an error."""
    ends = Ends(kind)
    ends.tls[0].bio_shutdown()
    data, ended = ends.server.read()
    assert data == b""
    assert isinstance(ended, Error)
    assert not isinstance(ended, WantReadError | ZeroReturnError)
