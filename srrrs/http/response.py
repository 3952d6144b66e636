"""Reads responses from a service's bytes."""

from __future__ import annotations

from srrrs.http.head import End, HeadLimits, ResponseHead


class ResponseReader:
    """Responses one after another on one connection; pulled, as with ``RequestReader``.

    :param limits: of each head (``target`` does not matter).
    :ivar begun: a byte of the current response has come.
    :ivar pending: bytes that were fed and not given yet.
    """

    def __init__(self, limits: HeadLimits) -> None:
        raise NotImplementedError

    def expect(self, method: bytes, upgrade: bytes | None = None) -> None:
        """A request was sent: the response to it comes next. Called once for each, before it and
        after the end of the response before.

        :param method: as HEAD's response has no body.
        :param upgrade: the protocol that the request asked to change to, in lower case.
        """
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Add bytes; nothing is looked at."""
        raise NotImplementedError

    def next(self) -> ResponseHead | bytes | End | None:
        """What comes next: interim heads (``head.interim``), the head, pieces of the body (never
        empty), the end.

        ``None``: more must be fed, or, after the end, :meth:`expect` be called. After a 101 nothing
        more is read: what follows is for :meth:`rest`.

        :raises BadResponse: malformed, ambiguous, or to no request: bytes came before
            :meth:`expect`. So it is each time from then on.
        """
        raise NotImplementedError

    def eof(self) -> None:
        """The service sends no more. This ends a body that lasts until close; what is left of it,
        and its :class:`End`, are then for :meth:`next`.

        :raises BadResponse: it is missing, or not complete.
        """
        raise NotImplementedError

    def rest(self) -> bytes:
        """Take all that was fed and not given: another protocol goes on."""
        raise NotImplementedError

    @property
    def pending(self) -> int:
        raise NotImplementedError

    @property
    def begun(self) -> bool:
        raise NotImplementedError
