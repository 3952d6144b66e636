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
from srrrs.protocol.errors import CloseCode, ProtocolError, TunnelGone
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Denied, Grant, Hello, Resume, Resumed, Welcome
from srrrs.protocol.mux import Limits, Role
from srrrs.protocol.resumption import Prover
from srrrs.relay.sessions import Sessions, Stale
from srrrs.relay.store import StoreError
from srrrs.relay.tokens import Identity, Tokens
from srrrs.relay.tunnels import AgentTunnel, Tunnels
from srrrs.words import Tally, Word

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
    :param grace: the most seconds for which a session is kept after a carrier's end.
    :param drained: called when a tunnel is about to end.
    :ivar tally: what has happened to the tunnels, counted.
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
        grace: float,
        drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._drained = drained
        self._wall = wall
        self._tokens = tokens
        self._tunnels = tunnels
        self._registrar = registrar
        self._domain = domain
        self._heartbeats = heartbeats
        self._limits = limits
        self._budget = budget
        self._tunnel_budget = tunnel_budget
        self._sessions = Sessions(grace, budget)
        self._number = 0
        self.tally = Tally()
        self._closing = False

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
        """Answer a hello: the tunnel starts or goes on here, or the agent is told why not."""
        if hello.resume is not None:
            try:
                agent = self._sessions.claim(identity, hello, hello.resume, carrier.nonce)
            except Stale:
                carrier.answer(Denied("stale", "a newer connection was taken", retry=True))
                return
            if agent is not None and self._go_on(agent, carrier, hello, hello.resume):
                return
        self._begin(carrier, identity, hello)

    def _go_on(
        self, agent: AgentTunnel, carrier: RelayCarrier, hello: Hello, resume: Resume
    ) -> bool:
        """Go on with a session; whether that can be."""
        tunnel = agent.tunnel
        try:
            tunnel.check_resume(resume.received)
        except TunnelGone:
            return False
        except ProtocolError as error:
            carrier.fail(error)
            return True
        assert agent.ticket is not None
        proof = agent.ticket.prove(Prover.RELAY, carrier.nonce, resume.nonce, resume.carrier)
        resumed = Resumed(tunnel.session.received, proof)
        heartbeat = self._heartbeat(hello)
        carrier.answer(self._welcome(agent, heartbeat, resumed=resumed))
        tunnel.resume(carrier, heartbeat, resume.received)
        return True

    def drain(self, reason: str, edge_url: str | None) -> None:
        """Send all agents away, and welcome no new one. Sessions can still be gone on with.

        :param edge_url: where they are to go.
        """
        self._closing = True
        for agent in self._tunnels:
            agent.send_away(reason, edge_url)

    def _begin(self, carrier: RelayCarrier, identity: Identity, hello: Hello) -> None:
        if self._closing:
            carrier.answer(Denied("draining", "the relay is about to go away", retry=True))
            return
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
            self._changed,
        )
        budget = Budget(self._tunnel_budget, self._budget)
        agent.tunnel = Tunnel(self._clock, Role.RELAY, agent, self._limits, budget)
        heartbeat = self._heartbeat(hello)
        grant = self._sessions.grant(agent)
        carrier.answer(self._welcome(agent, heartbeat, grant=grant))
        # First: attaching tells the end at once where the carrier is gone already.
        self.tally.count(Word.CONNECTED)
        self._tunnels.add(agent, carrier.peer)
        agent.tunnel.attach(carrier, heartbeat, 0.0 if grant is None else grant.grace)

    def _heartbeat(self, hello: Hello) -> float:
        shortest, longest = self._heartbeats
        return min(max(hello.heartbeat, shortest), longest)

    def _welcome(
        self,
        agent: AgentTunnel,
        heartbeat: float,
        grant: Grant | None = None,
        resumed: Resumed | None = None,
    ) -> Welcome:
        return Welcome(
            str(agent.number),
            heartbeat,
            self._domain,
            f"srrrs/{__version__}",
            frame=self._limits.frame,
            grant=grant,
            resumed=resumed,
        )

    def _changed(self, agent: AgentTunnel, word: Word) -> None:
        self.tally.count(word, agent.replayed if word is Word.RESUMED else 0)
        if word is Word.PARKED:
            self._sessions.park(agent)
        elif word is Word.RESUMED:
            self._sessions.unpark(agent)
            self._registrar.agent_back(agent)
        elif word is Word.DRAINING:
            self._tunnels.drain(agent)
            self._drained()
        else:
            self._sessions.forget(agent)
            self._tunnels.remove(agent)
            self._registrar.agent_lost(agent)

    def make_room(self) -> None:
        """While memory is used up, give up the parked sessions that have waited longest."""
        self._sessions.make_room()

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
