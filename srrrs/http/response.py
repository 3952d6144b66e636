"""Reads responses from a service's bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import httptools

from srrrs.http.errors import BadResponse
from srrrs.http.fields import Malformed, check_part, options, parse_framing, take_apart
from srrrs.http.head import NO_BODY, UNTIL_CLOSE, HeadLimits, Kind, ResponseHead
from srrrs.http.message import MessageReader, State

_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r\n")
_LINE_PART: Final = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?:\r?| [\t -~\x80-\xff]*\r?)")
_LONGEST: Final = b"HTTP/1.1 200"


class ResponseReader(MessageReader[ResponseHead]):
    """Responses one after another on one connection; pulled, as with ``RequestReader``. Heads with
    ``interim`` set are followed by another head, with no end between.

    :param limits: of each head (``target`` does not matter).
    """

    __slots__ = ("_method", "_upgrade")

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(limits)
        self._state = State.OVER
        self._method = b""
        self._upgrade: bytes | None = None

    def expect(self, method: bytes, upgrade: bytes | None = None) -> None:
        """A request was sent: the response to it comes next. Called once for each, before it and
        after the end of the response before. After a 101 nothing more is read: what follows is for
        :meth:`rest`.

        :param method: as HEAD's response has no body.
        :param upgrade: the protocol that the request asked to change to, in lower case.
        """
        if self._state is not State.OVER:
            raise ValueError("the response before is not over")
        if self._at < len(self._data):
            self._surplus()
        self._state = State.HEAD
        self._begun = False
        self._seen = 0
        self._method = method
        self._upgrade = upgrade

    def eof(self) -> None:
        """The service sends no more. This ends a body that lasts until close; what is left of it,
        and its :class:`End`, are then for :meth:`next`. Call it once :meth:`next` gives ``None``.

        :raises BadResponse: a response is missing, or not complete.
        """
        self._closed = True
        if self._failure is None and self._state not in (
            State.UNTIL_CLOSE,
            State.BODY_OVER,
            State.OVER,
            State.SWITCHED,
        ):
            self._failure = BadResponse("it is not complete")
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _error(self, malformed: Malformed) -> BadResponse:
        return BadResponse(malformed.text)

    def _beyond(self) -> None:
        if self._state is State.OVER and self._at < len(self._data):
            self._surplus()
            assert self._failure is not None
            raise self._failure

    def _surplus(self) -> None:
        if self._failure is None:
            self._failure = BadResponse("it answers no request")

    def _check_start(self, part: bytes, seen: int) -> None:
        check_part(part, seen)
        end = part.find(b"\r\n")
        if end >= 0:
            if end >= seen - 1 and not _LINE.match(part):
                raise Malformed("the status line")
        elif len(part) < len(_LONGEST):
            example = b"HTTP/1.%c %c%c%c" % tuple(
                part[at] if at < len(part) else b"1100"[index]
                for index, at in enumerate((7, 9, 10, 11))
            )
            if not example.startswith(part) or not _LINE.match(example + b"\r\n"):
                raise Malformed("the status line")
        elif not _LINE_PART.fullmatch(part):
            raise Malformed("the status line")

    def _parse(self, data: bytes) -> ResponseHead:
        match = _LINE.match(data)
        if match is None:
            raise Malformed("the status line")
        version = (1, 1) if match[1] == b"1" else (1, 0)
        collector = take_apart(httptools.HttpResponseParser, data, self._limits.fields)
        deciding = collector.deciding
        framing = parse_framing(
            deciding.get(b"content-length", ()), deciding.get(b"transfer-encoding", ()), version
        )
        says = options(deciding[b"connection"]) if b"connection" in deciding else frozenset()
        head = ResponseHead(int(match[2]), match[3] or b"", version, collector.fields, framing)
        if version == (1, 1):
            head.keep_alive = b"close" not in says
        else:
            head.keep_alive = b"keep-alive" in says and b"close" not in says
        if head.status < 200:
            self._informational(head, deciding.get(b"upgrade", ()))
        else:
            self._final(head)
        return head

    def _informational(self, head: ResponseHead, upgrades: Sequence[bytes]) -> None:
        """One without a body, after which comes another head, or another protocol."""
        if head.framing not in (NO_BODY, (Kind.LENGTH, 0)) or head.version == (1, 0):
            raise Malformed("it cannot be interim")
        head.framing = NO_BODY
        if head.status == 101:
            if len(upgrades) != 1 or upgrades[0].lower() != self._upgrade:
                raise Malformed("it changes to a protocol that was not asked for")
            head.upgrade = self._upgrade
            self._state = State.SWITCHED

    def _final(self, head: ResponseHead) -> None:
        framing = head.framing
        if head.status in (204, 304) or self._method == b"HEAD":
            if head.status == 204 and framing not in (NO_BODY, (Kind.LENGTH, 0)):
                # Whether a body follows is known to the service alone.
                head.keep_alive = False
            head.framing = NO_BODY
        elif framing == NO_BODY:
            head.framing = UNTIL_CLOSE
            head.keep_alive = False
        self._begin_body(head.framing)
