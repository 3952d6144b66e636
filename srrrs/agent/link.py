"""One dial of an agent, and the tunnel that comes of it."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from srrrs.agent.edges import Edge
from srrrs.agent.resuming import Held
from srrrs.agent.retired import Retired
from srrrs.net.channel import Channel
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.protocol.frames import ControlFrame


class LinkOwner(Protocol):
    """Whom a link tells what its tunnel told it."""

    def stream_opened(self, link: Link, channel: Channel, service_id: int) -> None: ...
    def control_received(self, link: Link, frame: ControlFrame) -> None: ...
    def tunnel_parked(self, link: Link, lost: TunnelLost) -> None: ...
    def tunnel_resumed(self, link: Link, replayed: int) -> None: ...
    def tunnel_lost(self, link: Link, lost: TunnelLost) -> None: ...


@implementer(ITunnelHandler)
class Link:
    """One dial and the tunnel that comes of it; only the latest counts."""

    def __init__(self, owner: LinkOwner, edge: Edge | None = None) -> None:
        self._owner = owner
        # The relay that answered.
        self.edge = edge
        # Who keeps the tunnel, once its relay has said that it goes away.
        self.retired: Retired | None = None
        self.dialling: Deferred[None] | None = None
        self.tunnel: Tunnel | None = None
        self.held: Held | None = None
        # The relay's name for the tunnel.
        self.number = ""
        self.parked_at = 0.0

    def stream_opened(self, channel: Channel, service_id: int) -> None:
        self._owner.stream_opened(self, channel, service_id)

    def control_received(self, frame: ControlFrame) -> None:
        self._owner.control_received(self, frame)

    def tunnel_parked(self, lost: TunnelLost) -> None:
        self._owner.tunnel_parked(self, lost)

    def tunnel_resumed(self, replayed: int) -> None:
        self._owner.tunnel_resumed(self, replayed)

    def tunnel_lost(self, lost: TunnelLost) -> None:
        self._owner.tunnel_lost(self, lost)
