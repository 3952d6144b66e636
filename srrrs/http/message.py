"""What requests and responses have in common: where a head ends, and where a body does.

The exact end of a message decides what the next one is; therefore it is found here, and not by a
parser that was built for looser readers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from srrrs.http.errors import BadRequest, BadResponse
from srrrs.http.fields import TEXT, TOKEN, Malformed, check_part, parse_trailers
from srrrs.http.head import END, End, Framing, HeadLimits, Kind

Head = TypeVar("Head")

CHUNK_LINE: Final = 256
"""Bytes of a chunk's size with its extensions."""

_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"(?:;"
    + TOKEN
    + rb"(?:=(?:"
    + TOKEN
    + rb'|"(?:[\t !#-\[\]-~\x80-\xff]|\\'
    + TEXT
    + rb')*"))?)*'
)
_SIZE_PART: Final = re.compile(rb"[0-9A-Fa-f]{0,15}+(?:(?<=[0-9A-Fa-f]);" + TEXT + rb"*)?\r?")
_CR: Final = 13
_EMPTY_LINE: Final = b"\r\n\r\n"


class State(Enum):
    """Where in a message a reader is."""

    HEAD = auto()
    COUNTED = auto()
    UNTIL_CLOSE = auto()
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    BODY_OVER = auto()
    OVER = auto()
    SWITCHED = auto()


# An enum's members are slow to look up.
_HEAD: Final = State.HEAD
_COUNTED: Final = State.COUNTED
_UNTIL_CLOSE: Final = State.UNTIL_CLOSE
_CHUNK_SIZE: Final = State.CHUNK_SIZE
_CHUNK_DATA: Final = State.CHUNK_DATA
_CHUNK_END: Final = State.CHUNK_END
_TRAILERS: Final = State.TRAILERS
_BODY_OVER: Final = State.BODY_OVER
_OVER: Final = State.OVER


class MessageReader(ABC, Generic[Head]):
    """The part of a reader that is the same for requests and responses."""

    __slots__ = (
        "_at",
        "_begun",
        "_closed",
        "_data",
        "_failure",
        "_left",
        "_limits",
        "_seen",
        "_state",
    )

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        # What was fed and not given: ``_data`` from ``_at`` on. It grows only while a head, a
        # chunk's size or trailers are not complete, and those are capped.
        self._data = b""
        self._at = 0
        self._seen = 0
        self._left = 0
        self._state = _HEAD
        self._begun = False
        self._closed = False
        self._failure: BadRequest | BadResponse | None = None

    @property
    def pending(self) -> int:
        """Bytes that were fed and not given yet."""
        return len(self._data) - self._at

    @property
    def begun(self) -> bool:
        """A byte of the current message has come."""
        return self._begun or self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Add bytes; nothing is looked at. The caller keeps what waits here bounded: it feeds more
        only after :meth:`next` gave ``None``."""
        if self._at == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    def rest(self) -> bytes:
        """Take all that was fed and not given: another protocol goes on."""
        data = self._data[self._at :]
        self._data, self._at = b"", 0
        return data

    def next(self) -> Head | bytes | End | None:
        """What comes next: the head, then pieces of the body (never empty), then the end.

        ``None``: more must be fed; or, after the end, the next message be asked for.

        :raises BadRequest: a request is malformed or ambiguous, and so it is each time from then
            on.
        :raises BadResponse: likewise a response.
        """
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        state = self._state
        try:
            if state is _HEAD:
                return self._next_head()
            if state is _COUNTED:
                return self._counted()
            if state is _BODY_OVER:
                self._state = _OVER
                return END
            if state is _CHUNK_SIZE or state is _CHUNK_DATA or state is _CHUNK_END:
                piece = self._chunks()
                if piece is not None or self._state is not _TRAILERS:
                    return piece
                return self._trailers()
            if state is _TRAILERS:
                return self._trailers()
            if state is _UNTIL_CLOSE:
                return self._until_close()
            self._beyond()
            return None
        except Malformed as malformed:
            self._failure = self._error(malformed)
            raise self._failure from None

    # --- what differs -------------------------------------------------------------------

    @abstractmethod
    def _error(self, malformed: Malformed) -> BadRequest | BadResponse:
        """The error that the caller sees."""

    @abstractmethod
    def _check_start(self, part: bytes, seen: int) -> None:
        """Whether a head that is not complete can still become a good one.

        :param seen: how much of ``part`` was checked before.
        :raises Malformed: it cannot.
        """

    @abstractmethod
    def _parse(self, head: bytes) -> Head:
        """The head, which ends with the empty line; begins its body.

        :raises Malformed: it is malformed or ambiguous.
        """

    def _beyond(self) -> None:
        """Asked for more when the message is over."""

    def _skip_empty_line(self) -> int:
        """Whether a CR that comes first matters: where the head begins."""
        return self._at

    # --- the head -----------------------------------------------------------------------

    def _next_head(self) -> Head | None:
        data, at = self._data, self._at
        if at == len(data):
            return None
        if data[at] == _CR:
            at = self._skip_empty_line()
            if at == len(data):
                return None
        seen = self._seen
        end = data.find(_EMPTY_LINE, at + max(0, seen - 3))
        if end < 0:
            part = data[at:] if at else data
            self._check_start(part, seen)
            if len(part) > self._limits.head_bytes:
                raise Malformed("its head is too long", 431)
            self._seen = len(part)
            return None
        end += 4
        if end - at > self._limits.head_bytes:
            raise Malformed("its head is too long", 431)
        self._seen = 0
        self._at = end
        self._begun = True
        return self._parse(data[at:end])

    def _begin_body(self, framing: Framing) -> None:
        kind, length = framing
        if length:
            self._left = length
            self._state = _COUNTED
        elif kind is Kind.CHUNKED:
            self._state = _CHUNK_SIZE
        elif kind is Kind.UNTIL_CLOSE:
            self._state = _UNTIL_CLOSE
        else:
            self._state = _BODY_OVER

    # --- the body -----------------------------------------------------------------------

    def _take_all(self) -> bytes:
        data = self._data[self._at :] if self._at else self._data
        self._data, self._at = b"", 0
        return data

    def _counted(self) -> bytes | None:
        have, left = len(self._data) - self._at, self._left
        if not have:
            return None
        if have <= left:
            piece = self._take_all()
        else:
            have = left
            piece = self._data[self._at : self._at + left]
            self._at += left
        self._left = left - have
        if not self._left:
            self._state = _BODY_OVER
        return piece

    def _until_close(self) -> bytes | End | None:
        if self._at < len(self._data):
            return self._take_all()
        if self._closed:
            self._state = _OVER
            return END
        return None

    def _chunks(self) -> bytes | None:
        """What has come of the chunks' data, as one piece."""
        data, at, state = self._data, self._at, self._state
        end = len(data)
        pieces = []
        while True:
            if state is _CHUNK_DATA:
                upto = min(end, at + self._left)
                if upto > at:
                    pieces.append(data[at:upto])
                    self._left -= upto - at
                    at = upto
                if self._left:
                    break
                state = _CHUNK_END
            if state is _CHUNK_END:
                if not data.startswith(b"\r\n", at):
                    if at < end and data[at:] != b"\r":
                        raise Malformed("a chunk is longer than it says")
                    break
                at += 2
                state = _CHUNK_SIZE
            line_end = data.find(b"\r\n", at, at + CHUNK_LINE + 2)
            if line_end < 0:
                if end - at > CHUNK_LINE or not _SIZE_PART.fullmatch(data, at):
                    raise Malformed("a chunk's size is malformed")
                break
            match = _SIZE.fullmatch(data, at, line_end)
            if match is None:
                raise Malformed("a chunk's size is malformed")
            at = line_end + 2
            self._left = int(match[1], 16)
            if not self._left:
                state = _TRAILERS
                break
            state = _CHUNK_DATA
        self._state = state
        self._at = at
        return b"".join(pieces) if pieces else None

    def _trailers(self) -> End | None:
        data, at = self._data, self._at
        if data.startswith(b"\r\n", at):
            self._at = at + 2
            self._state = _OVER
            return END
        seen = self._seen
        end = data.find(_EMPTY_LINE, at + max(0, seen - 3))
        size = (len(data) if end < 0 else end + 4) - at
        if size > self._limits.head_bytes:
            raise Malformed("its trailers are too long", 431)
        if end < 0:
            check_part(data, at + seen)
            self._seen = size
            return None
        self._seen = 0
        self._at = end + 4
        self._state = _OVER
        return End(parse_trailers(data[at : end + 2], self._limits.fields))
