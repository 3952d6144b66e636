"""A relay that is told to stop does, whatever is live on it."""

from __future__ import annotations

import pytest

from tests.integration.harness import Lab, free_port

pytestmark = pytest.mark.integration


def test_a_relay_stops_while_services_on_ports_are_live(lab: Lab) -> None:
    """Public ports are closed, the tunnel ends with a reason, and the exit status is 0."""
    relay = lab.relay()
    agent = lab.agent(relay, "--local-tcp", f"db={free_port()}", "--local-http", str(free_port()))
    agent.event("ready", service="db")
    agent.event("ready", service="http")
    assert relay.stop() == 0
    assert agent.event("disconnected")["reason"] == "the relay is stopping"
