"""A relay, or one tunnel of it, that goes away: who is sent where, and whose visitors wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from srrrs.agent.edges import Edge, Edges
from srrrs.agent.lifecycle import State
from srrrs.agent.report import Reporter
from srrrs.agent.service import Agent
from srrrs.net.channel import Channel
from srrrs.net.dial import DialTarget, explain
from srrrs.net.draining import LOOK_EVERY
from srrrs.relay.directory import Directory
from srrrs.relay.edge.gatekeeper import Policies
from srrrs.relay.edge.interfaces import ServiceAway, ServiceParked
from srrrs.relay.published import PublicService, Surroundings
from srrrs.relay.registrar import Registrar
from srrrs.relay.store import Store
from srrrs.relay.tokens import Tokens
from srrrs.relay.tunnels import AgentTunnel
from srrrs.relay.urls import PublicNames
from srrrs.relay.waiting import WaitingRoom
from srrrs.words import Word
from tests.agent_fakes import FakeBackend, Record
from tests.gate_kit import VISITOR, World

HERE = "ws://example/tunnel"
NOW = 1_700_000_000.0


class Relay(World):
    """A gate with a registrar of HTTP services; one tunnel and one service for each token."""

    def __init__(self, path: Path) -> None:
        super().__init__(most=1)
        self.store = Store(path, busy=0.0)
        self.token = Tokens(self.store).create("a", NOW)[0].id
        self.registrar = Registrar(
            self.clock,
            lambda: NOW,
            Directory(self.store, per_token=10),
            PublicNames("example", 8000, False, None, False),
            (20_000, 20_039),
            None,  # type: ignore[arg-type]  # no ports here
            None,  # type: ignore[arg-type]
            1,
            Surroundings(WaitingRoom(self.clock, 10, 30.0), self.clock.seconds),
            Policies(self.clock, None),  # type: ignore[arg-type]  # no passwords here
        )
        self.gate._registrar = self.registrar
        self.records: list[Record] = []

    def agent(self, instance: str = "machine") -> Agent:
        """One that is connected and publishes ``site``."""
        self.records.append(Record())

        def edge(url: str, current: Edge | None = None) -> Edge:
            def dial(token: str, make_hello: Any, answered: Any) -> Deferred[Any]:
                return self.dial(token, make_hello, answered).addErrback(explained)

            return Edge(url, dial)

        def explained(failure: Failure) -> None:
            raise explain(failure, DialTarget.from_url(HERE, insecure=True))

        agent = Agent(
            self.clock,
            edges=Edges(self.clock, [edge(HERE)], edge),
            instance=instance,
            heartbeat=15.0,
            token=lambda: self.token,
            make_tunnel=self.make_tunnel,
            reporter=Reporter(self.records[-1]),
            random=lambda: 0.5,
        )
        agent.add("site", "http", FakeBackend(), "site")
        agent.startService()
        self.settle()
        return agent

    @property
    def service(self) -> PublicService:
        found: object = self.registrar.lookup("site.example", b"/")
        assert isinstance(found, PublicService)
        return found

    def visit(self) -> Channel:
        channel = self.service.open(VISITOR)
        self.settle()
        return channel


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    relay.store.close()


def backend(agent: Agent) -> Any:
    service = agent.services.get("site")
    assert service is not None
    return service.backend


# --- the whole relay


def test_all_are_sent_away_and_nobody_new_is_let_in(relay: Relay) -> None:
    agent = relay.agent()
    channel = relay.visit()
    relay.registrar.drain()
    relay.gate.drain("the relay is stopping", None)
    relay.settle()
    assert relay.records[0].words[-1] is Word.DRAINING
    assert agent.state is State.CONNECTED, "there is nowhere else to go"
    assert relay.tunnels.streams == 1
    assert channel.stream.state.name == "OPEN"
    other = relay.agent("another")
    assert other.state is State.WAITING
    assert "about to go away" in relay.records[1].lines[0]
    assert relay.records[1].events[0][1]["heals"]


def test_new_visitors_are_turned_away_and_so_are_those_who_wait(relay: Relay) -> None:
    relay.agent()
    outcome: list[Any] = []
    relay.wire.cut()
    with pytest.raises(ServiceParked):
        relay.service.open(VISITOR)
    relay.service.wait().addErrback(lambda failure: outcome.append(failure.type))
    relay.registrar.drain()
    relay.gate.drain("the relay is stopping", None)
    relay.service.wait().addErrback(lambda failure: outcome.append(failure.type))
    assert outcome == [ServiceAway, ServiceAway]


def test_a_connection_that_breaks_meanwhile_is_made_up_for(relay: Relay) -> None:
    """Its stream goes on."""
    agent = relay.agent()
    channel = relay.visit()
    relay.registrar.drain()
    relay.gate.drain("the relay is stopping", None)
    relay.settle()
    relay.wire.cut()
    relay.settle()
    assert Word.RESUMED in relay.records[0].words
    assert agent.state is State.CONNECTED
    channel.stream.write(b"still")
    relay.settle()
    assert relay.tunnels.streams == 1
    with pytest.raises(ServiceParked):
        relay.service.open(VISITOR)


# --- one tunnel


def drained(relay: Relay) -> AgentTunnel:
    """The only tunnel, sent back to this very relay."""
    (old,) = relay.agents
    old.send_away("balancing", HERE)
    relay.settle()
    return old


def test_the_same_run_has_a_second_tunnel_while_the_first_drains(relay: Relay) -> None:
    """Neither the run nor the limits of tunnels and services stand in its way, visitors wait for
    it, and the old one's streams go on."""
    agent = relay.agent()
    running = relay.visit()
    old = drained(relay)
    assert [agent.state] == [State.WAITING]
    with pytest.raises(ServiceParked):
        relay.service.open(VISITOR)
    waiting: list[Any] = []
    relay.service.wait().addCallback(waiting.append)

    relay.pass_time(1)
    assert agent.state is State.CONNECTED
    assert [old.live] == [True]
    assert len(relay.agents) == 2
    new = relay.agents[1]
    assert new.hello.run == old.hello.run
    assert relay.service.agent is new
    assert waiting == [relay.service]
    relay.visit()
    assert [each.tunnel.streams for each in relay.agents] == [1, 1]
    assert len(backend(agent).channels) == 2

    running.stream.finish()
    backend(agent).channels[0].stream.finish()
    relay.pass_time(2 * LOOK_EVERY, LOOK_EVERY)
    assert not old.live
    assert relay.agents == [new]
    assert relay.service.agent is new
    assert relay.records[0].words == [
        Word.CONNECTED,
        Word.READY,
        Word.DRAINING,
        Word.CONNECTED,
        Word.READY,
    ]


def test_a_holder_that_drains_gives_way_to_another_run_at_once(relay: Relay) -> None:
    first = relay.agent()
    running = relay.visit()
    first.stopService()
    relay.settle()
    assert [first.state] == [State.DRAINING]
    second = relay.agent()
    assert second.state is State.CONNECTED
    assert relay.records[1].words == [Word.CONNECTED, Word.READY]
    assert [each.tunnel.streams for each in relay.agents] == [1, 0]
    running.stream.finish()
    backend(first).channels[0].stream.finish()
    relay.pass_time(2 * LOOK_EVERY, LOOK_EVERY)
    assert first.state is State.STOPPED
    assert second.state is State.CONNECTED


def test_one_that_cannot_leave_its_services_gives_way_as_well(relay: Relay) -> None:
    """It has not withdrawn them."""
    first = relay.agent()
    (old,) = relay.agents
    old.send_away("balancing", None)
    relay.settle()
    assert first.state is State.CONNECTED
    relay.agent()
    assert relay.records[1].words == [Word.CONNECTED, Word.READY]
    assert relay.records[0].words[-1] is Word.WITHDRAWN
    assert relay.service.agent is relay.agents[1]


def test_a_token_that_is_revoked_ends_tunnels_that_drain_too(relay: Relay) -> None:
    relay.agent()
    relay.visit()
    old = drained(relay)
    assert relay.tunnels.token_ids() == {relay.token}
    old.tunnel.abort("revoked")
    assert relay.tunnels.token_ids() == set()
    assert len(relay.tunnels) == 0


def test_the_old_tunnel_is_gone_on_with_after_a_break(relay: Relay) -> None:
    """Beside the new one, which notices nothing; its stream finishes."""
    agent = relay.agent()
    running = relay.visit()
    old = drained(relay)
    relay.pass_time(1)
    new = relay.service.agent
    assert new is not old
    relay.wires[0].cut()
    relay.settle()
    assert len(relay.wires) == 3
    assert (old.tunnel.resumptions, new.tunnel.resumptions) == (1, 0)
    assert old.tunnel.streams == 1
    running.stream.finish()
    backend(agent).channels[0].stream.finish()
    relay.pass_time(2 * LOOK_EVERY, LOOK_EVERY)
    assert [old.live] == [False]
    assert new.live
    assert Word.PARKED not in relay.records[0].words
