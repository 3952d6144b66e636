"""Splices that count, for the access log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srrrs.net.splice import Splice

if TYPE_CHECKING:
    from srrrs.net.channel import Channel
    from srrrs.relay.edge.origin import OriginConnection


class CountedSplice(Splice):
    """Knows how much went by.

    :ivar received: bytes from the visitor, and to it (``sent``).
    """

    __slots__ = ("received", "sent")

    def __init__(self, channel: Channel | OriginConnection) -> None:
        self.received = self.sent = 0
        super().__init__(channel)  # type: ignore[arg-type]
        self.dataReceived = self._count_in

    def _count_in(self, data: bytes) -> None:
        self.received += len(data)
        self._stream.pass_on(data)

    def data_received(self, data: bytes) -> None:
        self.sent += len(data)
        super().data_received(data)
