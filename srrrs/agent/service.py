"""The agent: dials a relay for as long as it runs, and publishes its services over each tunnel.

What happens when is in :mod:`srrrs.agent.lifecycle`; what is published, in
:mod:`srrrs.agent.services`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from twisted.application import service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs._version import __version__
from srrrs.agent.backends import IBackend
from srrrs.agent.dialling import Answer, Dialling, explained
from srrrs.agent.edges import Edge, Edges
from srrrs.agent.identity import new_run
from srrrs.agent.lifecycle import TRANSITIONS, Action, Input, State
from srrrs.agent.link import Link
from srrrs.agent.report import Reporter
from srrrs.agent.resuming import REDIAL_EVERY, Held, Redialler, go_on
from srrrs.agent.retired import Retired
from srrrs.agent.services import PublishedService, Services
from srrrs.net.backoff import SLOW_BASE, Backoff
from srrrs.net.carrier import ICarrier
from srrrs.net.channel import Channel
from srrrs.net.dial import Answered, DialError
from srrrs.net.draining import DRAIN, when_idle
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.protocol.errors import CloseCode, ResetCode
from srrrs.protocol.frames import ControlFrame, Goaway, Register
from srrrs.protocol.handshake import Hello, Welcome

#: Seconds for which streams wait for another connection, unless told otherwise.
GRACE: Final = 60.0
#: Seconds that withdrawing the services and closing the tunnels may take when the agent stops, once
#: the streams have ended or had their time.
STOP_TIMEOUT: Final = 8.0
#: Tunnels of relays that went away whose streams still run; the oldest gives way.
MOST_RETIRED: Final = 8

#: Ends after which an immediate redial would meet the same end again.
_STUBBORN: Final = frozenset(
    {CloseCode.PROTOCOL, CloseCode.VERSION, CloseCode.LIMIT, CloseCode.REPLACED}
)

MakeTunnel = Callable[[ITunnelHandler], Tunnel]
"""A tunnel that waits for its carrier."""


class Agent(service.Service):
    """Keeps one tunnel to a relay and publishes services over it.

    :param clock: for waits and deadlines.
    :param edges: the relays that it may use.
    :param instance: which machine this is.
    :param heartbeat: the interval to ask for, seconds.
    :param grace: the seconds to ask for that streams wait when the connection breaks; 0: none.
    :param token: reads the token, at each dial; may raise
        :exc:`srrrs.config.TokenUnavailable`.
    :param make_tunnel: makes the tunnel for a carrier that the relay has welcomed.
    :param reporter: is told what people want to know.
    :param random: gives floats in [0, 1), for jitter.
    :param drain: seconds that running streams have to finish in when the agent stops.
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
        edges: Edges,
        instance: str,
        heartbeat: float,
        token: Callable[[], str],
        make_tunnel: MakeTunnel,
        reporter: Reporter,
        random: Callable[[], float] = random.random,
        stop_timeout: float = STOP_TIMEOUT,
        grace: float = GRACE,
        drain: float = DRAIN,
        frame: int | None = None,
    ) -> None:
        self.run = new_run()
        self.state = State.IDLE
        self.services = Services(clock, random, self)
        self._clock = clock
        self._edges = edges
        hello = Hello(
            self.run,
            instance,
            f"srrrs/{__version__}",
            heartbeat,
            frame=frame,
            grace=grace or None,
        )
        self._dialling = Dialling(edges, hello, token)
        self._make_tunnel = make_tunnel
        self._reporter = reporter
        self._backoff = Backoff(random)
        self._random = random
        self._stop_timeout = stop_timeout
        self._drain = drain
        self._link: Link | None = None
        self._retired: list[Retired] = []
        # Where to go next, in the place of all that there is.
        self._places: list[Edge] | None = None
        # While it stops: a dial that was given up, the withdrawals, and the streams' end.
        self._given_up: Deferred[None] = succeed(None)
        self._withdrawn: Deferred[None] = succeed(None)
        self._idle: Deferred[None] | None = None
        self._redialler = Redialler(clock, random, self._dial_again)
        self._timer: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] = []
        self._told: str | None = None
        # Whether what is waited for may pass, and since when.
        self._heals = True
        self._waiting_since = 0.0
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
        """Withdraw the services, let running streams finish, and close the tunnels; fires when all
        has ended, within ``drain`` seconds and :data:`STOP_TIMEOUT`. Services stay in the agent for
        the next start."""
        super().stopService()  # type: ignore[no-untyped-call]
        ended: Deferred[None] = Deferred()
        self._stopped.append(ended)
        self._input(Input.STOP)
        return ended

    # --- services -------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        kind: str,
        backend: IBackend,
        asked: str | None = None,
        *,
        hostname: str | None = None,
        path: str | None = None,
        share: bool = False,
        policy: dict[str, Any] | None = None,
    ) -> PublishedService:
        """Publish one more service, now or as soon as a tunnel stands.

        The arguments are those of :class:`~srrrs.protocol.frames.Register`.

        :raises ValueError: the name is taken, or one of them is malformed.
        """
        frame = Register(0, name, kind, asked, hostname, path, share, policy)
        return self.services.add(frame, backend)

    def remove(self, name: str) -> Deferred[None]:
        """Withdraw a service; fires once that is done. :raises KeyError: no such service."""
        return self.services.remove(name)

    # --- the network ----------------------------------------------------------------------------

    def network_changed(self) -> None:
        """The machine's network is another one now: doubt the connection, and do not sit out a
        wait that may have lost its reason."""
        link = self._link
        if self.state is State.CONNECTED and link is not None and link.tunnel is not None:
            link.tunnel.probe()
        elif self.state is State.PARKED:
            self._redialler.hurry()
        elif self.state is State.WAITING and self._timer is not None:
            # A restless network must not make the relay be dialled without a pause.
            least = REDIAL_EVERY[0] if self._heals else SLOW_BASE / 2
            soon = max(0.0, self._waiting_since + least - self._clock.seconds())
            if self._timer.getTime() > self._clock.seconds() + soon:
                self._timer.reset(soon)
        for each in list(self._retired):
            each.network_changed()

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

    # --- dials ----------------------------------------------------------------------------------

    def _welcomed(self, answer: Answer, link: Link) -> None:
        edge, carrier, welcome = answer
        if link is self._link:
            link.edge = edge
            self._input(Input.WELCOMED, (link, carrier, welcome))
        else:
            carrier.abort()

    def _dial_ended(self, failure: Failure, link: Link) -> None:
        if link is self._link:
            self._input(Input.FAILED, explained(failure, self.state is State.DIALLING))

    def _dial_again(self, answered: Answered) -> Deferred[None]:
        """One dial of those for a parked session."""
        link = self._link
        held = None if link is None else link.held
        # Nobody else has the session.
        places = None if link is None or link.edge is None else [link.edge]
        return (
            self._dialling.dial(held, answered, places)
            .addCallbacks(self._welcomed_again, self._dial_again_failed, callbackArgs=(held,))
            .addErrback(lambda failure: self._log.failure("the agent's dialling failed", failure))
        )

    def _welcomed_again(self, answer: Answer, held: Held | None) -> None:
        edge, carrier, welcome = answer
        link = self._link
        if link is None or link.held is not held:
            carrier.abort()
        elif welcome.resumed is not None:
            self._input(Input.RESUMED, (link, carrier, welcome))
        else:
            self._input(Input.WELCOMED, (Link(self, edge), carrier, welcome))

    def _dial_again_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        problem = explained(failure, self.state is State.PARKED)
        if self.state is State.PARKED and self._told != str(problem):
            self._told = str(problem)
            self._reporter.retrying(str(problem), REDIAL_EVERY[1], problem.heals)

    # --- LinkOwner ------------------------------------------------------------------------------

    def stream_opened(self, link: Link, channel: Channel, service_id: int) -> None:
        if link is self._link:
            self.services.opened(channel, service_id)
        else:
            channel.reset(ResetCode.GONE, "the agent has another tunnel")

    def control_received(self, link: Link, frame: ControlFrame) -> None:
        if link is not self._link:
            return
        if isinstance(frame, Goaway):
            assert link.edge is not None
            places = self._edges.beyond(link.edge, frame.edge_url)
            self._reporter.draining(frame.reason, link.edge.url, places[0].url if places else None)
            if places:
                self._input(Input.SENT_AWAY, places)
        else:
            self.services.received(frame)

    def tunnel_parked(self, link: Link, lost: TunnelLost) -> None:
        if link.retired is not None:
            link.retired.parked()
        elif link is self._link and link.tunnel is not None:
            link.parked_at = self._clock.seconds()
            self._told = None
            self._reporter.parked(lost.reason.rstrip("."), link.tunnel.grace)
            self._input(Input.PARKED, lost)

    def tunnel_resumed(self, link: Link, replayed: int) -> None:
        if link is self._link:
            away = self._clock.seconds() - link.parked_at
            self._reporter.resumed(self._relay_of(link), link.number, replayed, away)

    def tunnel_lost(self, link: Link, lost: TunnelLost) -> None:
        if link.retired is not None:
            link.retired.lost()
        elif link is self._link:
            self.services.down()
            if lost.expired:
                self._reporter.expired(lost.reason)
            self._input(Input.LOST, lost)

    def _relay_of(self, link: Link) -> str:
        return (link.edge or self._edges.first).url

    def _tunnels(self) -> list[Tunnel]:
        """All that stand, or have not quite ended."""
        link = self._link
        own = [] if link is None or link.tunnel is None else [link.tunnel]
        return [*own, *(each.tunnel for each in self._retired)]

    def _busy(self) -> int:
        return sum(each.streams for each in self._tunnels())

    def _settled(self) -> bool:
        """Whether the agent needs no older tunnel any more."""
        return self.state is State.CONNECTED and self.services.settled

    # --- actions --------------------------------------------------------------------------------

    def _do_dial(self, _: Any) -> None:
        self._began = True
        link = self._link = Link(self)
        places, self._places = self._places, None
        link.dialling = self._dialling.dial(places=places).addCallbacks(
            self._welcomed, self._dial_ended, callbackArgs=(link,), errbackArgs=(link,)
        )
        link.dialling.addErrback(
            lambda failure: self._log.failure("the agent's dialling failed", failure)
        )

    def _do_attach(self, detail: tuple[Link, ICarrier, Welcome]) -> None:
        link, carrier, welcome = detail
        self._link = link
        self._backoff.reset()
        self._told = None
        self._reporter.connected(self._relay_of(link), welcome.tunnel)
        grant = welcome.grant
        try:
            tunnel = link.tunnel = self._make_tunnel(link)
            link.number = welcome.tunnel
            if grant is not None:
                link.held = Held.of(grant, tunnel)
            tunnel.attach(carrier, welcome.heartbeat, 0.0 if grant is None else grant.grace)
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

    def _do_redial(self, _: Any) -> None:
        self._redialler.start()

    def _do_halt(self, _: Any) -> None:
        self._redialler.stop()

    def _do_go_on(self, detail: tuple[Link, ICarrier, Welcome]) -> None:
        link, carrier, welcome = detail
        self._told = None
        assert link.tunnel is not None
        assert welcome.resumed is not None
        go_on(link.tunnel, carrier, welcome.heartbeat, welcome.resumed)

    def _do_give_up(self, _: Any) -> None:
        link, self._link = self._link, None
        self.services.down()
        if link is not None and link.tunnel is not None:
            reason = "the relay does not know this session any more"
            self._reporter.expired(reason)
            link.tunnel.expire(reason)

    def _do_discard(self, detail: tuple[Link, ICarrier, Welcome]) -> None:
        detail[1].abort()

    def _do_retire(self, places: list[Edge]) -> None:
        link, self._link = self._link, None
        assert link is not None
        assert link.tunnel is not None
        assert link.edge is not None
        self._places = places
        # No new visitor comes by this tunnel.
        self.services.down()
        link.retired = Retired(
            self._clock,
            self._random,
            link.tunnel,
            link.edge,
            link.held,
            self._dialling,
            self._settled,
            self._retired.remove,
        )
        self._retired.append(link.retired)
        if len(self._retired) > MOST_RETIRED:
            self._retired[0].tunnel.close(CloseCode.LIMIT, "the agent has too many tunnels")

    def _do_schedule(self, detail: DialError | TunnelLost | list[Edge]) -> None:
        if isinstance(detail, list):
            # Not all agents of a relay at one moment.
            self._heals = True
            delay = self._backoff.next()
        elif isinstance(detail, DialError):
            self._heals = detail.heals
            delay = self._backoff.next() if detail.heals else self._backoff.next_slow()
            # The same trouble again is no change of state.
            if self._told != str(detail):
                self._told = str(detail)
                self._reporter.retrying(str(detail), delay, detail.heals)
        else:
            self._heals = detail.code not in _STUBBORN
            delay = self._backoff.next() if self._heals else self._backoff.next_slow()
            self._reporter.disconnected(detail.reason.rstrip("."), delay)
        self._waiting_since = self._clock.seconds()
        self._timer = self._clock.callLater(delay, self._timer_ran_out)

    def _do_unschedule(self, _: Any) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _do_cancel_dial(self, _: Any) -> None:
        link, self._link = self._link, None
        if link is not None and link.dialling is not None:
            self._given_up = link.dialling
            link.dialling.cancel()

    def _do_withdraw(self, _: Any) -> None:
        link = self._link
        if link is not None and link.tunnel is not None:
            link.tunnel.send_control(Goaway("the agent stops"))
        self._withdrawn = self.services.suspend()
        streams = self._busy()
        if not self._drain or not streams:
            self._input(Input.DRAINED)
            return
        self._reporter.leaving(streams, self._drain)
        self._timer = self._clock.callLater(self._drain, self._timer_ran_out)
        idle = self._idle = when_idle(self._clock, lambda: not self._busy())
        idle.addCallbacks(
            lambda _: self._input(Input.DRAINED), lambda failure: failure.trap(CancelledError)
        ).addErrback(lambda failure: self._log.failure("stopping failed", failure))

    def _do_close(self, _: Any) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.cancel()
        self._timer = self._clock.callLater(self._stop_timeout, self._timer_ran_out)
        link = self._link
        if link is None or link.tunnel is None or link.tunnel.parked:
            # Nobody is there to confirm anything.
            self.services.down()

        def withdrawn(_: None) -> Deferred[Any]:
            tunnels = self._tunnels()
            ends = [self._given_up, *(each.when_closed() for each in tunnels)]
            for each in tunnels:
                each.close(CloseCode.SHUTDOWN, "the agent stops")
            return DeferredList(ends)

        closed = self._withdrawn.addCallback(withdrawn)
        closed.addCallback(lambda _: self._input(Input.CLOSED))
        closed.addErrback(lambda failure: self._log.failure("stopping failed", failure))

    def _do_abort(self, _: Any) -> None:
        tunnels = self._tunnels()
        self._link = None
        self.services.down()
        for each in tunnels:
            each.abort("the agent stops")

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
    Action.REDIAL: Agent._do_redial,
    Action.HALT: Agent._do_halt,
    Action.GO_ON: Agent._do_go_on,
    Action.GIVE_UP: Agent._do_give_up,
    Action.DISCARD: Agent._do_discard,
    Action.SCHEDULE: Agent._do_schedule,
    Action.UNSCHEDULE: Agent._do_unschedule,
    Action.RETIRE: Agent._do_retire,
    Action.CANCEL_DIAL: Agent._do_cancel_dial,
    Action.WITHDRAW: Agent._do_withdraw,
    Action.CLOSE: Agent._do_close,
    Action.ABORT: Agent._do_abort,
    Action.FINISH: Agent._do_finish,
    Action.REFUSE: Agent._do_refuse,
}
