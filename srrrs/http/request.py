"""Reads requests from a visitor's bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import httptools

from srrrs.http.errors import BadRequest
from srrrs.http.fields import (
    TOKEN,
    Malformed,
    check_part,
    options,
    parse_framing,
    split_authority,
    take_apart,
)
from srrrs.http.head import NO_BODY, Fields, Framing, HeadLimits, Kind, RequestHead
from srrrs.http.message import MessageReader, State

MAX_METHOD: Final = 32
"""Bytes of a method."""
NOT_PASSED_ON: Final = (b"h2", b"http/", b"tls/")
"""How protocols begin to which a connection is never changed: requests that no edge sees would
follow (RFC 9113, 3.1: clients ask no more for h2c; RFC 2817: TLS)."""

_LINE: Final = re.compile(rb"([A-Z-]{1,%d}) ([!-~]+) HTTP/1\.([01])\r\n" % MAX_METHOD)
_LINE_PART: Final = re.compile(
    rb"[A-Z-]{1,%d}(?: (?:[!-~]+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01]\r?)?)?)?)?)?)?)?)?)?)?)?"
    % MAX_METHOD
)
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?]*)", re.IGNORECASE)


class RequestReader(MessageReader[RequestHead]):
    """Requests one after another on one connection; pulled, never pushed.

    :param limits: of each head.
    """

    __slots__ = ("_skipped",)

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(limits)
        self._skipped = False

    def next_message(self) -> None:
        """After an :class:`~srrrs.http.head.End`: begin with the next request, of which bytes may
        wait here."""
        if self._state is not State.OVER:
            raise ValueError("the request is not over")
        self._state = State.HEAD
        self._begun = self._skipped = False
        self._seen = 0

    def eof(self) -> None:
        """The visitor sends no more.

        :raises BadRequest: in the middle of a request; call it once :meth:`next` gives ``None``.
        """
        if self._state is State.HEAD:
            missing = self._at < len(self._data)
        else:
            missing = self._state not in (State.BODY_OVER, State.OVER)
        if missing and self._failure is None:
            self._failure = BadRequest(400, "The request is not complete.")
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _error(self, malformed: Malformed) -> BadRequest:
        return bad_request(malformed)

    def _skip_empty_line(self) -> int:
        # One before a request is not part of it (RFC 9112, 2.2): one, no more.
        if not self._skipped and self._data.startswith(b"\r\n", self._at):
            self._at += 2
            self._seen = 0
            self._skipped = True
        return self._at

    def _check_start(self, part: bytes, seen: int) -> None:
        if part == b"\r" and not self._skipped:
            return
        check_part(part, seen)
        end = part.find(b"\r\n")
        if end >= 0:
            if end >= seen - 1:
                self._split_line(part)
        elif not _LINE_PART.fullmatch(part):
            raise Malformed("the request line")
        elif len(part) > self._limits.target + MAX_METHOD + len(" HTTP/1.1\r") + 1:
            raise Malformed("its target is too long", 414)

    def _split_line(self, data: bytes) -> tuple[bytes, bytes, tuple[int, int]]:
        match = _LINE.match(data)
        if match is None:
            raise Malformed("the request line")
        method, target, minor = match.groups()
        if len(target) > self._limits.target:
            raise Malformed("its target is too long", 414)
        return method, target, (1, 1) if minor == b"1" else (1, 0)

    def _parse(self, data: bytes) -> RequestHead:
        method, target, version = self._split_line(data)
        collector = take_apart(httptools.HttpRequestParser, data, self._limits.fields)
        fields, deciding = collector.fields, collector.deciding
        framing = parse_framing(
            deciding.get(b"content-length", ()), deciding.get(b"transfer-encoding", ()), version
        )
        head = judge(method, target, version, fields, deciding, framing)
        self._begin_body(framing)
        return head


def bad_request(malformed: Malformed) -> BadRequest:
    """What the visitor is told."""
    return BadRequest(malformed.status, f"The request is malformed: {malformed.text}.")


def judge(
    method: bytes,
    target: bytes,
    version: tuple[int, int],
    fields: Fields,
    deciding: Mapping[bytes, Sequence[bytes]],
    framing: Framing,
) -> RequestHead:
    """What a head says as a whole.

    :param deciding: the values of the fields that decide.
    :param framing: what ends the body, for not every version has it in the fields.
    :raises Malformed: it is ambiguous.
    """
    hosts = deciding.get(b"host", ())
    if len(hosts) != 1:
        raise Malformed("it needs one Host")
    authority = hosts[0]
    host, port = split_authority(authority)
    if not target.startswith(b"/"):
        target = _origin_form(method, target, host, port)
    if b"#" in target:
        # Readers differ in what they make of it.
        raise Malformed("its target")
    if method == b"CONNECT":
        raise Malformed("this is no proxy")
    head = RequestHead(method, target, version, host, authority, fields, framing)
    says = options(deciding[b"connection"]) if b"connection" in deciding else frozenset()
    if version >= (1, 1):
        head.keep_alive = b"close" not in says
        if b"expect" in deciding:
            head.expect_continue = _expects(deciding[b"expect"], framing)
        if b"upgrade" in says and b"upgrade" in deciding:
            head.upgrade = _upgrade(deciding[b"upgrade"])
    else:
        head.keep_alive = b"keep-alive" in says and b"close" not in says
    return head


def _origin_form(method: bytes, target: bytes, host: str, port: int | None) -> bytes:
    """An absolute target reduced to its path; it has to agree with the Host field."""
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        # CONNECT's authority among others: this is no proxy.
        raise Malformed("its target")
    usual = 443 if len(absolute[1]) == 5 else 80
    its_host, its_port = split_authority(absolute[2])
    if (its_host, its_port or usual) != (host, port or usual):
        raise Malformed("it names two hosts")
    path = target[absolute.end() :]
    if not path and method == b"OPTIONS":
        return b"*"  # RFC 9112, 3.2.4.
    return path if path.startswith(b"/") else b"/" + path


def _expects(values: Sequence[bytes], framing: Framing) -> bool:
    if len(values) > 1 or values[0].lower() != b"100-continue":
        raise Malformed("what it expects is not known here", 417)
    return framing != NO_BODY and framing != (Kind.LENGTH, 0)


def _upgrade(values: Sequence[bytes]) -> bytes | None:
    """The first protocol that is passed on; without one, the request is as if it had not asked (RFC
    9110, 7.8)."""
    for value in values:
        for each in value.split(b","):
            protocol = each.strip(b" \t").lower()
            if protocol and not protocol.startswith(NOT_PASSED_ON):
                if not _PROTOCOL.fullmatch(protocol):
                    raise Malformed("a field")
                return protocol
    return None


_PROTOCOL: Final = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?")
