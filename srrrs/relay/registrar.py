"""Registration: which agent publishes which service, under which public address.

A service belongs to (token id, instance, name). Its address is reserved in the directory and stays
the same; here is what is *live*: the tunnel behind each address, and who may take it over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred, fail, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from zope.interface import implementer

from srrrs.net.channel import Channel
from srrrs.protocol.errors import CloseCode, TunnelGone
from srrrs.protocol.frames import (
    ControlFrame,
    Refused,
    Register,
    Registered,
    Withdraw,
    Withdrawn,
)
from srrrs.protocol.lifecycle import State
from srrrs.relay.directory import Directory, Key, Refusal, RefusalCode, Reservation
from srrrs.relay.edge.interfaces import IPublicService, IRoutes, ServiceAway, ServiceParked
from srrrs.relay.reserver import Reserver
from srrrs.relay.store import StoreError
from srrrs.relay.tunnels import AgentTunnel
from srrrs.relay.urls import PublicNames
from srrrs.relay.waiting import WaitingRoom

BACKLOG: Final = 4096
"""Connections that the kernel may hold for a public port before we accept them."""
BUSY_RETRY: Final = 5.0
"""Seconds after which a port that another program uses is tried again."""
HELD_RETRY: Final = 30.0
"""Seconds after which a service that another run holds may be asked for again."""
FRESH_TRIES: Final = 20
"""Random ports tried for a new reservation before the range counts as busy."""


@implementer(IPublicService)
class PublicService:
    """A live service: its address, and the tunnel that serves it."""

    listening: IListeningPort | None = None

    def __init__(
        self,
        reservation: Reservation,
        frame: Register,
        agent: AgentTunnel,
        endpoint: str,
        waiting: WaitingRoom,
    ) -> None:
        self._waiting = waiting
        self.reservation = reservation
        self.key = reservation.key
        self.name = frame.name
        self.kind = frame.kind
        self.service_id = frame.service_id
        self.agent = agent
        self.endpoint = endpoint

    def available(self) -> bool:
        return self.agent.live

    def open(self, visitor: IAddress) -> Channel:
        # Of a tunnel that drains the agent may have another in a moment.
        agent = self.agent
        tunnel = agent.tunnel
        if tunnel.state is State.PARKED or agent.draining:
            raise ServiceParked(self)
        try:
            return tunnel.open(self.service_id, visitor)
        except TunnelGone:
            raise ServiceAway from None

    def wait(self) -> Deferred[IPublicService]:
        return self._waiting.wait(self.key)


@implementer(IPublicService)
class AwayService:
    """A reserved name whose agent is not connected."""

    def __init__(self, name: str) -> None:
        self.name = name

    def available(self) -> bool:
        return False

    def open(self, visitor: IAddress) -> Channel:
        raise ServiceAway

    def wait(self) -> Deferred[IPublicService]:
        return fail(ServiceAway())


@implementer(IRoutes)
class Registrar:
    """The live services of a relay.

    :param clock: the reactor; also listens on the public ports.
    :param wall: seconds since the epoch.
    :param tcp_factory: from a service to the protocol factory of its public port.
    :param opened: told each public port that was opened, so that accept can be paused.
    :param most_services: services that one token may have live at a time.
    :param waiting: where visitors wait for an agent whose connection broke.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        wall: Callable[[], float],
        directory: Directory,
        names: PublicNames,
        tcp_ports: tuple[int, int],
        tcp_interface: str,
        tcp_factory: Callable[[IPublicService], IProtocolFactory],
        opened: Callable[[IListeningPort], None],
        closed: Callable[[IListeningPort], None],
        most_services: int,
        waiting: WaitingRoom,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._directory = directory
        self._names = names
        self._tcp_ports = tcp_ports
        self._tcp_interface = tcp_interface
        self._tcp_factory = tcp_factory
        self._opened = opened
        self._closed = closed
        self._most = most_services
        self._waiting = waiting
        self._live: dict[Key, PublicService] = {}
        self._by_label: dict[str, PublicService] = {}
        self._by_token: Counter[str] = Counter()
        # One claim at a time for each key, so that two newcomers cannot both take it over.
        self._locks: dict[Key, DeferredLock] = {}
        # Ports that are being closed: the same port may be asked for again at once.
        self._closing: dict[int, Deferred[Any]] = {}
        self._claims: set[Deferred[None]] = set()
        self._claimed_by_token: Counter[str] = Counter()
        self._reserver = Reserver(clock, wall, directory)

    # --- IRoutes ------------------------------------------------------------------------

    def is_control_host(self, host: str) -> bool:
        return self._names.is_control_host(host)

    def lookup(self, host: str) -> IPublicService | None:
        label = self._names.label_of(host)
        if label is None:
            return None
        service = self._by_label.get(label)
        if service is not None:
            return service
        try:
            known = self._directory.by_label(label) is not None
        except StoreError as error:
            self._log.error("the directory cannot be read: {error}", error=error)
            return AwayService(label)
        return AwayService(label) if known else None

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
            self._waiting.let_in(service.key, service)

    def agent_lost(self, agent: AgentTunnel) -> None:
        """The agent's tunnel ended: its services are away."""
        agent.pending.clear()
        services = list(agent.services.values())
        for service in services:
            self._unpublish(service)
        self._directory.touch([service.key for service in services], self._wall())

    def is_live(self, key: Key) -> bool:
        """Whether the service of a key is live now."""
        return key in self._live

    def live_keys(self) -> list[Key]:
        """Whose services are live now."""
        return list(self._live)

    def drain(self) -> None:
        """Visitors wait for no agent any more, for none comes back to this relay."""
        self._waiting.stop()

    async def stop(self) -> None:
        """Give up claims under way and wait for the public ports to be closed."""
        for claim in list(self._claims):
            claim.cancel()
        self._reserver.stop()
        self._waiting.stop()
        for service in list(self._live.values()):
            self._unpublish(service)
        for closing in list(self._closing.values()):
            await _after(closing)

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
        token = agent.identity
        key = Key(token.token_id, agent.hello.instance, frame.name)
        holder = self._live.get(key)
        moving = holder is not None and holder.agent.draining
        used = self._by_token[token.token_id] + self._claimed_by_token[token.token_id]
        if used - moving >= self._most:
            self._refuse(
                agent,
                frame,
                Refusal(RefusalCode.TOO_MANY_SERVICES, "the token has too many services", None),
            )
            return
        agent.pending.add(frame.service_id)
        self._claimed_by_token[token.token_id] += 1
        try:
            await self._claim_key(agent, frame, key)
        finally:
            agent.pending.discard(frame.service_id)
            self._claimed_by_token[token.token_id] -= 1
            if not self._claimed_by_token[token.token_id]:
                del self._claimed_by_token[token.token_id]

    async def _claim_key(self, agent: AgentTunnel, frame: Register, key: Key) -> None:
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            if frame.service_id in agent.pending:
                await self._settle(agent, frame, key)
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

    async def _settle(self, agent: AgentTunnel, frame: Register, key: Key) -> None:
        """Reserve and publish. :raises Refusal: it may not be."""
        holder = self._live.get(key)
        if holder is not None:
            await self._contest(agent, holder)
        if frame.kind == "http":
            reservation = await self._reserver.http(key, frame.asked)
            url = self._names.http_url(reservation.label or "")
            service = PublicService(reservation, frame, agent, url, self._waiting)
        else:
            service = await self._listen(agent, frame, key)
        if frame.service_id in agent.pending:
            self._publish(service)
        else:  # Withdrawn, or the tunnel ended, meanwhile.
            self._close_port(service)

    async def _contest(self, agent: AgentTunnel, holder: PublicService) -> None:
        """A live service is claimed: it stays with its holder if that still answers, and does not
        go away anyhow."""
        if holder.agent is agent:
            raise Refusal(RefusalCode.DUPLICATE, f"{holder.name} is registered already", None)
        if holder.agent.draining:
            self._unpublish(holder)
            holder.agent.tunnel.send_control(
                Withdrawn(holder.service_id, "this tunnel is about to end")
            )
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
            self._unpublish(holder)
            holder.agent.tunnel.send_control(
                Withdrawn(holder.service_id, "this agent did not answer, and another took over")
            )

    async def _listen(self, agent: AgentTunnel, frame: Register, key: Key) -> PublicService:
        """Reserve a port and listen on it. :raises Refusal: there is none, or it is busy."""
        low, high = self._tcp_ports
        tried: set[int] = set()
        while True:
            reservation = await self._reserver.port(key, frame.kind, low, high, exclude=tried)
            number = reservation.port or 0
            if number in self._closing:
                await _after(self._closing[number])
            url = self._names.tcp_url(number)
            service = PublicService(reservation, frame, agent, url, self._waiting)
            try:
                port = await self._endpoint(number).listen(self._tcp_factory(service))
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
            service.listening = port
            self._opened(port)
            return service

    def _endpoint(self, port: int) -> IStreamServerEndpoint:
        interface = self._tcp_interface
        kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
        return kind(self._clock, port, backlog=BACKLOG, interface=interface)

    def _publish(self, service: PublicService) -> None:
        agent = service.agent
        self._live[service.key] = service
        self._by_token[service.key.token_id] += 1
        label = service.reservation.label
        if label is not None:
            self._by_label[label] = service
        agent.services[service.service_id] = service
        agent.tunnel.send_control(Registered(service.service_id, service.endpoint))
        self._log.info(
            "{agent}: {name} is at {endpoint}",
            agent=agent,
            name=service.name,
            endpoint=service.endpoint,
        )
        self._waiting.let_in(service.key, service)

    def _unpublish(self, service: PublicService) -> None:
        service.agent.services.pop(service.service_id, None)
        if self._live.get(service.key) is not service:
            return
        del self._live[service.key]
        self._by_token[service.key.token_id] -= 1
        if not self._by_token[service.key.token_id]:
            del self._by_token[service.key.token_id]
        label = service.reservation.label
        if label is not None and self._by_label.get(label) is service:
            del self._by_label[label]
        self._close_port(service)

    def _close_port(self, service: PublicService) -> None:
        listening, service.listening = service.listening, None
        if listening is None:
            return
        self._closed(listening)
        number = service.reservation.port or 0
        closing = maybeDeferred(listening.stopListening)
        self._closing[number] = closing

        def closed(_: Any) -> None:
            # It must not return what it takes out: a Deferred that waits for itself never ends.
            self._closing.pop(number, None)

        closing.addErrback(
            lambda failure: self._log.failure("a public port cannot be closed", failure=failure)
        ).addBoth(closed)

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


def _after(deferred: Deferred[Any]) -> Deferred[None]:
    """Fires when ``deferred`` does, whatever its result, and leaves it alone."""
    waiter: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        if not waiter.called:
            waiter.callback(None)
        return result

    deferred.addBoth(tell)
    return waiter
