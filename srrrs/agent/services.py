"""The services that an agent publishes: what was asked of the relay, and what it answered.

The agent opens nothing that is not in here and registered: an OPEN that names any other id is
reset, whatever a relay asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from srrrs.agent.backends import IBackend
from srrrs.agent.phases import TRANSITIONS, Action, Input, Phase
from srrrs.net.backoff import SLOW_BASE, SLOW_CAP, Backoff
from srrrs.protocol.errors import ProtocolError, ResetCode
from srrrs.protocol.frames import (
    ControlFrame,
    Refused,
    Register,
    Registered,
    Withdraw,
    Withdrawn,
    check_register,
)

#: Seconds that the relay has to confirm a withdrawal before the agent takes it for done.
WITHDRAW_TIMEOUT: Final = 5.0
#: Waits between repeated registrations of a refused service: first and highest ceiling, seconds.
RETRY_BASE: Final = 2.0
RETRY_CAP: Final = 60.0
#: Highest wait that a relay's `retry` is believed to, seconds.
RETRY_MAX: Final = 3600.0


_UNCONFIRMED = frozenset({Phase.SUSPENDING, Phase.WITHDRAWING})


class ServiceRefused(Exception):
    """The relay does not provide a service, and asking again cannot help.

    :ivar service: its name.
    :ivar code: the relay's word for the cause.
    :ivar message: the relay's sentence for people.
    """

    def __init__(self, service: str, code: str, message: str) -> None:
        super().__init__(f"{service}: {message}")
        self.service = service
        self.code = code
        self.message = message


class ServiceRemoved(Exception):
    """The service was removed before the relay provided it."""


class ServiceObserver(Protocol):
    """Whom the registry tells what people want to know."""

    def ready(self, service: PublishedService) -> None: ...
    def refused(
        self, service: PublishedService, code: str, message: str, retry: float | None
    ) -> None: ...
    def withdrawn(self, service: PublishedService, reason: str) -> None: ...


class PublishedService:
    """One service of an agent.

    :ivar frame: what the relay is asked, but for the service id.
    :ivar name: unique in the agent; a DNS label, and the path where it has one.
    :ivar kind: ``http``, ``tls``, ``tcp`` or ``ssh``.
    :ivar backend: who serves its streams.
    :ivar phase: where it is.
    :ivar endpoint: its public URL while registered, else None.
    """

    def __init__(self, frame: Register, backend: IBackend, backoff: Backoff) -> None:
        self.frame = frame
        self.name = frame.name
        self.kind = frame.kind
        self.backend = backend
        self.phase = Phase.OFFLINE
        self.endpoint: str | None = None
        self.service_id = 0
        self._backoff = backoff
        self._retry: float | None = None
        self._refusal: ServiceRefused | None = None
        self._told: tuple[str, str] | None = None
        self._timer: IDelayedCall | None = None
        self._registered: list[Deferred[str]] = []
        self._removed: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<PublishedService {self.name} ({self.kind}) {self.phase.name.lower()}>"

    def when_registered(self) -> Deferred[str]:
        """Fires with the public URL once the relay provides the service.

        Errbacks with :exc:`ServiceRefused` when asking again cannot help, and with
        :exc:`ServiceRemoved` when it is removed first. Cancellable.
        """
        if self.endpoint is not None:
            return succeed(self.endpoint)
        if self.phase is Phase.REFUSED and self._refusal is not None:
            return fail(self._refusal)
        if self.phase is Phase.REMOVED:
            return fail(ServiceRemoved(self.name))
        waiter: Deferred[str] = Deferred(lambda d: _discard(self._registered, d))
        self._registered.append(waiter)
        return waiter


class Services:
    """The registry of an agent's services, over any number of tunnels one after another.

    :param clock: for waits and deadlines.
    :param random: gives floats in [0, 1), for jitter.
    :param observer: is told of what people want to know.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, random: Callable[[], float], observer: ServiceObserver
    ) -> None:
        self._clock = clock
        self._random = random
        self._observer = observer
        self._by_name: dict[str, PublishedService] = {}
        # Ids are never used twice in an agent's life: what still names an older one is unknown.
        self._by_id: dict[int, PublishedService] = {}
        self._last_id = 0
        self._send: Callable[[ControlFrame], None] | None = None
        self._suspended: list[Deferred[None]] = []

    def __iter__(self) -> Iterator[PublishedService]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def settled(self) -> bool:
        """Whether the relay has answered for every one."""
        return all(service.phase is not Phase.ASKED for service in self._by_name.values())

    def get(self, name: str) -> PublishedService | None:
        """The service of that name, or None."""
        return self._by_name.get(name)

    def add(self, frame: Register, backend: IBackend) -> PublishedService:
        """Publish one more service, at once if a tunnel stands.

        :param frame: what the relay is asked; its service id does not count.
        :raises ValueError: the name is taken in this agent, or the frame is malformed.
        """
        try:
            check_register(frame)
        except ProtocolError as problem:
            raise ValueError(f"{frame.name!r} cannot be published: {problem}") from None
        name = frame.name
        if name in self._by_name:
            raise ValueError(f"two services are named {name!r}: give one of them another name")
        backoff = Backoff(
            self._random,
            base=RETRY_BASE,
            cap=RETRY_CAP,
            slow_base=SLOW_BASE,
            slow_cap=SLOW_CAP,
        )
        service = PublishedService(frame, backend, backoff)
        self._by_name[name] = service
        backend.started()
        if self._send is not None:
            self._input(service, Input.UP)
        return service

    def remove(self, name: str) -> Deferred[None]:
        """Withdraw a service; fires when the relay has confirmed it or can no longer.

        Its running streams go on. :raises KeyError: no such service.
        """
        service = self._by_name[name]
        waiter: Deferred[None] = Deferred()
        service._removed.append(waiter)
        self._input(service, Input.REMOVE)
        return waiter

    # --- the tunnel -----------------------------------------------------------------------------

    def up(self, send: Callable[[ControlFrame], None]) -> None:
        """A tunnel stands: register everything over ``send``."""
        self._send = send
        for service in self:
            self._input(service, Input.UP)

    def down(self) -> None:
        """The tunnel has ended, and every public address with it."""
        self._send = None
        for service in self:
            self._input(service, Input.DOWN)

    def suspend(self) -> Deferred[None]:
        """Withdraw everything that is registered, keeping it for the next tunnel.

        Fires once the relay has confirmed, can no longer, or :data:`WITHDRAW_TIMEOUT` is over.
        """
        waiter: Deferred[None] = Deferred(lambda d: _discard(self._suspended, d))
        self._suspended.append(waiter)
        for service in self:
            self._input(service, Input.SUSPEND)
        self._check_suspended()
        return waiter

    def received(self, frame: ControlFrame) -> None:
        """An answer of the relay. What names an unknown id answers something long withdrawn."""
        if not isinstance(frame, Registered | Refused | Withdrawn):
            return
        service = self._by_id.get(frame.service_id)
        if service is None:
            self._log.debug("answer for an unknown service: {frame}", frame=frame)
            return
        if isinstance(frame, Registered):
            service._told = None
            service._backoff.reset()
            if service.phase in (Phase.ASKED, Phase.REGISTERED):
                service.endpoint = frame.endpoint
            self._input(service, Input.REGISTERED)
            return
        if isinstance(frame, Refused):
            service._retry = frame.retry
            service._refusal = ServiceRefused(service.name, frame.code, frame.message)
            self._input(service, Input.REFUSED if frame.retry is None else Input.DEFERRED)
            return
        service._retry = None
        service._refusal = ServiceRefused(service.name, "withdrawn", frame.reason)
        self._input(service, Input.WITHDRAWN)

    def opened(self, channel: Any, service_id: int) -> None:
        """A visitor came: hand the stream to the service's backend, or reset it."""
        service = self._by_id.get(service_id)
        if service is None or service.phase is not Phase.REGISTERED:
            if service is not None and service.phase in _UNCONFIRMED:
                channel.reset(ResetCode.WITHDRAWN, "the service was withdrawn")
            else:
                channel.reset(ResetCode.UNKNOWN_SERVICE, "no such service")
            return
        if channel.label:
            self._log.debug(
                "{service}: a visitor, {label}", service=service.name, label=channel.label
            )
        service.backend.connect(channel)

    # --- within ---------------------------------------------------------------------------------

    def _input(self, service: PublishedService, event: Input) -> None:
        before = service.phase
        service.phase, actions = TRANSITIONS[before, event]
        if before is Phase.REGISTERED and service.phase is not Phase.REGISTERED:
            service.endpoint = None
        if service.phase in (Phase.OFFLINE, Phase.REFUSED, Phase.WAITING, Phase.REMOVED):
            self._by_id.pop(service.service_id, None)
        for action in actions:
            _ACTIONS[action](self, service)
        if before is Phase.SUSPENDING:
            self._check_suspended()

    def _ask(self, service: PublishedService) -> None:
        service._timer = None
        self._last_id += 1
        service.service_id = self._last_id
        self._by_id[service.service_id] = service
        self._transmit(replace(service.frame, service_id=service.service_id))

    def _announce(self, service: PublishedService) -> None:
        assert service.endpoint is not None
        self._observer.ready(service)
        waiters, service._registered = service._registered, []
        for waiter in waiters:
            waiter.callback(service.endpoint)

    def _complain(self, service: PublishedService) -> None:
        refusal = service._refusal
        assert refusal is not None
        # A refusal that only repeats itself, on a retry or on the next tunnel, is told once.
        if service._told != (refusal.code, refusal.message):
            service._told = (refusal.code, refusal.message)
            self._observer.refused(service, refusal.code, refusal.message, service._retry)
        if service.phase is Phase.REFUSED:
            waiters, service._registered = service._registered, []
            for waiter in waiters:
                waiter.errback(refusal)

    def _report_loss(self, service: PublishedService) -> None:
        assert service._refusal is not None
        self._observer.withdrawn(service, service._refusal.message)

    def _schedule(self, service: PublishedService) -> None:
        if service._retry is None:
            delay = service._backoff.next_slow()
        else:
            delay = min(max(service._retry, 0.0), RETRY_MAX) + service._backoff.next()
        service._timer = self._clock.callLater(delay, self._due, service)

    def _withdraw(self, service: PublishedService) -> None:
        service._timer = self._clock.callLater(WITHDRAW_TIMEOUT, self._due, service)
        self._transmit(Withdraw(service.service_id))

    def _due(self, service: PublishedService) -> None:
        service._timer = None
        self._input(service, Input.DUE)

    def _settle(self, service: PublishedService) -> None:
        timer, service._timer = service._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _forget(self, service: PublishedService) -> None:
        self._by_name.pop(service.name, None)
        service.backend.stopped()
        registered, service._registered = service._registered, []
        removed, service._removed = service._removed, []
        for waiter in registered:
            waiter.errback(ServiceRemoved(service.name))
        for ended in removed:
            ended.callback(None)

    def _transmit(self, frame: ControlFrame) -> None:
        if self._send is not None:
            self._send(frame)

    def _check_suspended(self) -> None:
        if any(service.phase is Phase.SUSPENDING for service in self._by_name.values()):
            return
        waiters, self._suspended = self._suspended, []
        for waiter in waiters:
            waiter.callback(None)


_ACTIONS: Final[dict[Action, Callable[[Services, PublishedService], None]]] = {
    Action.ASK: Services._ask,
    Action.ANNOUNCE: Services._announce,
    Action.COMPLAIN: Services._complain,
    Action.REPORT_LOSS: Services._report_loss,
    Action.SCHEDULE: Services._schedule,
    Action.WITHDRAW: Services._withdraw,
    Action.SETTLE: Services._settle,
    Action.FORGET: Services._forget,
}


def _discard(waiters: list[Deferred[Any]], waiter: Deferred[Any]) -> None:
    if waiter in waiters:
        waiters.remove(waiter)
