"""The grammar of heads and fields (RFC 9110, 5; RFC 9112, 2 to 6), kept to the letter.

What two readers could understand differently is malformed here. httptools takes heads apart; before
it our own checks of the bytes, after it those of what the fields say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import httptools

from srrrs.http.head import CHUNKED, NO_BODY, Fields, Framing, Kind

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
TEXT: Final = rb"[\t -~\x80-\xff]"
"""A character of a field's value."""
MAX_HOST: Final = 253
"""Characters of a host name (RFC 1035, 2.3.4, as text)."""
LENGTH_DIGITS: Final = 18
"""Of a Content-Length: what fits is below 2**63 for every reader."""

_VISIBLE: Final = bytes(each for each in range(256) if each == 9 or 32 <= each != 127)
_BARE: Final = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LENGTH: Final = Kind.LENGTH
_NAME: Final = re.compile(TOKEN)
_LINES: Final = re.compile(rb"(?:(?:" + TOKEN + rb"):" + TEXT + rb"*+\r\n)*+")
_LINE: Final = re.compile(rb"([^:]+):[ \t]*([^\r]*)\r\n")
_HOST: Final = re.compile(
    r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)(?::([0-9]{0,5}))?"
)
_COMMON: Final = """
    Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Age Authorization
    Cache-Control Connection Content-Disposition Content-Encoding Content-Language Content-Length
    Content-Location Content-Range Content-Security-Policy Content-Type Cookie DNT Date ETag Expect
    Expires Forwarded From Host If-Match If-Modified-Since If-None-Match If-Range
    If-Unmodified-Since Keep-Alive Last-Modified Link Location Origin Pragma Priority Range Referer
    Referrer-Policy Retry-After Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest
    Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-GPC Sec-WebSocket-Accept
    Sec-WebSocket-Extensions Sec-WebSocket-Key Sec-WebSocket-Protocol Sec-WebSocket-Version Server
    Set-Cookie Strict-Transport-Security TE Trailer Transfer-Encoding Upgrade
    Upgrade-Insecure-Requests User-Agent Vary Via WWW-Authenticate X-Content-Type-Options
    X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Frame-Options X-Powered-By X-Request-Id
    X-Requested-With
"""
_LOWER: Final = {
    form.encode(): name.lower().encode()
    for name in _COMMON.split()
    for form in (name, name.lower(), name.title())
}
"""Common names as they are usually written: the check and the change to lower case, done before."""


_DECIDING: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"}
)


class Malformed(Exception):
    """What is wrong; the reader makes it an error of its own."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class Collector:
    """Takes what httptools calls out, and holds each field to the grammar once more.

    :ivar deciding: the values of the fields that decide how the message is read.
    """

    __slots__ = ("deciding", "done", "fields")

    def __init__(self) -> None:
        self.fields: Fields = []
        self.deciding: dict[bytes, Sequence[bytes]] = {}
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = _LOWER.get(name)
        if lower is None:
            if not _NAME.fullmatch(name):
                raise Malformed("a field's name is malformed")
            lower = name.lower()
        value = value.strip(b" \t")
        self.fields.append((lower, value))
        if lower in _DECIDING:
            self.deciding[lower] = (*self.deciding.get(lower, ()), value)

    def on_headers_complete(self) -> None:
        self.done = True


def take_apart(parser: Callable[[Collector], Any], head: bytes, most: int) -> Collector:
    """The fields of a head.

    :param parser: of httptools.
    :param head: a whole one, whose first line was checked.
    :param most: how many fields there may be.
    :raises Malformed: it is malformed.
    """
    lines = check_bytes(head)
    collector = Collector()
    try:
        parser(collector).feed_data(head)
    except httptools.HttpParserInvalidMethodError:
        raise Malformed("its method is not known here", 501) from None
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        pass  # Behind the head it matters not: what follows is not its to judge.
    found = len(collector.fields)
    if not collector.done or found != lines - 2:
        raise Malformed("a field is malformed")  # A folded one among others.
    if found > most:
        raise Malformed("it has too many fields", 431)
    return collector


def check_bytes(head: bytes) -> int:
    """Lines end in CRLF, and there are no other control characters.

    :param head: a whole one.
    :returns: how many lines there are.
    :raises Malformed: it is not so.
    """
    lines = head.count(b"\r\n")
    # What is left are the controls: those that end lines, and no other.
    if len(head.translate(None, _VISIBLE)) != 2 * lines:
        raise Malformed("it holds characters that no message may hold")
    return lines


def check_part(part: bytes, start: int) -> None:
    """As :func:`check_bytes`, for a head that is not complete, so that whoever sends something else
    is not kept waiting.

    :param start: where to begin; a CR before it may have waited for its LF.
    :raises Malformed: it cannot become a good one.
    """
    if _BARE.search(part, max(0, start - 1)):
        raise Malformed("it holds characters that no message may hold")


def parse_trailers(block: bytes, most: int) -> Fields:
    """The fields after a chunked body.

    :param block: their lines, with each one's CRLF.
    :param most: how many there may be.
    :raises Malformed: one is none, or there are too many.
    """
    check_bytes(block)
    if not _LINES.fullmatch(block):
        raise Malformed("a trailer is malformed")
    fields = [(name.lower(), value.rstrip(b" \t")) for name, value in _LINE.findall(block)]
    if len(fields) > most:
        raise Malformed("it has too many trailers", 431)
    return fields


def parse_length(value: bytes) -> int:
    """What a Content-Length says.

    :raises Malformed: it is not one plain decimal number.
    """
    # Only ASCII digits are digits to bytes. Some readers take a leading zero for octal.
    if not value.isdigit() or len(value) > LENGTH_DIGITS or (value[0] == 0x30 and value != b"0"):
        raise Malformed("its length is malformed")
    return int(value)


def parse_framing(
    lengths: Sequence[bytes], codings: Sequence[bytes], version: tuple[int, int]
) -> Framing:
    """The one rule that ends the body; :data:`NO_BODY` where the fields name none.

    :param lengths: the values of Content-Length, a line each.
    :param codings: those of Transfer-Encoding.
    :raises Malformed: there are two, or one that cannot be told (RFC 9112, 6.1 to 6.3).
    """
    if codings:
        if lengths or len(codings) > 1:
            raise Malformed("its length is stated twice")
        if version < (1, 1) or codings[0].lower() != b"chunked":
            raise Malformed("its length cannot be told")
        return CHUNKED
    if lengths:
        if len(lengths) > 1:
            raise Malformed("its length is stated twice")
        return Framing(_LENGTH, parse_length(lengths[0]))
    return NO_BODY


def options(values: Sequence[bytes]) -> frozenset[bytes]:
    """The members of a list of tokens, such as Connection's, in lower case.

    :raises Malformed: one is no token.
    """
    value = values[0] if len(values) == 1 else b",".join(values)
    return _options(value) if len(value) <= 64 else _options.__wrapped__(value)


@lru_cache(256)
def _options(value: bytes) -> frozenset[bytes]:
    members = {member.strip(b" \t").lower() for member in value.split(b",")} - {b""}
    if not all(map(_NAME.fullmatch, members)):
        raise Malformed("a list is malformed")
    return frozenset(members)


def split_authority(value: bytes) -> tuple[str, int | None]:
    """Host (lower-case, without brackets or final dot) and port of a Host field.

    :raises Malformed: it is none.
    """
    if len(value) > MAX_HOST + 16:
        raise Malformed("its host is malformed")
    return _split(value)


@lru_cache(1024)
def _split(value: bytes) -> tuple[str, int | None]:
    match = _HOST.fullmatch(value.decode("latin-1").strip(" \t").lower())
    host = "" if match is None else match[1] or match[2]
    if match is None or len(host) > MAX_HOST:
        raise Malformed("its host is malformed")
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port < 65536:
        raise Malformed("its host is malformed")
    return host, port
