"""How an agent knows its relay, with real processes.

The self-signed relay has a public-looking domain; a proxy on this machine looks that name up, as a
corporate one would, so that the agent checks the very name that it dials.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.integration.certificates import write_certificate
from tests.integration.harness import Lab, Program, Relay, get, http_answer, status_of, tcp_server

pytestmark = pytest.mark.integration

DOMAIN = "relay.test"
OTHER_PIN = "sha256:" + "ab" * 32
PAGE = b"over TLS"


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def connect_proxy(asked: list[str]) -> Iterator[int]:
    """An HTTP proxy to which every name is this machine; its port. Notes whom it was asked for."""

    def handle(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return
            head += data
        authority = head.split()[1].decode()
        asked.append(authority)
        port = int(authority.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    with tcp_server(handle) as port:
        yield port


class Town:
    """A self-signed relay and what leads to it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.asked: list[str] = []
        self.page = lab.keep(tcp_server(http_answer(PAGE)))
        self.proxy = lab.keep(connect_proxy(self.asked))
        self.relay: Relay = lab.relay(domain=DOMAIN)
        # The line to paste on the device carries the pin.
        self.pasted = self.relay.line(r"there: (srrrs-tunnel agent .*)")[1]
        pin = re.search(r"--pin (\S+)", self.pasted)
        assert pin is not None
        self.pin = pin[1].strip("'")

    def agent(self, host: str, *options: str) -> Program:
        """An agent that dials the relay by this name, through the proxy unless it is local."""
        return self.lab.agent(
            f"wss://{host}:{self.relay.port}/tunnel",
            *("--local-http", f"site={self.page}", *options),
            token=self.relay.first_token,
            env={"https_proxy": f"http://127.0.0.1:{self.proxy}"},
        )


@pytest.fixture
def town(lab: Lab) -> Town:
    return Town(lab)


def refused_line(agent: Program, why: str) -> None:
    """The agent says once why it will not connect, that this does not heal and when it tries
    again, and goes on running."""
    told = agent.event("retrying")
    assert re.search(why, told["reason"]), told
    assert "\n" not in told["reason"]
    assert told["heals"] is False
    assert told["retry"] > 0
    assert not agent.events("connected")
    assert not agent.events("ready")
    assert agent.running
    assert len(agent.events("retrying")) == 1


def test_the_pin_in_the_line_to_paste_lets_an_agent_in(town: Town) -> None:
    """A relay that made its own certificate prints its pin; with it an agent connects by TLS to
    the name it was given, and plain HTTP visitors keep working on the same port."""
    assert f"--edge-url wss://{DOMAIN}:{town.relay.port}/tunnel" in town.pasted
    agent = town.agent(DOMAIN, "--pin", town.pin)
    endpoint = agent.event("ready", service="site")["endpoint"]
    assert town.asked == [f"{DOMAIN}:{town.relay.port}"]
    assert get(endpoint.replace("https://", "http://")) == (200, PAGE)


def test_whom_an_agent_does_not_trust_it_never_connects_to(town: Town) -> None:
    """No pin, a wrong pin, or the right pin under another name: one clear line each, no tunnel,
    and another try later."""
    unpinned = town.agent(DOMAIN)
    wrong_pin = town.agent(DOMAIN, "--pin", OTHER_PIN)
    wrong_name = town.agent("localhost", "--pin", town.pin)
    insecure = town.agent(DOMAIN, "--insecure")
    refused_line(unpinned, r"self-signed, and no pin was given")
    refused_line(wrong_pin, r"key has the pin \S+, not sha256:\S+ as expected")
    refused_line(wrong_name, r"not for localhost")
    refused_line(insecure, r"self-signed, and no pin was given")
    assert not town.relay.count(r"connected from")


def test_an_expired_certificate_is_refused_though_its_pin_is_right(lab: Lab) -> None:
    """A pin stands in for the chain, not for the dates."""
    listen, pin = write_certificate(lab.path, "localhost", expired=True)
    relay = lab.relay(listen=listen)
    agent = lab.agent(
        f"wss://localhost:{relay.port}/tunnel",
        *("--local-http", "1", "--pin", pin),
        token=relay.first_token,
    )
    refused_line(agent, r"expired on \d{4}-\d\d-\d\d")
    assert not relay.count(r"connected from")


def test_a_certificate_of_the_owners_is_trusted_by_its_authority(lab: Lab) -> None:
    """An ``ssl:`` listener with a certificate that ``--ca-file`` vouches for needs no pin."""
    listen, _ = write_certificate(lab.path, "localhost")
    page = lab.keep(tcp_server(http_answer(PAGE)))
    relay = lab.relay(listen=listen)
    agent = lab.agent(
        f"wss://localhost:{relay.port}/tunnel",
        *("--local-http", f"site={page}", "--ca-file", str(lab.path / "own.crt")),
        token=relay.first_token,
    )
    endpoint = agent.event("ready", service="site")["endpoint"]
    # This listener speaks nothing but TLS.
    assert status_of(endpoint.replace("https://", "http://")) in (0, 400)
