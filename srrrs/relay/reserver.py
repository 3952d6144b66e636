"""Reserving names and ports: those of one reactor turn share a commit, and its wait for the disk.

A whole fleet that comes for the first time would otherwise make the relay wait for the disk once
for each service. What a service has already is read, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from srrrs.relay.directory import Directory
from srrrs.relay.refusal import Refusal
from srrrs.relay.reservation import Key, Reservation
from srrrs.relay.scope import PortRange


class Reserver:
    """Gives out what the directory has; nobody is told of anything that is not on disk.

    :param clock: the reactor.
    :param wall: seconds since the epoch.
    """

    def __init__(
        self, clock: IReactorTime, wall: Callable[[], float], directory: Directory
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._directory = directory
        self._asked: list[tuple[Callable[[], Reservation], Deferred[Reservation]]] = []
        self._call: IDelayedCall | None = None

    async def name(self, key: Key, kind: str, asked: str | None, path: str) -> Reservation:
        """As :meth:`Directory.reserve_name`."""
        now = self._wall()
        kept = self._directory.kept_name(key, kind, asked, path, now)
        if kept is not None:
            return kept
        return await self._together(
            partial(self._directory.reserve_name, key, kind, asked, path, now)
        )

    async def port(
        self, key: Key, kind: str, ranges: Sequence[PortRange], exclude: Collection[int]
    ) -> Reservation:
        """As :meth:`Directory.reserve_port`."""
        now = self._wall()
        kept = self._directory.kept_port(key, kind, ranges, now)
        if kept is not None:
            return kept
        return await self._together(
            partial(self._directory.reserve_port, key, kind, ranges, now, exclude)
        )

    def stop(self) -> None:
        """Reserve nothing more; whoever waits still is left to whoever cancels them."""
        self._asked.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _together(self, reserve: Callable[[], Reservation]) -> Deferred[Reservation]:
        waiter: Deferred[Reservation] = Deferred()
        self._asked.append((reserve, waiter))
        if self._call is None:
            self._call = self._clock.callLater(0, self._commit)
        return waiter

    def _commit(self) -> None:
        self._call = None
        # Who was cancelled meanwhile wants nothing any more.
        asked = [each for each in self._asked if not each[1].called]
        self._asked = []
        outcomes: list[Reservation | Failure] = []
        try:
            with self._directory.together():
                for reserve, _ in asked:
                    try:
                        outcomes.append(reserve())
                    except Refusal as refusal:
                        outcomes.append(Failure(refusal))
        except Exception as problem:
            # Nothing was written, whatever it was: nobody has got anything.
            outcomes = [Failure(problem) for _ in asked]
        for (_, waiter), outcome in zip(asked, outcomes, strict=True):
            if not waiter.called:  # By what an earlier one's callbacks did.
                waiter.callback(outcome)
