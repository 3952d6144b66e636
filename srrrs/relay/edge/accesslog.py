"""The access log: a line for each request, and one for each connection of the other services.

Passwords are never in it: of the fields of a request only Referer and User-Agent are looked at, and
these by the combined format alone. A request's target is written as it is, query and all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

LogFormat = Literal["json", "combined"]

MAX_FIELD: Final = 8192
"""Characters of one value in a line."""

_text: Final[Callable[[str], str]] = json.encoder.encode_basestring_ascii
_UNSAFE: Final = re.compile(rb"[^ !#-\[\]-~]")


@dataclass(slots=True)
class RequestEntry:
    """What is written of a request once it is over, or its upgraded connection is.

    :ivar id: the request's, as the service got it in X-Request-Id.
    :ivar service: its name; empty: none was found.
    :ivar token: the name of its agent's token.
    :ivar visitor: the visitor's address as text, without a port; ``-`` where there is none.
    :ivar host: as routed.
    :ivar target: as it stands in the request, query and all.
    :ivar version: of HTTP.
    :ivar status: of the final response, or 101; 0: none was sent.
    :ivar received: bytes of the request's body; for an upgraded connection all that came after.
    :ivar sent: bytes of the response's body, likewise.
    :ivar first_byte: seconds from the head's arrival to the response's first byte, or None.
    :ivar duration: seconds from there to the end.
    :ivar closed: why it ended, in a few words; ``done`` where all is well.
    :ivar fields: of the request; only Referer and User-Agent are looked at, by the combined format.
    """

    id: str = "-"
    service: str = ""
    token: str = ""
    visitor: str = "-"
    method: str = "-"
    host: str = ""
    target: bytes = b"-"
    version: tuple[int, int] = (1, 1)
    status: int = 0
    received: int = 0
    sent: int = 0
    first_byte: float | None = None
    duration: float = 0.0
    closed: str = "done"
    fields: Sequence[tuple[bytes, bytes]] = ()


@dataclass(slots=True)
class ConnectionEntry:
    """What is written of a TCP, ssh or passed-through TLS connection once it is over.

    :ivar id: the connection's.
    :ivar kind: ``tcp``, ``ssh`` or ``tls``.
    :ivar host: the name that TLS was asked for; empty: none.
    :ivar port: the public port; None: that of all.
    :ivar received: bytes from the visitor.
    :ivar sent: bytes to the visitor.
    :ivar first_byte: seconds to the first byte to the visitor, or None.
    """

    id: str = "-"
    kind: str = "tcp"
    service: str = ""
    token: str = ""
    visitor: str = "-"
    host: str = ""
    port: int | None = None
    received: int = 0
    sent: int = 0
    first_byte: float | None = None
    duration: float = 0.0
    closed: str = "done"


class AccessLog:
    """Takes entries; never blocks and never raises.

    :param wall: seconds since the epoch.
    :param write: takes a line, with its end.
    """

    def __init__(
        self, wall: Callable[[], float], write: Callable[[bytes], None], form: LogFormat
    ) -> None:
        self._wall = wall
        self._write = write
        self._json = form == "json"
        self._second = -1
        self._stamp = ""

    def request(self, entry: RequestEntry) -> None:
        """A request is over. ``entry`` is the log's from now on."""
        self._write((self._request_json if self._json else self._request_combined)(entry))

    def connection(self, entry: ConnectionEntry) -> None:
        """A connection is over. ``entry`` is the log's from now on."""
        self._write((self._connection_json if self._json else self._connection_combined)(entry))

    # --- JSON ---------------------------------------------------------------------------

    def _request_json(self, entry: RequestEntry) -> bytes:
        target = entry.target[:MAX_FIELD].decode("latin-1")
        return (
            f'{{"time":"{self._begun_at(entry.duration)}","kind":"request","id":{_text(entry.id)},'
            f'"service":{_text(entry.service)},"token":{_text(entry.token)},'
            f'"visitor":{_text(entry.visitor)},"method":{_text(entry.method)},'
            f'"host":{_text(entry.host)},"path":{_text(target)},'
            f'"version":"{_version(entry.version)}","status":{entry.status},'
            f'"received":{entry.received},"sent":{entry.sent},'
            f'"first_byte":{_seconds(entry.first_byte)},"duration":{_seconds(entry.duration)},'
            f'"closed":{_text(entry.closed)}}}\n'
        ).encode()

    def _connection_json(self, entry: ConnectionEntry) -> bytes:
        port = "null" if entry.port is None else entry.port
        return (
            f'{{"time":"{self._begun_at(entry.duration)}","kind":{_text(entry.kind)},'
            f'"id":{_text(entry.id)},"service":{_text(entry.service)},'
            f'"token":{_text(entry.token)},"visitor":{_text(entry.visitor)},'
            f'"host":{_text(entry.host)},"port":{port},'
            f'"received":{entry.received},"sent":{entry.sent},'
            f'"first_byte":{_seconds(entry.first_byte)},"duration":{_seconds(entry.duration)},'
            f'"closed":{_text(entry.closed)}}}\n'
        ).encode()

    def _begun_at(self, duration: float) -> str:
        """RFC 3339, in UTC, with milliseconds."""
        at = self._wall() - duration
        second = int(at)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._stamp}.{int((at - second) * 1000):03}Z"

    # --- Combined -----------------------------------------------------------------------

    def _request_combined(self, entry: RequestEntry) -> bytes:
        """As Apache and nginx write it: without a host, so that it tells no sites apart."""
        referer = agent = b"-"
        for name, value in entry.fields:
            if name == b"referer":
                referer = value
            elif name == b"user-agent":
                agent = value
        return b'%s - - [%s] "%s %s HTTP/%s" %d %s "%s" "%s"\n' % (
            _quoted(entry.visitor.encode()),
            self._combined_time(entry.duration),
            _quoted(entry.method.encode()),
            _quoted(entry.target),
            _version(entry.version).encode(),
            entry.status,
            b"%d" % entry.sent if entry.sent else b"-",
            _quoted(referer),
            _quoted(agent),
        )

    def _connection_combined(self, entry: ConnectionEntry) -> bytes:
        """In the same columns, with CONNECT as its method, and 0 as its status."""
        port = "" if entry.port is None else f":{entry.port}"
        return b'%s - - [%s] "CONNECT %s %s" 0 %s "-" "-"\n' % (
            _quoted(entry.visitor.encode()),
            self._combined_time(entry.duration),
            _quoted(f"{entry.host or entry.service}{port}".encode()),
            _quoted(entry.kind.upper().encode()),
            b"%d" % entry.sent if entry.sent else b"-",
        )

    def _combined_time(self, duration: float) -> bytes:
        second = int(self._wall() - duration)
        if second != self._second:
            self._second = second
            at = datetime.fromtimestamp(second, UTC)
            # strftime's month would be the locale's.
            self._stamp = at.strftime(f"%d/{_MONTHS[at.month - 1]}/%Y:%H:%M:%S +0000")
        return self._stamp.encode()


_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def _seconds(value: float | None) -> str:
    return "null" if value is None else f"{max(value, 0.0):.6f}"


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _quoted(value: bytes) -> bytes:
    """Nothing in it ends the quotes or the line, or moves a terminal's cursor."""
    return _UNSAFE.sub(lambda match: b"\\x%02X" % match[0][0], value[:MAX_FIELD])
