"""How the agent goes on with a session: what it says to prove that it is its own, and when it
dials while the session is parked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from srrrs.net.carrier import ICarrier
from srrrs.net.dial import Answered, Taken, unknown
from srrrs.net.tunnel import Tunnel
from srrrs.protocol.errors import ProtocolError, TunnelGone
from srrrs.protocol.handshake import Grant, Hello, Resume, Resumed, Welcome
from srrrs.protocol.resumption import Prover, Ticket, new_nonce

REDIAL_EVERY: Final = (0.5, 1.0)
"""Seconds between two dials while a session is parked, drawn evenly."""
ANSWERED: Final = 5.0
"""Seconds for which a dial whose TCP was answered has the way to itself."""
IN_LINE: Final = 5.0
"""Seconds more over which agents spread their next dial where the relay's system has acknowledged
all that was sent. After a restart all its agents are in its line, where a second place for each
costs them all more time than it saves one: 10,000 agents were back after 27 s with a minute here,
after 40 s with nothing, and a relay that only seems to be there is given up the later for it."""


class ForeignRelay(Exception):
    """A relay that claims to go on with a session and cannot prove that it has it."""


@dataclass
class Held:
    """A session that can be gone on with.

    :ivar carrier: the number of the latest carrier that was asked for.
    """

    ticket: Ticket
    tunnel: Tunnel
    carrier: int = 0

    @classmethod
    def of(cls, grant: Grant, tunnel: Tunnel) -> Held:
        """What a welcome granted."""
        return cls(Ticket(grant.session, bytes.fromhex(grant.key)), tunnel)


class Attempt:
    """One dial's hello, and the proof in its welcome.

    :param hello: what to say where no session is gone on with.
    :param held: the session to go on with.
    """

    def __init__(self, hello: Hello, held: Held | None) -> None:
        self.held = held
        self._hello = hello
        self._relay_nonce = ""
        self._nonce = ""
        self._carrier = 0

    def hello(self, relay_nonce: str) -> Hello:
        """What to say to a relay that has said its nonce."""
        held = self.held
        if held is None or held.tunnel.ended is not None:
            return self._hello
        held.carrier += 1
        self._relay_nonce, self._nonce, self._carrier = relay_nonce, new_nonce(), held.carrier
        proof = held.ticket.prove(Prover.AGENT, relay_nonce, self._nonce, self._carrier)
        resume = Resume(
            held.ticket.session,
            self._carrier,
            self._nonce,
            held.tunnel.session.received,
            proof,
        )
        return replace(self._hello, resume=resume)

    def goes_on(self, welcome: Welcome) -> bool:
        """Whether the relay goes on with the session.

        :raises ForeignRelay: it says so, and does not prove it.
        """
        if welcome.resumed is None:
            return False
        held = self.held
        if (
            held is None
            or not self._carrier
            or not held.ticket.proves(
                welcome.resumed.proof,
                Prover.RELAY,
                self._relay_nonce,
                self._nonce,
                self._carrier,
            )
        ):
            raise ForeignRelay("the relay claims a session that it cannot prove to have")
        return True


def go_on(tunnel: Tunnel, carrier: ICarrier, heartbeat: float, resumed: Resumed) -> None:
    """Take a carrier on which the relay goes on with the tunnel's session, as far as that can be.

    Where it cannot, the tunnel has ended, and has told so, as at every end.
    """
    try:
        tunnel.check_resume(resumed.received)
        tunnel.resume(carrier, heartbeat, resumed.received)
    except (TunnelGone, ProtocolError):
        carrier.abort()


@dataclass(eq=False)
class _Dial:
    began: float
    patient: bool
    answered: float | None = None
    taken: Taken = unknown
    # Seconds for which it has the way to itself.
    alone: float = ANSWERED
    done: Deferred[Any] | None = None


class Redialler:
    """Dials at once, and then every ``REDIAL_EVERY`` seconds, until it is stopped.

    At most two dials are under way: a patient one, which has all the time of a dial, and one that
    gives way to the next, for the first packet that gets through to a link that is back must not
    wait for an old one's turn to be repeated. Neither is begun beside one whose TCP was answered
    less than ``ANSWERED`` seconds ago, and for up to ``IN_LINE`` seconds more beside one that
    waits for nothing but its turn at the relay.

    :param random: gives floats in [0, 1).
    :param dial: begins one, given what to call once its TCP is answered; fires when it is over.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Callable[[], float],
        dial: Callable[[Answered], Deferred[Any]],
    ) -> None:
        self._clock = clock
        self._random = random
        self._dial = dial
        self._dials: list[_Dial] = []
        self._dialling = False
        # None while only the end of a dial can make room for another.
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Dial now, and go on."""
        self.stop()
        self._dialling = True
        self._turn()

    def stop(self) -> None:
        """Give up all dials."""
        self._dialling = False
        self._unset()
        dials, self._dials = self._dials, []
        for each in dials:
            if each.done is not None:
                each.done.cancel()

    def hurry(self) -> None:
        """Something has changed: do not wait for the next turn, if dialling at all."""
        if self._dialling:
            self._turn(changed=True)

    def _turn(self, changed: bool = False) -> None:
        now = self._clock.seconds()
        free_at = max((self._alone_until(e, now, changed) for e in self._dials), default=now)
        if free_at > now:
            # Thousands of agents in one process may wait for one relay: nobody wakes up in vain.
            self._set(free_at - now + REDIAL_EVERY[1] * self._random())
            return
        hasty = [each for each in self._dials if not each.patient and each.answered is None]
        if len(self._dials) > 1 and not hasty:
            self._unset()
            return
        self._set(self._draw())
        if len(self._dials) > 1:
            self._give_up(hasty)
        self._begin(now)

    def _alone_until(self, dial: _Dial, now: float, changed: bool) -> float:
        if dial.answered is None:
            return now
        if changed:
            dial.alone = ANSWERED
        elif dial.alone == ANSWERED and now >= dial.answered + ANSWERED and dial.taken():
            dial.alone += IN_LINE * self._random()
        return dial.answered + dial.alone

    def _draw(self) -> float:
        low, high = REDIAL_EVERY
        return low + (high - low) * self._random()

    def _set(self, seconds: float) -> None:
        self._unset()
        self._timer = self._clock.callLater(seconds, self._due)

    def _unset(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self._turn()

    def _begin(self, now: float) -> None:
        dial = _Dial(now, patient=not any(each.patient for each in self._dials))
        self._dials.append(dial)

        def answered(taken: Taken = unknown, /) -> None:
            dial.answered, dial.taken = self._clock.seconds(), taken
            self._give_up([e for e in self._dials if e is not dial and e.answered is None])

        def over(result: Any) -> Any:
            if dial in self._dials:
                self._dials.remove(dial)
                self._made_room()
            return result

        dial.done = self._dial(answered).addBoth(over)

    def _made_room(self) -> None:
        """One is over that others may have waited for longer than for a turn."""
        longest = REDIAL_EVERY[1]
        if self._timer is None or self._timer.getTime() > self._clock.seconds() + longest:
            self._set(self._draw())

    def _give_up(self, dials: list[_Dial]) -> None:
        for each in dials:
            self._dials.remove(each)
            if each.done is not None:
                each.done.cancel()
