"""Whose turn it is to send: deficit round robin with a head start for new streams.

After fq_codel (RFC 8290, 4.1): a stream that becomes active goes before those that have been
active for a while, for one quantum; then all take turns. So an ssh keystroke or a small answer
never waits for a bulk transfer's backlog, and bulk transfers share what is left equally.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from srrrs.protocol.stream import Stream

QUANTUM: Final = 64 * 1024
"""Bytes of a turn."""


class Scheduler:
    """The streams that can send now, in the order of their turns.

    Invariant: a stream is in at most one of the two queues; ``stream.active`` says whether in any.
    """

    __slots__ = ("_fresh", "_rest")

    def __init__(self) -> None:
        self._fresh: deque[Stream] = deque()
        self._rest: deque[Stream] = deque()

    def __bool__(self) -> bool:
        return bool(self._fresh or self._rest)

    def activate(self, stream: Stream) -> None:
        """The stream has something to send and credit for it."""
        if not stream.active:
            stream.active = True
            self._fresh.append(stream)

    def next(self) -> Stream | None:
        """Take the stream whose turn it is out of the queue; ``None``: nobody can send."""
        if self._fresh:
            stream = self._fresh.popleft()
        elif self._rest:
            stream = self._rest.popleft()
        else:
            return None
        stream.active = False
        return stream

    def requeue(self, stream: Stream) -> None:
        """The stream used up its quantum and has more: behind all others."""
        stream.active = True
        self._rest.append(stream)
