"""What the head of a message says, and what ends its body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Header or trailer fields in their order: names in lower case, values without the space around
them. Secrets may be among them: never for a log."""


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a head may be.

    :ivar head_bytes: of a whole head, and of all trailers; more is a 431.
    :ivar fields: header fields, and trailers; more is a 431.
    :ivar target: bytes of a request's target; more is a 414.
    """

    head_bytes: int = 32 * 1024
    fields: int = 100
    target: int = 8 * 1024


class Kind(Enum):
    """What ends a body."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class Framing(NamedTuple):
    """What ends a body (RFC 9112, 6.3): one rule for each message.

    :ivar kind: ``UNTIL_CLOSE`` is a response's alone.
    :ivar length: bytes of the body where ``kind`` is ``LENGTH``, else 0.
    """

    kind: Kind
    length: int = 0


NO_BODY: Final = Framing(Kind.NONE)
CHUNKED: Final = Framing(Kind.CHUNKED)
UNTIL_CLOSE: Final = Framing(Kind.UNTIL_CLOSE)


@dataclass(slots=True)
class RequestHead:
    """A request's head, checked: no two readers understand it differently.

    :ivar method: in upper case, never ``CONNECT``.
    :ivar target: in origin form (``/path?query``), or ``*``; an absolute one was reduced to that.
    :ivar version: (1, 0), (1, 1) or (2, 0).
    :ivar host: lower-case, without port, brackets or final dot.
    :ivar authority: the host as it was sent, with its port.
    :ivar fields: all of them, ``host`` and the framing's too.
    :ivar keep_alive: the connection may be used for another request after this one.
    :ivar expect_continue: the visitor waits for ``100 Continue`` before it sends the body.
    :ivar upgrade: the protocol to change to, in lower case, where one that is passed on was asked
        for properly. Never another version of HTTP, nor TLS.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]
    host: str
    authority: bytes
    fields: Fields = field(repr=False)
    framing: Framing
    keep_alive: bool = True
    expect_continue: bool = False
    upgrade: bytes | None = None

    def values(self, name: bytes) -> list[bytes]:
        """The values of a field, one for each line that has it."""
        return [value for each, value in self.fields if each == name]


@dataclass(slots=True)
class ResponseHead:
    """A response's head, checked as a request's is.

    :ivar status: 100–599; below 200, but for the 101 that was asked for, an interim one.
    :ivar reason: may be empty.
    :ivar version: (1, 0) or (1, 1).
    :ivar fields: all of them, the framing's too.
    :ivar keep_alive: the connection may be used again once the response has ended.
    :ivar upgrade: of a 101, the protocol that now begins, in lower case.
    """

    status: int
    reason: bytes
    version: tuple[int, int]
    fields: Fields = field(repr=False)
    framing: Framing
    keep_alive: bool = True
    upgrade: bytes | None = None

    @property
    def interim(self) -> bool:
        """Another response to the same request follows (RFC 9110, 15.2)."""
        return self.status < 200 and self.status != 101

    def values(self, name: bytes) -> list[bytes]:
        """The values of a field, one for each line that has it."""
        return [value for each, value in self.fields if each == name]


@dataclass(frozen=True, slots=True)
class End:
    """A message is complete.

    :ivar trailers: fields after a chunked body.
    """

    trailers: Sequence[tuple[bytes, bytes]] = field(default=(), repr=False)


END: Final = End()
"""Without trailers."""
