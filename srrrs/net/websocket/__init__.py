"""The production carrier: a WebSocket, through Autobahn, which nothing else imports."""

from srrrs.net.websocket.agent import AgentCarrier, AgentCarrierFactory
from srrrs.net.websocket.errors import Denial, HandshakeDenied, HandshakeFailed
from srrrs.net.websocket.relay import RelayCarrier, RelayCarrierFactory

__all__ = [
    "AgentCarrier",
    "AgentCarrierFactory",
    "Denial",
    "HandshakeDenied",
    "HandshakeFailed",
    "RelayCarrier",
    "RelayCarrierFactory",
]
