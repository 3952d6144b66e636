"""Visitors who came while their service's agent was away for a moment, and wait for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from srrrs.relay.edge.interfaces import IPublicService, ServiceAway
from srrrs.relay.reservation import Key


class WaitingRoom:
    """Visitors by the service that they wait for.

    Each waits until the service is served again, by the agent that served it or by another that
    took it over; at the longest ``patience`` seconds.

    :param most: visitors that may wait for one service.
    :param patience: seconds.
    """

    def __init__(self, clock: IReactorTime, most: int, patience: float) -> None:
        self._clock = clock
        self._most = most
        self._patience = patience
        self._stopped = False
        self._waiting: dict[Key, list[Deferred[IPublicService]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, key: Key) -> Deferred[IPublicService]:
        """Fires with the service once it is served again. Cancellable.

        Errs with :exc:`ServiceAway` where too many wait, it takes too long, or the relay goes away.
        """
        waiters = self._waiting.setdefault(key, [])
        waiter: Deferred[IPublicService] = Deferred()
        if self._stopped or not self._patience or len(waiters) >= self._most:
            self._tidy(key)
            waiter.errback(ServiceAway())
            return waiter
        waiters.append(waiter)
        waiter.addTimeout(self._patience, self._clock, _away)
        return waiter.addBoth(self._over, key, waiter)

    def let_in(self, key: Key, service: IPublicService) -> None:
        """The service is served again."""
        for waiter in self._waiting.pop(key, []):
            waiter.callback(service)

    def stop(self) -> None:
        """Nobody is let in any more, or waits."""
        self._stopped = True
        waiting, self._waiting = self._waiting, {}
        for waiters in waiting.values():
            for waiter in waiters:
                waiter.errback(ServiceAway())

    def _over(self, result: Any, key: Key, waiter: Deferred[IPublicService]) -> Any:
        waiters = self._waiting.get(key)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            self._tidy(key)
        return result

    def _tidy(self, key: Key) -> None:
        if not self._waiting.get(key, True):
            del self._waiting[key]


def _away(result: Any, _: float) -> Any:
    return Failure(ServiceAway())
