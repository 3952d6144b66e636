"""Agents and a relay's gate, joined by connections in memory that break where the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from srrrs.net.tunnel import ITunnelHandler, Tunnel
from srrrs.net.websocket import AgentCarrierFactory, RelayCarrierFactory
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame, Register, Registered
from srrrs.protocol.handshake import Hello, Welcome
from srrrs.protocol.mux import Limits, Role
from srrrs.relay.gate import Gate
from srrrs.relay.tokens import Identity
from srrrs.relay.tunnels import AgentTunnel, Tunnels
from srrrs.testing import Connection, connect

BUDGET = 1 << 28
GRACE = 60.0
VISITOR = IPv4Address("TCP", "203.0.113.9", 4711)


class Everybody:
    """Tokens: each is good, and its own id."""

    def check(self, token: str, now: float) -> Identity:
        return Identity(token, f"name of {token}")


class Registry:
    """Registers whatever is asked for."""

    def __init__(self) -> None:
        self.back: list[AgentTunnel] = []
        self.lost: list[AgentTunnel] = []

    def control_received(self, agent: AgentTunnel, frame: ControlFrame) -> None:
        if isinstance(frame, Register):
            agent.tunnel.send_control(Registered(frame.service_id, f"http://{frame.name}.example"))

    def agent_back(self, agent: AgentTunnel) -> None:
        self.back.append(agent)

    def agent_lost(self, agent: AgentTunnel) -> None:
        self.lost.append(agent)


class Wire:
    """One connection of an agent to the relay.

    :ivar answer: what the agent's dial came to: a welcome, or an exception.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.answer: Any = None

    def up(self, part: float = 1.0) -> None:
        """Bring that part of what the agent has sent to the relay; nothing else happens."""
        self._move(self.connection.a, self.connection.b, part)

    def down(self, part: float = 1.0) -> None:
        """The same the other way."""
        self._move(self.connection.b, self.connection.a, part)

    def _move(self, source: Any, sink: Any, part: float) -> None:
        sink.receive(source.drain(int(source.buffered * part)))

    def cut(self) -> None:
        """The connection breaks; the relay learns of it first."""
        self.connection.b.peer_reset()
        self.connection.a.peer_reset()

    def cut_unseen(self) -> None:
        """The agent learns that it is broken, the relay does not."""
        self.connection.a.peer_reset()


class World:
    """A gate, and whoever dials it.

    :ivar wires: every connection so far.
    """

    def __init__(self, grace: float = GRACE, most: int = 16) -> None:
        self.clock = Clock()
        self.budget = Budget(BUDGET)
        self.registry = Registry()
        self.tunnels = Tunnels(most)
        self.gate = Gate(
            self.clock,
            self.clock.seconds,
            Everybody(),  # type: ignore[arg-type]
            self.tunnels,
            self.registry,  # type: ignore[arg-type]
            "example",
            (1.0, 60.0),
            Limits(),
            self.budget,
            BUDGET,
            grace,
        )
        self.wires: list[Wire] = []
        self._carriers = RelayCarrierFactory(self.clock, self._authorize, self.gate.greet)

    def _authorize(self, token: str | None, peer: Any) -> Identity:
        return self.gate.authorize(token, peer)

    @property
    def wire(self) -> Wire:
        """The latest."""
        return self.wires[-1]

    @property
    def agents(self) -> list[AgentTunnel]:
        """The tunnels that the relay has, in order."""
        return sorted(self.tunnels, key=lambda each: each.number)

    def dial(
        self, token: str, make_hello: Callable[[str], Hello], answered: Callable[[], None]
    ) -> Deferred[Any]:
        """A dial, as an agent makes it."""
        factory = AgentCarrierFactory(self.clock, "ws://example/tunnel", token, make_hello)
        carrier = factory.buildProtocol(None)
        wire = Wire(connect(carrier, self._carriers.buildProtocol(None)))
        self.wires.append(wire)
        answered()
        return carrier.welcomed

    def make_tunnel(self, handler: ITunnelHandler) -> Tunnel:
        """An agent's."""
        return Tunnel(self.clock, Role.AGENT, handler, Limits(), Budget(BUDGET))

    def enter(
        self, tunnel: Tunnel | None, make_hello: Callable[[str], Hello], token: str = "own"
    ) -> Wire:
        """Dial by hand, with ``tunnel`` to go on with (``None``: a welcome is not taken)."""

        def start(result: tuple[Any, Welcome]) -> Welcome:
            carrier, welcome = result
            if tunnel is None:
                return welcome
            if welcome.resumed is not None:
                tunnel.resume(carrier, welcome.heartbeat, welcome.resumed.received)
            else:
                grace = 0.0 if welcome.grant is None else welcome.grant.grace
                tunnel.attach(carrier, welcome.heartbeat, grace)
            return welcome

        def keep(result: Any) -> None:
            wire.answer = result.value if isinstance(result, Failure) else result

        welcomed = self.dial(token, make_hello, lambda: None)
        wire = self.wire
        welcomed.addCallback(start).addBoth(keep)
        self.settle()
        return wire

    def settle(self) -> None:
        """Until nobody has anything to do now."""
        for _ in range(10_000):
            self.clock.advance(0)
            # All of them: a pump moves more than it tells.
            moved = [wire.connection.pump() for wire in self.wires]
            now = self.clock.seconds()
            if not any(moved) and all(c.getTime() > now for c in self.clock.getDelayedCalls()):
                return
        raise AssertionError("they never fall silent")

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Let time go by, with everything delivered as it comes."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.settle()
