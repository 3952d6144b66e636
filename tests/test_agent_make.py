"""From a configuration to an agent."""

from __future__ import annotations

import pytest
from twisted.internet.testing import MemoryReactorClock

from srrrs.agent.lifecycle import State
from srrrs.agent.make import make_agent
from srrrs.agent.report import Reporter
from srrrs.config import AgentConfig, ConfigError, ServiceSpec, TokenSource

HTTP = ServiceSpec("http", "http", "localhost:8080", "tcp:localhost:8080")


def config(*services: ServiceSpec, edge_url: str = "wss://relay.example/tunnel") -> AgentConfig:
    return AgentConfig(
        edge_urls=(edge_url,),
        token=TokenSource.parse("secret"),
        services=services,
        instance="here",
    )


def test_an_agent_has_the_services_asked_for_and_waits_to_be_started() -> None:
    ssh = ServiceSpec("ssh", "ssh", "localhost:22", "tcp:localhost:22")
    agent = make_agent(MemoryReactorClock(), config(HTTP, ssh), Reporter())
    assert agent.state is State.IDLE
    assert [(each.name, each.kind, each.backend.target) for each in agent.services] == [
        ("http", "http", "localhost:8080"),
        ("ssh", "ssh", "localhost:22"),
    ]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (config(HTTP, HTTP), "two services are named 'http'"),
        (config(ServiceSpec("x", "tcp", "gopher:70", "gopher:70")), "x: 'gopher:70'"),
        (config(ServiceSpec("x", "tcp", "tls:a", "tls:a")), "x: 'tls:a'"),
        (config(edge_url="ws://relay.example/tunnel"), "--edge-url: .*--insecure"),
    ],
)
def test_what_cannot_work_is_one_line_that_names_it(wrong: AgentConfig, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        make_agent(MemoryReactorClock(), wrong, Reporter())
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
