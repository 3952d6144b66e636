"""The sessions that can be gone on with: whose each is, and which gives way for want of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Grant, Hello, Resume
from srrrs.protocol.resumption import Prover, Ticket
from srrrs.relay.tokens import Identity

if TYPE_CHECKING:
    from srrrs.relay.tunnels import AgentTunnel


class Stale(Exception):
    """An older dial of the session's owner than one that was taken since."""


class Sessions:
    """Every session of this relay that can be gone on with.

    :param grace: the most seconds for which one is kept after a carrier's end.
    :param budget: the process's memory; while it is used up, the oldest parked session gives way.
    """

    _log = Logger()

    def __init__(self, grace: float, budget: Budget) -> None:
        self._grace = grace
        self._budget = budget
        self._by_id: dict[str, AgentTunnel] = {}
        # In the order in which their carriers broke.
        self._parked: dict[str, AgentTunnel] = {}

    @property
    def parked(self) -> int:
        """How many wait for a carrier."""
        return len(self._parked)

    def grant(self, agent: AgentTunnel) -> Grant | None:
        """A new session for an agent; ``None`` where it asked for none, or none is kept."""
        grace = min(agent.hello.grace or 0.0, self._grace)
        if not grace:
            return None
        ticket = agent.ticket = Ticket.new()
        self._by_id[ticket.session] = agent
        return Grant(ticket.session, ticket.key.hex(), grace)

    def claim(
        self, identity: Identity, hello: Hello, resume: Resume, nonce: str
    ) -> AgentTunnel | None:
        """Whose session a hello goes on with; ``None``, whatever the reason, where it does not.

        :param nonce: what this relay has said on the new carrier.
        :raises Stale: a newer carrier of the same owner was taken before.
        """
        agent = self._by_id.get(resume.session)
        if agent is None or agent.ticket is None:
            return None
        if agent.identity.token_id != identity.token_id or agent.hello.run != hello.run:
            return None
        if not agent.ticket.proves(resume.proof, Prover.AGENT, nonce, resume.nonce, resume.carrier):
            return None
        if resume.carrier <= agent.carrier or resume.received < agent.tunnel.session.acked:
            raise Stale
        agent.carrier = resume.carrier
        return agent

    def park(self, agent: AgentTunnel) -> None:
        """Its carrier broke."""
        if agent.ticket is not None:
            self._parked[agent.ticket.session] = agent
            self.make_room()

    def unpark(self, agent: AgentTunnel) -> None:
        """It goes on."""
        if agent.ticket is not None:
            self._parked.pop(agent.ticket.session, None)

    def forget(self, agent: AgentTunnel) -> None:
        """It has ended."""
        if agent.ticket is not None:
            self._by_id.pop(agent.ticket.session, None)
            self._parked.pop(agent.ticket.session, None)

    def make_room(self) -> None:
        """While memory is used up, give up the session that has waited longest."""
        while self._parked and self._budget.exhausted:
            session, agent = next(iter(self._parked.items()))
            del self._parked[session]
            self._log.warn("{agent}: given up, for memory is used up", agent=agent)
            agent.tunnel.expire("the relay's memory was needed for others")
