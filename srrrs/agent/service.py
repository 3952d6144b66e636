"""The agent: dials a relay for as long as it runs, and publishes its services over each tunnel.

What happens when is in :mod:`srrrs.agent.lifecycle`; what is published, in
:mod:`srrrs.agent.services`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs._version import __version__
from srrrs.agent.backends import EndpointBackend, IBackend, backend_endpoint
from srrrs.agent.identity import default_instance, new_run
from srrrs.agent.lifecycle import TRANSITIONS, Action, Input, State
from srrrs.agent.report import Reporter, process_reporter
from srrrs.agent.services import PublishedService, Services
from srrrs.config import AgentConfig, AgentLimits, ConfigError, TokenUnavailable
from srrrs.net.backoff import Backoff
from srrrs.net.carrier import ICarrier
from srrrs.net.channel import Channel
from srrrs.net.dial import DialError, DialTarget, dial
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.protocol.errors import CloseCode, ResetCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame, Goaway
from srrrs.protocol.handshake import Hello, Welcome
from srrrs.protocol.mux import Limits, Role

#: Seconds that withdrawing the services and closing the tunnel may take when the agent stops.
STOP_TIMEOUT: Final = 8.0

#: Ends after which an immediate redial would meet the same end again.
_STUBBORN: Final = frozenset(
    {CloseCode.PROTOCOL, CloseCode.VERSION, CloseCode.LIMIT, CloseCode.REPLACED}
)

Dial = Callable[[str, Hello], Deferred[tuple[ICarrier, Welcome]]]
"""From a token and a hello to the relay's answer; errbacks with :exc:`DialError`."""
MakeTunnel = Callable[[ITunnelHandler], Tunnel]
"""A tunnel that waits for its carrier."""


@implementer(ITunnelHandler)
class _Link:
    """One dial and the tunnel that comes of it; only the latest counts."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.dialling: Deferred[None] | None = None
        self.tunnel: Tunnel | None = None

    def stream_opened(self, channel: Channel, service_id: int) -> None:
        self._agent._stream_opened(self, channel, service_id)

    def control_received(self, frame: ControlFrame) -> None:
        self._agent._control_received(self, frame)

    def tunnel_lost(self, lost: TunnelLost) -> None:
        self._agent._tunnel_lost(self, lost)


class Agent(service.Service):
    """Keeps one tunnel to a relay and publishes services over it.

    :param clock: for waits and deadlines.
    :param relay: the edge URL, for people.
    :param instance: which machine this is.
    :param heartbeat: the interval to ask for, seconds.
    :param token: reads the token, at each dial; may raise
        :exc:`srrrs.config.TokenUnavailable`.
    :param dial: dials the relay.
    :param make_tunnel: makes the tunnel for a carrier that the relay has welcomed.
    :param reporter: is told what people want to know.
    :param random: gives floats in [0, 1), for jitter.
    :param frame: payload bytes of a DATA frame that its tunnels take; None: the default.
    :ivar run: the id of this tunnel's owner; new for each agent, kept over its redials.
    :ivar state: where it is in its life.
    :ivar services: what it publishes.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        relay: str,
        instance: str,
        heartbeat: float,
        token: Callable[[], str],
        dial: Dial,
        make_tunnel: MakeTunnel,
        reporter: Reporter,
        random: Callable[[], float] = random.random,
        stop_timeout: float = STOP_TIMEOUT,
        frame: int | None = None,
    ) -> None:
        self.run = new_run()
        self.state = State.IDLE
        self.services = Services(clock, random, self)
        self._clock = clock
        self._relay = relay
        self._hello = Hello(self.run, instance, f"srrrs/{__version__}", heartbeat, frame=frame)
        self._token = token
        self._dial = dial
        self._make_tunnel = make_tunnel
        self._reporter = reporter
        self._backoff = Backoff(random)
        self._stop_timeout = stop_timeout
        self._link: _Link | None = None
        self._timer: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] = []
        self._told: str | None = None
        self._began = False

    @property
    def tunnel(self) -> Tunnel | None:
        """The tunnel that stands now, or None."""
        link = self._link
        return link.tunnel if link is not None and self.state is State.CONNECTED else None

    # --- IService -------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start dialling; returns at once. :raises RuntimeError: the agent is still stopping."""
        self._input(Input.START)
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Withdraw the services and close the tunnel; fires when all has ended, within
        :data:`STOP_TIMEOUT`. Services stay in the agent for the next start."""
        super().stopService()  # type: ignore[no-untyped-call]
        ended: Deferred[None] = Deferred()
        self._stopped.append(ended)
        self._input(Input.STOP)
        return ended

    # --- services -------------------------------------------------------------------------------

    def add(
        self, name: str, kind: str, backend: IBackend, asked: str | None = None
    ) -> PublishedService:
        """Publish one more service, now or as soon as a tunnel stands.

        :param asked: for ``http``, the subdomain to ask for.
        :raises ValueError: the name is taken or cannot be one, or the kind is unknown.
        """
        return self.services.add(name, kind, backend, asked)

    def remove(self, name: str) -> Deferred[None]:
        """Withdraw a service; fires once that is done. :raises KeyError: no such service."""
        return self.services.remove(name)

    # --- ServiceObserver ------------------------------------------------------------------------

    def ready(self, service: PublishedService) -> None:
        assert service.endpoint is not None
        self._reporter.ready(service.name, service.kind, service.endpoint, service.backend.target)

    def refused(
        self, service: PublishedService, code: str, message: str, retry: float | None
    ) -> None:
        self._reporter.refused(service.name, service.kind, code, message, retry)

    def withdrawn(self, service: PublishedService, reason: str) -> None:
        self._reporter.withdrawn(service.name, service.kind, reason)

    # --- inputs ---------------------------------------------------------------------------------

    def _input(self, event: Input, detail: Any = None) -> None:
        before = self.state
        self.state, actions = TRANSITIONS[before, event]
        self._log.debug(
            "{before} - {event} - {after}",
            before=before.value,
            event=event.value,
            after=self.state.value,
        )
        for action in actions:
            _ACTIONS[action](self, detail)

    def _timer_ran_out(self) -> None:
        self._timer = None
        self._input(Input.DUE)

    async def _attempt(self, link: _Link) -> None:
        try:
            token = self._token()
        except TokenUnavailable as problem:
            raise DialError(str(problem), heals=False) from None
        carrier, welcome = await self._dial(token, self._hello)
        # No await from here on: a carrier that is not started at once is aborted.
        if link is self._link:
            self._input(Input.WELCOMED, (link, carrier, welcome))
        else:
            carrier.abort()

    def _dial_ended(self, failure: Failure, link: _Link) -> None:
        if link is not self._link:
            return
        problem = failure.value
        if not isinstance(problem, DialError):
            if self.state is State.DIALLING:
                self._log.failure("a dial failed in an unexpected way", failure)
            problem = DialError(f"the dial failed: {failure.getErrorMessage()}")
        self._input(Input.FAILED, problem)

    def _stream_opened(self, link: _Link, channel: Channel, service_id: int) -> None:
        if link is self._link:
            self.services.opened(channel, service_id)
        else:
            channel.reset(ResetCode.GONE, "the agent has another tunnel")

    def _control_received(self, link: _Link, frame: ControlFrame) -> None:
        if link is not self._link:
            return
        if isinstance(frame, Goaway):
            self._reporter.draining(frame.reason)
        else:
            self.services.received(frame)

    def _tunnel_lost(self, link: _Link, lost: TunnelLost) -> None:
        if link is self._link:
            self.services.down()
            self._input(Input.LOST, lost)

    # --- actions --------------------------------------------------------------------------------

    def _do_dial(self, _: Any) -> None:
        self._began = True
        link = self._link = _Link(self)
        link.dialling = Deferred.fromCoroutine(self._attempt(link))
        link.dialling.addErrback(self._dial_ended, link)
        link.dialling.addErrback(
            lambda failure: self._log.failure("the agent's dialling failed", failure)
        )

    def _do_attach(self, detail: tuple[_Link, ICarrier, Welcome]) -> None:
        link, carrier, welcome = detail
        self._backoff.reset()
        self._told = None
        self._reporter.connected(self._relay, welcome.tunnel)
        try:
            tunnel = link.tunnel = self._make_tunnel(link)
            tunnel.attach(carrier, welcome.heartbeat)
            # A carrier that broke meanwhile has told so already.
            if link is self._link and self.state is State.CONNECTED:
                self.services.up(tunnel.send_control)
        except Exception:
            self._log.failure("a tunnel could not be taken into use")
            carrier.abort()
            if link.tunnel is not None:
                link.tunnel.abort("a fault in the agent")
            elif self.state is State.CONNECTED:
                self._input(Input.LOST, TunnelLost(None, "a fault in the agent"))

    def _do_discard(self, detail: tuple[_Link, ICarrier, Welcome]) -> None:
        detail[1].abort()

    def _do_schedule(self, detail: DialError | TunnelLost) -> None:
        if isinstance(detail, DialError):
            delay = self._backoff.next() if detail.heals else self._backoff.next_slow()
            # The same trouble again is no change of state.
            if self._told != str(detail):
                self._told = str(detail)
                self._reporter.retrying(str(detail), delay, detail.heals)
        else:
            stubborn = detail.code in _STUBBORN
            delay = self._backoff.next_slow() if stubborn else self._backoff.next()
            self._reporter.disconnected(detail.reason.rstrip("."), delay)
        self._timer = self._clock.callLater(delay, self._timer_ran_out)

    def _do_unschedule(self, _: Any) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _do_cancel_dial(self, _: Any) -> None:
        self._timer = self._clock.callLater(self._stop_timeout, self._timer_ran_out)
        link = self._link
        if link is not None and link.dialling is not None:
            link.dialling.cancel()

    def _do_close(self, _: Any) -> None:
        self._timer = self._clock.callLater(self._stop_timeout, self._timer_ran_out)
        link = self._link
        assert link is not None
        assert link.tunnel is not None
        tunnel = link.tunnel

        def withdrawn(_: None) -> Deferred[None]:
            tunnel.close(CloseCode.SHUTDOWN, "the agent stops")
            return tunnel.when_closed()

        closed = self.services.suspend().addCallback(withdrawn)
        closed.addCallback(lambda _: self._input(Input.CLOSED))
        closed.addErrback(lambda failure: self._log.failure("stopping failed", failure))

    def _do_abort(self, _: Any) -> None:
        link, self._link = self._link, None
        self.services.down()
        if link is None:
            return
        if link.tunnel is not None:
            link.tunnel.abort("the agent stops")
        elif link.dialling is not None:
            link.dialling.cancel()

    def _do_finish(self, _: Any) -> None:
        self._link = None
        if self._began:
            self._began = False
            self._reporter.stopped()
        waiters, self._stopped = self._stopped, []
        for waiter in waiters:
            waiter.callback(None)

    def _do_refuse(self, _: Any) -> None:
        raise RuntimeError("the agent is still stopping")


_ACTIONS: Final[dict[Action, Callable[[Agent, Any], None]]] = {
    Action.DIAL: Agent._do_dial,
    Action.ATTACH: Agent._do_attach,
    Action.DISCARD: Agent._do_discard,
    Action.SCHEDULE: Agent._do_schedule,
    Action.UNSCHEDULE: Agent._do_unschedule,
    Action.CANCEL_DIAL: Agent._do_cancel_dial,
    Action.CLOSE: Agent._do_close,
    Action.ABORT: Agent._do_abort,
    Action.FINISH: Agent._do_finish,
    Action.REFUSE: Agent._do_refuse,
}


def agent_for(
    reactor: Any,
    target: DialTarget,
    token: Callable[[], str],
    reporter: Reporter,
    *,
    instance: str | None,
    heartbeat: float,
    limits: AgentLimits,
    budget: Budget,
) -> Agent:
    """An agent that dials ``target`` for real.

    :param instance: default: derived from the machine and the user.
    :param heartbeat: seconds.
    :param budget: the process's; the agent's tunnels get a part of it.
    """
    mux_limits = Limits(
        streams=limits.streams, window=limits.window_bytes, frame=limits.frame_bytes
    )

    def make_tunnel(handler: ITunnelHandler) -> Tunnel:
        part = Budget(limits.tunnel_buffer_bytes, budget)
        return Tunnel(reactor, Role.AGENT, handler, mux_limits, part)

    return Agent(
        reactor,
        relay=target.url,
        instance=instance or default_instance(),
        heartbeat=heartbeat,
        token=token,
        dial=lambda secret, hello: dial(
            reactor, target, secret, hello, timeout=limits.handshake_timeout
        ),
        make_tunnel=make_tunnel,
        reporter=reporter,
        frame=limits.frame_bytes,
    )


def make_agent(reactor: Any, config: AgentConfig, reporter: Reporter | None = None) -> Agent:
    """The agent that a configuration asks for, with all its services; not started yet.

    :raises ConfigError: an edge URL or address that cannot be used.
    """
    try:
        target = DialTarget.from_url(
            config.edge_url, ca_file=config.ca_file, pin=config.pin, insecure=config.insecure
        )
    except ValueError as problem:
        raise ConfigError(f"--edge-url: {problem}") from None
    agent = agent_for(
        reactor,
        target,
        config.token.read,
        reporter if reporter is not None else process_reporter(as_json=config.json),
        instance=config.instance,
        heartbeat=config.heartbeat_interval,
        limits=config.limits,
        budget=Budget(config.limits.buffer_bytes),
    )
    timeout = config.limits.connect_timeout
    for spec in config.services:
        try:
            endpoint = backend_endpoint(reactor, spec.endpoint, timeout)
        except (ValueError, TypeError, OSError) as problem:
            raise ConfigError(f"{spec.name}: {spec.address!r}: {problem}") from None
        backend = EndpointBackend(reactor, endpoint, spec.address, timeout)
        try:
            agent.add(spec.name, spec.kind, backend, spec.asked)
        except ValueError as problem:
            raise ConfigError(str(problem)) from None
    return agent
