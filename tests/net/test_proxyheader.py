"""PROXY headers: read as they were written, whole or not at all."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.net.proxyheader import (
    V1_BYTES,
    V2_BYTES,
    BadProxyHeader,
    Place,
    ProxyHeader,
    Version,
    may_begin,
    read_header,
    write_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PORTS = st.integers(0, 65535)
PLACES = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), PORTS),
    st.tuples(
        st.ip_addresses(v=6)
        .map(lambda ip: IPv6Address(int(ip)))
        .filter(lambda ip: ip.ipv4_mapped is None)
        .map(str),
        PORTS,
    ),
)


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


TCP4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 50000, 443)
TCP6 = IPv6Address("2001:db8::1").packed + IPv6Address("::1").packed + struct.pack("!HH", 1, 2)
SSL_TLV = b"\x20\x00\x05\x01\x00\x00\x00\x00"


@given(st.sampled_from(["v1", "v2"]), st.none() | PLACES, st.none() | PLACES, st.binary())
def test_what_is_written_is_read(
    version: Version, source: Place | None, destination: Place | None, rest: bytes
) -> None:
    """Either version tells the source, whatever the destination, and where it ends."""
    header = write_header(version, source, destination)
    assert may_begin(header)
    assert read_header(header + rest) == (ProxyHeader(source), len(header))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n", ProxyHeader(("192.0.2.1", 50000))),
        (b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n", ProxyHeader(("2001:db8::1", 0))),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ProxyHeader(("192.0.2.1", 1))),
        (b"PROXY UNKNOWN\r\n", ProxyHeader(None)),
        (b"PROXY UNKNOWN ffff:f::f ffff:f::f 65535 65535\r\n", ProxyHeader(None)),
        (v2(0x21, 0x11, TCP4), ProxyHeader(("192.0.2.1", 50000))),
        (v2(0x21, 0x21, TCP6), ProxyHeader(("2001:db8::1", 1))),
        (v2(0x21, 0x11, TCP4 + b"\x04\x00\x02xx"), ProxyHeader(("192.0.2.1", 50000))),
        (v2(0x21, 0x11, TCP4 + SSL_TLV), ProxyHeader(("192.0.2.1", 50000), secure=True)),
        (v2(0x21, 0x11, TCP4 + SSL_TLV[:3] + bytes(5)), ProxyHeader(("192.0.2.1", 50000))),
        (v2(0x21, 0x00, b"whatever"), ProxyHeader(None)),
        (v2(0x21, 0x31, bytes(216)), ProxyHeader(None)),
        (v2(0x20, 0x00, b""), ProxyHeader(None)),
        (v2(0x20, 0x11, TCP4), ProxyHeader(None)),
        (v2(0x20, 0xFF, b"x"), ProxyHeader(None)),
    ],
)
def test_good_headers(data: bytes, expected: ProxyHeader) -> None:
    """Every kind that the format has, however it is cut."""
    assert read_header(data + b"GET") == (expected, len(data))
    for size in range(1, len(data)):
        assert may_begin(data[:size])
        assert read_header(data[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 a.example 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN\rx\r\n",
        b"PROXY UNKNOWN " + b"x" * V1_BYTES,
        b"PROXY UNKNOWN " + b"x" * (V1_BYTES - 15) + b"\r\n",
        v2(0x11, 0x11, TCP4),
        v2(0x22, 0x11, TCP4),
        v2(0x21, 0x12, TCP4),
        v2(0x21, 0x41, TCP4),
        v2(0x21, 0x11, TCP4[:-1]),
        v2(0x21, 0x21, TCP4),
        v2(0x21, 0x11, TCP4 + b"\x04"),
        v2(0x21, 0x11, TCP4 + b"\x04\x00\x03xx"),
        SIGNATURE + b"\x21\x11\xff\xff",
        v2(0x20, 0x00, bytes(V2_BYTES)),
    ],
)
def test_bad_headers(data: bytes) -> None:
    """What is malformed, too long or not for TCP is refused, and a cut one never waited for
    beyond the cap."""
    with pytest.raises(BadProxyHeader):
        read_header(data)
    for size in range(1, len(data)):
        if not may_begin(data[:size]):
            break
        try:
            assert read_header(data[:size]) is None
        except BadProxyHeader:
            break


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1", b"PROPFIND / ", b"\x16\x03\x01", b"PRI * "]
)
def test_other_beginnings(data: bytes) -> None:
    """HTTP and TLS are told from it within a few bytes."""
    assert not may_begin(data)


@given(
    st.one_of(st.binary(), st.binary().map(b"PROXY ".__add__), st.binary().map(SIGNATURE.__add__))
)
def test_anything(data: bytes) -> None:
    """Whatever comes, it is a header, or more is needed within the cap, or it is refused."""
    if not data or not may_begin(data):
        return
    try:
        found = read_header(data)
    except BadProxyHeader:
        return
    if found is None:
        assert len(data) < V2_BYTES
    else:
        assert found[1] <= len(data)


def test_families_never_mix() -> None:
    """A destination of another family than the source's is left unsaid."""
    assert write_header("v1", ("192.0.2.1", 1), ("2001:db8::1", 2)).split()[2:4] == [
        b"192.0.2.1",
        b"0.0.0.0",
    ]
    assert write_header("v1", ("2001:db8::1", 1), None) == b"PROXY TCP6 2001:db8::1 :: 1 0\r\n"
    mapped = write_header("v1", ("::ffff:192.0.2.1", 1), ("::ffff:192.0.2.2", 2))
    assert mapped == b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    assert read_header(write_header("v2", ("fe80::1%eth0", 1), None)) == (
        ProxyHeader(("fe80::1", 1)),
        52,
    )


@pytest.mark.parametrize("place", [("site.example", 1), ("192.0.2.1", 65536), ("192.0.2.1", -1)])
def test_no_address(place: Place) -> None:
    """What cannot be said is no header."""
    with pytest.raises(ValueError, match=r"is no port|does not appear"):
        write_header("v2", place, None)


def test_bytes_of_the_specification() -> None:
    """Version 2 looks as its specification draws it."""
    header = write_header("v2", ("192.0.2.1", 50000), ("192.0.2.2", 443))
    assert header == v2(0x21, 0x11, TCP4)
    assert IPv4Address(header[16:20]) == IPv4Address("192.0.2.1")
