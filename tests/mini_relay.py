"""The smallest relay: it lets in whoever has the right token and registers whatever is asked.

Built on the real carrier and tunnel, so that the agent's end is tested over real sockets without
the relay's own rooms.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory
from zope.interface import implementer

from srrrs.net.channel import Channel
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.net.websocket import Denial, RelayCarrierFactory
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame, Refused, Register, Registered, Withdraw, Withdrawn
from srrrs.protocol.handshake import Denied, Hello, Welcome
from srrrs.protocol.mux import Limits, Role

TOKEN = "right"


@implementer(ITunnelHandler)
class MiniTunnel:
    """One agent's tunnel."""

    def __init__(self, relay: MiniRelay, hello: Hello) -> None:
        self.relay = relay
        self.hello = hello
        self.services: dict[str, int] = {}
        self.lost: TunnelLost | None = None
        self.tunnel = Tunnel(relay.reactor, Role.RELAY, self, Limits(), Budget(1 << 26))

    def stream_opened(self, channel: Channel, service_id: int) -> None:
        raise AssertionError("agents open no streams")

    def control_received(self, frame: ControlFrame) -> None:
        if isinstance(frame, Register):
            refusal = self.relay.refusals.get(frame.name)
            if refusal is not None:
                self.tunnel.send_control(Refused(frame.service_id, *refusal))
                return
            self.services[frame.name] = frame.service_id
            scheme, port = ("http", 8000) if frame.kind == "http" else ("tcp", 20022)
            host = f"{frame.asked or frame.name}.localhost"
            self.tunnel.send_control(Registered(frame.service_id, f"{scheme}://{host}:{port}"))
        elif isinstance(frame, Withdraw):
            self.services = {k: v for k, v in self.services.items() if v != frame.service_id}
            self.tunnel.send_control(Withdrawn(frame.service_id, "asked for"))

    def tunnel_parked(self, lost: TunnelLost) -> None:
        pass

    def tunnel_resumed(self, replayed: int) -> None:
        pass

    def tunnel_lost(self, lost: TunnelLost) -> None:
        self.lost = lost
        self.relay.lost.append(self)

    def open(self, name: str, visitor: IAddress | None = None) -> Channel:
        """A visitor comes to a service."""
        address = visitor or IPv4Address("TCP", "192.0.2.7", 4711)
        return self.tunnel.open(self.services[name], address)


class MiniRelay:
    """Listens on a loopback port; ``tunnels`` are those it let in, in order."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.tunnels: list[MiniTunnel] = []
        self.lost: list[MiniTunnel] = []
        self.refusals: dict[str, tuple[str, str, float | None]] = {}
        self.denied: Denied | None = None
        self.tokens: list[str | None] = []
        self.silent = False
        self.factory: Factory = RelayCarrierFactory(reactor, self.authorize, self.greet)
        self.port: Any = None

    def authorize(self, token: str | None, peer: IAddress) -> str:
        self.tokens.append(token)
        if token != TOKEN:
            raise Denial(401, "bad token")
        return "token"

    def greet(self, carrier: Any, identity: Any, hello: Hello) -> None:
        if self.silent:
            return
        if self.denied is not None:
            carrier.answer(self.denied)
            return
        tunnel = MiniTunnel(self, hello)
        self.tunnels.append(tunnel)
        carrier.answer(Welcome(f"t{len(self.tunnels)}", hello.heartbeat, "localhost", "mini"))
        tunnel.tunnel.attach(carrier, hello.heartbeat)

    def listen(self, wrap: Any = None) -> IListeningPort:
        factory = self.factory if wrap is None else wrap(self.factory)
        self.port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        return self.port  # type: ignore[no-any-return]

    @property
    def number(self) -> int:
        return int(self.port.getHost().port)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.number}/tunnel"

    async def close(self) -> None:
        """Stop listening and end every tunnel, its carrier too."""
        if self.port is not None:
            await self.port.stopListening()
        for each in self.tunnels:
            each.tunnel.abort("the test is over")
        for each in self.tunnels:
            await each.tunnel.when_closed()


def turn(reactor: Any, seconds: float = 0.0) -> Deferred[None]:
    """Let the reactor turn once."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


async def until(reactor: Any, condition: Any, limit: float = 10.0) -> None:
    """Let the reactor turn until a condition holds; a deadline keeps a broken test from hanging."""
    end = reactor.seconds() + limit
    while not condition():
        assert reactor.seconds() < end, "what was waited for never happened"
        await turn(reactor, 0.005)
