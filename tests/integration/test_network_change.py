"""The machine's network changes under an agent, and a connection that one end alone has lost; over
real sockets, with TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.certificates import write_certificate
from tests.integration.cutting import Network
from tests.integration.harness import Lab, http_answer, tcp_server, tunnel_command

pytestmark = pytest.mark.integration

SLOW_BEAT = ("--heartbeat-interval", "60s")
"""So that nothing here is noticed by silence."""
EDGE, FIRST, SECOND = "192.0.2.1", "198.51.100.1", "198.51.100.2"


def test_a_resume_replaces_a_connection_under_tls(lab: Lab, tmp_path: Path) -> None:
    """The agent's end of the TLS connection is reset and the relay's still stands: the resume puts
    another in its place before the relay has missed anything."""
    listen, pin = write_certificate(tmp_path, "localhost")
    relay = lab.relay(listen=listen)
    network = Network(lab, relay.port)
    page = lab.keep(tcp_server(http_answer(b"page")))
    agent = lab.agent(
        network.url.replace("ws:", "wss:"),
        *("--local-http", f"site={page}", "--pin", pin, *SLOW_BEAT),
        token=relay.first_token,
    )
    agent.event("ready")
    for _ in range(3):
        told, logged = agent.mark, relay.mark
        network.cut("half")
        agent.event("resumed", told)
        relay.line(r"\): resumed: ", logged)
    assert relay.count(r"\): parked: ") == 0


class Apart:
    """A network of its own, in which a relay has one address and whoever dials it another."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        self._prefix = ["nsenter", "-t", str(holder.pid), "-n", "--"]
        self.ip("link set lo up")
        self.ip(f"addr add {EDGE}/32 dev lo")
        self.come(FIRST)

    def ip(self, words: str) -> None:
        subprocess.run([*self._prefix, "ip", *words.split()], check=True)

    def come(self, address: str) -> None:
        """The machine gets an address, and uses it."""
        self.ip(f"addr add {address}/32 dev lo")
        self.ip(f"route replace table local local {EDGE}/32 dev lo src {address}")

    def go(self, address: str) -> None:
        self.ip(f"addr del {address}/32 dev lo")

    def command(self, *words: str) -> list[str]:
        """How to run ours there."""
        return [*self._prefix, *tunnel_command(*words)]


@pytest.fixture
def apart() -> Iterator[Apart]:
    needed = all(shutil.which(each) for each in ("unshare", "nsenter", "ip"))
    if not needed or os.geteuid() != 0:
        pytest.skip("no network namespace can be made here")
    words = ["unshare", "-n", "sh", "-c", "echo made; exec sleep 600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"made\n":
                pytest.skip("no network namespace can be made here")
            yield Apart(holder)
        finally:
            holder.kill()


def test_a_new_address(lab: Lab, apart: Apart) -> None:
    """An agent that loses its address gives the connection up at once, and goes on from the next:
    no heartbeat is due for a minute, and the system itself would take longer still."""
    listen = f"tcp:0:interface={EDGE}"
    relay = lab.relay(listen=listen, command=apart.command)
    agent = lab.agent(
        f"ws://{EDGE}:{relay.port}/tunnel",
        *("--local-tcp", "ssh=127.0.0.1:22", "--insecure", *SLOW_BEAT),
        token=relay.first_token,
        command=apart.command,
    )
    agent.event("ready")
    apart.come(SECOND)
    apart.go(FIRST)
    assert agent.event("parked")["reason"] == "this machine's address has changed"
    agent.event("resumed")
    assert len(agent.events("connected")) == 1
