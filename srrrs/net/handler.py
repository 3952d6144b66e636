"""The seam between a tunnel and what it serves: the relay or the agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from srrrs.net.channel import Channel
    from srrrs.protocol.frames import ControlFrame


@dataclass(frozen=True, slots=True)
class TunnelLost:
    """How a tunnel, or one of its carriers, ended: a close code where one was given, and a line
    for people."""

    code: int | None
    reason: str
    expired: bool = False
    """Whether the session was parked, and given up."""


class ITunnelHandler(Interface):
    """Whom a tunnel tells: the relay's or the agent's side of it."""

    def stream_opened(channel: Channel, service_id: int) -> None:
        """The peer opened a stream (agent only): attach a protocol, or reset it."""

    def control_received(frame: ControlFrame) -> None:
        """A service frame or GOAWAY."""

    def tunnel_parked(lost: TunnelLost) -> None:
        """The carrier broke; the session waits for another."""

    def tunnel_resumed(replayed: int) -> None:
        """The session goes on, on another carrier; ``replayed`` bytes are sent again."""

    def tunnel_lost(lost: TunnelLost) -> None:
        """The end, once."""
