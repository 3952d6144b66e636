"""The seam between a tunnel and what carries it: one WebSocket in production, memory in tests."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IAddress
from zope.interface import Attribute, Interface


class ICarrier(Interface):
    """Moves session bytes and acknowledgements to the peer, and can break."""

    peer: IAddress = Attribute("Where the other end is, as seen from here.")
    heard_at: float = Attribute("When the last byte arrived, in the clock's seconds.")
    peer_frame: int = Attribute("Payload bytes of a DATA frame that the peer takes.")

    def start(handler: ICarrierHandler) -> None:
        """The handshake is done: from now on tell ``handler``."""

    def notice_silence(interval: float) -> None:
        """Have the system too notice when the peer answers nothing any more, where it can;
        ``interval`` is the heartbeat's, seconds."""

    def is_stranded() -> bool:
        """Whether its own address is no longer one of this machine's, as far as can be told."""

    def send(chunks: Sequence[bytes], size: int, ack: int | None = None) -> None:
        """Send session bytes, ``size`` in all, as one message. Nothing after the end.

        :param ack: as :meth:`send_ack` before, but for less.
        """

    def send_ack(count: int) -> None:
        """Tell the peer how many session bytes were parsed."""

    def ping(payload: bytes) -> None:
        """Ask for a sign of life; the answer comes by ``ICarrierHandler.ponged``."""

    def close(code: int, reason: str) -> None:
        """End with a close code, in good order, with a deadline."""

    def abort() -> None:
        """End at once."""

    def detach() -> None:
        """Tell the handler nothing any more, not even the end."""


class ICarrierHandler(Interface):
    """Whom a carrier tells; in practice a :class:`srrrs.net.tunnel.Tunnel`."""

    def session_data(data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        """Session bytes, as they arrive: ``data[start:end]``. They are not kept."""

    def ack_received(count: int) -> None:
        """The peer has parsed ``count`` session bytes."""

    def ponged(payload: bytes) -> None:
        """The answer to a ping."""

    def pause_writing() -> None:
        """The carrier's buffer is full: send no more for now. May be called repeatedly."""

    def resume_writing() -> None:
        """There is room again."""

    def carrier_lost(code: int | None, reason: str) -> None:
        """The end, once: the peer's close code where it gave one, and a line for people."""
