"""Ends that take small frames only."""

from __future__ import annotations

import os

import pytest

from tests.integration.harness import Lab, echo, exchange, tcp_server

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("who", ["relay", "agent"])
def test_an_end_that_takes_small_frames_only_is_sent_no_others(lab: Lab, who: str) -> None:
    """Each end tells the other how much a frame may carry, and goes by what it is told."""
    small = ("--max-frame", "16KiB")
    relay = lab.relay(*(small if who == "relay" else ()))
    service = lab.keep(tcp_server(echo))
    words = small if who == "agent" else ()
    agent = lab.agent(relay, "--local-tcp", f"echo=127.0.0.1:{service}", *words)
    endpoint = agent.event("ready", service="echo")["endpoint"]
    data = os.urandom(4 * 1024 * 1024)
    assert exchange(endpoint, data) == data
