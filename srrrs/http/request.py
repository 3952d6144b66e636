"""Reads requests from a visitor's bytes."""

from __future__ import annotations

from srrrs.http.head import End, HeadLimits, RequestHead


class RequestReader:
    """Requests one after another on one connection; pulled, never pushed.

    :param limits: of each head.
    :ivar begun: a byte of the current request has come.
    :ivar pending: bytes that were fed and not given yet.
    """

    def __init__(self, limits: HeadLimits) -> None:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Add bytes; nothing is looked at. The caller keeps what waits here bounded, by reading
        on only while :meth:`next` gave ``None``, or ``pending`` is small."""
        raise NotImplementedError

    def next(self) -> RequestHead | bytes | End | None:
        """What comes next: the head, then pieces of the body (never empty), then the end.

        ``None``: more must be fed; or, after the end, :meth:`next_message` be called.

        :raises BadRequest: the request is malformed or ambiguous, and so it is each time from then
            on.
        """
        raise NotImplementedError

    def next_message(self) -> None:
        """After an :class:`End`: begin with the next request, of which bytes may wait here."""
        raise NotImplementedError

    def eof(self) -> None:
        """The visitor sends no more.

        :raises BadRequest: in the middle of a request. Whole ones may still wait here.
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
