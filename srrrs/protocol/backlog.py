"""What waits to be sent, and which writers are paused so that it stays bounded.

A writer is paused at its stream's cap. When all streams together reach the tunnel's cap (or the
process's memory is used up) the backlog is *saturated*: then a stream may go on only while it has
credit and nothing queued. So streams whose peer takes nothing cannot hold up the others, and what
waits is bounded by the cap and one read of each stream that has credit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from srrrs.protocol.flow import Budget
from srrrs.protocol.stream import Stream

SLACK: Final = 64 * 1024
"""Bytes by which the budget may be behind: most of what is queued goes out within the turn."""


class Backlog:
    """The queues of a tunnel's streams, counted.

    Invariant: ``stream.held_back`` says whether its writer is paused, and exactly those are in
    ``_held``. A paused writer is let on by what ends the reason for its pause: its queue shrinks,
    credit arrives, or the saturation ends.

    The budget is charged what is queued, to within ``SLACK``, and nothing where nothing is.

    :param streams: the tunnel's, by their ids.
    :param stream_cap: bytes queued on a stream at which its writer is paused.
    :param tunnel_cap: bytes queued on all streams at which the backlog is saturated.
    """

    __slots__ = (
        "_budget",
        "_charged",
        "_held",
        "_ready",
        "_saturated",
        "_stream_cap",
        "_streams",
        "_sweep",
        "_tunnel_cap",
        "queued",
    )

    def __init__(
        self,
        streams: Mapping[int, Stream],
        stream_cap: int,
        tunnel_cap: int,
        budget: Budget,
    ) -> None:
        self._streams = streams
        self._stream_cap = stream_cap
        self._tunnel_cap = tunnel_cap
        self._budget = budget
        self.queued = 0
        self._charged = 0
        self._saturated = False
        self._held: dict[int, Stream] = {}
        # Streams whose queue shrank during a take; those to look at since a saturation ended.
        self._ready: list[Stream] = []
        self._sweep: deque[Stream] = deque()

    def grow(self, stream: Stream, size: int) -> None:
        """``size`` bytes were queued on ``stream``."""
        stream.queued += size
        self.queued += size
        if self.queued - self._charged > SLACK:
            self._charge()
        if not self._saturated and self._is_over():
            self._saturated = True
            self._sweep.clear()
            for each in list(self._streams.values()):
                if not self._may_write(each):
                    self._hold(each)
                elif each.held_back:
                    self._let_on(each)
        elif self._saturated or stream.queued >= self._stream_cap:
            self._hold(stream)

    def shrink(self, stream: Stream, size: int) -> None:
        """``size`` bytes of the stream went out; call :meth:`settle` afterwards."""
        stream.queued -= size
        self.queued -= size
        charged = self._charged
        if charged and (not self.queued or charged - self.queued > SLACK):
            self._charge()
        if stream.held_back:
            self._ready.append(stream)

    def credited(self, stream: Stream) -> None:
        """The peer granted the stream credit."""
        if stream.held_back and self._may_write(stream):
            self._let_on(stream)

    @property
    def unsettled(self) -> bool:
        """Whether :meth:`settle` has anything to do."""
        return bool(self._ready or self._saturated or self._sweep)

    def settle(self) -> bool:
        """Let on the writers that may go on now; whether more are to be looked at soon.

        After a saturation they are let on a few at a time, or all would write at once.
        """
        if self._ready:
            ready, self._ready = self._ready, []
            for stream in ready:
                self.credited(stream)
        if self._saturated:
            if self.queued > self._tunnel_cap // 2 or self._is_over():
                return False
            self._saturated = False
            self._sweep.extend(self._held.values())
        room = self._tunnel_cap - self.queued
        while self._sweep and room > 0:
            stream = self._sweep.popleft()
            if stream.held_back and self._may_write(stream):
                self._let_on(stream)
                room -= self._stream_cap
        return bool(self._sweep)

    def forget(self, stream: Stream) -> None:
        """The stream is no more: neither is what it had queued."""
        self.queued -= stream.queued
        if self._charged > self.queued:
            self._charge()
        stream.queued = 0
        stream.held_back = False
        self._held.pop(stream.id, None)

    def _charge(self) -> None:
        change, self._charged = self.queued - self._charged, self.queued
        if change > 0:
            self._budget.charge(change)
        else:
            self._budget.release(-change)

    def _is_over(self) -> bool:
        if self.queued >= self._tunnel_cap:
            return True
        # A tunnel that holds little may always go on, or a full budget could never drain.
        return self.queued >= self._stream_cap and self._budget.exhausted

    def _may_write(self, stream: Stream) -> bool:
        if self._saturated:
            return stream.credit > 0 and not stream.queued
        return stream.queued <= self._stream_cap // 2

    def _hold(self, stream: Stream) -> None:
        if not stream.held_back:
            stream.held_back = True
            self._held[stream.id] = stream
            if stream.handler is not None:
                stream.handler.pause_sending()

    def _let_on(self, stream: Stream) -> None:
        stream.held_back = False
        self._held.pop(stream.id, None)
        if stream.handler is not None:
            stream.handler.resume_sending()
