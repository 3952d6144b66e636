"""The services that visitors can reach: live, away, or served by several agents at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IListeningPort
from zope.interface import implementer

from srrrs.net.channel import Channel
from srrrs.protocol.errors import Overloaded, TunnelGone
from srrrs.protocol.frames import Register
from srrrs.relay.edge.gatekeeper import Gatekeeper
from srrrs.relay.edge.interfaces import IPublicService, ServiceAway, ServiceParked
from srrrs.relay.reservation import Reservation
from srrrs.relay.tunnels import AgentTunnel
from srrrs.relay.waiting import WaitingRoom

LEFT_OUT: Final = 5.0
"""Seconds for which one of several agents gets no requests after its service failed."""
MOST_REQUESTS: Final = 10_240
"""Requests under way to one agent, unless an option says otherwise."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all services share.

    :ivar waiting: where visitors wait for an agent whose connection broke.
    :ivar seconds: the reactor's clock.
    :ivar most_requests: under way in one tunnel.
    """

    waiting: WaitingRoom
    seconds: Callable[[], float]
    most_requests: int = MOST_REQUESTS


@implementer(IPublicService)
class PublicService:
    """A live service: its address, and the tunnel that serves it.

    :ivar path: what paths of requests begin with; empty: any.
    :ivar turn: when it was last picked among several; the higher, the later.
    """

    listening: IListeningPort | None = None
    shared: SharedService | None = None

    def __init__(
        self,
        reservation: Reservation,
        frame: Register,
        agent: AgentTunnel,
        endpoint: str,
        host: str | None,
        gatekeeper: Gatekeeper | None,
        around: Surroundings,
    ) -> None:
        self._around = around
        self.reservation = reservation
        self.key = reservation.key
        self.path = reservation.path
        self.name = frame.name
        self.kind = frame.kind
        self.service_id = frame.service_id
        self.agent = agent
        self.token_name = agent.identity.name
        self.endpoint = endpoint
        self.host = host
        self.gatekeeper = gatekeeper
        self.outstanding = 0
        self.turn = 0
        self._failed_at: float | None = None

    def available(self) -> bool:
        return self.agent.live

    @property
    def leaving(self) -> bool:
        return self.agent.draining

    @property
    def parked(self) -> bool:
        """Whether its agent is not there at the moment, but may be in another."""
        # Of a tunnel that drains the agent may have another in a moment.
        return self.agent.tunnel.parked or self.agent.draining

    @property
    def failing(self) -> bool:
        """Whether it failed a moment ago."""
        return self._failed_at is not None and self._around.seconds() < self._failed_at + LEFT_OUT

    def pick(self) -> IPublicService:
        # Not only when a stream is opened: a request may go by one that stands.
        if self.parked:
            raise ServiceParked(self)
        return self

    def open(self, visitor: IAddress, connection_id: str = "") -> Channel:
        if self.parked:
            raise ServiceParked(self)
        try:
            return self.agent.tunnel.open(self.service_id, visitor, connection_id)
        except TunnelGone:
            raise ServiceAway from None

    def wait(self) -> Deferred[IPublicService]:
        return self._around.waiting.wait(self.key)

    def request_begun(self) -> None:
        if self.agent.requests >= self._around.most_requests:
            raise Overloaded("too many requests are under way to this agent")
        self.agent.requests += 1
        self.outstanding += 1

    def request_ended(self) -> None:
        self.agent.requests -= 1
        self.outstanding -= 1

    def failed(self) -> None:
        self._failed_at = self._around.seconds()


@implementer(IPublicService)
class SharedService:
    """A service that several agents of one token serve."""

    def __init__(self, first: PublicService) -> None:
        self._members: list[PublicService] = []
        self._turn = 0
        self._waiting = first.wait
        self.name = first.name
        self.host = first.host
        self.token_name = first.token_name
        self.add(first)

    def __iter__(self) -> Iterator[PublicService]:
        return iter(tuple(self._members))

    def __contains__(self, member: PublicService) -> bool:
        return member in self._members

    @property
    def gatekeeper(self) -> Gatekeeper | None:
        """Of the one that came last: so a new policy holds as soon as one agent brings it."""
        return self._gatekeeper

    @property
    def leaving(self) -> bool:
        return all(member.leaving for member in self._members)

    @property
    def outstanding(self) -> int:
        return sum(member.outstanding for member in self._members)

    def add(self, member: PublicService) -> None:
        """One more agent serves it."""
        self._members.append(member)
        self._gatekeeper = member.gatekeeper
        member.shared = self

    def discard(self, member: PublicService) -> bool:
        """An agent serves it no longer; whether it was the last."""
        self._members.remove(member)
        return not self._members

    def by_agent(self, agent: AgentTunnel) -> PublicService | None:
        """The one of an agent's tunnel."""
        return next((member for member in self._members if member.agent is agent), None)

    def available(self) -> bool:
        return any(member.available() for member in self._members)

    def pick(self) -> IPublicService:
        """The one with the fewest requests under way, of those that stand; then who waited longest.

        One whose service failed a moment ago is asked only where there is no other.
        """
        standing = [member for member in self._members if member.agent.live and not member.parked]
        if not standing:
            if not self.available():
                raise ServiceAway
            raise ServiceParked(self)
        chosen = min(standing, key=lambda each: (each.failing, each.outstanding, each.turn))
        self._turn += 1
        chosen.turn = self._turn
        return chosen

    def open(self, visitor: IAddress, connection_id: str = "") -> Channel:
        return self.pick().open(visitor, connection_id)

    def wait(self) -> Deferred[IPublicService]:
        return self._waiting()

    def request_begun(self) -> None:
        raise TypeError("requests are counted by who is picked")

    request_ended = request_begun

    def failed(self) -> None:
        """Which of them, only who was picked can tell."""


@implementer(IPublicService)
class AwayService:
    """A reserved name or path whose agent is not connected.

    :ivar until: when it is given up; seconds since the epoch.
    """

    token_name = ""
    gatekeeper = None
    leaving = False
    outstanding = 0

    def __init__(self, name: str, host: str | None, until: float = float("inf")) -> None:
        self.name = name
        self.host = host
        self.until = until

    def available(self) -> bool:
        return False

    def pick(self) -> IPublicService:
        raise ServiceAway

    def open(self, visitor: IAddress, connection_id: str = "") -> Channel:
        raise ServiceAway

    def wait(self) -> Deferred[IPublicService]:
        return fail(ServiceAway())

    def request_begun(self) -> None:
        raise TypeError("nobody is there")

    request_ended = request_begun

    def failed(self) -> None:
        """It is away."""
