"""Which relay an agent dials: the nearest of those it was given, then the next; and where a relay
that goes away may send it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from srrrs.net.carrier import ICarrier
from srrrs.net.dial import Answered, DialError, DialTarget
from srrrs.protocol.handshake import Hello, Welcome

PROBE_WITHIN: Final = 1.0
"""Seconds that relays have to show how far away they are; one that has not counts as farthest."""

Dial = Callable[[str, Callable[[str], Hello], Answered], Deferred[tuple[ICarrier, Welcome]]]
"""From a token, what makes a hello for the relay's nonce, and what to call once TCP connects, to
the relay's answer; errbacks with :exc:`DialError`."""


class EdgeRefused(Exception):
    """The agent does not go where a relay sent it; one line that says why."""


@dataclass(eq=False)
class Edge:
    """A relay that can be dialled.

    :ivar url: its edge URL, for people.
    :ivar dial: dials it.
    :ivar probe: connects to it by TCP and gives the seconds that it took; None: that tells nothing.
    :ivar target: what is dialled, where it is a relay on the network.
    :ivar rtt: seconds of the latest probe that succeeded, or None.
    """

    url: str
    dial: Dial
    probe: Callable[[], Deferred[float]] | None = None
    target: DialTarget | None = None
    rtt: float | None = None


class Edges:
    """The relays that an agent may use.

    :param own: those that it was given, in that order.
    :param told: makes an edge of the URL that a relay named, which is given too; raises
        :exc:`EdgeRefused`.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        own: Sequence[Edge],
        told: Callable[[str, Edge], Edge] | None = None,
    ) -> None:
        if not own:
            raise ValueError("an agent needs a relay")
        self._clock = clock
        self._own = list(own)
        self._told = told

    @property
    def first(self) -> Edge:
        """The first that was given."""
        return self._own[0]

    def beyond(self, current: Edge, url: str | None) -> list[Edge]:
        """Where to go from a relay that goes away: where it says, then to the others.

        :param url: what it said, which counts only as far as :func:`destination` allows.
        """
        others = [each for each in self._own if each.url != current.url]
        if url is None or self._told is None:
            return others
        try:
            told = self._told(url, current)
        except EdgeRefused as problem:
            self._log.warn(
                "{relay} sends this agent to a place that it does not go to: {problem}",
                relay=current.url,
                problem=str(problem),
            )
            return others
        return [told, *(each for each in others if each.url != told.url)]

    async def dial(
        self,
        token: str,
        make_hello: Callable[[str], Hello],
        answered: Answered,
        sequence: Sequence[Edge] | None = None,
    ) -> tuple[Edge, ICarrier, Welcome]:
        """Dial one after the other until one welcomes the agent.

        :param sequence: which; default: all that were given, the nearest first.
        :raises DialError: none does.
        """
        edges = await self._by_distance() if sequence is None else sequence
        problems: list[DialError] = []
        for edge in edges:
            try:
                carrier, welcome = await edge.dial(token, make_hello, answered)
            except DialError as problem:
                problems.append(problem)
                continue
            return edge, carrier, welcome
        if len(problems) == 1:
            raise problems[0]
        raise DialError(
            "; ".join(str(each) for each in problems), any(each.heals for each in problems)
        )

    async def _by_distance(self) -> list[Edge]:
        if len(self._own) == 1:
            return self._own
        probing = [each for each in self._own if each.probe is not None]
        waits = [self._probe(each) for each in probing]
        if waits:
            everyone: Deferred[Any] = DeferredList(waits)
            everyone.addTimeout(PROBE_WITHIN, self._clock, lambda _, __: None)
            try:
                await everyone
            finally:
                for wait in waits:
                    wait.cancel()
        # The sort is stable: of those that nothing is known of, the first given comes first.
        return sorted(self._own, key=lambda each: float("inf") if each.rtt is None else each.rtt)

    def _probe(self, edge: Edge) -> Deferred[None]:
        assert edge.probe is not None
        edge.rtt = None

        def measured(rtt: float) -> None:
            edge.rtt = rtt

        # A failure tells nothing that the dial would not tell better.
        return edge.probe().addCallbacks(measured, lambda _: None)


def destination(url: str, current: DialTarget, own: Sequence[DialTarget]) -> DialTarget:
    """Where a relay may send an agent, and its token: to a host of one of the agent's own edge URLs
    or under the domain of one, never from ``wss`` to ``ws``, known by the same CA and pin.

    :param url: what the relay said.
    :param current: the relay that said so.
    :param own: what the agent was given.
    :raises EdgeRefused: not there.
    """
    try:
        # Without encryption only where the agent was told to do without it: see below.
        target = DialTarget.from_url(url, ca_file=current.ca_file, pin=current.pin, insecure=True)
    except ValueError as problem:
        raise EdgeRefused(str(problem)) from None
    hosts = [each for each in own if _within(target.host, each.host)]
    if not hosts:
        raise EdgeRefused(f"{target.host} is neither the host of an --edge-url nor under one")
    if target.scheme == "ws" and (
        current.scheme == "wss" or any(each.scheme == "wss" for each in hosts)
    ):
        raise EdgeRefused(f"{target.where} without encryption")
    return target


def _within(host: str, domain: str) -> bool:
    host, domain = host.rstrip("."), domain.rstrip(".")
    if host == domain:
        return True
    try:
        ipaddress.ip_address(domain)
    except ValueError:
        return bool(domain) and host.endswith(f".{domain}")
    return False  # An address has nothing under it.
