"""Who keeps a service that two agents claim, with real processes."""

from __future__ import annotations

import signal

import pytest

from tests.integration.harness import Lab, get, http_answer, tcp_server

pytestmark = pytest.mark.integration


def test_a_second_agent_is_refused_for_the_held_service_alone_and_evicts_nobody(lab: Lab) -> None:
    """Two agents of one token on one machine: the first keeps its service, the second is told who
    has it since when and how to choose another name, and still publishes what is its own."""
    first_port = lab.keep(tcp_server(http_answer(b"the first")))
    second_port = lab.keep(tcp_server(http_answer(b"the second")))
    relay = lab.relay()
    first = lab.agent(relay, "--local-http", str(first_port))
    endpoint = first.event("ready", service="http")["endpoint"]
    second = lab.agent(
        relay, "--local-http", str(second_port), "--local-http", f"other={second_port}"
    )

    refused = second.event("refused", service="http")
    assert refused["reason"] == "held"
    assert "since" in refused["message"]
    assert "NAME=ADDR" in refused["message"]
    assert "--instance" in refused["message"]
    assert refused["retry"] is not None, "it may ask again: the holder may go"

    other = second.event("ready", service="other")["endpoint"]
    assert get(endpoint) == (200, b"the first")
    assert get(other) == (200, b"the second")
    assert first.running
    assert second.running
    for agent in (first, second):
        assert not agent.events("disconnected")
        assert not agent.events("withdrawn")
    assert len(first.events("ready")) == 1
    assert len(second.events("refused")) == 1


def test_a_silent_holder_loses_its_service_and_comes_back_refused(lab: Lab) -> None:
    """A holder that does not answer a ping within 2 s is taken over. When it runs again it learns
    of it and is refused; it does not take the service back."""
    first_port = lab.keep(tcp_server(http_answer(b"the first")))
    second_port = lab.keep(tcp_server(http_answer(b"the second")))
    relay = lab.relay()
    first = lab.agent(relay, "--local-http", f"site={first_port}")
    endpoint = first.event("ready", service="site")["endpoint"]
    assert get(endpoint) == (200, b"the first")

    first.send(signal.SIGSTOP)
    second = lab.agent(relay, "--local-http", f"site={second_port}")
    assert second.event("ready", service="site")["endpoint"] == endpoint
    assert get(endpoint) == (200, b"the second")
    relay.line(r"takes site over from")

    first.send(signal.SIGCONT)
    first.event("withdrawn", service="site")
    refused = first.event("refused", service="site")
    assert refused["reason"] == "held"
    assert get(endpoint) == (200, b"the second")
    assert not second.events("withdrawn")
    assert not second.events("disconnected")
    assert relay.count(r"takes \w+ over from") == 1


def test_a_clone_of_a_device_is_refused_until_it_has_an_instance_of_its_own(lab: Lab) -> None:
    """A cloned machine has the same instance, so it meets the same answer; with another
    ``--instance`` both run side by side, at addresses of their own."""
    first_port = lab.keep(tcp_server(http_answer(b"the original")))
    clone_port = lab.keep(tcp_server(http_answer(b"the clone")))
    relay = lab.relay()
    original = lab.agent(relay, "--local-http", str(first_port), "--instance", "device-7")
    endpoint = original.event("ready")["endpoint"]
    clone = lab.agent(relay, "--local-http", str(clone_port), "--instance", "device-7")
    assert clone.event("refused")["reason"] == "held"
    clone.stop()

    clone = lab.agent(relay, "--local-http", str(clone_port), "--instance", "device-8")
    other = clone.event("ready")["endpoint"]
    assert other != endpoint
    assert get(endpoint) == (200, b"the original")
    assert get(other) == (200, b"the clone")
    assert not original.events("withdrawn")


def test_a_name_that_another_instance_holds_is_refused_never_replaced(lab: Lab) -> None:
    """A subdomain asked for belongs to whoever reserved it; nobody gets another one instead."""
    port = lab.keep(tcp_server(http_answer(b"mine")))
    relay = lab.relay()
    first = lab.agent(relay, "--local-http", f"blog={port}", "--instance", "one")
    endpoint = first.event("ready")["endpoint"]
    assert endpoint == f"http://blog.localhost:{relay.port}"
    first.stop()

    second = lab.agent(relay, "--local-http", f"blog={port}", "--instance", "two")
    refused = second.event("refused", service="blog")
    assert "blog" in refused["message"]
    assert not second.events("ready")

    again = lab.agent(relay, "--local-http", f"blog={port}", "--instance", "one")
    assert again.event("ready")["endpoint"] == endpoint
