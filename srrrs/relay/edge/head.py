"""The head of a connection's first request: parsed by httptools, and held to stricter rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httptools

END: Final = b"\r\n\r\n"

# Anything but these would be read differently by somebody (RFC 9112, 2.2 and 9110, 5.5): bare CR
# or LF, NUL and other controls.
_BAD_BYTES: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FOLD: Final = re.compile(rb"\r\n[ \t]")
_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]\r\n")
_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::[0-9]{0,5})?")


class BadHead(Exception):
    """The head cannot be served: a status and a line for the page."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Head:
    """What routing needs of a request.

    :ivar host: lower-case, without port, brackets or final dot.
    """

    method: str
    target: str
    host: str
    upgrade: bool


class _Collector:
    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.done = True


def parse_head(data: bytes) -> Head:
    """The head in ``data``, which ends with the empty line.

    :raises BadHead: it is malformed or ambiguous.
    """
    if _BAD_BYTES.search(data) or _FOLD.search(data):
        raise BadHead(400, "The request holds characters that no request may hold.")
    if not _LINE.match(data):
        raise BadHead(400, "The request line is malformed.")
    lines = data[: -len(END)].split(b"\r\n")
    if not all(map(_FIELD.match, lines[1:])):
        raise BadHead(400, "A header field is malformed.")
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise BadHead(400, "The request is malformed.") from None
    if not collector.done:
        raise BadHead(400, "The request is malformed.")
    names = [name for name, _ in collector.fields]
    hosts = [value for name, value in collector.fields if name == b"host"]
    if len(hosts) != 1:
        raise BadHead(400, "A request needs one Host header.")
    if b"transfer-encoding" in names and b"content-length" in names:
        raise BadHead(400, "The request states its length in two ways.")
    if names.count(b"content-length") > 1 or names.count(b"transfer-encoding") > 1:
        raise BadHead(400, "The request states its length twice.")
    return Head(
        parser.get_method().decode("ascii"),
        collector.target.decode("latin-1"),
        parse_host(hosts[0]),
        b"upgrade" in names,
    )


def parse_host(value: bytes) -> str:
    """The host of a Host header, lower-case, without port, brackets or final dot.

    :raises BadHead: it is no host.
    """
    match = _HOST.fullmatch(value.decode("latin-1").strip(" \t").lower())
    host = "" if match is None else match[1].strip("[]").removesuffix(".")
    if not host:
        raise BadHead(400, "The Host header is malformed.")
    return host
