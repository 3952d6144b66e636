"""Which fields go on, and what the relay says of its own (RFC 9110, 7.6; RFC 7239).

No ``Via`` is added, and one that is there stays: servers stop compressing for whoever sends it
(nginx's ``gzip_proxied``), and the relay stands for the service, as its own front.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from srrrs.addresses import Address, parse_address
from srrrs.http.fields import options
from srrrs.http.head import CHUNKED, NO_BODY, Fields, RequestHead, ResponseHead

HOP: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""What concerns one connection alone, and how its messages end (RFC 9110, 7.6.1)."""
CLAIMS: Final = frozenset({b"forwarded", b"x-real-ip", b"x-request-id"})
"""What is said of the visitor, beside all that begins with ``x-forwarded-``."""

_AUTHORITY: Final = re.compile(rb"[A-Za-z0-9._\[\]:-]{1,300}")
_REQUEST_SPECIAL: Final = HOP | CLAIMS | {b"host", b"expect", b"proxy"}
_RESPONSE_SPECIAL: Final = HOP | {b"alt-svc", b"set-cookie"}
_NOT_IN_TRAILERS: Final = (
    _REQUEST_SPECIAL
    | _RESPONSE_SPECIAL
    | {
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"vary",
        b"www-authenticate",
    }
)
_PLAIN: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"cache-control",
        b"content-type",
        b"cookie",
        b"if-modified-since",
        b"if-none-match",
        b"origin",
        b"range",
        b"referer",
        b"user-agent",
    }
)
"""Common fields of requests that go on unless ``Connection`` names them."""
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_SCHEMES: Final = {b"http": False, b"ws": False, b"https": True, b"wss": True}
_DOMAIN: Final = re.compile(rb";[ \t]*domain(?=[ \t]*(?:=|;|\Z))", re.IGNORECASE)


class Forwarder:
    """Makes the fields of what is passed on, for one visitor connection.

    :param address: of the peer, an IP address as text; empty where it has none (a UNIX socket).
    :param secure: the visitor speaks TLS to this listener.
    :param trusted: the peer is a proxy whose word is believed: what it says of the visitor is kept
        or added to, and replaced where anybody else says it.
    """

    __slots__ = ("_address", "_node", "_scheme", "_secure", "_trusted")

    def __init__(self, address: str, secure: bool, trusted: bool) -> None:
        parsed = parse_address(address)
        self._address = b"" if parsed is None else str(parsed).encode("ascii")
        self._node = _node(parsed)
        self._secure = secure
        self._scheme = b"https" if secure else b"http"
        self._trusted = trusted

    def request_fields(self, head: RequestHead, request_id: bytes) -> Fields:
        """What a service is sent: ``host`` first, without the framing's fields (the writer's part),
        without anything that concerns this connection alone.

        :param request_id: what :meth:`request_id` gave.
        """
        authority = head.authority
        fields = [(b"host", authority)]
        named = _named(head.fields)
        claims: dict[bytes, list[bytes]] = {}
        for each in head.fields:
            name = each[0]
            if named and name in named:
                if name == b"te" and _takes_trailers(each[1]):
                    fields.append((b"te", b"trailers"))
            elif name in _PLAIN:
                fields.append(each)
            elif name in _REQUEST_SPECIAL:
                if name == b"expect" and head.expect_continue:
                    fields.append((b"expect", b"100-continue"))
                elif name == b"trailer" and head.framing == CHUNKED:
                    fields.append(each)
                elif name in CLAIMS and self._trusted:
                    claims.setdefault(name, []).append(each[1])
            elif b"_" in name:
                # Many servers hand fields to programs with "-" made "_": one for the other.
                pass
            elif name.startswith(b"x-forwarded-"):
                if self._trusted:
                    claims.setdefault(name, []).append(each[1])
            else:
                fields.append(each)
        forwarded = b"%b;host=%b;proto=%b" % (self._node, _quoted(authority), self._scheme)
        if claims:
            self._add_claims(fields, claims, authority, forwarded)
        else:
            if self._address:
                fields.append((b"x-forwarded-for", self._address))
            fields += (
                (b"x-forwarded-proto", self._scheme),
                (b"x-forwarded-host", authority),
                (b"forwarded", forwarded),
            )
        fields.append((b"x-request-id", request_id))
        return fields

    def _add_claims(
        self, fields: Fields, claims: dict[bytes, list[bytes]], authority: bytes, forwarded: bytes
    ) -> None:
        """What a trusted proxy says, with our own part: added to lists, and where it is silent."""
        claims.pop(b"x-request-id", None)
        chain = claims.pop(b"x-forwarded-for", [])
        chain_given = b",".join(chain)
        chain = [value for value in [*chain, self._address] if value]
        if chain:
            fields.append((b"x-forwarded-for", b", ".join(chain)))
        claims.setdefault(b"x-forwarded-proto", [self._scheme])
        claims.setdefault(b"x-forwarded-host", [authority])
        path = claims.pop(b"forwarded", [])
        if chain_given and not path:
            # The two must not tell different stories.
            path = [_told(chain_given, claims)]
        fields.append((b"forwarded", b", ".join(value for value in [*path, forwarded] if value)))
        fields += ((name, value) for name, values in claims.items() for value in values)

    def request_id(self, head: RequestHead, own: bytes) -> bytes:
        """The id that the request goes by: a trusted proxy's, or ``own``."""
        if self._trusted:
            given = head.values(b"x-request-id")
            if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
                return given[0]
        return own

    def is_secure(self, head: RequestHead) -> bool:
        """Whether the visitor came by TLS, by the word of a trusted proxy or as seen here."""
        if self._trusted:
            given = head.values(b"x-forwarded-proto")
            if len(given) == 1:
                return _SCHEMES.get(given[0].lower(), self._secure)
        return self._secure


def _node(address: Address | None) -> bytes:
    """Who, as RFC 7239, 6, writes it; ``None``: nobody knows."""
    if address is None:
        return b"for=unknown"
    return (f'for="[{address}]"' if address.version == 6 else f"for={address}").encode("ascii")


def _quoted(authority: bytes) -> bytes:
    return b'"%b"' % authority if b":" in authority else authority


def _listed(text: str) -> Address | None:
    """A member of ``X-Forwarded-For``, which may have a port."""
    return parse_address(_without_port(text.strip(" \t")))


def _told(chain: bytes, claims: dict[bytes, list[bytes]]) -> bytes:
    """What ``X-Forwarded-…`` say, in the words of ``Forwarded``: the visitor's host and scheme with
    the first address, which is the visitor's."""
    first, *others = (_node(_listed(each)) for each in chain.decode("latin-1").split(","))
    host, scheme = claims[b"x-forwarded-host"][-1], claims[b"x-forwarded-proto"][-1].lower()
    if _AUTHORITY.fullmatch(host):
        first += b";host=" + _quoted(host)
    if scheme in (b"http", b"https"):
        first += b";proto=" + scheme
    return b", ".join([first, *others])


def visitor_address(head: RequestHead, peer: str, is_trusted: Callable[[str], bool]) -> str:
    """Who asks: the last address of ``X-Forwarded-For`` that is no trusted proxy's.

    :param peer: where the connection comes from; it is the answer unless it is trusted.
    """
    address = peer
    if is_trusted(address):
        chain = b",".join(head.values(b"x-forwarded-for")).decode("latin-1").split(",")
        for each in reversed(chain):
            parsed = _listed(each)
            if parsed is None:
                break
            address = str(parsed)
            if not is_trusted(address):
                break
    return address


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, _ = text.partition(":")
    # More than one colon: an address of IPv6 without brackets.
    return host if colon and text.count(":") == 1 else text


def _named(fields: Fields) -> frozenset[bytes]:
    """What ``Connection`` names: it goes no further."""
    values = [value for name, value in fields if name == b"connection"]
    return options(values) if values else frozenset()


def _takes_trailers(value: bytes) -> bool:
    return any(each.strip(b" \t").lower() == b"trailers" for each in value.split(b","))


def response_fields(head: ResponseHead, host: str) -> Fields:
    """What a visitor is sent, without the framing's fields (but the length that a response without
    a body states: to HEAD, and a 304) and ``connection``, which are the writer's part.

    :param host: the service's own: no cookie may be set for more than it.
    """
    named = _named(head.fields)
    fields: Fields = []
    for each in head.fields:
        name = each[0]
        if name in _RESPONSE_SPECIAL:
            if name == b"set-cookie":
                fields.append((name, narrow_cookie(each[1], host)))
            elif name == b"content-length":
                if head.framing == NO_BODY and head.status >= 200 and head.status != 204:
                    fields.append(each)
            elif name == b"trailer" and head.framing == CHUNKED and name not in named:
                fields.append(each)
        elif name not in named:
            fields.append(each)
    return fields


def narrow_cookie(value: bytes, host: str) -> bytes:
    """A cookie as it may be set: its ``Domain`` goes unless that is the host or below it.

    What a browser might read as another domain than we do is not kept either.

    :param host: the service's own.
    """
    if not _DOMAIN.search(value):
        return value
    kept = []
    own = host.encode("idna" if not host.isascii() else "ascii")
    for index, part in enumerate(value.split(b";")):
        name, _, domain = part.partition(b"=")
        if index and name.strip(b" \t").lower() == b"domain":
            domain = domain.strip(b" \t").lower().removeprefix(b".")
            if domain != own and not domain.endswith(b"." + own):
                continue
        kept.append(part)
    return b";".join(kept)


def trailer_fields(trailers: Sequence[tuple[bytes, bytes]]) -> Fields:
    """The trailers that may go on (RFC 9110, 6.5.1): none that frames, routes, authenticates or
    changes how the message is read."""
    return [
        each
        for each in trailers
        if each[0] not in _NOT_IN_TRAILERS
        and b"_" not in each[0]
        and not each[0].startswith(b"x-forwarded-")
    ]
