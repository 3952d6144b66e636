"""The PROXY protocol, versions 1 and 2: who a proxy says that its client is, ahead of all else.

As of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, whose sections are named here.
Only TCP is spoken. Pure: bytes in, values out.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, TypeAlias

from srrrs.addresses import Address, unmapped

Version: TypeAlias = Literal["v1", "v2"]
Place: TypeAlias = tuple[str, int]
"""An IP address as text, and a port."""

V1_BYTES: Final = 107
"""A header of version 1 at the most, with its line end (2.1)."""
V2_BYTES: Final = 4096
"""A header of version 2 at the most. The format would allow 64 KiB, for what nobody reads here."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = struct.Struct("!12sBBH")
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_TLV_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class BadProxyHeader(Exception):
    """It begins as a header, and is none; says nothing of what was sent."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of its client.

    :ivar source: where it connects from; ``None``: the proxy does not say, or speaks for itself.
    :ivar secure: it speaks TLS to the proxy, which ends it.
    """

    source: Place | None
    secure: bool = False


def may_begin(data: bytes) -> bool:
    """Whether ``data``, not empty, can be the beginning of a header. Nothing else that a listener
    knows begins so: no method of HTTP, and no record of TLS."""
    return any(data.startswith(mark) or mark.startswith(data) for mark in (_V1, _V2))


def read_header(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header that ``data``, of which :func:`may_begin` is true, begins with, and its bytes.

    :return: ``None`` where more is needed.
    :raises BadProxyHeader: it is malformed, or too long.
    """
    if data.startswith(_V2):
        return _read_v2(data)
    if len(data) < len(_V1) or _V2.startswith(data):
        return None
    return _read_v1(data)


def _read_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\n", 0, V1_BYTES)
    if end < 0:
        if len(data) >= V1_BYTES:
            raise BadProxyHeader("its line is too long")
        return None
    match = _LINE.fullmatch(data[: end + 1])
    if match is None:
        raise BadProxyHeader("its line is malformed")
    if match[1] is None:
        return ProxyHeader(None), end + 1
    family = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        source, _ = (family(text.decode()) for text in (match[2], match[3]))
    except ValueError:
        raise BadProxyHeader("it holds a malformed address") from None
    port, other = int(match[4]), int(match[5])
    if max(port, other) > 65535:
        raise BadProxyHeader("it holds a malformed port")
    return ProxyHeader((str(unmapped(source)), port)), end + 1


def _read_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    size = _V2_HEAD.size + length
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("its version or command is unknown")
    if size > V2_BYTES:
        raise BadProxyHeader("it is too long")
    if len(data) < size:
        return None
    if command == _LOCAL:  # A check of the proxy's own: whatever else stands there is skipped.
        return ProxyHeader(None), size
    fixed = _ADDRESS_BYTES.get(family)
    if fixed is None or length < fixed:
        raise BadProxyHeader("its address family is unknown, or its addresses are cut")
    body = data[_V2_HEAD.size : size]
    source: Place | None = None
    if family == _TCP4:
        source = str(IPv4Address(body[:4])), int.from_bytes(body[8:10])
    elif family == _TCP6:
        source = str(unmapped(IPv6Address(body[:16]))), int.from_bytes(body[32:34])
    # Without a family the rest is nobody's to read (2.2).
    secure = family != _UNSPEC and _says_tls(body[fixed:])
    return ProxyHeader(source, secure), size


def _says_tls(tlvs: bytes) -> bool:
    """Whether among the additional fields (2.2.1) is that of a client's TLS."""
    secure = False
    at = 0
    while at < len(tlvs):
        start = at + 3
        if start > len(tlvs):
            raise BadProxyHeader("its additional fields are cut")
        stop = start + int.from_bytes(tlvs[at + 1 : start])
        if stop > len(tlvs):
            raise BadProxyHeader("its additional fields are cut")
        if tlvs[at] == _TLV_SSL and stop > start:
            secure = bool(tlvs[start] & _CLIENT_SSL)
        at = stop
    return secure


def write_header(version: Version, source: Place | None, destination: Place | None) -> bytes:
    """The header for a connection from ``source``.

    :param source: ``None``: it has no IP address, or nobody knows.
    :param destination: where it went to; where that is not known, or an address of the other
        family, the header has the unspecified address in its place.
    :raises ValueError: one is no IP address, or no port.
    """
    if source is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else _V2_HEAD.pack(_V2, _PROXY, _UNSPEC, 0)
    (here, port), (there, other) = _read(source), _read(destination or ("0.0.0.0", 0))
    if here.version != there.version:
        there = IPv4Address(0) if here.version == 4 else IPv6Address(0)
    if version == "v1":
        return f"PROXY TCP{here.version} {here} {there} {port} {other}\r\n".encode()
    body = here.packed + there.packed + struct.pack("!HH", port, other)
    family = _TCP4 if here.version == 4 else _TCP6
    return _V2_HEAD.pack(_V2, _PROXY, family, len(body)) + body


def _read(place: Place) -> tuple[Address, int]:
    host, port = place
    if not 0 <= port < 65536:
        raise ValueError(f"{port} is no port")
    return unmapped(ip_address(host.partition("%")[0])), port
