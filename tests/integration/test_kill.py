"""Agents and relays that die under load: every address stays, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from http.client import HTTPException

import pytest

from tests.integration.harness import (
    Lab,
    Program,
    Relay,
    echo,
    exchange,
    free_port,
    get,
    hash_of_all,
    http_answer,
    port_range,
    status_of,
    tcp_server,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AGENT_KILLS = 20
RELAY_KILLS = (6, 13)
GRACE = "3s"
"""For which a killed agent's session is kept: longer than it takes to take its services over."""
VISITORS = 4
"""Of each service, each with one connection after another."""
BODY = os.urandom(300_000)
UPLOAD = os.urandom(200_000)
UPLOAD_HASH = hashlib.sha256(UPLOAD).hexdigest().encode()


class Load:
    """Visitors who never rest. What they get whole must be right; a visit may fail while one end
    is away."""

    def __init__(self, endpoints: dict[str, str]) -> None:
        self.wrong: list[str] = []
        self.good = dict.fromkeys(endpoints, 0)
        self.failed: dict[str, str] = {}
        self._over = threading.Event()
        visits: dict[str, Callable[[str], bool | None]] = {
            "http": self._page,
            "hash": self._upload,
            "ssh": self._echo,
        }
        self._threads = [
            threading.Thread(target=self._visit, args=(name, visits[name], endpoint), daemon=True)
            for name, endpoint in endpoints.items()
            for _ in range(VISITORS)
        ]
        for thread in self._threads:
            thread.start()

    def _visit(self, name: str, visit: Callable[[str], bool | None], endpoint: str) -> None:
        while not self._over.is_set():
            try:
                right = visit(endpoint)
            except (OSError, HTTPException) as failure:
                self.failed[name] = repr(failure)
                right = None
            if right:
                self.good[name] += 1
            elif right is False:
                self.wrong.append(name)
            else:
                self._over.wait(0.02)

    def _page(self, endpoint: str) -> bool | None:
        status, body = get(endpoint, within=10)
        if status == 200:
            return body == BODY
        return None if status in (502, 503) else False

    def _upload(self, endpoint: str) -> bool | None:
        answer = exchange(endpoint, UPLOAD, within=10)
        return answer == UPLOAD_HASH if answer else None

    def _echo(self, endpoint: str) -> bool | None:
        answer = exchange(endpoint, UPLOAD, within=10)
        # Cut short is not wrong; altered is.
        return True if answer == UPLOAD else None if UPLOAD.startswith(answer) else False

    def goes_on(self, what: str) -> None:
        """Wait until every service has answered once more."""
        before = dict(self.good)
        try:
            until(lambda: all(self.good[name] > before[name] for name in before), f"visits {what}")
        except AssertionError as hang:
            idle = [name for name in before if self.good[name] == before[name]]
            raise AssertionError(f"{hang}: none of {idle}; {self.failed}") from None

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)


def addresses(agent: Program) -> dict[str, str]:
    return {
        name: agent.event("ready", service=name)["endpoint"] for name in ("http", "hash", "ssh")
    }


def live_tunnels(relay: Relay) -> int:
    return relay.count(r"\): connected from") - relay.count(r"\): (disconnected|expired):")


def public_ports(relay: Relay, low: int, high: int) -> set[int]:
    """The ports of the range on which somebody listens now."""
    found = set()
    for port in range(low, high + 1):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.add(port)
    return found


def test_every_address_survives_kills_under_load_and_nothing_leaks(lab: Lab) -> None:
    """An agent is SIGKILLed and started again 20 times and the relay twice, all under load: each
    time the services come back at the same addresses, no visitor ever gets wrong bytes, and in the
    end the relay has as many open files and tunnels as in the beginning."""
    web = lab.keep(tcp_server(http_answer(BODY)))
    hashing = lab.keep(tcp_server(hash_of_all))
    echoing = lab.keep(tcp_server(echo))
    ports, data_dir = port_range(), lab.path / "data"
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    services = (
        *("--local-http", str(web), "--local-tcp", f"hash={hashing}"),
        *("--local-ssh", f"127.0.0.1:{echoing}", "--heartbeat-interval", "1s"),
    )

    def start_relay() -> Relay:
        return lab.relay(
            "--session-grace", GRACE, data_dir=data_dir, listen=listen, tcp_ports=ports
        )

    relay = start_relay()
    # An answer shows that the reactor runs, with all the files that it needs itself.
    assert status_of(f"http://localhost:{relay.port}") == 200
    until(lambda: len(relay.connections()) == 1, "the end of that connection")
    empty = relay.open_files()
    agent = lab.agent(relay, *services)
    endpoints = addresses(agent)
    load = Load(endpoints)
    load.goes_on("before any kill")
    for kill in range(1, AGENT_KILLS + 1):
        agent.kill()
        agent = lab.agent(relay, *services)
        assert addresses(agent) == endpoints, f"after kill {kill} of the agent"
        load.goes_on(f"after kill {kill} of the agent")
        if kill in RELAY_KILLS:
            relay.kill()
            mark = agent.mark
            relay = start_relay()
            agent.event("connected", mark)
            for name, endpoint in endpoints.items():
                assert agent.event("ready", mark, service=name)["endpoint"] == endpoint
            load.goes_on(f"after the relay's kill ({kill})")
    load.stop()
    assert not load.wrong

    until(lambda: live_tunnels(relay) == 1, "the end of the killed agents' sessions")
    assert public_ports(relay, *ports) == {
        int(endpoints[name].rpartition(":")[2]) for name in ("hash", "ssh")
    }
    agent.kill()
    until(lambda: live_tunnels(relay) == 0, "the end of the last tunnel")
    try:
        until(lambda: relay.open_files() == empty, f"{empty} open files in the relay")
    except AssertionError as leak:
        raise AssertionError(f"{leak}; there are {relay.files()}") from None
    assert not public_ports(relay, *ports)
    assert status_of(endpoints["http"]) == 503
    assert relay.stop() == 0
