"""Registration: which agent publishes which service, under which public address.

A service belongs to (token id, instance, name), or where several agents share it to (token id, name
and path). Its address is reserved in the directory and stays the same; here is what is *live*: the
tunnel behind each address, and who may take it over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from srrrs.http.policy import PolicyError
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.frames import (
    NAMED_KINDS,
    ControlFrame,
    Refused,
    Register,
    Registered,
    Withdraw,
    Withdrawn,
)
from srrrs.relay.directory import Directory
from srrrs.relay.edge.gatekeeper import Gatekeeper, Policies
from srrrs.relay.edge.interfaces import IPublicService, IRoutes
from srrrs.relay.ports import PublicPorts
from srrrs.relay.published import PublicService, SharedService, Surroundings
from srrrs.relay.refusal import Refusal, RefusalCode
from srrrs.relay.reservation import Key, Reservation
from srrrs.relay.reserver import Reserver
from srrrs.relay.routes import Routes
from srrrs.relay.scope import PortRange
from srrrs.relay.store import StoreError
from srrrs.relay.tunnels import AgentTunnel
from srrrs.relay.urls import PublicNames
from srrrs.relay.wishes import Wish, Wishes

BUSY_RETRY: Final = 5.0
"""Seconds after which a port that another program uses is tried again."""
HELD_RETRY: Final = 30.0
"""Seconds after which a service that another run holds may be asked for again."""
FRESH_TRIES: Final = 20
"""Random ports tried for a new reservation before the range counts as busy."""


@implementer(IRoutes)
class Registrar:
    """The live services of a relay.

    :param clock: the reactor.
    :param wall: seconds since the epoch.
    :param tcp_ports: lowest and highest public port.
    :param ports: opens the public ports.
    :param tcp_factory: from a service to the protocol factory of its public port.
    :param most_services: services that one token may have live at a time.
    :param around: what all services share.
    :param policies: makes the gatekeepers of services.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        directory: Directory,
        names: PublicNames,
        tcp_ports: PortRange,
        ports: PublicPorts,
        tcp_factory: Callable[[PublicService], IProtocolFactory],
        most_services: int,
        around: Surroundings,
        policies: Policies,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._directory = directory
        self._names = names
        self._wishes = Wishes(names, tcp_ports)
        self._ports = ports
        self._tcp_factory = tcp_factory
        self._most = most_services
        self._around = around
        self._waiting = around.waiting
        self._policies = policies
        self._routes = Routes(wall, directory, names)
        # A key is in one of the two at the most: in the latter if it is a shared one.
        self._live: dict[Key, PublicService] = {}
        self._shared: dict[Key, SharedService] = {}
        self._by_token: Counter[str] = Counter()
        # One claim at a time for each key, so that two newcomers cannot both take it over.
        self._locks: dict[Key, DeferredLock] = {}
        self._claims: set[Deferred[None]] = set()
        self._claimed_by_token: Counter[str] = Counter()
        self._reserver = Reserver(clock, wall, directory)

    # --- IRoutes ------------------------------------------------------------------------

    def is_control_host(self, host: str) -> bool:
        return self._names.is_control_host(host)

    def lookup(self, host: str, path: bytes) -> IPublicService | None:
        return self._routes.lookup(host, path)

    def lookup_tls(self, host: str) -> IPublicService | None:
        return self._routes.lookup_tls(host)

    # --- from the agents ----------------------------------------------------------------

    def control_received(self, agent: AgentTunnel, frame: ControlFrame) -> None:
        """A service frame of an agent."""
        if isinstance(frame, Register):
            self._start(self._claim(agent, frame))
        elif isinstance(frame, Withdraw):
            service = agent.services.get(frame.service_id)
            if service is not None:
                self._unpublish(service)
                self._log.info("{agent}: {name} withdrawn", agent=agent, name=service.name)
            agent.pending.discard(frame.service_id)
            agent.tunnel.send_control(Withdrawn(frame.service_id, "as asked"))

    def agent_back(self, agent: AgentTunnel) -> None:
        """The agent's session goes on: so may the visitors who wait for it."""
        if agent.draining:
            return
        for service in list(agent.services.values()):
            self._waiting.let_in(service.key, service.shared or service)

    def agent_lost(self, agent: AgentTunnel) -> None:
        """The agent's tunnel ended: its services are away."""
        agent.pending.clear()
        services = list(agent.services.values())
        for service in services:
            self._unpublish(service)
        self._directory.touch([service.key for service in services], self._wall())

    def is_live(self, key: Key) -> bool:
        """Whether the service of a key is live now."""
        return key in self._live or key in self._shared

    def live_keys(self) -> list[Key]:
        """Whose services are live now."""
        return [*self._live, *self._shared]

    def drain(self) -> None:
        """Visitors wait for no agent any more, for none comes back to this relay."""
        self._waiting.stop()

    async def stop(self) -> None:
        """Give up claims under way and wait for the public ports to be closed."""
        for claim in list(self._claims):
            claim.cancel()
        self._reserver.stop()
        self._waiting.stop()
        members = [member for group in self._shared.values() for member in group]
        for service in [*self._live.values(), *members]:
            self._unpublish(service)
        await self._ports.all_closed()

    # --- within -------------------------------------------------------------------------

    def _start(self, claim: Coroutine[Any, Any, None]) -> None:
        deferred = ensureDeferred(claim)
        if not deferred.called:
            self._claims.add(deferred)
        deferred.addErrback(
            lambda failure: self._log.failure("a registration failed", failure=failure)
        ).addBoth(lambda _: self._claims.discard(deferred))

    async def _claim(self, agent: AgentTunnel, frame: Register) -> None:
        if frame.service_id in agent.services or frame.service_id in agent.pending:
            agent.tunnel.close(CloseCode.PROTOCOL, "a service id was registered twice")
            return
        try:
            wish = self._wishes.of(agent, frame)
        except Refusal as refusal:
            self._refuse(agent, frame, refusal)
            return
        token = agent.identity
        used = self._by_token[token.token_id] + self._claimed_by_token[token.token_id]
        if used - self._moves(agent, wish.key) >= self._most:
            self._refuse(
                agent,
                frame,
                Refusal(RefusalCode.TOO_MANY_SERVICES, "the token has too many services", None),
            )
            return
        agent.pending.add(frame.service_id)
        self._claimed_by_token[token.token_id] += 1
        try:
            await self._claim_key(agent, frame, wish)
        finally:
            agent.pending.discard(frame.service_id)
            self._claimed_by_token[token.token_id] -= 1
            if not self._claimed_by_token[token.token_id]:
                del self._claimed_by_token[token.token_id]

    def _moves(self, agent: AgentTunnel, key: Key) -> bool:
        """Whether the service comes from a tunnel that is about to end."""
        holder: PublicService | None = self._live.get(key) or self._former(agent, key)
        return holder is not None and holder.agent.draining

    def _former(self, agent: AgentTunnel, key: Key) -> PublicService | None:
        """What the same agent serves of a shared service by a tunnel that is about to end."""
        for member in self._shared.get(key, ()):
            if member.agent.draining and member.agent.hello.run == agent.hello.run:
                return member
        return None

    async def _claim_key(self, agent: AgentTunnel, frame: Register, wish: Wish) -> None:
        key = wish.key
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            if frame.service_id in agent.pending:
                await self._settle(agent, frame, wish)
        except Refusal as refusal:
            self._refuse(agent, frame, refusal)
        except StoreError as error:
            self._log.error("the directory cannot be used: {error}", error=error)
            self._refuse(
                agent,
                frame,
                Refusal(RefusalCode.UNAVAILABLE, "the relay cannot do that now", BUSY_RETRY),
            )
        finally:
            lock.release()
            if not lock.locked and not lock.waiting:
                self._locks.pop(key, None)

    async def _settle(self, agent: AgentTunnel, frame: Register, wish: Wish) -> None:
        """Reserve and publish. :raises Refusal: it may not be."""
        key = wish.key
        if key.shared:
            self._join(agent, frame, key)
        holder = self._live.get(key)
        if holder is not None:
            await self._contest(agent, holder)
        if frame.kind in NAMED_KINDS:
            reservation = await self._reserver.name(key, frame.kind, wish.name, wish.path)
            service = self._named(agent, frame, reservation)
        else:
            service = await self._listen(agent, frame, wish)
        if frame.service_id in agent.pending:
            self._publish(service)
        else:  # Withdrawn, or the tunnel ended, meanwhile.
            self._close_port(service)

    def _join(self, agent: AgentTunnel, frame: Register, key: Key) -> None:
        """:raises Refusal: the agent serves it already."""
        former = self._former(agent, key)
        if former is not None:
            self._withdraw(former, "this tunnel is about to end")
        group = self._shared.get(key)
        if group is not None and group.by_agent(agent) is not None:
            raise Refusal(RefusalCode.DUPLICATE, f"{frame.name} is registered already", None)

    def _named(
        self, agent: AgentTunnel, frame: Register, reservation: Reservation
    ) -> PublicService:
        """:raises Refusal: its policy cannot be."""
        name = reservation.name or ""
        if frame.kind == "tls":
            url = self._names.tls_url(name)
        else:
            url = self._names.http_url(name, reservation.path)
        host = self._names.host_of(name)
        gatekeeper = self._gatekeeper(frame, url)
        return PublicService(reservation, frame, agent, url, host, gatekeeper, self._around)

    def _gatekeeper(self, frame: Register, url: str) -> Gatekeeper | None:
        try:
            return self._policies.gatekeeper(frame.policy, frame.kind, frame.name, url)
        except PolicyError as problem:
            raise Refusal(RefusalCode.POLICY, str(problem)) from None

    async def _contest(self, agent: AgentTunnel, holder: PublicService) -> None:
        """A live service is claimed: it stays with its holder if that still answers, and does not
        go away anyhow."""
        if holder.agent is agent:
            raise Refusal(RefusalCode.DUPLICATE, f"{holder.name} is registered already", None)
        if holder.agent.draining:
            self._withdraw(holder, "this tunnel is about to end")
            return
        if await holder.agent.answers(self._clock):
            if self._live.get(holder.key) is not holder:
                return
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.agent.connected_at))
            raise Refusal(
                RefusalCode.HELD,
                f"{holder.name} is held by another agent of this instance, connected since "
                f"{since}; give this one another name (NAME=ADDR) or another --instance",
                HELD_RETRY,
            )
        if self._live.get(holder.key) is holder:
            self._log.warn(
                "{agent} takes {name} over from {old}, which does not answer",
                agent=agent,
                name=holder.name,
                old=holder.agent,
            )
            self._withdraw(holder, "this agent did not answer, and another took over")

    async def _listen(self, agent: AgentTunnel, frame: Register, wish: Wish) -> PublicService:
        """Reserve a port and listen on it. :raises Refusal: there is none, or it is busy."""
        key, tried = wish.key, set[int]()
        while True:
            reservation = await self._reserver.port(key, frame.kind, wish.ports, exclude=tried)
            number = reservation.port or 0
            url = self._names.tcp_url(number)
            gatekeeper = self._gatekeeper(frame, url)
            service = PublicService(reservation, frame, agent, url, None, gatekeeper, self._around)
            try:
                service.listening = await self._ports.open(number, self._tcp_factory(service))
            except CannotListenError as error:
                self._log.warn(
                    "{agent}: port {port} for {name} is busy: {error}",
                    agent=agent,
                    port=number,
                    name=frame.name,
                    error=error.socketError,
                )
                if reservation.new and len(tried) < FRESH_TRIES:
                    # Nobody was told of this one: another will do.
                    self._directory.release(key)
                    tried.add(number)
                    continue
                raise Refusal(
                    RefusalCode.PORT_BUSY,
                    f"port {number}, which is reserved for {frame.name}, is used by another "
                    "program on the relay; it is tried again",
                    BUSY_RETRY,
                ) from None
            return service

    def _publish(self, service: PublicService) -> None:
        agent, key = service.agent, service.key
        if not key.shared:
            self._live[key] = service
        elif key in self._shared:
            self._shared[key].add(service)
        else:
            self._shared[key] = SharedService(service)
        self._by_token[key.token_id] += 1
        if service.host is not None:
            self._routes.publish(service)
        agent.services[service.service_id] = service
        agent.tunnel.send_control(Registered(service.service_id, service.endpoint))
        self._log.info(
            "{agent}: {name} is at {endpoint}",
            agent=agent,
            name=service.name,
            endpoint=service.endpoint,
        )
        self._waiting.let_in(key, service.shared or service)

    def _withdraw(self, service: PublicService, reason: str) -> None:
        """Unasked."""
        self._unpublish(service)
        service.agent.tunnel.send_control(Withdrawn(service.service_id, reason))

    def _unpublish(self, service: PublicService) -> None:
        service.agent.services.pop(service.service_id, None)
        key, group = service.key, service.shared
        if group is None:
            if self._live.get(key) is not service:
                return
            del self._live[key]
            last = True
        else:
            if service not in group:
                return
            last = group.discard(service)
            if last:
                del self._shared[key]
        self._by_token[key.token_id] -= 1
        if not self._by_token[key.token_id]:
            del self._by_token[key.token_id]
        if last and service.host is not None:
            self._routes.unpublish(service)
        self._close_port(service)

    def _close_port(self, service: PublicService) -> None:
        listening, service.listening = service.listening, None
        if listening is not None:
            self._ports.close(service.reservation.port or 0, listening)

    def _refuse(self, agent: AgentTunnel, frame: Register, refusal: Refusal) -> None:
        self._log.info(
            "{agent}: {name} refused: {reason}",
            agent=agent,
            name=frame.name,
            reason=refusal.message,
        )
        agent.tunnel.send_control(
            Refused(frame.service_id, refusal.code, refusal.message, refusal.retry)
        )
