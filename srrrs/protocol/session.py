"""What survives a cut: the two byte streams of a tunnel, counted and kept until acknowledged.

Each side counts the session bytes that it has *parsed*; the other keeps what is not yet
acknowledged in a bounded replay buffer (references to the chunks already sent, no copies). After a
new carrier is there, each side says how far it got, mid-frame included, and the other goes on from
that byte. Acknowledgements travel outside the byte stream (``SPEC.md``, *Messages*): inside it, a
full buffer would hold up the very thing that empties it.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final

from srrrs.protocol.errors import ProtocolError
from srrrs.protocol.flow import Budget

REPLAY: Final = 4 * 1024 * 1024
"""Bytes that may be sent and not yet acknowledged, to begin with."""
MAX_REPLAY: Final = 64 * 1024 * 1024
"""Bytes that this grows to where it is what limits the tunnel: bandwidth times delay of 2.5 Gbit/s
at 200 ms."""
MIN_REPLAY: Final = 64 * 1024
"""Bytes that it may always hold, however scarce memory is, or a tunnel could come to a stand with
nothing under way whose acknowledgement lets it go on."""
ACK_EVERY: Final = 1024 * 1024
"""Bytes parsed after which an acknowledgement is due at once."""
ACK_SOON: Final = 4 * 1024
"""Bytes parsed after which one is due within ``ACK_INTERVAL``: for a thin link's sender."""
ACK_INTERVAL: Final = 0.005
"""Seconds between two acknowledgements, unless ``ACK_EVERY`` asks for one."""
ACK_LATE: Final = 0.5
"""Seconds after which the fewest bytes are acknowledged, so that the peer need not keep them."""
JOINED: Final = 16 * 1024
"""Bytes of a message up to which its chunks are kept as one."""
_SLACK: Final = 64 * 1024


class Kind(IntEnum):
    """The first byte of a binary WebSocket message: what the rest of it is."""

    SESSION = 0
    ACK = 1


FIRST_OPTIONAL_KIND: Final = 128
"""Unknown kinds from here on are skipped; lower ones must be known."""


class Session:
    """The counters and the replay buffer of one end.

    :param replay: bytes kept at the most, to begin with; ``None`` keeps nothing and needs no
        acknowledgements.
    :param budget: is charged what is kept, to within 64 KiB.
    :param maximum: bytes that ``replay`` grows to where it is what limits the tunnel.
    """

    __slots__ = (
        "_ack_at",
        "_acked_to_peer",
        "_again",
        "_again_size",
        "_budget",
        "_charged",
        "_chunks",
        "_maximum",
        "_waits_since",
        "_was_full",
        "acked",
        "received",
        "replay",
        "sent",
    )

    def __init__(
        self,
        replay: int | None = REPLAY,
        budget: Budget | None = None,
        maximum: int = MAX_REPLAY,
    ) -> None:
        self.replay = replay
        self._maximum = maximum
        self._budget = budget
        self._charged = 0
        # What was sent and is not acknowledged.
        self._chunks: deque[bytes] = deque()
        # The part of it that is still to be sent again on this carrier, and its size.
        self._again: deque[bytes] = deque()
        self._again_size = 0
        self._acked_to_peer = 0
        # When the last acknowledgement was made, and the first byte parsed that it did not count.
        self._ack_at = 0.0
        self._waits_since = 0.0
        self._was_full = False
        self.sent = 0
        self.acked = 0
        self.received = 0

    @property
    def held(self) -> int:
        """Bytes in the replay buffer."""
        return self.sent - self.acked if self.replay is not None else 0

    @property
    def under_way(self) -> int:
        """Bytes sent on this carrier and not acknowledged."""
        return self.sent - self.acked - self._again_size

    @property
    def pending(self) -> int:
        """Bytes that are still to be sent again on this carrier."""
        return self._again_size

    @property
    def space(self) -> int | None:
        """Bytes that may be sent for the first time now; ``None``: any number."""
        if self.replay is None:
            return None
        held = self.sent - self.acked
        if held < self.replay:
            if held < MIN_REPLAY or self._budget is None or not self._budget.exhausted:
                return self.replay - held
        else:
            self._was_full = True
        return 0

    def record(self, chunks: list[bytes], size: int) -> list[bytes]:
        """Keep chunks of ``size`` bytes together, which go to the carrier now.

        Returns what to send in their place: few bytes are joined, as many chunks cost more.
        """
        self.sent += size
        if self.replay is not None:
            if size <= JOINED and len(chunks) > 1:
                chunks = [b"".join(chunks)]
            self._chunks.extend(chunks)
            if self.sent - self.acked - self._charged > _SLACK:
                self._charge()
        return chunks

    def parsed(self, size: int, now: float) -> float | None:
        """Count parsed bytes at ``now``, seconds; when they are to be acknowledged.

        ``now`` or earlier: at once; ``None``: never, as nothing is kept.
        """
        self.received += size
        if self.replay is None:
            return None
        waiting = self.received - self._acked_to_peer
        if waiting == size:
            self._waits_since = now
        if waiting < ACK_SOON:
            return self._waits_since + ACK_LATE
        if waiting >= ACK_EVERY:
            return now
        return self._ack_at + ACK_INTERVAL

    @property
    def owes(self) -> bool:
        """Whether bytes were parsed that are not acknowledged yet."""
        return self.replay is not None and self.received > self._acked_to_peer

    def acknowledge(self, now: float) -> int:
        """The count to tell the peer at ``now``, seconds."""
        self._acked_to_peer = self.received
        self._ack_at = now
        return self.received

    def acknowledged(self, count: int) -> None:
        """The peer has parsed ``count`` bytes; an older count than known is ignored.

        :raises ProtocolError: it claims more than was sent to it.
        """
        if count > self.sent - self._again_size:
            raise ProtocolError("an acknowledgement of bytes that were never sent")
        if count <= self.acked:
            return
        drop = count - self.acked
        self.acked = count
        chunks = self._chunks
        while drop and chunks:
            size = len(chunks[0])
            if size <= drop:
                drop -= size
                chunks.popleft()
            else:
                chunks[0] = chunks[0][drop:]
                drop = 0
        charged = self._charged
        if charged and (not chunks or charged - (self.sent - count) > _SLACK):
            self._charge()
        if self._was_full:
            self._was_full = False
            self._grow()

    def _grow(self) -> None:
        # It was full, and acknowledgements come: so it holds less than bandwidth times delay.
        if self.replay is not None and (self._budget is None or not self._budget.scarce):
            self.replay = max(self.replay, min(self.replay * 2, self._maximum))

    def resume(self, peer_received: int) -> int:
        """Begin on a new carrier; the number of bytes that :meth:`again` gives first.

        :param peer_received: how far the peer says that it got.
        :raises ProtocolError: that is no place between the last acknowledgement and the end.
        """
        if peer_received < self.acked:
            raise ProtocolError("a resume from before what was acknowledged")
        if peer_received > self.sent:
            raise ProtocolError("a resume from beyond what was sent")
        self._again.clear()
        self._again_size = 0
        self.acknowledged(peer_received)
        self._again.extend(self._chunks)
        self._again_size = self.sent - self.acked
        # The peer is told how far we got by the resume itself.
        self._acked_to_peer = self.received
        return self._again_size

    def again(self, limit: int) -> tuple[list[bytes], int]:
        """Up to ``limit`` of the bytes that are to be sent again: the chunks and their total."""
        out: list[bytes] = []
        total = 0
        again = self._again
        while again and total < limit:
            chunk = again.popleft()
            if total + len(chunk) > limit:
                size = limit - total
                again.appendleft(chunk[size:])
                chunk = chunk[:size]
            out.append(chunk)
            total += len(chunk)
        self._again_size -= total
        return out, total

    def close(self) -> None:
        """The session has ended: nothing is kept any more."""
        self._chunks.clear()
        self._again.clear()
        self._again_size = 0
        self.acked = self.sent
        self._charge()
        self.replay = None

    def _charge(self) -> None:
        held = self.sent - self.acked
        change, self._charged = held - self._charged, held
        if self._budget is None:
            return
        if change > 0:
            self._budget.charge(change)
        else:
            self._budget.release(-change)
