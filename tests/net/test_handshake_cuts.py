"""A whole agent and a relay's gate: connections cut at every place of a resuming handshake."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from srrrs.agent.edges import Edge, Edges
from srrrs.agent.lifecycle import State
from srrrs.agent.report import Reporter
from srrrs.agent.resuming import ANSWERED, REDIAL_EVERY
from srrrs.agent.service import Agent
from srrrs.net.channel import Channel
from srrrs.net.dial import DialTarget, explain
from srrrs.net.websocket.base import HANDSHAKE_TIMEOUT
from srrrs.testing import HalfCloseRecorder
from srrrs.words import Word
from tests.agent_fakes import FakeBackend, Record
from tests.gate_kit import GRACE, VISITOR, Wire, World

URL = "ws://localhost/tunnel"
LEGS = 4
"""Upgrade request, answer and challenge, hello, welcome: each goes the other way."""
NAMES = ["TCP", "the request", "the challenge", "the hello", "the welcome"]


def advance(wire: Wire, legs: int, part: float = 0.0) -> None:
    """Let so many legs of the handshake pass, and a part of the next."""
    for leg in range(legs):
        (wire.down if leg % 2 else wire.up)()
    (wire.down if legs % 2 else wire.up)(part)


class Setting:
    """An agent with one service, through whose stream bytes go both ways."""

    def __init__(self) -> None:
        self.world = world = World()
        self.record = Record()
        edge = Edge(URL, self.dial)
        self.agent = Agent(
            world.clock,
            edges=Edges(world.clock, [edge], lambda url, pin: edge),
            instance="machine",
            heartbeat=15.0,
            token=lambda: "own",
            make_tunnel=world.make_tunnel,
            reporter=Reporter(self.record),
            random=lambda: 0.5,
            grace=GRACE,
        )
        backend = FakeBackend()
        self.agent.add("web", "http", backend)
        self.agent.startService()
        world.settle()
        (self.relays,) = world.agents
        self.near = self.relays.tunnel.open(1, VISITOR)
        self.visitor = HalfCloseRecorder()
        self.near.attach(self.visitor)
        world.settle()
        self.far: Channel = backend.channels[0]
        self.backend = HalfCloseRecorder()
        self.far.attach(self.backend)
        self.asked = self.answered = b""
        self._seen = len(world.wires)

    def dial(self, *how: Any) -> Deferred[Any]:
        """As the agent's own, which explains what went wrong."""

        def explained(failure: Failure) -> Any:
            raise explain(failure, DialTarget.from_url(URL))

        return self.world.dial(*how).addErrback(explained)

    def say(self, number: int) -> None:
        """Some more bytes either way, which are not delivered yet."""
        question, answer = b"question %d." % number, b"and answer %d." % number
        self.asked += question
        self.answered += answer
        self.near.write(question)
        self.far.write(answer)
        self.world.clock.advance(0)

    def next_dial(self) -> Wire:
        """The agent's next connection, with nothing delivered on any meanwhile."""
        for _ in range(1000):
            if len(self.world.wires) > self._seen:
                self._seen = len(self.world.wires)
                return self.world.wire
            self.world.clock.advance(0.05)
        raise AssertionError("it never dials")

    def goes_on(self) -> None:
        """With the network back, all bytes are there once, in the same session."""
        self.world.pass_time(3)
        assert self.agent.state is State.CONNECTED
        assert bytes(self.backend.data) == self.asked
        assert bytes(self.visitor.data) == self.answered
        assert self.record.words.count(Word.CONNECTED) == 1
        assert Word.EXPIRED not in self.record.words
        assert self.world.agents == [self.relays]
        assert self.record.words.count(Word.RESUMED) == self.record.words.count(Word.PARKED)

    def stop(self) -> None:
        """The stream ends in good order, and the agent too."""
        self.near.loseConnection()
        self.far.loseConnection()
        self.world.settle()
        for end in (self.visitor, self.backend):
            assert end.lost is not None
            assert end.lost.check(ConnectionDone)
        self.agent.stopService()
        self.world.pass_time(10)
        assert self.agent.state is State.STOPPED


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_the_handshake_has_the_legs_that_are_cut(setting: Setting) -> None:
    """So that the other tests cut where they say."""
    setting.world.wire.cut()
    wire = setting.world.wire
    for leg in range(LEGS):
        assert setting.agent.state is State.PARKED
        assert setting.relays.tunnel.parked == (leg < 3)
        (wire.down if leg % 2 else wire.up)()
    assert setting.agent.state is State.CONNECTED


@pytest.mark.parametrize("part", [0.0, 0.5])
@pytest.mark.parametrize("legs", range(LEGS + 1), ids=NAMES)
@pytest.mark.parametrize("unseen", [False, True], ids=["seen", "unseen"])
def test_cut_at_the_same_place_again_and_again(
    setting: Setting, legs: int, part: float, unseen: bool
) -> None:
    """After each message of the handshake and in the middle of each, eight times in a row, whether
    the relay learns of the cut or not: it still goes on in the end."""
    setting.say(0)
    setting.world.wire.cut()
    for number in range(1, 9):
        wire = setting.next_dial()
        setting.say(number)
        advance(wire, legs, part)
        if unseen:
            wire.cut_unseen()
        else:
            wire.cut()
    setting.goes_on()
    setting.stop()


PLACES = st.tuples(
    st.integers(0, LEGS + 3), st.floats(0.0, 1.0), st.sampled_from(["cut", "cut_unseen"])
)


@given(st.lists(PLACES, max_size=12))
def test_cut_anywhere_in_any_order(places: list[tuple[int, float, str]]) -> None:
    """Among the session's first messages too."""
    setting = Setting()
    setting.say(0)
    setting.world.wire.cut()
    for number, (legs, part, how) in enumerate(places):
        wire = setting.next_dial()
        setting.say(number)
        advance(wire, legs, part)
        getattr(wire, how)()
    setting.goes_on()
    setting.stop()


@pytest.mark.parametrize("legs", range(LEGS + 1), ids=NAMES)
def test_silence_at_every_place(setting: Setting, legs: int) -> None:
    """The connection is not broken but brings nothing more: another dial, or the heartbeats, get
    round it well within the grace time."""
    setting.say(0)
    setting.world.wire.cut()
    silent = setting.world.wire
    setting.say(1)
    advance(silent, legs)
    setting.world.wires.remove(silent)
    began = setting.world.clock.seconds()
    while Word.RESUMED not in setting.record.words or setting.agent.state is not State.CONNECTED:
        setting.world.pass_time(0.25)
        took = setting.world.clock.seconds() - began
        assert took <= max(ANSWERED, HANDSHAKE_TIMEOUT) + REDIAL_EVERY[1]
    if legs < LEGS:
        assert setting.world.clock.seconds() - began <= ANSWERED + REDIAL_EVERY[1]
        setting.goes_on()


def test_two_dials_that_both_get_through(setting: Setting) -> None:
    """The first comes late, with its hello said already: the newer one is not pushed out."""
    setting.world.wire.cut()
    late = setting.world.wire
    advance(late, 2)
    setting.world.wires.remove(late)
    while len(setting.world.wires) < 2:
        setting.world.clock.advance(0.25)
    setting.world.settle()
    assert setting.agent.state is State.CONNECTED
    late.up()
    setting.say(1)
    setting.world.wires.append(late)
    setting.goes_on()
    assert setting.record.words.count(Word.PARKED) == 1
