"""A request of HTTP/2: from the fields that HPACK gives to a head (RFC 9113, 8.2 and 8.3).

It is passed on as HTTP/1.1, so it is held to that version's rules too: what could end a line or a
head there, or frame a body, is malformed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from srrrs.http.fields import TEXT, Malformed, parse_framing, split_authority
from srrrs.http.head import CHUNKED, NO_BODY, Fields, HeadLimits, RequestHead
from srrrs.http.request import MAX_METHOD, bad_request, judge

_METHOD: Final = re.compile(rb"[A-Z-]{1,%d}" % MAX_METHOD)
_TARGET: Final = re.compile(rb"[!-~]+")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:" + TEXT + rb"*[!-~\x80-\xff])?)?")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_SCHEMES: Final = (b"http", b"https")
_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Fields that concern a connection of HTTP/1 alone (RFC 9113, 8.2.2)."""


def request_head(
    fields: Iterable[tuple[bytes, bytes]], ended: bool, limits: HeadLimits
) -> RequestHead:
    """The head that the fields make.

    :param fields: in their order, the pseudo-fields among them.
    :param ended: no body follows.
    :raises srrrs.http.errors.BadRequest: it is malformed or ambiguous.
    """
    try:
        return _head(fields, ended, limits)
    except Malformed as malformed:
        raise bad_request(malformed) from None


def trailers(fields: Iterable[tuple[bytes, bytes]], limits: HeadLimits) -> Fields:
    """The fields after a body.

    :raises srrrs.http.errors.BadRequest: one is malformed, or there are too many.
    """
    found = list(fields)
    try:
        if len(found) > limits.fields:
            raise Malformed("it has too many trailers", 431)
        for name, value in found:
            _check_field(name, value)
    except Malformed as malformed:
        raise bad_request(malformed) from None
    return found


def _head(fields: Iterable[tuple[bytes, bytes]], ended: bool, limits: HeadLimits) -> RequestHead:
    pseudo: dict[bytes, bytes] = {}
    kept: Fields = []
    hosts: list[bytes] = []
    deciding: dict[bytes, list[bytes]] = {}
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + 4
        if name.startswith(b":"):
            if name not in _PSEUDO or name in pseudo or kept or hosts:
                raise Malformed("a field")
            pseudo[name] = value
            continue
        _check_field(name, value)
        if name == b"host":
            hosts.append(value)
            continue
        if name in (b"content-length", b"expect"):
            deciding.setdefault(name, []).append(value)
        kept.append((name, value))
    if size > limits.head_bytes:
        raise Malformed("its head is too long", 431)
    if len(kept) > limits.fields:
        raise Malformed("it has too many fields", 431)
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD.fullmatch(method) or pseudo.get(b":scheme", b"").lower() not in _SCHEMES:
        raise Malformed("its method or scheme")
    if len(target) > limits.target:
        raise Malformed("its target is too long", 414)
    if not _TARGET.fullmatch(target) or not (target.startswith(b"/") or target == b"*"):
        raise Malformed("its target")
    deciding[b"host"] = [_authority(pseudo.get(b":authority"), hosts)]
    framing = parse_framing(deciding.get(b"content-length", ()), (), (2, 0))
    if ended:
        if framing.length:
            raise Malformed("its length is another than its body's")
    elif framing == NO_BODY:
        framing = CHUNKED
    fields = [(b"host", deciding[b"host"][0]), *kept]
    return judge(method, target, (2, 0), fields, deciding, framing)


def _authority(authority: bytes | None, hosts: list[bytes]) -> bytes:
    """``:authority``, with which a Host field has to agree (RFC 9113, 8.3.1)."""
    if len(hosts) > 1:
        raise Malformed("it needs one Host")
    if authority is None:
        if not hosts:
            raise Malformed("it needs one Host")
        return hosts[0]
    if hosts and split_authority(hosts[0]) != split_authority(authority):
        raise Malformed("it names two hosts")
    return authority


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise Malformed("a field's name is malformed")
    if not _VALUE.fullmatch(value):
        raise Malformed("it holds characters that no message may hold")
    if name in _CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise Malformed("a field that is another version's")
