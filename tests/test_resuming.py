"""When the agent dials while its session is parked, and what it says and believes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from srrrs.agent.resuming import (
    ANSWERED,
    IN_LINE,
    REDIAL_EVERY,
    Attempt,
    ForeignRelay,
    Held,
    Redialler,
)
from srrrs.net.dial import Answered
from srrrs.net.tunnel import Tunnel
from srrrs.protocol.handshake import Grant, Hello, Resumed, Welcome
from srrrs.protocol.resumption import Prover, Ticket, new_nonce
from srrrs.relay.edge.doorstep import TURN_TIMEOUT

HELLO = Hello("0" * 32, "machine", "srrrs/0", 15.0, grace=60.0)
WELCOME = Welcome("7", 15.0, "example", "srrrs/0")
LOW, HIGH = REDIAL_EVERY
STEP = 1 / 64
"""Seconds, of which a clock loses no part in adding them up."""


# --- when ---------------------------------------------------------------------------------


class Dial:
    """One dial: when it began, and what became of it."""

    def __init__(self, began: float, answered: Answered) -> None:
        self.began = began
        self.answered = answered
        self.cancelled = False
        self.over: Deferred[None] = Deferred(self._cancel)
        self.over.addErrback(lambda failure: failure.trap(CancelledError))

    def _cancel(self, _: Deferred[None]) -> None:
        self.cancelled = True

    def fail(self) -> None:
        self.over.callback(None)


class Dialling:
    """A redialler, and its dials."""

    def __init__(self, *draws: float) -> None:
        self.clock = Clock()
        self.dials: list[Dial] = []
        self._draws = list(draws)
        self.redialler = Redialler(self.clock, self._draw, self._dial)

    def _draw(self) -> float:
        return self._draws.pop(0) if self._draws else 0.5

    def _dial(self, answered: Answered) -> Deferred[Any]:
        self.dials.append(Dial(self.clock.seconds(), answered))
        return self.dials[-1].over

    @property
    def under_way(self) -> list[int]:
        """The numbers of the dials that are neither over nor given up."""
        return [n for n, dial in enumerate(self.dials) if not dial.over.called]

    @property
    def times(self) -> list[float]:
        return [round(dial.began, 3) for dial in self.dials]

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([STEP] * round(seconds / STEP))


def test_the_first_dial_is_at_once() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    assert dialling.times == [0.0]


def test_dials_that_fail_are_repeated_at_drawn_times() -> None:
    """Every 0.5 to 1 s, even after one that failed at once; there is no backoff."""
    dialling = Dialling(0.0, 1.0, 0.5)
    dialling.redialler.start()
    for _ in range(5):
        dialling.dials[-1].fail()
        dialling.pass_time(HIGH)
    assert dialling.times[:4] == [0.0, LOW, LOW + HIGH, LOW + HIGH + 0.75]


def test_at_most_two_are_under_way() -> None:
    """The first has all the time that a dial may take; of the others each gives way to the next,
    so that a link which is back is tried within a second."""
    dialling = Dialling()
    dialling.redialler.start()
    for _ in range(640):
        dialling.pass_time(STEP)
        assert len(dialling.under_way) <= 2
    assert dialling.under_way == [0, len(dialling.dials) - 1]
    assert len(dialling.dials) >= 12
    assert not dialling.dials[0].cancelled
    assert all(dial.cancelled for dial in dialling.dials[1:-1])


def test_when_the_patient_one_is_over_the_next_is_patient() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    dialling.pass_time(0.75)
    dialling.dials[0].fail()
    dialling.pass_time(0.75)
    assert dialling.under_way == [1, 2]
    dialling.pass_time(3)
    assert dialling.under_way == [2, len(dialling.dials) - 1]
    assert dialling.dials[1].cancelled


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_was_answered_has_the_way_to_itself(which: int) -> None:
    """The other is given up, and none is begun beside it for five seconds; then one is."""
    dialling = Dialling()
    dialling.redialler.start()
    dialling.pass_time(0.75)
    assert dialling.under_way == [0, 1]
    dialling.dials[which].answered()
    assert dialling.under_way == [which]
    answered_at = dialling.clock.seconds()
    dialling.pass_time(ANSWERED - STEP)
    assert dialling.under_way == [which]
    assert len(dialling.dials) == 2
    while len(dialling.dials) == 2:
        dialling.pass_time(STEP)
    assert dialling.clock.seconds() < answered_at + ANSWERED + HIGH + STEP
    assert dialling.under_way == [which, 2]
    assert dialling.dials[2].began >= answered_at + ANSWERED


def test_two_that_were_answered_and_fell_silent() -> None:
    """Still no third, until one of them is over."""
    dialling = Dialling()
    dialling.redialler.start()
    dialling.dials[0].answered()
    dialling.pass_time(ANSWERED + HIGH)
    last = len(dialling.dials) - 1
    dialling.dials[last].answered()
    dialling.pass_time(2 * ANSWERED)
    assert dialling.under_way == [0, last]
    dialling.dials[0].fail()
    dialling.pass_time(0.75)
    assert dialling.under_way == [last, last + 1]


def test_one_that_was_answered_and_failed_holds_nobody_up() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    dialling.dials[0].answered()
    dialling.dials[0].fail()
    dialling.pass_time(HIGH)
    assert len(dialling.dials) == 2


def test_one_that_waits_for_nothing_but_its_turn_keeps_the_way_to_itself() -> None:
    """Where the relay's system has all that was sent, agents do not all take a second place in its
    line at one moment: the next dial is at a drawn time, before the relay would end the wait."""
    began = []
    for draw in (0.0, 0.25, 0.75, 0.99):
        dialling = Dialling(draw, draw, draw)
        dialling.redialler.start()
        dialling.dials[0].answered(lambda: True)
        while len(dialling.dials) == 1:
            dialling.pass_time(STEP)
        assert dialling.under_way == [0, 1]
        began.append(dialling.times[1])
    assert ANSWERED <= began[0] <= ANSWERED + HIGH
    assert began == sorted(began)
    assert began[3] - began[0] > IN_LINE - 2 * HIGH
    assert began[3] < TURN_TIMEOUT + HIGH


def test_nobody_wakes_up_while_there_is_nothing_to_do() -> None:
    """Thousands of agents in one process may wait for one relay."""
    dialling = Dialling(*[0.9] * 9)
    dialling.redialler.start()
    dialling.dials[0].answered(lambda: True)
    turns = 0
    while len(dialling.dials) == 1:
        (call,) = dialling.clock.getDelayedCalls()
        dialling.clock.advance(call.getTime() - dialling.clock.seconds())
        turns += 1
    assert turns <= 5
    dialling.dials[1].answered(lambda: True)
    dialling.pass_time(ANSWERED + IN_LINE + HIGH)
    assert dialling.clock.getDelayedCalls() == []


def test_one_that_loses_its_place_is_made_up_for() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    dialling.dials[0].answered(lambda: True)
    dialling.pass_time(ANSWERED + 2 * HIGH)
    assert len(dialling.dials) == 1
    dialling.dials[0].fail()
    dialling.pass_time(HIGH)
    assert len(dialling.dials) == 2


def test_a_changed_network_makes_a_place_in_the_line_doubtful() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    dialling.dials[0].answered(lambda: True)
    dialling.pass_time(ANSWERED - STEP)
    dialling.redialler.hurry()
    assert len(dialling.dials) == 1
    dialling.pass_time(3 * HIGH)
    assert len(dialling.dials) == 1
    dialling.redialler.hurry()
    assert dialling.under_way == [0, 1]


def test_hurry() -> None:
    """A change of the network does not wait for the next turn; and turns go on from there."""
    dialling = Dialling()
    dialling.redialler.start()
    dialling.pass_time(0.25)
    dialling.redialler.hurry()
    assert dialling.times == [0.0, 0.25]
    dialling.pass_time(0.75 - STEP)
    assert len(dialling.dials) == 2
    dialling.pass_time(STEP)
    assert dialling.times == [0.0, 0.25, 1.0]
    # Each gives way to the next as ever.
    dialling.redialler.hurry()
    assert dialling.under_way == [0, 3]


def test_hurry_beside_one_that_was_answered() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    dialling.dials[0].answered()
    dialling.redialler.hurry()
    assert dialling.under_way == [0]


def test_hurry_while_nothing_is_dialled() -> None:
    """Before the start and after the stop it does nothing."""
    dialling = Dialling()
    dialling.redialler.hurry()
    dialling.redialler.start()
    dialling.redialler.stop()
    dialling.redialler.hurry()
    assert len(dialling.dials) == 1
    assert dialling.clock.getDelayedCalls() == []


def test_stop_gives_all_up() -> None:
    dialling = Dialling()
    dialling.redialler.start()
    dialling.pass_time(1.0)
    assert len(dialling.under_way) == 2
    dialling.redialler.stop()
    assert dialling.under_way == []
    assert dialling.clock.getDelayedCalls() == []
    dialling.redialler.stop()
    dialling.redialler.start()
    assert dialling.under_way == [2]


def test_a_dial_that_is_over_at_once() -> None:
    """As where the token cannot be read, or where it stops the redialler itself."""
    clock = Clock()
    count = 0

    def dial(answered: Answered) -> Deferred[None]:
        nonlocal count
        count += 1
        over: Deferred[None] = Deferred()
        over.callback(None)
        if count == 3:
            redialler.stop()
        return over

    redialler = Redialler(clock, lambda: 0.0, dial)
    redialler.start()
    clock.pump([LOW] * 10)
    assert count == 3
    assert clock.getDelayedCalls() == []


# --- what ---------------------------------------------------------------------------------


class FakeSession:
    received = 1234


class FakeTunnel:
    session = FakeSession()
    ended: object = None


def held() -> Held:
    ticket = Ticket.new()
    grant = Grant(ticket.session, ticket.key.hex(), 60.0)
    return Held.of(grant, cast(Tunnel, FakeTunnel()))


def test_a_hello_without_a_session() -> None:
    assert Attempt(HELLO, None).hello(new_nonce()) == HELLO


def test_a_session_that_has_ended_meanwhile_is_not_asked_for() -> None:
    one = held()
    attempt = Attempt(HELLO, one)
    cast(Any, one.tunnel).ended = "for a reason"
    assert attempt.hello(new_nonce()) == HELLO
    assert not attempt.goes_on(WELCOME)


def test_a_hello_that_proves_the_session() -> None:
    """With a new nonce and a higher number each time, and how far it has come by then."""
    one = held()
    seen = set()
    for number in range(1, 6):
        nonce = new_nonce()
        resume = Attempt(HELLO, one).hello(nonce).resume
        assert resume is not None
        assert (resume.session, resume.carrier, resume.received) == (
            one.ticket.session,
            number,
            1234,
        )
        assert one.ticket.proves(resume.proof, Prover.AGENT, nonce, resume.nonce, number)
        seen.add(resume.nonce)
    assert len(seen) == 5


def said(one: Held, attempt: Attempt) -> tuple[str, str, int]:
    """The relay's nonce, the agent's, and the carrier's number, after a hello."""
    nonce = new_nonce()
    resume = attempt.hello(nonce).resume
    assert resume is not None
    return nonce, resume.nonce, resume.carrier


def test_a_relay_that_proves_it_too() -> None:
    one = held()
    attempt = Attempt(HELLO, one)
    proof = one.ticket.prove(Prover.RELAY, *said(one, attempt))
    assert attempt.goes_on(Welcome("7", 15.0, "e", "r", resumed=Resumed(0, proof)))


def test_a_new_session_in_its_place() -> None:
    attempt = Attempt(HELLO, held())
    attempt.hello(new_nonce())
    assert not attempt.goes_on(WELCOME)


@pytest.mark.parametrize("what", ["nonsense", "reflected", "older", "another key", "not asked"])
def test_a_relay_that_cannot_prove_it(what: str) -> None:
    """What claims to go on with the session, and does not show that it has its key, gets none of
    its bytes."""
    one = held()
    attempt = Attempt(HELLO, one)
    if what == "not asked":
        attempt = Attempt(HELLO, None)
        proof = "0" * 64
    else:
        parts = said(one, attempt)
        proof = {
            "nonsense": "0" * 64,
            "reflected": one.ticket.prove(Prover.AGENT, *parts),
            "older": one.ticket.prove(Prover.RELAY, *said(one, Attempt(HELLO, one))),
            "another key": Ticket(one.ticket.session, bytes(32)).prove(Prover.RELAY, *parts),
        }[what]
    with pytest.raises(ForeignRelay):
        attempt.goes_on(Welcome("7", 15.0, "e", "r", resumed=Resumed(0, proof)))


def test_nothing_shows_the_key() -> None:
    one = held()
    key = one.ticket.key
    for text in (repr(one), repr(Grant(one.ticket.session, key.hex(), 60.0))):
        assert key.hex() not in text
        assert repr(key) not in text
