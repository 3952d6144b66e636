"""Who gets which name, with real processes: scopes, whole hosts, paths, and shared names."""

from __future__ import annotations

import threading
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import pytest

from tests.integration.harness import Lab, get, http_answer, tcp_server, tunnel_command, until

pytestmark = pytest.mark.integration

VISITORS = 8
"""Who ask one request after the other."""
REQUESTS = 25
"""Of each, after an agent was killed."""


class Visitor(threading.Thread):
    """Asks again and again over a connection that it keeps, until told to stop.

    :ivar answers: when each request began, its status (0: none) and body.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[float, int, bytes]] = []
        self._parts = urlsplit(endpoint)
        self._enough = threading.Event()
        self.start()

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._parts.port or 0, timeout=30)
        while not self._enough.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", "/", headers={"Host": self._parts.netloc})
                response = connection.getresponse()
                self.answers.append((began, response.status, response.read()))
            except (OSError, HTTPException):
                self.answers.append((began, 0, b""))
                connection.close()
        connection.close()

    def stop(self) -> None:
        """After the request that is under way."""
        self._enough.set()
        self.join()


def test_a_shared_name_outlives_one_of_its_agents(lab: Lab) -> None:
    """Two agents serve one name, each its part of the requests. One is killed: nothing fails but
    what was under way there, and the other serves all; when it is started again, it serves again.
    No agent was refused or evicted."""
    first_port = lab.keep(tcp_server(http_answer(b"first")))
    second_port = lab.keep(tcp_server(http_answer(b"second")))
    relay = lab.relay("--session-grace", "0s")
    options = ("--share", "--local-http", f"site={first_port}", "--instance")
    first = lab.agent(relay, *options, "a")
    endpoint = first.event("ready", service="site")["endpoint"]
    second = lab.agent(relay, "--share", "--local-http", f"site={second_port}", "--instance", "b")
    assert second.event("ready", service="site")["endpoint"] == endpoint

    visitors = [Visitor(endpoint) for _ in range(VISITORS)]

    def bodies(since: float) -> set[bytes]:
        return {body for each in visitors for began, _, body in each.answers if began > since}

    until(lambda: bodies(0.0) == {b"first", b"second"}, "an answer of each")
    first.kill()
    killed = time.monotonic()
    marks = [len(each.answers) for each in visitors]
    until(
        lambda: all(
            len(each.answers) > mark + REQUESTS for each, mark in zip(visitors, marks, strict=True)
        ),
        "answers after the kill",
    )
    again = lab.agent(relay, *options, "a")
    again.event("ready", service="site")
    back = time.monotonic()
    until(lambda: bodies(back) == {b"first", b"second"}, "an answer of each again")
    for each in visitors:
        each.stop()

    failed = [answer for each in visitors for answer in each.answers if answer[1] != 200]
    assert [answer for answer in failed if answer[0] > killed] == []
    assert len(failed) <= VISITORS, "at most what was under way"
    after = [body for each in visitors for began, _, body in each.answers if killed < began < back]
    assert set(after) == {b"second"} or set(after) == {b"second", b"first"}
    assert len(after) >= VISITORS * REQUESTS
    for agent in (second, again):
        assert not agent.events("refused")
        assert not agent.events("withdrawn")


def test_a_whole_host_and_what_is_out_of_scope(lab: Lab) -> None:
    """A token's agents get hosts of its scope, and a line that says why where they do not."""
    port = lab.keep(tcp_server(http_answer(b"the app")))
    relay = lab.relay()
    token = lab.token(relay, "ci", "--allow-host", "*.dev.example.com", "--allow-port", "1-2")
    agent = lab.agent(
        relay,
        *("--local-http", str(port), "--hostname", "app.dev.example.com"),
        *("--local-tcp", str(port)),
        token=token,
    )
    endpoint = agent.event("ready", service="http")["endpoint"]
    assert endpoint == f"http://app.dev.example.com:{relay.port}"
    assert get(endpoint) == (200, b"the app")
    assert agent.event("refused", service=f"tcp-{port}")["reason"] == "scope"

    plain = lab.spawn(
        "agent",
        tunnel_command(
            *("agent", "--edge-url", relay.url, "--auth-token", f"file:{token}"),
            *("--local-http", f"web={port}", "--hostname", "www.example.org"),
        ),
    )
    plain.line(
        r"web\s+refused: this token may not have www\.example\.org: it is for \*\.dev\.example\.com"
    )
    other = lab.agent(relay, "--local-http", f"web={port}", "--hostname", "app.dev.example.com")
    assert other.event("refused", service="web")["reason"] == "scope"
    assert get(endpoint) == (200, b"the app")


def test_paths_of_one_name_by_one_connection(lab: Lab) -> None:
    """Each request goes to the service of its path, and keeps its path; one that could be read as
    another's goes nowhere; and a path whose agent is away is not the root's."""
    root_port = lab.keep(tcp_server(http_answer(b"root")))
    api_port = lab.keep(tcp_server(http_answer(b"api")))
    relay = lab.relay("--session-grace", "0s", "--hold", "0s")
    lab.agent(relay, "--local-http", f"site={root_port}").event("ready", service="site")
    agent = lab.agent(relay, "--local-http", f"site/api={api_port}", "--instance", "other")
    endpoint = agent.event("ready", service="site/api")["endpoint"]
    assert endpoint == f"http://site.localhost:{relay.port}/api"

    connection = HTTPConnection("127.0.0.1", relay.port, timeout=30)

    def ask(path: str) -> tuple[int, bytes]:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", f"site.localhost:{relay.port}")
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()

    for path, answer in (
        ("/", b"root"),
        ("/api", b"api"),
        ("/apis", b"root"),
        ("/api/users?x=1", b"api"),
        ("/x/api", b"root"),
        ("/%61pi/y", b"api"),
    ):
        assert ask(path) == (200, answer), path
    assert ask("/x/..%2fapi")[0] == 400

    agent.kill()
    until(lambda: ask("/api/users")[0] == 503, "its absence")
    assert ask("/") == (200, b"root")
    connection.close()
