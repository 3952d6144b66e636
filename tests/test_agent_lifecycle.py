"""The agent's life: every state answers every input, and the agent does what the table says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from twisted.internet.defer import CancelledError

from srrrs.agent.lifecycle import TRANSITIONS, Action, Input, State
from srrrs.config import TokenUnavailable
from srrrs.net.dial import DialError
from srrrs.net.tunnel import TunnelLost
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.frames import Goaway, Registered, Withdraw, Withdrawn
from srrrs.protocol.handshake import Resumed
from srrrs.words import Word
from tests.agent_fakes import GRANTED, RELAY, WELCOME, FakeBackend, FakeCarrier, Rig
from tests.conftest import FlushLoggedErrors

#: Of a relay that goes on with a session.
RESUMED = replace(WELCOME, resumed=Resumed(0, "0" * 64))


def test_every_state_answers_every_input() -> None:
    assert set(TRANSITIONS) == {(state, event) for state in State for event in Input}


def test_a_late_welcome_is_always_discarded() -> None:
    """A tunnel that nobody waits for is aborted, whatever the state."""
    for state in set(State) - {State.DIALLING, State.PARKED}:
        assert Action.DISCARD in TRANSITIONS[state, Input.WELCOMED][1]


def test_stopping_leads_to_stopped_only() -> None:
    order = [State.DRAINING, State.STOPPING, State.STOPPED]
    for state in order[:2]:
        for event in Input:
            assert TRANSITIONS[state, event][0] in order[order.index(state) :]


def _reach(rig: Rig, state: State) -> None:
    agent = rig.agent
    if state is State.IDLE:
        return
    agent.startService()
    if state is State.DIALLING:
        return
    if state is State.WAITING:
        rig.dials[-1][2].errback(DialError("refused"))
    elif state is not State.STOPPED:
        rig.welcome(GRANTED)
    if state is State.PARKED:
        rig.tunnels[-1].park()
    if state is State.DRAINING:
        rig.tunnels[-1].streams = 1
    if state in (State.DRAINING, State.STOPPING, State.STOPPED):
        agent.stopService()


@pytest.mark.parametrize("event", list(Input), ids=lambda each: each.name)
@pytest.mark.parametrize("state", list(State), ids=lambda each: each.name)
def test_the_agent_takes_each_input_in_each_state(state: State, event: Input) -> None:
    """Fed straight into the machine, with the detail that such an input carries."""
    rig = Rig()
    _reach(rig, state)
    assert rig.agent.state is state
    carrier = FakeCarrier()
    link = rig.agent._link
    details: dict[Input, object] = {
        Input.WELCOMED: (link, carrier, WELCOME),
        Input.RESUMED: (link, carrier, RESUMED),
        Input.FAILED: DialError("refused"),
        Input.LOST: TunnelLost(None, "cut"),
        Input.SENT_AWAY: [rig.edge("ws://b.localhost/tunnel")],
    }
    detail = details.get(event)
    wanted, actions = TRANSITIONS[state, event]
    if Action.REFUSE in actions:
        with pytest.raises(RuntimeError, match="stopping"):
            rig.agent._input(event, detail)
    else:
        rig.agent._input(event, detail)
    if Action.WITHDRAW in actions:
        # There is no stream to wait for, and where there is no tunnel, nothing to close.
        wanted = State.STOPPING if rig.tunnels else State.STOPPED
    assert rig.agent.state is wanted
    assert carrier.aborted is (Action.DISCARD in actions)
    rig.agent._do_unschedule(None)
    rig.agent._do_halt(None)
    for _, _, answer in rig.dials:
        answer.addErrback(lambda failure: failure.trap(CancelledError))


def test_a_first_login_that_fails_does_not_end_the_agent() -> None:
    rig = Rig()
    rig.agent.startService()
    for attempt in range(1, 6):
        assert len(rig.dials) == attempt
        rig.dials[-1][2].errback(DialError(f"refused {attempt}"))
        assert rig.agent.state is State.WAITING
        rig.clock.advance(30)
    assert rig.record.words == [Word.RETRYING] * 5


def test_the_same_trouble_is_told_once() -> None:
    rig = Rig()
    rig.agent.startService()
    for _ in range(4):
        rig.dials[-1][2].errback(DialError("the relay does not accept the token (401)", False))
        rig.clock.advance(60)
    assert rig.record.words == [Word.RETRYING]
    assert "401" in rig.record.lines[0]
    assert "does not heal by itself" in rig.record.lines[0]


def test_what_does_not_heal_is_retried_slowly() -> None:
    rig = Rig()
    rig.agent.startService()
    rig.dials[-1][2].errback(DialError("bad token", heals=False))
    rig.clock.advance(4.9)
    assert len(rig.dials) == 1
    rig.clock.advance(5)
    assert len(rig.dials) == 2


def test_the_token_is_read_at_every_dial() -> None:
    tokens = iter(["old", "new"])
    rig = Rig(lambda: next(tokens))
    rig.agent.startService()
    rig.dials[-1][2].errback(DialError("refused"))
    rig.clock.advance(1)
    assert [token for token, _, _ in rig.dials] == ["old", "new"]


def test_a_token_that_cannot_be_read_is_waited_for() -> None:
    def read() -> str:
        raise TokenUnavailable("cannot read the token file /t: permission denied")

    rig = Rig(read)
    rig.agent.startService()
    assert rig.dials == []
    assert rig.agent.state is State.WAITING
    assert "permission denied" in rig.record.lines[0]


def test_one_run_dials_again_and_again() -> None:
    """The relay knows the owner of a tunnel by its run, so redials keep it and agents differ."""
    rig, other = Rig(), Rig()
    tunnel = rig.connected()
    tunnel.lose()
    rig.clock.advance(1)
    runs = {hello.run for _, hello, _ in rig.dials}
    assert runs == {rig.agent.run}
    assert len(rig.agent.run) == 32
    assert rig.agent.run != other.agent.run


def test_a_lost_tunnel_is_dialled_again_and_its_services_registered_anew() -> None:
    rig = Rig()
    rig.agent.add("http", "http", FakeBackend())
    first = rig.connected()
    first.handler.control_received(Registered(1, "http://a.localhost:8000"))
    first.lose("nothing heard for 37.5 s")
    assert rig.agent.state is State.WAITING
    rig.clock.advance(0.5)
    second = rig.welcome()
    assert [frame.name for frame in second.sent] == ["http"]
    assert rig.record.words == [Word.CONNECTED, Word.READY, Word.DISCONNECTED, Word.CONNECTED]
    assert rig.record.events[2][1]["reason"] == "nothing heard for 37.5 s"


def test_backoff_starts_over_once_the_relay_has_accepted() -> None:
    rig = Rig()
    rig.agent.startService()
    for attempt in range(6):
        rig.dials[-1][2].errback(DialError(f"refused {attempt}"))
        rig.clock.advance(30)
    rig.welcome().lose()
    rig.clock.advance(0.25)
    assert rig.agent.state is State.DIALLING


def test_an_end_that_would_repeat_itself_is_not_met_at_full_speed() -> None:
    rig = Rig()
    rig.connected().lose("unknown frame", CloseCode.PROTOCOL)
    rig.clock.advance(4.9)
    assert rig.agent.state is State.WAITING


def test_words_of_an_older_tunnel_are_ignored() -> None:
    rig = Rig()
    rig.agent.add("http", "http", FakeBackend())
    first = rig.connected()
    first.lose()
    rig.clock.advance(1)
    rig.welcome()
    first.handler.control_received(Registered(1, "http://stale.localhost"))
    first.handler.tunnel_lost(first.ended)  # type: ignore[arg-type]
    assert rig.agent.state is State.CONNECTED
    assert Word.READY not in rig.record.words


def test_stopping_withdraws_then_closes_then_ends() -> None:
    rig = Rig()
    rig.agent.add("http", "http", FakeBackend())
    tunnel = rig.connected()
    tunnel.handler.control_received(Registered(1, "http://a.localhost"))
    ended: list[None] = []
    rig.agent.stopService().addCallback(ended.append)
    assert tunnel.sent[-1] == Withdraw(1)
    assert tunnel.closed == []
    tunnel.handler.control_received(Withdrawn(1, "asked for"))
    assert tunnel.closed == [(CloseCode.SHUTDOWN, "the agent stops")]
    assert ended == []
    tunnel.carrier_gone.callback(None)
    assert ended == [None]
    assert rig.agent.state is State.STOPPED
    assert rig.clock.getDelayedCalls() == []
    assert rig.record.words[-1] is Word.STOPPED


def test_stopping_ends_by_its_deadline_when_the_relay_is_silent() -> None:
    rig = Rig()
    rig.agent.add("http", "http", FakeBackend())
    tunnel = rig.connected()
    ended: list[None] = []
    rig.agent.stopService().addCallback(ended.append)
    rig.clock.advance(5)
    assert tunnel.closed
    rig.clock.advance(3)
    assert ended == [None]
    assert tunnel.aborted
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("state", [State.IDLE, State.DIALLING, State.WAITING, State.STOPPED])
def test_stopping_without_a_tunnel_ends_at_once(state: State) -> None:
    rig = Rig()
    _reach(rig, state)
    ended: list[None] = []
    rig.agent.stopService().addCallback(ended.append)
    assert ended == [None]
    assert rig.clock.getDelayedCalls() == []


def test_it_can_be_started_again_after_it_has_stopped() -> None:
    rig = Rig()
    rig.agent.add("http", "http", FakeBackend())
    rig.agent.startService()
    rig.agent.stopService()
    rig.agent.startService()
    assert [frame.name for frame in rig.welcome().sent] == ["http"]


def _broken_tunnel(_: object) -> None:
    raise RuntimeError("no memory")


def _broken_attach(rig: Rig) -> Callable[[object], object]:
    def make(handler: object) -> object:
        tunnel = Rig.make_tunnel(rig, handler)  # type: ignore[arg-type]

        def attach(carrier: object, heartbeat: float, grace: float = 0.0) -> None:
            raise RuntimeError("no memory")

        tunnel.attach = attach  # type: ignore[method-assign]
        return tunnel

    return make


@pytest.mark.parametrize("where", ["making", "attaching"])
def test_a_fault_while_the_tunnel_is_set_up_leads_to_another_dial(
    where: str, flush_logged_errors: FlushLoggedErrors
) -> None:
    rig = Rig()
    broken = _broken_tunnel if where == "making" else _broken_attach(rig)
    rig.agent._make_tunnel = broken  # type: ignore[assignment]
    rig.agent.startService()
    carrier = FakeCarrier()
    rig.dials[-1][2].callback((carrier, WELCOME))
    assert carrier.aborted
    assert rig.agent.state is State.WAITING
    assert len(flush_logged_errors(RuntimeError)) == 1


def test_goaway_is_reported_and_with_nowhere_to_go_the_tunnel_is_kept() -> None:
    rig = Rig()
    tunnel = rig.connected()
    tunnel.handler.control_received(Goaway("upgrade"))
    assert rig.record.events[-1] == (
        Word.DRAINING,
        {"reason": "upgrade", "relay": RELAY, "next": None},
    )
    assert rig.agent.state is State.CONNECTED
    tunnel.lose("the relay is stopping", CloseCode.SHUTDOWN)
    rig.clock.advance(0.5)
    assert rig.dialled == [RELAY, RELAY]
