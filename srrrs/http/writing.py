"""Writes messages: heads are made anew from checked parts, never copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from srrrs.http.head import CHUNKED, UNTIL_CLOSE, Framing, Kind, RequestHead, ResponseHead

LAST_CHUNK: Final = b"0\r\n\r\n"
"""The end of a chunked body without trailers."""


def encode_request(
    method: bytes,
    target: bytes,
    fields: Sequence[tuple[bytes, bytes]],
    framing: Framing,
    upgrade: bytes | None = None,
) -> bytes:
    """The head of an HTTP/1.1 request.

    :param fields: without ``connection``, ``upgrade`` and those of the framing.
    :param upgrade: the protocol to ask for.
    :raises ValueError: a field or the target would not stay in its place.
    """
    lines = [b"%b %b HTTP/1.1" % (method, target), *map(b": ".join, fields)]
    if upgrade is not None:
        lines += b"connection: upgrade", b"upgrade: " + upgrade
    elif _TE in fields:
        # It concerns this hop alone, and so it has to say (RFC 9110, 10.1.4).
        lines.append(b"connection: te")
    _add_framing(lines, framing)
    if lines[0].count(b" ") != 2:
        raise ValueError("the method or the target holds a blank")
    return _head(lines)


def encode_response(
    status: int,
    reason: bytes,
    fields: Sequence[tuple[bytes, bytes]],
    framing: Framing,
    keep_alive: bool | None = None,
    upgrade: bytes | None = None,
) -> bytes:
    """The head of an HTTP/1.1 response, interim ones too.

    :param fields: as :func:`srrrs.http.forwarding.response_fields` gives them.
    :param keep_alive: ``True`` and ``False`` say so (an HTTP/1.0 visitor needs to be told, and
        everybody that it ends); ``None`` says nothing.
    :param upgrade: of a 101.
    :raises ValueError: a field or the reason would not stay in its place.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *map(b": ".join, fields)]
    if upgrade is not None:
        lines += b"connection: upgrade", b"upgrade: " + upgrade
    elif keep_alive is not None:
        lines.append(b"connection: keep-alive" if keep_alive else b"connection: close")
    _add_framing(lines, framing)
    return _head(lines)


def visitor_framing(request: RequestHead, response: ResponseHead) -> Framing:
    """How a response's body is sent on to an HTTP/1 visitor: as it came, but what lasts until close
    is chunked for who can read that, and chunks are undone for who cannot."""
    kind = response.framing.kind
    if kind is Kind.UNTIL_CLOSE or kind is Kind.CHUNKED:
        return CHUNKED if request.version >= (1, 1) else UNTIL_CLOSE
    return response.framing


def encode_chunk(data: bytes) -> list[bytes]:
    """One chunk, as pieces for ``writeSequence``; ``data`` is not empty."""
    if not data:
        raise ValueError("an empty chunk would be the last")
    return [b"%x\r\n" % len(data), data, b"\r\n"]


def encode_last_chunk(trailers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The end of a chunked body.

    :raises ValueError: a trailer would not stay in its place.
    """
    if not trailers:
        return LAST_CHUNK
    return _head([b"0", *map(b": ".join, trailers)])


# An enum's members are slow to look up.
_LENGTH: Final = Kind.LENGTH
_CHUNKED: Final = Kind.CHUNKED
_TE: Final = (b"te", b"trailers")


def _add_framing(lines: list[bytes], framing: Framing) -> None:
    kind, length = framing
    if kind is _LENGTH:
        lines.append(b"content-length: %d" % length)
    elif kind is _CHUNKED:
        lines.append(b"transfer-encoding: chunked")


def _head(lines: list[bytes]) -> bytes:
    """The lines as a head, in which there are exactly these lines."""
    head = b"\r\n".join([*lines, b"", b""])
    ends = len(lines) + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\x00" in head:
        raise ValueError("a line holds the end of a line")
    return head
