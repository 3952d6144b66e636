"""Stand-ins for what surrounds the agent, with no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from srrrs.agent.backends import IBackend
from srrrs.agent.edges import Edge, Edges
from srrrs.agent.report import Reporter
from srrrs.agent.service import Agent
from srrrs.net.tunnel import ITunnelHandler, TunnelLost
from srrrs.protocol.errors import ResetCode, TunnelGone
from srrrs.protocol.handshake import Grant, Hello, Welcome
from srrrs.words import Word

RELAY = "ws://localhost/tunnel"
WELCOME = Welcome("t1", 15.0, "localhost", "srrrs/0")
GRANTED = replace(WELCOME, grant=Grant("a" * 32, "b" * 64, 60.0))
"""A welcome with a session that can be gone on with."""


@implementer(IBackend)
class FakeBackend:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.target: str | None = "localhost:8080"
        self.channels: list[Any] = []
        self.calls: list[str] = []

    def started(self) -> None:
        self.calls.append("started")

    def stopped(self) -> None:
        self.calls.append("stopped")

    def connect(self, channel: Any) -> None:
        self.channels.append(channel)


class FakeChannel:
    """A channel that only remembers how it was reset."""

    label = ""

    def __init__(self) -> None:
        self.resets: list[tuple[ResetCode, str]] = []

    def reset(self, code: ResetCode, reason: str = "") -> None:
        self.resets.append((code, reason))


class FakeCarrier:
    """A carrier that only remembers its abortion."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


class FakeSession:
    """What a hello tells of a session."""

    received = 0


class FakeTunnel:
    """A tunnel that ends when it is told to."""

    def __init__(self, handler: ITunnelHandler) -> None:
        self.handler = handler
        self.carrier: Any = None
        self.streams = 0
        self.parked = False
        self.resumed: list[Any] = []
        self.session = FakeSession()
        self.sent: list[Any] = []
        self.closed: list[tuple[int, str]] = []
        self.aborted: list[str] = []
        self.ended: TunnelLost | None = None
        self.carrier_gone: Deferred[None] = Deferred()

    def attach(self, carrier: Any, heartbeat: float, grace: float = 0.0) -> None:
        self.carrier = carrier
        self.grace = grace

    def park(self, reason: str = "cut") -> None:
        """The carrier breaks."""
        self.parked = True
        self.handler.tunnel_parked(TunnelLost(None, reason))

    def check_resume(self, received: int) -> None:
        if self.ended is not None:
            raise TunnelGone

    def resume(self, carrier: Any, heartbeat: float, received: int) -> None:
        self.parked = False
        self.resumed.append(carrier)
        self.handler.tunnel_resumed(0)

    def expire(self, reason: str) -> None:
        if self.ended is None:
            self.ended = TunnelLost(None, reason, expired=True)
            self.handler.tunnel_lost(self.ended)

    def probe(self) -> None:
        pass

    def send_control(self, frame: Any) -> None:
        self.sent.append(frame)

    def lose(self, reason: str = "cut", code: int | None = None) -> None:
        if self.ended is None:
            self.streams = 0
            self.ended = TunnelLost(code, reason)
            self.handler.tunnel_lost(self.ended)

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))
        self.lose(reason, code)

    def abort(self, reason: str) -> None:
        self.aborted.append(reason)
        self.lose(reason)

    def when_closed(self) -> Deferred[None]:
        return self.carrier_gone


class Record:
    """A sink that keeps every event."""

    def __init__(self) -> None:
        self.events: list[tuple[Word, dict[str, Any]]] = []
        self.lines: list[str] = []

    def __call__(self, event: Word, fields: dict[str, Any], text: str) -> None:
        self.events.append((event, fields))
        self.lines.append(text)

    @property
    def words(self) -> list[Word]:
        return [event for event, _ in self.events]


class Rig:
    """An agent among fakes."""

    def __init__(
        self,
        token: Callable[[], str] = lambda: "secret",
        urls: Sequence[str] = (RELAY,),
        drain: float = 30.0,
    ) -> None:
        self.clock = Clock()
        self.record = Record()
        self.dials: list[tuple[str, Hello, Deferred[Any]]] = []
        self.dialled: list[str] = []
        self.tunnels: list[FakeTunnel] = []
        self.carriers: list[FakeCarrier] = []
        self.agent = Agent(
            self.clock,
            edges=Edges(
                self.clock, [self.edge(url) for url in urls], lambda url, _: self.edge(url)
            ),
            instance="machine",
            heartbeat=15.0,
            token=token,
            make_tunnel=self.make_tunnel,  # type: ignore[arg-type]
            reporter=Reporter(self.record),
            random=lambda: 0.5,
            stop_timeout=8.0,
            drain=drain,
        )

    def edge(self, url: str) -> Edge:
        def dial(
            token: str, make_hello: Callable[[str], Hello], answered: Callable[[], None]
        ) -> Deferred[Any]:
            self.dialled.append(url)
            return self.dial(token, make_hello, answered)

        return Edge(url, dial)

    def dial(
        self, token: str, make_hello: Callable[[str], Hello], answered: Callable[[], None]
    ) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.dials.append((token, make_hello("0" * 32), answer))
        return answer

    def make_tunnel(self, handler: ITunnelHandler) -> FakeTunnel:
        self.tunnels.append(FakeTunnel(handler))
        return self.tunnels[-1]

    def welcome(self, welcome: Welcome = WELCOME) -> FakeTunnel:
        """Let the latest dial succeed."""
        self.carriers.append(FakeCarrier())
        self.dials[-1][2].callback((self.carriers[-1], welcome))
        return self.tunnels[-1]

    def connected(self, welcome: Welcome = WELCOME) -> FakeTunnel:
        """Start the agent and let it in."""
        self.agent.startService()
        return self.welcome(welcome)
