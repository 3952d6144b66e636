"""A tunnel whose relay goes away: its streams finish beside the agent's next tunnel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.agent.dialling import Answer, Dialling
from srrrs.agent.edges import Edge
from srrrs.agent.resuming import Held, Redialler, go_on
from srrrs.net.dial import Answered
from srrrs.net.draining import when_idle
from srrrs.net.tunnel import Tunnel
from srrrs.protocol.errors import CloseCode


class Retired:
    """Keeps a tunnel until its last stream has ended, or its relay ends it; a connection of it that
    breaks meanwhile is made up for, as of any tunnel.

    :param edge: the relay that has the session.
    :param held: the session, where it can be gone on with.
    :param dialling: the agent's dials.
    :param settled: whether the agent's next tunnel is in use: until then this one stays, for the
        relay may keep visitors waiting who would be sent away without it.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        random: Callable[[], float],
        tunnel: Tunnel,
        edge: Edge,
        held: Held | None,
        dialling: Dialling,
        settled: Callable[[], bool],
        ended: Callable[[Retired], None],
    ) -> None:
        self.tunnel = tunnel
        self._edge = edge
        self._held = held
        self._dialling = dialling
        self._ended = ended
        self._redialler = Redialler(clock, random, self._dial_again)
        self._idle = when_idle(clock, lambda: not tunnel.streams and settled())
        self._idle.addCallbacks(
            lambda _: tunnel.close(CloseCode.SHUTDOWN, "the agent has another tunnel"),
            lambda failure: failure.trap(CancelledError),
        )

    def network_changed(self) -> None:
        """Doubt the connection."""
        if self.tunnel.parked:
            self._redialler.hurry()
        else:
            self.tunnel.probe()

    def parked(self) -> None:
        """The tunnel's carrier broke."""
        self._redialler.start()

    def lost(self) -> None:
        """The tunnel ended."""
        self._redialler.stop()
        self._idle.cancel()
        self._ended(self)

    def _dial_again(self, answered: Answered) -> Deferred[None]:
        assert self._held is not None
        return self._dialling.dial(self._held, answered, [self._edge]).addCallbacks(
            self._welcomed, self._failed
        )

    def _welcomed(self, answer: Answer) -> None:
        _, carrier, welcome = answer
        resumed = welcome.resumed
        tunnel = self.tunnel
        if resumed is None or tunnel.ended is not None:
            carrier.abort()
            tunnel.expire("the relay does not know this session any more")
            return
        self._redialler.stop()
        go_on(tunnel, carrier, welcome.heartbeat, resumed)

    def _failed(self, failure: Failure) -> Any:
        self._log.debug("{problem}", problem=failure.getErrorMessage())
