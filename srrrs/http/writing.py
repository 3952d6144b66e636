"""Writes messages: heads are made anew from checked parts, never copied."""

from __future__ import annotations

from collections.abc import Sequence

from srrrs.http.head import Framing, RequestHead, ResponseHead


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
    raise NotImplementedError


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
    raise NotImplementedError


def visitor_framing(request: RequestHead, response: ResponseHead) -> Framing:
    """How a response's body is sent on to an HTTP/1 visitor: as it came, but what lasts until close
    is chunked for who can read that, and chunks are undone for who cannot."""
    raise NotImplementedError


def encode_chunk(data: bytes) -> list[bytes]:
    """One chunk, as pieces for ``writeSequence``; ``data`` is not empty."""
    raise NotImplementedError


def encode_last_chunk(trailers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The end of a chunked body."""
    raise NotImplementedError
