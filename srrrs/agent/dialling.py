"""One dial of an agent: where to, what is said, and whether the answer is to be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.agent.edges import Edge, Edges
from srrrs.agent.resuming import Attempt, ForeignRelay, Held
from srrrs.config import TokenUnavailable
from srrrs.net.carrier import ICarrier
from srrrs.net.dial import Answered, DialError, unheard
from srrrs.protocol.handshake import Hello, Welcome

Answer = tuple[Edge, ICarrier, Welcome]
"""The relay that took the agent in, and with what. A carrier that is not started at once is
aborted: nothing may wait between the dial's end and that."""

_log: Final = Logger()


class Dialling:
    """Dials relays for one agent.

    :param edges: the relays that it may use.
    :param hello: what it says where no session is gone on with.
    :param token: reads the token, at each dial; may raise
        :exc:`srrrs.config.TokenUnavailable`.
    """

    def __init__(self, edges: Edges, hello: Hello, token: Callable[[], str]) -> None:
        self._edges = edges
        self._hello = hello
        self._token = token

    def dial(
        self,
        held: Held | None = None,
        answered: Answered = unheard,
        places: Sequence[Edge] | None = None,
    ) -> Deferred[Answer]:
        """Dial one place after the other. Cancellable; errs with :exc:`DialError`.

        :param held: the session to go on with: the welcome's ``resumed``, if it has one, has proved
            that the relay has that session.
        :param answered: told when TCP connects.
        :param places: where to; default: all relays, the nearest first.
        """
        return Deferred.fromCoroutine(self._attempt(held, answered, places))

    async def _attempt(
        self, held: Held | None, answered: Answered, places: Sequence[Edge] | None
    ) -> Answer:
        try:
            token = self._token()
        except TokenUnavailable as problem:
            raise DialError(str(problem), heals=False) from None
        attempt = Attempt(self._hello, held)
        edge, carrier, welcome = await self._edges.dial(token, attempt.hello, answered, places)
        try:
            attempt.goes_on(welcome)
        except ForeignRelay as problem:
            carrier.abort()
            _log.error("{relay}: {problem}", relay=edge.url, problem=str(problem))
            raise DialError(str(problem)) from None
        return edge, carrier, welcome


def explained(failure: Failure, loud: bool) -> DialError:
    """What a dial failed with.

    :param loud: whether to log what no dial should fail with.
    """
    problem = failure.value
    if isinstance(problem, DialError):
        return problem
    if loud:
        _log.failure("a dial failed in an unexpected way", failure)
    return DialError(f"the dial failed: {failure.getErrorMessage()}")
