"""Which fields go on, and what the relay says of its own (RFC 9110, 7.6; RFC 7239)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from srrrs.http.head import Fields, RequestHead, ResponseHead


class Forwarder:
    """Makes the fields of what is passed on, for one visitor connection.

    :param address: of the peer, an IP address as text; empty where it has none (a UNIX socket).
    :param secure: the visitor speaks TLS to this listener.
    :param trusted: the peer is a proxy whose word is believed: what it says of the visitor is kept
        or added to, and replaced where anybody else says it.
    """

    def __init__(self, address: str, secure: bool, trusted: bool) -> None:
        raise NotImplementedError

    def request_fields(self, head: RequestHead, request_id: bytes) -> Fields:
        """What a service is sent: ``host`` first, without the framing's fields (the writer's part),
        without anything that concerns this connection alone.

        :param request_id: sent as ``x-request-id`` unless a trusted proxy gave another.
        """
        raise NotImplementedError

    def request_id(self, head: RequestHead, own: bytes) -> bytes:
        """The id that the request goes by: a trusted proxy's, or ``own``."""
        raise NotImplementedError

    def is_secure(self, head: RequestHead) -> bool:
        """Whether the visitor came by TLS, by the word of a trusted proxy or as seen here."""
        raise NotImplementedError


def visitor_address(head: RequestHead, peer: str, is_trusted: Callable[[str], bool]) -> str:
    """Who asks: the last address of ``X-Forwarded-For`` that is no trusted proxy's.

    :param peer: where the connection comes from; it is the answer unless it is trusted.
    """
    raise NotImplementedError


def response_fields(head: ResponseHead, host: str) -> Fields:
    """What a visitor is sent, without the framing's fields (but the length that a response without
    a body states: to HEAD, and a 304) and ``connection``, which are the writer's part.

    :param host: the service's own: no cookie may be set for more than it.
    """
    raise NotImplementedError


def trailer_fields(trailers: Sequence[tuple[bytes, bytes]]) -> Fields:
    """The trailers that may go on (RFC 9110, 6.5.1)."""
    raise NotImplementedError
