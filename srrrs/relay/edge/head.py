"""The head of a connection's first request: parsed by httptools, and held to stricter rules.

What two readers could understand differently is refused (RFC 9112, 2.2, 3.2, 5 and 6.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import httptools

from srrrs.http.errors import BadRequest as BadHead

END: Final = b"\r\n\r\n"
MAX_HOST: Final = 253
"""Characters of a host name (RFC 1035, 2.3.4, as text)."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Bare CR or LF, NUL and other controls. A CR at the end may have its LF still to come.
_BAD_BYTES: Final = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE: Final = re.compile(_TOKEN + rb" [!-~]+ HTTP/1\.[01]\r\n")
_START: Final = re.compile(_TOKEN + rb"(?: |\Z)")
_FIELD: Final = re.compile(_TOKEN + rb":")
_FOLD: Final = re.compile(rb"\r\n[ \t]")
_LENGTH: Final = re.compile(rb"[0-9]+")
_HOST: Final = re.compile(
    r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)(?::[0-9]{0,5})?"
)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Head:
    """What routing needs of a request.

    :ivar version: ``1.0`` or ``1.1``.
    :ivar target: as it stands in the request line.
    :ivar host: lower-case, without port, brackets or final dot.
    :ivar fields: names in lower case, and values; secrets may be among them.
    """

    method: str
    target: bytes
    version: str
    host: str
    fields: tuple[tuple[bytes, bytes], ...] = field(repr=False)

    def values(self, name: bytes) -> list[bytes]:
        """The values of a field, one for each line that has it."""
        return [value for each, value in self.fields if each == name]


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


def check_beginning(data: bytes, start: int) -> None:
    """Whether ``data``, a head that is not complete yet, can still become a good one.

    Whoever speaks something else is not kept waiting for the deadline.

    :param start: how much of it was checked before.
    :raises BadHead: it cannot.
    """
    # From one byte earlier: a CR there may have waited for its LF.
    if _BAD_BYTES.search(data, max(0, start - 1)):
        raise BadHead(400, "The request holds characters that no request may hold.")
    end = data.find(b"\r\n")
    if end < start - 1 and end >= 0:
        return
    if not (_START if end < 0 else _LINE).match(data):
        raise BadHead(400, "The request line is malformed.")


def parse_head(data: bytes) -> Head:
    """The head in ``data``, which ends with the empty line.

    :raises BadHead: it is malformed or ambiguous.
    """
    check_beginning(data, 0)
    if _FOLD.search(data) or not all(map(_FIELD.match, data[: -len(END)].split(b"\r\n")[1:])):
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
    head = Head(
        parser.get_method().decode("ascii"),
        collector.target,
        parser.get_http_version(),
        _the_host(collector),
        tuple(collector.fields),
    )
    _check_length(head)
    return head


def _the_host(collector: _Collector) -> str:
    """The host of the Host header, with which an absolute target has to agree."""
    hosts = [value for name, value in collector.fields if name == b"host"]
    if len(hosts) != 1:
        raise BadHead(400, "A request needs one Host header.")
    host = parse_host(hosts[0])
    target = collector.target
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        if parse_host(absolute[1]) != host:
            raise BadHead(400, "The request names two hosts.")
    elif not target.startswith(b"/") and target != b"*":
        # CONNECT's authority among others: this is no proxy.
        raise BadHead(400, "The request's target is malformed.")
    return host


def _check_length(head: Head) -> None:
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise BadHead(400, "The request states its length twice.")
    if lengths and not _LENGTH.fullmatch(lengths[0].strip(b" \t")):
        raise BadHead(400, "The request's length is malformed.")
    if codings and (head.version == "1.0" or codings[0].strip(b" \t").lower() != b"chunked"):
        raise BadHead(400, "The request's length cannot be told.")


def parse_host(value: bytes) -> str:
    """The host of a Host header, lower-case, without port, brackets or final dot.

    :raises BadHead: it is no host.
    """
    match = _HOST.fullmatch(value.decode("latin-1").strip(" \t").lower())
    host = "" if match is None else match[1] or match[2]
    if not host or len(host) > MAX_HOST:
        raise BadHead(400, "The Host header is malformed.")
    return host
