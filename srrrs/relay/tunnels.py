"""The live tunnels: who is connected, by run and by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from srrrs.net.address import format_address
from srrrs.net.channel import Channel
from srrrs.net.heartbeat import TunnelEnded
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.protocol.errors import CloseCode, ResetCode
from srrrs.protocol.frames import ControlFrame, Goaway
from srrrs.protocol.handshake import Hello
from srrrs.protocol.resumption import Ticket
from srrrs.relay.tokens import Identity
from srrrs.words import Word

if TYPE_CHECKING:
    from srrrs.relay.published import PublicService

ANSWER_WITHIN: Final = 2.0
"""Seconds in which the holder of a service must answer a ping to keep it."""


@implementer(ITunnelHandler)
class AgentTunnel:
    """One agent's tunnel, and the services that it publishes, by the agent's service ids.

    :param on_control: called with each service frame.
    :param on_change: called when it was parked, resumed or lost, or one end goes away.
    :ivar ticket: what a resume is proved with, where its session can be gone on with.
    :ivar carrier: the number of the latest carrier.
    :ivar draining: whether one end goes away: running streams finish, no new one is opened.
    """

    _log = Logger()

    tunnel: Tunnel

    def __init__(
        self,
        identity: Identity,
        hello: Hello,
        number: int,
        connected_at: float,
        on_control: Callable[[AgentTunnel, ControlFrame], None],
        on_change: Callable[[AgentTunnel, Word], None],
    ) -> None:
        self.identity = identity
        self.hello = hello
        self.number = number
        self.connected_at = connected_at
        self.services: dict[int, PublicService] = {}
        self.pending: set[int] = set()
        # HTTP requests under way to its services.
        self.requests = 0
        self._on_control = on_control
        self._on_change = on_change
        self.ticket: Ticket | None = None
        self.carrier = 0
        self.draining = False
        # Bytes sent again by the last resume.
        self.replayed = 0

    def __str__(self) -> str:
        instance = self.hello.instance
        short = instance if len(instance) <= 16 else f"{instance[:12]}…"
        return f"tunnel {self.number} ({self.identity.name}, {short})"

    @property
    def live(self) -> bool:
        """Whether the tunnel still stands."""
        return self.tunnel.ended is None

    def stream_opened(self, channel: Channel, service_id: int) -> None:
        # The decoder refuses OPEN on this end; here for the interface.
        channel.reset(ResetCode.UNKNOWN_SERVICE)

    def control_received(self, frame: ControlFrame) -> None:
        if isinstance(frame, Goaway):
            self._drain(frame.reason)
        else:
            self._on_control(self, frame)

    def send_away(self, reason: str, edge_url: str | None) -> None:
        """Tell the agent to go elsewhere: to ``edge_url``, or where it knows."""
        self.tunnel.send_control(Goaway(reason, edge_url))
        self._drain(reason)

    def _drain(self, reason: str) -> None:
        if self.draining:
            return
        self.draining = True
        self._log.info(
            "{agent}: {word}: {reason}; {streams} streams",
            agent=self,
            word=Word.DRAINING,
            reason=reason,
            streams=self.tunnel.streams,
        )
        self._on_change(self, Word.DRAINING)

    def tunnel_parked(self, lost: TunnelLost) -> None:
        self._log.info(
            "{agent}: {word}: {reason}", agent=self, word=Word.PARKED, reason=lost.reason
        )
        self._on_change(self, Word.PARKED)

    def tunnel_resumed(self, replayed: int) -> None:
        self._log.info(
            "{agent}: {word}: {replayed} bytes sent again",
            agent=self,
            word=Word.RESUMED,
            replayed=replayed,
        )
        self.replayed = replayed
        self._on_change(self, Word.RESUMED)

    def tunnel_lost(self, lost: TunnelLost) -> None:
        word = Word.EXPIRED if lost.expired else Word.DISCONNECTED
        self._log.info("{agent}: {word}: {reason}", agent=self, word=word, reason=lost.reason)
        self._on_change(self, word)

    async def answers(self, clock: IReactorTime) -> bool:
        """Whether the agent answers a ping in time."""
        waiter: Deferred[float] = self.tunnel.ping()
        waiter.addTimeout(ANSWER_WITHIN, clock, lambda failure, _: failure)
        try:
            await waiter
        except (TunnelEnded, CancelledError):
            return False
        return True


class Tunnels:
    """Every live tunnel of this relay.

    :param most_per_token: tunnels that one token may have at a time.
    """

    _log = Logger()

    def __init__(self, most_per_token: int) -> None:
        self._most = most_per_token
        self._by_run: dict[tuple[str, str], AgentTunnel] = {}
        self._by_token: Counter[str] = Counter()
        # They stand in nobody's way: neither their run's next tunnel nor their token's others.
        self._draining: set[AgentTunnel] = set()

    def __len__(self) -> int:
        return len(self._by_run) + len(self._draining)

    def __iter__(self) -> Iterator[AgentTunnel]:
        return iter([*self._by_run.values(), *self._draining])

    @property
    def streams(self) -> int:
        """Streams open now, in all of them."""
        return sum(agent.tunnel.streams for agent in self)

    def replace(self, identity: Identity, run: str) -> None:
        """The same run dialled again: its old tunnel, if it has one that does not drain, ends at
        once."""
        old = self._by_run.get((identity.token_id, run))
        if old is not None:
            old.tunnel.close(CloseCode.REPLACED, "the same agent connected again")

    def has_room(self, identity: Identity) -> bool:
        """Whether the token may have one more tunnel."""
        return self._by_token[identity.token_id] < self._most

    def add(self, agent: AgentTunnel, peer: IAddress) -> None:
        """Count a tunnel, until :meth:`remove`."""
        self._by_run[agent.identity.token_id, agent.hello.run] = agent
        self._by_token[agent.identity.token_id] += 1
        self._log.info(
            "{agent}: connected from {peer}, {version}",
            agent=agent,
            peer=format_address(peer),
            version=agent.hello.agent,
        )

    def drain(self, agent: AgentTunnel) -> None:
        """It goes away, and counts no more for its run and its token."""
        if self._by_run.get((agent.identity.token_id, agent.hello.run)) is agent:
            self.remove(agent)
            self._draining.add(agent)

    def remove(self, agent: AgentTunnel) -> None:
        self._draining.discard(agent)
        key = (agent.identity.token_id, agent.hello.run)
        if self._by_run.get(key) is agent:
            del self._by_run[key]
            self._by_token[agent.identity.token_id] -= 1
            if not self._by_token[agent.identity.token_id]:
                del self._by_token[agent.identity.token_id]

    def token_ids(self) -> set[str]:
        """The tokens that have a live tunnel."""
        return {*self._by_token, *(agent.identity.token_id for agent in self._draining)}
