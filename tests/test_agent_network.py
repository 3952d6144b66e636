"""The agent's first dial after its connection has ended, in whatever way, and what it does when
the machine's network changes; on a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from srrrs.agent.lifecycle import State
from srrrs.net.backoff import SLOW_BASE
from srrrs.net.dial import DialError
from srrrs.net.heartbeat import SILENCE
from srrrs.net.tunnel import PROBE_MIN, ITunnelHandler, Tunnel
from srrrs.net.websocket import AgentCarrierFactory
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Grant, Welcome
from srrrs.protocol.mux import Limits, Role
from srrrs.testing import Connection, connect
from srrrs.words import Word
from tests.agent_fakes import Rig
from tests.net.test_websocket import CLOSE, TOKEN, Relay, frame, say_hello

HEARTBEAT = 15.0
AT_ONCE = 0.1
"""Seconds."""
WELCOME = Welcome("t1", HEARTBEAT, "localhost", "srrrs/0", grant=Grant("ab" * 16, "cd" * 32, 60.0))


class Live(Rig):
    """An agent whose tunnels and carriers are real, over connections in memory.

    :ivar connections: those with the relay, in order; the agent's end is ``a``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Connection] = []

    def make_tunnel(self, handler: ITunnelHandler) -> Any:
        return Tunnel(self.clock, Role.AGENT, handler, Limits(), Budget(1 << 26))

    def answer(self) -> None:
        """The relay answers the latest dial."""
        relay = Relay(self.clock)
        relay.answer = WELCOME
        factory = AgentCarrierFactory(self.clock, "ws://localhost:8000/tunnel", TOKEN, say_hello)
        agent = factory.buildProtocol(None)
        dial: Deferred[Any] = self.dials[-1][-1]
        agent.welcomed.addCallback(dial.callback)
        self.connections.append(connect(agent, relay.factory.buildProtocol(None)))
        self.flush()

    def flush(self) -> None:
        self.clock.advance(0)
        self.connections[-1].flush()

    @property
    def near(self) -> Any:
        """The agent's end of the latest connection."""
        return self.connections[-1].a

    def until_parked(self, within: float) -> float:
        """The seconds that pass before the session is parked."""
        start = self.clock.seconds()
        while self.agent.state is State.CONNECTED:
            assert self.clock.seconds() - start < within
            self.clock.advance(0.01)
        return self.clock.seconds() - start


@pytest.fixture
def live() -> Live:
    live = Live()
    live.agent.startService()
    live.answer()
    assert live.agent.state is State.CONNECTED
    assert len(live.dials) == 1
    return live


def fin(live: Live) -> None:
    live.near.peer_half_close()


def rst(live: Live) -> None:
    live.near.peer_reset()


def close_frame(live: Live) -> None:
    """A proxy's close, which is not followed by the end of the connection."""
    live.near.receive(frame(CLOSE, (1001).to_bytes(2, "big") + b"timeout", masked=False))
    assert live.near.connected


def empty_close_frame(live: Live) -> None:
    live.near.receive(frame(CLOSE, b"", masked=False))
    assert live.near.connected


def nonsense(live: Live) -> None:
    """A close code that no peer may send, and then the end."""
    live.near.receive(frame(CLOSE, (1006).to_bytes(2, "big"), masked=False))
    live.near.peer_reset()


def silence(live: Live) -> None:
    waited = live.until_parked(SILENCE * HEARTBEAT + 0.02)
    assert waited >= SILENCE * HEARTBEAT - 0.02


def lost_address(live: Live) -> None:
    live.near.protocol.is_stranded = lambda: True
    live.agent.network_changed()


def lost_way(live: Live) -> None:
    live.agent.network_changed()
    waited = live.until_parked(PROBE_MIN + 0.02)
    assert waited >= PROBE_MIN - 0.02


@pytest.mark.parametrize(
    "end", [fin, rst, close_frame, empty_close_frame, nonsense, silence, lost_address, lost_way]
)
def test_the_first_dial(live: Live, end: Callable[[Live], None]) -> None:
    """It starts at once, whatever has ended the connection, and the session goes on waiting."""
    end(live)
    assert live.agent.state is State.PARKED
    ended_at = live.clock.seconds()
    while len(live.dials) < 2:
        live.clock.advance(AT_ONCE / 10)
    assert live.clock.seconds() - ended_at <= AT_ONCE
    assert len(live.dials) == 2
    assert live.record.words.count(Word.PARKED) == 1


def test_the_end_is_told_once(live: Live) -> None:
    """A close frame tells it, and what becomes of the connection later is not heard."""
    close_frame(live)
    live.clock.advance(0.2)
    assert live.record.words.count(Word.PARKED) == 1
    (fields,) = [fields for word, fields in live.record.events if word is Word.PARKED]
    assert fields["reason"] == "timeout"
    near = live.near
    live.clock.advance(60)
    near.drain()
    assert not near.connected
    assert live.record.words.count(Word.PARKED) == 1


def test_a_final_close_frame(live: Live) -> None:
    """What the relay has ended for good is not gone on with."""
    code = int(CloseCode.SHUTDOWN).to_bytes(2, "big")
    live.near.receive(frame(CLOSE, code + b"stopping", masked=False))
    assert live.agent.state is State.WAITING
    assert live.record.words[-1] is Word.DISCONNECTED


def test_an_answered_probe_changes_nothing(live: Live) -> None:
    live.agent.network_changed()
    for _ in range(100):
        live.flush()
        live.clock.advance(0.1)
    assert live.agent.state is State.CONNECTED
    assert len(live.dials) == 1


def test_while_parked_a_change_brings_the_next_dial_forward(live: Live) -> None:
    rst(live)
    dials = len(live.dials)
    live.clock.advance(0.01)
    live.agent.network_changed()
    assert len(live.dials) == dials + 1


@pytest.mark.parametrize(("heals", "soon"), [(True, 0.5), (False, SLOW_BASE / 2)])
def test_while_waiting_a_change_ends_the_wait(heals: bool, soon: float) -> None:
    """At once, but not so soon after the last dial that a restless network were felt by the relay;
    and trouble that somebody must mend has longer."""
    rig = Rig()
    rig.agent.startService()
    for _ in range(12):
        rig.dials[-1][-1].errback(DialError("no", heals=heals))
        rig.clock.advance(60)
    rig.dials[-1][-1].errback(DialError("no", heals=heals))
    assert rig.agent.state is State.WAITING
    dials = len(rig.dials)
    for _ in range(10):
        rig.agent.network_changed()
        rig.clock.advance(soon / 11)
    assert len(rig.dials) == dials
    rig.clock.advance(soon / 10)
    assert len(rig.dials) == dials + 1
    rig.dials[-1][-1].errback(DialError("no", heals=heals))
    rig.clock.advance(soon)
    assert len(rig.dials) == dials + 1
    rig.agent.network_changed()
    rig.clock.advance(0)
    assert len(rig.dials) == dials + 2


def test_a_change_never_puts_a_dial_off() -> None:
    rig = Rig()
    rig.agent.startService()
    rig.dials[-1][-1].errback(DialError("no"))
    # Half of the first ceiling of the backoff.
    rig.agent.network_changed()
    rig.clock.advance(0.25)
    assert len(rig.dials) == 2


@pytest.mark.parametrize("state", [State.IDLE, State.DIALLING, State.STOPPING, State.STOPPED])
def test_otherwise_nothing(state: State) -> None:
    rig = Rig()
    if state is not State.IDLE:
        rig.agent.startService()
    if state is State.STOPPING:
        rig.welcome()
    if state in (State.STOPPING, State.STOPPED):
        rig.agent.stopService()
        if state is State.STOPPED:
            rig.clock.advance(60)
    dials = len(rig.dials)
    rig.agent.network_changed()
    rig.clock.advance(0)
    assert rig.agent.state is state
    assert len(rig.dials) == dials
