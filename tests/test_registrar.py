"""Which agent gets which name: scopes, whole hosts, paths, and names that several agents share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from srrrs.agent.edges import Edge, Edges
from srrrs.agent.report import Reporter
from srrrs.agent.service import Agent
from srrrs.protocol.errors import Overloaded
from srrrs.protocol.frames import Register
from srrrs.relay.directory import Directory
from srrrs.relay.edge.gatekeeper import Policies, PolicyBounds
from srrrs.relay.edge.interfaces import IPublicService, IRoutes, ServiceAway, ServiceParked
from srrrs.relay.published import LEFT_OUT, AwayService, PublicService, SharedService, Surroundings
from srrrs.relay.registrar import Registrar
from srrrs.relay.reservation import Key
from srrrs.relay.routes import PATH_KEPT
from srrrs.relay.scope import UNSCOPED, Scope
from srrrs.relay.store import Store
from srrrs.relay.tokens import Identity, Tokens
from srrrs.relay.urls import PublicNames
from srrrs.relay.waiting import WaitingRoom
from srrrs.words import Word
from tests.agent_fakes import FakeBackend, Record
from tests.gate_kit import VISITOR, World

HERE = "ws://relay.example/tunnel"
NOW = 1_700_000_000.0


class Holders:
    """Tokens: their texts are their ids."""

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}

    def check(self, token: str, now: float) -> Identity:
        return Identity(token, f"name of {token}", self.scopes.get(token, UNSCOPED))


class Relay(World):
    """A gate with a registrar of HTTP services, and any number of agents."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.store = Store(path, busy=0.0)
        tokens = Tokens(self.store)
        self.a = tokens.create("a", NOW)[0].id
        self.b = tokens.create("b", NOW)[0].id
        self.holders = self.gate._tokens = Holders()  # type: ignore[assignment]
        self.directory = Directory(self.store, per_token=10, live=self._is_live)
        self.registrar = Registrar(
            self.clock,
            lambda: NOW + self.clock.seconds(),
            self.directory,
            PublicNames("example", 8000, False, None, False),
            (20_000, 20_039),
            None,  # type: ignore[arg-type]  # no ports here
            None,  # type: ignore[arg-type]
            8,
            Surroundings(WaitingRoom(self.clock, 10, 30.0), self.clock.seconds, 3),
            Policies(
                self.clock,
                None,  # type: ignore[arg-type]  # no passwords here
                PolicyBounds(asks=frozenset({"ip"})),
            ),
        )
        self.gate._registrar = self.registrar
        verifyObject(IRoutes, self.registrar)

    def _is_live(self, key: Any) -> bool:
        return self.registrar.is_live(key)

    def agent(self, *frames: Register, token: str = "", instance: str = "machine") -> Agent:
        """One that is connected and asks for services; its ``record`` tells what it was told."""

        def edge(url: str, current: Edge | None = None) -> Edge:
            return Edge(url, self.dial)

        record = Record()
        agent = Agent(
            self.clock,
            edges=Edges(self.clock, [edge(HERE)], edge),
            instance=instance,
            heartbeat=15.0,
            token=lambda: token or self.a,
            make_tunnel=self.make_tunnel,
            reporter=Reporter(record),
            random=lambda: 0.5,
        )
        agent.record = record  # type: ignore[attr-defined]
        for frame in frames:
            agent.services.add(frame, FakeBackend())
        agent.startService()
        self.settle()
        return agent

    def find(self, host: str, path: str = "/") -> Any:
        found = self.registrar.lookup(host, path.encode())
        if found is not None:
            verifyObject(IPublicService, found)
        return found


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    relay.store.close()


def http(name: str, **more: Any) -> Register:
    """A registration; the name is asked for unless there is a host."""
    label, slash, path = name.partition("/")
    asked = None if "hostname" in more else label
    return Register(0, name, "http", asked, path=slash + path or None, **more)


def endpoint(agent: Agent, name: str) -> str | None:
    service = agent.services.get(name)
    assert service is not None
    return service.endpoint


def refusal(agent: Agent) -> tuple[str, str]:
    """The code and the line of what was refused last."""
    record: Record = agent.record  # type: ignore[attr-defined]
    assert record.words[-1] is Word.REFUSED
    return record.events[-1][1]["reason"], record.lines[-1]


# --- hosts and scopes


def test_a_whole_host_within_the_tokens_scope(relay: Relay) -> None:
    relay.holders.scopes[relay.a] = Scope.parse(["*.dev.example.com"], [])
    agent = relay.agent(http("web", hostname="app.dev.example.com"))
    assert endpoint(agent, "web") == "http://app.dev.example.com:8000"
    service = relay.find("app.dev.example.com")
    assert (service.host, service.token_name) == ("app.dev.example.com", f"name of {relay.a}")
    assert relay.find("web.example") is None


@pytest.mark.parametrize(
    ("hosts", "frame", "message"),
    [
        ([], http("w", hostname="app.other.com"), "may not have app.other.com"),
        ([], http("w", hostname="example.com"), "it is for names directly under example"),
        ([], http("w", hostname="a.b.example"), "may not have a.b.example"),
        (["*.dev.com"], http("w", hostname="a.b.dev.com"), "it is for *.dev.com"),
        (["*.dev.com"], http("blog"), "may not have blog.example: it is for *.dev.com"),
        (["*.dev.com"], Register(0, "http", "http"), "may not have names of the relay's choice"),
        (["none"], http("blog"), "it is for no host at all"),
    ],
)  # fmt: skip
def test_what_is_out_of_scope_is_refused_with_the_scope(
    relay: Relay, hosts: list[str], frame: Register, message: str
) -> None:
    """The line that the agent prints says what would be possible."""
    relay.holders.scopes[relay.a] = Scope.parse(hosts, [])
    code, line = refusal(relay.agent(frame))
    assert code == "scope"
    assert message in line
    assert relay.store.rows("SELECT * FROM reservations") == []


def test_a_tcp_service_with_no_port_within_scope(relay: Relay) -> None:
    relay.holders.scopes[relay.a] = Scope.parse([], ["30000-30010"])
    code, line = refusal(relay.agent(Register(0, "db", "tcp")))
    assert code == "scope"
    assert "no port of this relay's" in line


@pytest.mark.parametrize("host", ["relay.example", "xrelay.relay.example"])
def test_the_control_host_is_nobodys(relay: Relay, host: str) -> None:
    """Whatever the scope says; a host below it is a host like any other."""
    relay.holders.scopes[relay.a] = Scope.parse(["relay.example", "*.relay.example"], [])
    agent = relay.agent(http("web", hostname=host))
    if host == "relay.example":
        assert refusal(agent)[0] == "name-reserved"
    else:
        assert endpoint(agent, "web") == f"http://{host}:8000"


def test_a_subdomain_has_one_owner_however_it_is_asked_for(relay: Relay) -> None:
    relay.agent(http("blog"))
    other = relay.agent(http("web", hostname="blog.example"), token=relay.b)
    code, line = refusal(other)
    assert code == "name-taken"
    assert "held by another token" in line


def test_a_label_cannot_pass_for_a_whole_host(relay: Relay) -> None:
    """An agent that asks for a subdomain with a dot in it does not get around the scope's check."""
    relay.holders.scopes[relay.a] = Scope.parse(["*.example", "a.b"], [])
    agent = relay.agent(Register(0, "web", "http", "a.b"))
    assert refusal(agent)[0] == "name-invalid"


def test_tls_has_routes_of_its_own(relay: Relay) -> None:
    agent = relay.agent(Register(0, "vault", "tls", "vault"))
    assert endpoint(agent, "vault") == "https://vault.example:8000"
    assert relay.registrar.lookup_tls("vault.example") is not None
    assert relay.find("vault.example") is None
    agent.stopService()
    relay.pass_time(5)
    away: Any = relay.registrar.lookup_tls("vault.example")
    assert isinstance(away, AwayService)
    assert relay.registrar.lookup_tls("other.example") is None


# --- policies


def test_a_policy_holds_and_one_that_the_relay_does_not_allow_is_refused(relay: Relay) -> None:
    relay.agent(http("blog", policy={"allow": ["203.0.113.0/24"]}))
    assert relay.find("blog.example").gatekeeper.check_connection(VISITOR)
    code, line = refusal(relay.agent(http("shop", policy={"max_body": 5}), instance="other"))
    assert code == "policy"
    assert "this relay allows no policy of" in line
    assert refusal(relay.agent(http("wiki", policy={"x": 1}), instance="third"))[0] == "policy"


# --- paths


def test_paths_of_one_host_are_services_of_their_own(relay: Relay) -> None:
    """Of several agents of a token; each request goes by its path."""
    first = relay.agent(http("blog"), http("blog/api"))
    second = relay.agent(http("blog/api/v2"), instance="other")
    assert endpoint(first, "blog/api") == "http://blog.example:8000/api"
    assert relay.find("blog.example").name == "blog"
    assert relay.find("blog.example", "/api/v1").name == "blog/api"
    assert relay.find("blog.example", "/api/v2/x").name == "blog/api/v2"
    assert endpoint(second, "blog/api/v2") == "http://blog.example:8000/api/v2"
    assert refusal(relay.agent(http("blog/x"), token=relay.b))[0] == "name-taken"


def test_while_a_paths_agent_is_away_its_requests_are_nobody_elses(relay: Relay) -> None:
    relay.agent(http("blog"))
    relay.agent(http("blog/admin"), instance="other").stopService()
    relay.pass_time(5)
    gone = relay.find("blog.example", "/admin/x")
    assert isinstance(gone, AwayService)
    with pytest.raises(ServiceAway):
        gone.pick()
    assert relay.find("blog.example", "/x").name == "blog"


def test_a_relay_that_starts_remembers_the_paths_of_a_host(relay: Relay) -> None:
    """The root's agent may be back before that of a path."""
    relay.directory.reserve_name(Key(relay.a, "other", "blog/admin"), "http", "blog", "/admin", NOW)
    relay.agent(http("blog"))
    assert isinstance(relay.find("blog.example", "/admin"), AwayService)
    relay.clock.advance(2 * PATH_KEPT + 1)
    assert relay.find("blog.example", "/admin").name == "blog"


def test_a_host_without_a_service_for_the_rest(relay: Relay) -> None:
    """Nobody's, unless it is somebody's who is away."""
    relay.agent(http("blog/api"))
    assert relay.find("blog.example", "/") is None
    relay.directory.reserve_name(Key(relay.a, "other", "blog"), "http", "blog", "", NOW)
    assert isinstance(relay.find("blog.example", "/"), AwayService)


# --- several agents for one name


def shared(relay: Relay, count: int, **more: Any) -> list[Agent]:
    return [
        relay.agent(http("blog", share=True, **more), instance=f"m{number}")
        for number in range(count)
    ]


def picked(service: Any) -> PublicService:
    found: PublicService = service.pick()
    return found


def test_any_number_of_agents_of_a_token_serve_a_shared_name(relay: Relay) -> None:
    """Each gets its turn; two on one machine are no conflict; another token is."""
    agents = [*shared(relay, 2), relay.agent(http("blog", share=True), instance="m0")]
    assert [endpoint(agent, "blog") for agent in agents] == ["http://blog.example:8000"] * 3
    service = relay.find("blog.example")
    assert isinstance(service, SharedService)
    assert [picked(service).agent.number for _ in range(6)] == [1, 2, 3, 1, 2, 3]
    other = relay.agent(http("blog", share=True), token=relay.b)
    assert refusal(other)[0] == "name-taken"


def test_the_one_with_the_fewest_requests_under_way_is_picked(relay: Relay) -> None:
    shared(relay, 2)
    service = relay.find("blog.example")
    busy = picked(service)
    busy.request_begun()
    busy.request_begun()
    free = picked(service)
    assert free is not busy
    free.request_begun()
    assert picked(service) is free, "one is fewer than two"
    assert service.outstanding == 3
    free.request_begun()
    busy.request_ended()
    assert picked(service) is busy


def test_one_that_breaks_is_left_out_at_once(relay: Relay) -> None:
    """And is back as soon as it goes on; visitors wait only where there is no other."""
    shared(relay, 2)
    service = relay.find("blog.example")
    relay.wires[0].connection.b.peer_reset()
    assert relay.agents[0].tunnel.parked
    assert {picked(service).agent.number for _ in range(4)} == {2}
    relay.wires[1].connection.b.peer_reset()
    with pytest.raises(ServiceParked) as caught:
        service.pick()
    back: list[Any] = []
    caught.value.service.wait().addCallback(back.append)
    relay.wires[0].connection.a.peer_reset()
    relay.pass_time(2)
    assert back == [service]
    assert picked(service).agent.number == 1


def test_one_whose_backend_fails_is_left_out_for_a_moment(relay: Relay) -> None:
    """Unless there is no other."""
    shared(relay, 2)
    service = relay.find("blog.example")
    first = picked(service)
    first.failed()
    assert first not in {picked(service) for _ in range(4)}
    second = picked(service)
    second.failed()
    assert {picked(service) for _ in range(4)} == {first, second}
    relay.clock.advance(LEFT_OUT)
    assert not first.failing


def test_when_the_last_one_goes_the_name_is_away(relay: Relay) -> None:
    for agent in shared(relay, 2):
        agent.stopService()
    relay.pass_time(20)
    service = relay.find("blog.example")
    assert isinstance(service, AwayService)
    assert not service.available()
    assert relay.agents == []
    assert relay.registrar.live_keys() == []
    # And anybody of the token's gets it, shared or not.
    assert endpoint(relay.agent(http("blog")), "blog")


def test_sharers_and_one_that_does_not_share_keep_apart(relay: Relay) -> None:
    shared(relay, 1)
    code, line = refusal(relay.agent(http("blog")))
    assert code == "name-taken"
    assert "--share" in line
    relay.agent(http("shop"), instance="alone")
    sharer = relay.agent(http("shop", share=True), instance="late")
    code, line = refusal(sharer)
    assert code == "name-taken"
    assert "does not share it" in line


def test_an_agent_cannot_share_with_itself(relay: Relay) -> None:
    agent = relay.agent(http("blog", share=True))
    agent.services.add(replace(http("web", share=True), asked="blog"), FakeBackend())
    relay.settle()
    assert refusal(agent)[0] == "duplicate"


def test_a_sharer_sent_away_moves_to_its_next_tunnel(relay: Relay) -> None:
    """It counts once, and requests wait for it rather than fail."""
    shared(relay, 1)
    (old,) = relay.agents
    old.send_away("balancing", HERE)
    relay.settle()
    service = relay.find("blog.example")
    with pytest.raises(ServiceParked):
        service.pick()
    relay.pass_time(1)
    assert picked(relay.find("blog.example")).agent is not old
    assert relay.registrar._by_token == {relay.a: 1}


def test_the_policy_of_whoever_came_last_holds(relay: Relay) -> None:
    """A change of policy reaches visitors with the first agent that brings it."""
    shared(relay, 1)
    service = relay.find("blog.example")
    relay.agent(http("blog", share=True, policy={"deny": ["203.0.113.0/24"]}), instance="x")
    assert not service.gatekeeper.check_connection(VISITOR)


def test_a_shared_path_and_host(relay: Relay) -> None:
    """Sharers may call it what they like: it is one by its host and path."""
    relay.holders.scopes[relay.a] = Scope.parse(["app.example.com"], [])
    relay.agent(http("one/api", hostname="app.example.com", share=True), instance="1")
    relay.agent(http("two/api", hostname="app.example.com", share=True), instance="2")
    service = relay.find("app.example.com", "/api/x")
    assert {picked(service).agent.number for _ in range(4)} == {1, 2}


def test_what_is_shared_must_have_a_name(relay: Relay) -> None:
    code, line = refusal(relay.agent(Register(0, "http", "http", share=True)))
    assert code == "name-invalid"
    assert "by name" in line


def test_requests_of_one_tunnel_are_bounded(relay: Relay) -> None:
    """Over all of its services, and counted down again."""
    relay.agent(http("blog"), http("shop"))
    blog, shop = relay.find("blog.example"), relay.find("shop.example")
    blog.request_begun()
    blog.request_begun()
    shop.request_begun()
    with pytest.raises(Overloaded):
        shop.request_begun()
    blog.request_ended()
    shop.request_begun()
    assert (blog.outstanding, shop.outstanding) == (1, 2)
