"""The gate: which agents are let in, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger

from srrrs._version import __version__
from srrrs.net.address import format_address
from srrrs.net.tunnel import Tunnel
from srrrs.net.websocket import Denial, RelayCarrier
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Denied, Hello, Welcome
from srrrs.protocol.mux import Limits, Role
from srrrs.relay.store import StoreError
from srrrs.relay.tokens import Identity, Tokens
from srrrs.relay.tunnels import AgentTunnel, Tunnels

if TYPE_CHECKING:
    from srrrs.relay.registrar import Registrar

CHECK_EVERY: Final = 1.0
"""Seconds between looks at whether a token was revoked or has expired."""


class Gate:
    """Checks tokens, welcomes agents, and ends the tunnels of tokens that are no longer valid.

    :param wall: seconds since the epoch, for expiry.
    :param heartbeats: the shortest and the longest interval allowed, in seconds.
    :param budget: the process's; each tunnel draws on it through one of its own.
    :param tunnel_budget: bytes of each tunnel's.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        tokens: Tokens,
        tunnels: Tunnels,
        registrar: Registrar,
        domain: str,
        heartbeats: tuple[float, float],
        limits: Limits,
        budget: Budget,
        tunnel_budget: int,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._tokens = tokens
        self._tunnels = tunnels
        self._registrar = registrar
        self._domain = domain
        self._heartbeats = heartbeats
        self._limits = limits
        self._budget = budget
        self._tunnel_budget = tunnel_budget
        self._number = 0

    def authorize(self, token: str | None, peer: IAddress) -> Identity:
        """Who the bearer of a token is.

        :raises Denial: 401 for any token that is not valid now, with nothing more said to the
            peer; 503 where the tokens cannot be read.
        """
        where = format_address(peer)
        if token is None:
            self._log.info("an agent at {peer} was turned away: it sent no token", peer=where)
            raise Denial(401, "a token is needed")
        now = self._wall()
        try:
            identity = self._tokens.check(token, now)
            why = "" if identity is not None else self._tokens.why(token, now)
        except StoreError as error:
            self._log.error("an agent at {peer} was put off: {error}", peer=where, error=error)
            raise Denial(503, "try again later") from None
        if identity is None:
            self._log.info("an agent at {peer} was turned away: {why}", peer=where, why=why)
            raise Denial(401, "the token is not valid")
        return identity

    def greet(self, carrier: RelayCarrier, identity: Identity, hello: Hello) -> None:
        """Answer a hello: the tunnel starts here, or the agent is told why not."""
        self._tunnels.replace(identity, hello.run)
        if not self._tunnels.has_room(identity):
            self._log.warn("{token} has too many tunnels", token=identity.name)
            carrier.answer(Denied("limit", "the token has too many tunnels", retry=True))
            return
        self._number += 1
        agent = AgentTunnel(
            identity,
            hello,
            self._number,
            self._wall(),
            self._registrar.control_received,
            self._lost,
        )
        budget = Budget(self._tunnel_budget, self._budget)
        agent.tunnel = Tunnel(self._clock, Role.RELAY, agent, self._limits, budget)
        shortest, longest = self._heartbeats
        heartbeat = min(max(hello.heartbeat, shortest), longest)
        carrier.answer(
            Welcome(
                str(self._number),
                heartbeat,
                self._domain,
                f"srrrs/{__version__}",
                frame=self._limits.frame,
            )
        )
        # First: attaching tells the end at once where the carrier is gone already.
        self._tunnels.add(agent, carrier.peer)
        agent.tunnel.attach(carrier, heartbeat)

    def _lost(self, agent: AgentTunnel) -> None:
        self._tunnels.remove(agent)
        self._registrar.agent_lost(agent)

    def check_tokens(self) -> None:
        """End the tunnels whose token was revoked or has expired."""
        try:
            ended = self._tokens.ended(self._tunnels.token_ids(), self._wall())
        except StoreError as error:
            self._log.error("the tokens cannot be checked: {error}", error=error)
            return
        if not ended:
            return
        for agent in self._tunnels:
            if agent.identity.token_id in ended:
                agent.tunnel.close(CloseCode.REVOKED, "the token was revoked or has expired")
