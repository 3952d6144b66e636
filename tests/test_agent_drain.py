"""An agent whose relay goes away, and one that goes away itself."""

from __future__ import annotations

import pytest

from srrrs.agent.lifecycle import State
from srrrs.agent.service import MOST_RETIRED
from srrrs.net.dial import DialError
from srrrs.net.draining import LOOK_EVERY
from srrrs.protocol.errors import CloseCode, ResetCode
from srrrs.protocol.frames import Goaway, Register, Registered, Withdraw, Withdrawn
from srrrs.protocol.handshake import Resume
from srrrs.words import Word
from tests.agent_fakes import GRANTED, FakeBackend, FakeChannel, FakeTunnel, Rig

A, B, C = (f"ws://{each}.localhost/tunnel" for each in "abc")
TOLD = "ws://told.localhost/tunnel"


def settle(tunnel: FakeTunnel) -> None:
    """The relay provides what it is asked for."""
    for frame in list(tunnel.sent):
        if isinstance(frame, Register):
            tunnel.handler.control_received(Registered(frame.service_id, f"http://{frame.name}"))


def moving(rig: Rig, told: str | None = None) -> FakeTunnel:
    """Connected to A with a stream, and sent away; the old tunnel."""
    rig.agent.add("http", "http", FakeBackend())
    tunnel = rig.connected(GRANTED)
    settle(tunnel)
    tunnel.streams = 1
    tunnel.handler.control_received(Goaway("upgrade", told))
    return tunnel


# --- the relay goes away


def test_the_next_tunnel_stands_before_the_old_one_is_given_up() -> None:
    rig = Rig(urls=[A, B])
    old = moving(rig)
    rig.clock.advance(0.5)
    assert rig.dialled == [A, B]
    assert old.ended is None
    assert [rig.agent.tunnel] == [None]
    new = rig.welcome()
    assert [frame.name for frame in new.sent] == ["http"]
    settle(new)
    assert list[object]([rig.agent.tunnel]) == [new]
    rig.clock.advance(20)
    assert old.closed == [], "its stream still runs"
    old.streams = 0
    rig.clock.advance(LOOK_EVERY)
    assert old.closed == [(CloseCode.SHUTDOWN, "the agent has another tunnel")]
    assert rig.agent.state is State.CONNECTED
    assert rig.record.words == [
        Word.CONNECTED,
        Word.READY,
        Word.DRAINING,
        Word.CONNECTED,
        Word.READY,
    ]
    assert rig.record.events[2][1] == {"reason": "upgrade", "relay": A, "next": B}
    assert rig.record.events[3][1]["relay"] == B
    assert rig.clock.getDelayedCalls() == []


def test_an_idle_old_tunnel_stays_until_the_services_are_on_the_new_one() -> None:
    """The relay may hold visitors for it."""
    rig = Rig(urls=[A, B])
    old = moving(rig)
    old.streams = 0
    rig.clock.advance(0.5)
    new = rig.welcome()
    rig.clock.advance(1)
    assert old.closed == []
    settle(new)
    rig.clock.advance(LOOK_EVERY)
    assert old.closed


def test_it_goes_where_it_is_told_first_and_then_to_its_own() -> None:
    rig = Rig(urls=[A, B, C])
    moving(rig, TOLD)
    assert rig.record.events[-1][1]["next"] == TOLD
    rig.clock.advance(0.5)
    for _ in range(3):
        rig.dials[-1][2].errback(DialError("refused"))
    assert rig.dialled == [A, TOLD, B, C]
    assert rig.agent.state is State.WAITING
    rig.clock.advance(1)
    rig.dials[-1][2].errback(DialError("refused"))
    assert rig.dialled[4:] == [A, B], "from now on any of its own will do"


def test_with_one_edge_alone_it_goes_where_it_is_told() -> None:
    rig = Rig(urls=[A])
    moving(rig, TOLD)
    rig.clock.advance(0.5)
    assert rig.dialled == [A, TOLD]


def test_new_streams_of_the_old_tunnel_are_refused_and_its_answers_ignored() -> None:
    rig = Rig(urls=[A, B])
    old = moving(rig)
    channel = FakeChannel()
    old.handler.stream_opened(channel, 1)  # type: ignore[arg-type]
    assert channel.resets[0][0] is ResetCode.GONE
    rig.clock.advance(0.5)
    settle(rig.welcome())
    old.handler.control_received(Withdrawn(2, "a word of an older tunnel"))
    old.handler.control_received(Goaway("again", C))
    assert Word.WITHDRAWN not in rig.record.words
    assert rig.dialled == [A, B]


def test_the_old_tunnels_end_before_the_new_one_stands_changes_nothing() -> None:
    rig = Rig(urls=[A, B])
    old = moving(rig)
    rig.clock.advance(0.5)
    old.lose("the relay is stopping", CloseCode.SHUTDOWN)
    assert rig.agent.state is State.DIALLING
    assert rig.dialled == [A, B]
    settle(rig.welcome())
    assert Word.DISCONNECTED not in rig.record.words
    assert rig.clock.getDelayedCalls() == []


def test_an_old_tunnel_that_breaks_is_gone_on_with_at_its_own_relay() -> None:
    rig = Rig(urls=[A, B])
    old = moving(rig)
    rig.clock.advance(0.5)
    new = rig.welcome()
    settle(new)
    old.park()
    assert rig.dialled == [A, B, A]
    assert isinstance(rig.dials[-1][1].resume, Resume)
    assert rig.agent.state is State.CONNECTED
    # A relay that does not know the session any more: its streams are lost, and nothing else.
    rig.welcome(GRANTED)
    assert rig.carriers[-1].aborted
    assert old.ended is not None
    assert new.ended is None
    assert rig.clock.getDelayedCalls() == []


def test_a_relay_that_always_sends_away_does_not_pile_up_tunnels() -> None:
    rig = Rig(urls=[A, B])
    old = moving(rig)
    for _ in range(MOST_RETIRED):
        rig.clock.advance(0.5)
        tunnel = rig.welcome()
        tunnel.streams = 1
        tunnel.handler.control_received(Goaway("again"))
    assert old.closed == [(CloseCode.LIMIT, "the agent has too many tunnels")]
    assert sum(each.ended is None for each in rig.tunnels) == MOST_RETIRED


def test_stopping_waits_for_the_streams_of_old_tunnels_too() -> None:
    rig = Rig(urls=[A, B])
    old = moving(rig)
    rig.clock.advance(0.5)
    ended: list[None] = []
    rig.agent.stopService().addCallback(ended.append)
    assert rig.agent.state is State.DRAINING
    assert rig.dials[-1][2].called, "the dial is given up"
    old.streams = 0
    old.carrier_gone.callback(None)
    rig.clock.advance(LOOK_EVERY)
    assert old.closed
    assert ended == [None]
    assert rig.clock.getDelayedCalls() == []


# --- a session's own relay


def test_a_parked_session_is_gone_on_with_at_its_relay_and_after_it_another_is_tried() -> None:
    rig = Rig(urls=[A, B])
    tunnel = rig.connected(GRANTED)
    tunnel.park()
    for _ in range(3):
        rig.dials[-1][2].errback(DialError("refused"))
        rig.clock.advance(1)
    assert set(rig.dialled) == {A}
    tunnel.expire("its time is over")
    rig.clock.advance(0.5)
    rig.dials[-1][2].errback(DialError("refused"))
    assert rig.dialled[-2:] == [A, B]


# --- the agent goes away


def stopping(rig: Rig) -> tuple[FakeTunnel, list[None]]:
    """Told to stop with a stream running."""
    rig.agent.add("http", "http", FakeBackend())
    tunnel = rig.connected(GRANTED)
    settle(tunnel)
    tunnel.streams = 1
    ended: list[None] = []
    rig.agent.stopService().addCallback(ended.append)
    return tunnel, ended


def test_it_withdraws_its_services_and_lets_streams_finish() -> None:
    rig = Rig()
    tunnel, ended = stopping(rig)
    assert tunnel.sent[-2:] == [Goaway("the agent stops"), Withdraw(1)]
    assert rig.record.events[-1] == (
        Word.DRAINING,
        {"reason": "the agent stops", "streams": 1, "limit": 30.0},
    )
    tunnel.handler.control_received(Withdrawn(1, "as asked"))
    rig.clock.advance(20)
    assert tunnel.closed == []
    tunnel.streams = 0
    tunnel.carrier_gone.callback(None)
    rig.clock.advance(LOOK_EVERY)
    assert tunnel.closed == [(CloseCode.SHUTDOWN, "the agent stops")]
    assert ended == [None]
    assert rig.clock.getDelayedCalls() == []


def test_what_has_not_finished_by_the_limit_is_ended() -> None:
    rig = Rig(drain=5.0)
    tunnel, ended = stopping(rig)
    tunnel.handler.control_received(Withdrawn(1, "as asked"))
    rig.clock.advance(5)
    assert tunnel.closed == [(CloseCode.SHUTDOWN, "the agent stops")]
    tunnel.carrier_gone.callback(None)
    assert ended == [None]
    assert rig.clock.getDelayedCalls() == []


def test_without_a_limit_to_wait_for_it_ends_at_once() -> None:
    rig = Rig(drain=0.0)
    tunnel, ended = stopping(rig)
    tunnel.carrier_gone.callback(None)
    tunnel.handler.control_received(Withdrawn(1, "as asked"))
    assert ended == [None]
    assert Word.DRAINING not in rig.record.words


def test_a_tunnel_that_breaks_meanwhile_is_gone_on_with() -> None:
    rig = Rig()
    tunnel, ended = stopping(rig)
    tunnel.park()
    assert len(rig.dials) == 2
    assert rig.agent.state is State.DRAINING
    # The relay has forgotten it: there is nothing left to wait for.
    rig.welcome(GRANTED)
    assert rig.carriers[-1].aborted
    tunnel.carrier_gone.callback(None)
    rig.clock.advance(LOOK_EVERY)
    assert ended == [None]
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("streams", [0, 1])
def test_a_parked_agent_that_stops_waits_for_streams_alone(streams: int) -> None:
    rig = Rig()
    rig.agent.add("http", "http", FakeBackend())
    tunnel = rig.connected(GRANTED)
    settle(tunnel)
    tunnel.streams = streams
    tunnel.park()
    tunnel.carrier_gone.callback(None)
    ended: list[None] = []
    rig.agent.stopService().addCallback(ended.append)
    if streams:
        assert ended == []
        rig.clock.advance(30)
    assert ended == [None]
    assert rig.clock.getDelayedCalls() == []


def test_a_relay_that_goes_away_too_does_not_send_it_anywhere() -> None:
    rig = Rig(urls=[A, B])
    tunnel, _ = stopping(rig)
    tunnel.handler.control_received(Goaway("me too"))
    rig.clock.advance(1)
    assert rig.dialled == [A]
    assert rig.agent.state is State.DRAINING
