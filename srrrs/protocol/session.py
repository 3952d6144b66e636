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

REPLAY: Final = 4 * 1024 * 1024
"""Bytes that may be sent and not yet acknowledged."""
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


class Kind(IntEnum):
    """The first byte of a binary WebSocket message: what the rest of it is."""

    SESSION = 0
    ACK = 1


FIRST_OPTIONAL_KIND: Final = 128
"""Unknown kinds from here on are skipped; lower ones must be known."""


class Session:
    """The counters and the replay buffer of one end.

    :param replay: bytes kept at the most; ``None`` keeps nothing and needs no acknowledgements.
    """

    __slots__ = ("_ack_at", "_acked_to_peer", "_chunks", "_replay", "acked", "received", "sent")

    def __init__(self, replay: int | None = REPLAY) -> None:
        self._replay = replay
        self._chunks: deque[bytes] = deque()
        self._acked_to_peer = 0
        # When the last acknowledgement was made.
        self._ack_at = 0.0
        self.sent = 0
        self.acked = 0
        self.received = 0

    @property
    def space(self) -> int | None:
        """Bytes that may be sent now; ``None``: any number."""
        return None if self._replay is None else self._replay - (self.sent - self.acked)

    def record(self, chunks: list[bytes], size: int) -> list[bytes]:
        """Keep chunks of ``size`` bytes together, which go to the carrier now.

        Returns what to send in their place: few bytes are joined, as many chunks cost more.
        """
        self.sent += size
        if self._replay is not None:
            if size <= JOINED and len(chunks) > 1:
                chunks = [b"".join(chunks)]
            self._chunks.extend(chunks)
        return chunks

    def parsed(self, size: int, now: float) -> float | None:
        """Count parsed bytes at ``now``, seconds; when they are to be acknowledged.

        ``now`` or earlier: at once; ``None``: never, as nothing is kept.
        """
        self.received += size
        if self._replay is None:
            return None
        waiting = self.received - self._acked_to_peer
        if waiting < ACK_SOON:
            return now + ACK_LATE
        if waiting >= ACK_EVERY:
            return now
        return self._ack_at + ACK_INTERVAL

    @property
    def unacknowledged(self) -> bool:
        """Whether the peer was not told of everything that was parsed."""
        return self.received != self._acked_to_peer

    def acknowledge(self, now: float) -> int:
        """The count to tell the peer now."""
        self._acked_to_peer = self.received
        self._ack_at = now
        return self.received

    def acknowledged(self, count: int) -> None:
        """The peer has parsed ``count`` bytes; an older count than known is ignored.

        :raises ProtocolError: it claims more than was sent.
        """
        if count > self.sent:
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

    def resume(self, peer_received: int) -> tuple[list[bytes], int]:
        """The bytes to send first on a new carrier, and their number.

        :param peer_received: how far the peer says that it got.
        :raises ProtocolError: that is not a place between the last acknowledgement and the end.
        """
        if peer_received < self.acked:
            raise ProtocolError("a resume from before what was acknowledged")
        self.acknowledged(peer_received)
        return list(self._chunks), self.sent - self.acked
