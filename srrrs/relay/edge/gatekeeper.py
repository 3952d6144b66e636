"""Each visitor held against what the agent asked for its service, within what the relay allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from srrrs.relay.edge.pages import Answer

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]


class Gatekeeper:
    """The policy of one service. A service without one has ``None`` in its place.

    :ivar max_body: bytes of one request's body (else 413); ``None``: any.
    """

    max_body: int | None = None

    def check_request(
        self, fields: Fields, visitor: IAddress
    ) -> Answer | Deferred[Answer | None] | None:
        """Whether a request may go on: ``None``, or the answer that it gets instead (401, 403, 429,
        503), or a Deferred of either, while a password is looked at.

        The Deferred never fails by itself; cancel it when the visitor goes.

        :param fields: of the request as it came, names in lower case.
        :param visitor: who asks, as believed (proxies that are trusted have spoken for it).
        """
        raise NotImplementedError

    def check_connection(self, visitor: IAddress) -> bool:
        """Whether a TCP, ssh or TLS connection may go on; where not, it is reset."""
        raise NotImplementedError

    def rewrite_request(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields that the service gets, with those of the agent's choice set, added and removed
        and Host replaced. Comes last, after the relay's own forwarding fields were added."""
        raise NotImplementedError

    def rewrite_response(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The same for a final response of the service's. Framing and hop-by-hop fields stay as
        they are, and no Set-Cookie is added."""
        raise NotImplementedError
