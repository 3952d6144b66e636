"""ClientHellos: what real ones ask for is seen, and no odd one is misread."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from srrrs.net.clienthello import HELLO_BYTES, WIRE_BYTES, BadHello, ClientHello, alert, read_hello


def real(name: bytes | None = b"Site.Example", protocols: tuple[bytes, ...] = (b"h2",)) -> bytes:
    """What OpenSSL's client sends."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if protocols:
        context.set_alpn_protos(list(protocols))
    connection = SSL.Connection(context, None)
    if name is not None:
        connection.set_tlsext_host_name(name)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


def records(message: bytes, *sizes: int) -> bytes:
    """A handshake message in records of those sizes, the last of them for all the rest."""
    found = b""
    for size in (*sizes, len(message)):
        part, message = message[:size], message[size:]
        if part:
            found += b"\x16\x03\x01" + struct.pack("!H", len(part)) + part
    return found


def hello(*extensions: tuple[int, bytes], tail: bytes = b"") -> bytes:
    """A ClientHello's message of our own."""
    added = b"".join(struct.pack("!HH", kind, len(body)) + body for kind, body in extensions)
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    if extensions:
        body += struct.pack("!H", len(added)) + added
    body += tail
    return b"\1" + len(body).to_bytes(3) + body


def names(*entries: tuple[int, bytes]) -> tuple[int, bytes]:
    """The extension of server names."""
    inner = b"".join(struct.pack("!BH", kind, len(name)) + name for kind, name in entries)
    return 0, struct.pack("!H", len(inner)) + inner


@pytest.mark.parametrize(
    ("name", "protocols", "expected"),
    [
        (b"Site.Example", (b"h2", b"http/1.1"), ClientHello("site.example", (b"h2", b"http/1.1"))),
        (b"site.example.", (), ClientHello("site.example")),
        (None, (), ClientHello(None)),
    ],
)
def test_openssl(name: bytes | None, protocols: tuple[bytes, ...], expected: ClientHello) -> None:
    """A real client's is read, whatever follows it."""
    data = real(name, protocols)
    assert read_hello(data) == expected
    assert read_hello(data + b"\x17\x03\x03\x00\x01x") == expected


@given(st.lists(st.integers(1, 200), max_size=20), st.integers(1, 400))
def test_cuts(sizes: list[int], step: int) -> None:
    """Cut into records and pieces at will it is the same; never more is asked for than it takes."""
    wire = records(real()[5:], *sizes)
    expected = ClientHello("site.example", (b"h2",))
    have = 0
    while isinstance(found := read_hello(wire[:have]), int):
        assert have < found <= len(wire)
        have = min(found, have + step)
    assert found == expected
    assert have == len(wire)


def test_extremes() -> None:
    """As long as the cap it is taken; longer, or in too many records, it is not waited for."""
    spare = HELLO_BYTES - len(hello((21, b"")))
    longest = hello((21, bytes(spare)))
    assert len(longest) == HELLO_BYTES
    assert read_hello(records(longest)) == ClientHello(None)
    assert len(records(longest, *[1] * 63)) <= WIRE_BYTES
    for wire in (
        records(hello((21, bytes(spare + 1)))[:100]),
        records(longest, *[1] * 64),
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x02",
        b"\x80\x2e\x01\x03\x01",
        records(b"\2\0\0\0"),
        records(real()[5:], 50)[:55] + b"\x15\x03\x03\x00\x02\x02\x50",
    ):
        with pytest.raises(BadHello):
            read_hello(wire)


@pytest.mark.parametrize(
    "message",
    [
        hello(names((0, b"a.example")), names((0, b"b.example"))),
        hello(names((0, b"a.example"), (0, b"b.example"))),
        hello((0, b"")),
        hello((0, b"\0\0")),
        hello((0, b"\0\x05\0\0\x09a")),
        hello((0, names((0, b"a.example"))[1] + b"x")),
        hello((16, b"\0\x01\0")),
        hello((16, b"\0\x03\x05h2")),
        hello((21, b""), tail=b"x"),
        hello((21, b""))[:-1][:4] + hello((21, b""))[4:-1] + b"\x01",
        b"\1\0\0\5abcde",
    ],
)
def test_malformed(message: bytes) -> None:
    """Whatever could be read in two ways is refused."""
    with pytest.raises(BadHello):
        read_hello(records(message))


@pytest.mark.parametrize(
    "name", [b"", b"a..example", b"a.example\0.b", b"*.example", b"192.0.2.1:1", b"x" * 64, b"\xff"]
)
def test_names_that_are_none(name: bytes) -> None:
    """They count as if there were none."""
    assert read_hello(records(hello(names((0, name))))) == ClientHello(None)


def test_no_extensions() -> None:
    """A client of old that knows none."""
    assert read_hello(records(hello())) == ClientHello(None)


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_anything(data: bytes, at: int, byte: int) -> None:
    """Noise, and real ones with a byte changed, end in one of three ways."""
    changed = bytearray(real())
    changed[min(at, len(changed) - 1)] = byte
    for each in (data, b"\x16\x03\x01" + data, bytes(changed)):
        try:
            found = read_hello(each)
        except BadHello:
            continue
        if isinstance(found, int):
            assert len(each) < found <= WIRE_BYTES


def test_an_alert_is_one_to_openssl() -> None:
    """A client is told why it is turned away."""
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    connection.bio_write(alert(112))
    with pytest.raises(SSL.Error, match="unrecognized name"):
        connection.do_handshake()
